"""Finding tables below a storage's root by words: path, columns, descriptions, properties.

Owns what counts as a table (a folder with our log, or Delta's) and where words are looked for.
Reads logs only.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from neurolake_dagster.errors import StorageAccessError, TableError, TableNotFoundError
from neurolake_dagster.ncf import column_notes
from neurolake_dagster.storage import Storage
from neurolake_dagster.tables.log import LOG_FOLDERS, Log
from neurolake_dagster.tables.snapshot import Snapshot
from neurolake_dagster.tables.table import Table

if TYPE_CHECKING:
    from neurolake_dagster.tables.delta import DeltaDataset
    from neurolake_dagster.tables.delta_snapshot import DeltaSnapshot

# Folders below this depth are part of no layout of ours.
DEEPEST = 8


@dataclass(frozen=True, kw_only=True)
class FoundTable:
    """A table, and where each word was found: "path", "column x", "property owner".

    Parameters
    ----------
    problem
        Why its log cannot be read, of which its path is all that is known then; else empty.
    """

    path: str
    uri: str
    matches: tuple[str, ...]
    format: str | None = None
    version: int | None = None
    row_count: int | None = None
    bytes: int | None = None
    problem: str = ""


def search_tables(storage: Storage, words: str = "") -> list[FoundTable]:
    """The tables below a root in which every word occurs, in any case; all for no word."""
    wanted = words.lower().split()
    found = []
    for path in _table_paths(storage, "", DEEPEST):
        try:
            snapshot = find_table(storage, path).snapshot()
        except TableNotFoundError:  # a log without a commit, or gone meanwhile
            continue
        except (TableError, StorageAccessError) as exc:
            one = FoundTable(path=path, uri=storage.uri(path), matches=("path",), problem=str(exc))
            found += [one] if all(word in path.lower() for word in wanted) else []
            continue
        texts = _texts(path, snapshot)
        if all(any(word in text for text in texts.values()) for word in wanted):
            found.append(_found(storage, path, snapshot, texts, wanted))
    return found


def find_table(storage: Storage, path: str) -> "Table | DeltaDataset":
    """The table at a path, of whichever format lies there.

    Raises
    ------
    TableNotFoundError
    """
    snapshot = Log(storage.child(path)).try_snapshot()
    if snapshot is not None:
        return Table(storage, path, snapshot.format)
    from neurolake_dagster.tables.delta import DeltaDataset

    delta = DeltaDataset(storage, path)
    if delta.exists():
        return delta
    raise TableNotFoundError(f"{storage.uri(path)}: no table lies here, neither ours nor Delta's")


def _table_paths(storage: Storage, folder: str, depth: int) -> Iterator[str]:
    """Folders that hold a log; of a table's own folders none is looked into."""
    folders = storage.folders(folder)
    names = {path: path.rsplit("/", 1)[-1] for path in folders}
    is_table = any(name in LOG_FOLDERS for name in names.values())
    if is_table and folder:
        yield folder
    for path in folders if depth else ():
        is_part = "=" in names[path] or names[path].startswith("_")
        if not (is_table and is_part):
            yield from _table_paths(storage, path, depth - 1)


def _texts(path: str, snapshot: "Snapshot | DeltaSnapshot") -> Mapping[str, str]:
    """What is searched, in lower case, by the name of the place."""
    found = {"path": path}
    for field in snapshot.schema:
        found[f"column {field.name}"] = f"{field.name} {_description(field)}"
    for name, value in snapshot.properties.items():
        found[f"property {name}"] = f"{name} {value}"
    return {place: text.lower() for place, text in found.items()}


def _description(field: pa.Field) -> str:
    return column_notes(field).description or ""


def _found(
    storage: Storage,
    path: str,
    snapshot: "Snapshot | DeltaSnapshot",
    texts: Mapping[str, str],
    words: list[str],
) -> FoundTable:
    return FoundTable(
        path=path,
        uri=storage.uri(path),
        format=snapshot.format if isinstance(snapshot, Snapshot) else "delta",
        version=snapshot.version,
        row_count=snapshot.row_count,
        bytes=snapshot.bytes,
        matches=tuple(
            place for place, text in texts.items() if any(word in text for word in words)
        ),
    )
