"""Finding tables below a storage's root by words: path, columns, descriptions, properties.

Owns what counts as a table (a folder with our log) and where words are looked for. Reads logs
only; Delta tables, which have another log, are not found.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pyarrow as pa

from neurolake_dagster.ncf import column_notes
from neurolake_dagster.storage import Storage
from neurolake_dagster.tables.log import LOG_FOLDER, Log
from neurolake_dagster.tables.snapshot import Snapshot, TableFormat

# Folders below this depth are part of no layout of ours.
DEEPEST = 8


@dataclass(frozen=True, kw_only=True)
class FoundTable:
    """A table, and where each word was found: "path", "column x", "property owner"."""

    path: str
    uri: str
    format: TableFormat
    version: int
    row_count: int
    bytes: int
    matches: tuple[str, ...]


def search_tables(storage: Storage, words: str = "") -> list[FoundTable]:
    """The tables below a root in which every word occurs, in any case; all for no word."""
    wanted = words.lower().split()
    found = []
    for path in _table_paths(storage, "", DEEPEST):
        snapshot = Log(storage.child(path)).try_snapshot()
        if snapshot is None:
            continue
        texts = _texts(path, snapshot)
        if all(any(word in text for text in texts.values()) for word in wanted):
            found.append(_found(storage, path, snapshot, texts, wanted))
    return found


def _table_paths(storage: Storage, folder: str, depth: int) -> Iterator[str]:
    """Folders that hold a log; below such a folder no other table is looked for."""
    folders = storage.folders(folder)
    if any(name.rsplit("/", 1)[-1] == LOG_FOLDER for name in folders):
        if folder:
            yield folder
        return
    for name in folders if depth else ():
        yield from _table_paths(storage, name, depth - 1)


def _texts(path: str, snapshot: Snapshot) -> Mapping[str, str]:
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
    storage: Storage, path: str, snapshot: Snapshot, texts: Mapping[str, str], words: list[str]
) -> FoundTable:
    return FoundTable(
        path=path,
        uri=storage.uri(path),
        format=snapshot.format,
        version=snapshot.version,
        row_count=snapshot.row_count,
        bytes=snapshot.bytes,
        matches=tuple(
            place for place, text in texts.items() if any(word in text for word in words)
        ),
    )
