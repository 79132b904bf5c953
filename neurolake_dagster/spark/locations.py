"""From what a user calls a place to the NCF files that lie there.

Owns the meaning of a path: one file, a folder of files, a table (its live files by the log), or
a glob of any of these; on disk or on S3. Reads footers only for schemas.
"""

import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pyarrow as pa

from neurolake_dagster.errors import (
    SchemaMismatchError,
    StorageError,
    StorageNotFoundError,
    TableError,
)
from neurolake_dagster.ncf import NCFFile
from neurolake_dagster.storage import Storage, StorageOptions
from neurolake_dagster.tables import DataFile, Snapshot, Table
from neurolake_dagster.tables.snapshot import ColumnBounds

SUFFIX = ".ncf"
FOOTERS_AT_ONCE = 8
_GLOB = re.compile(r"[*?\[{]")


@dataclass(frozen=True, kw_only=True)
class Location:
    """One NCF file and how its columns become the asked ones.

    Parameters
    ----------
    bytes
        Its size; None where nothing told it yet.
    renames
        For a file older than its table's schema: current name to the name in the file, None
        where the file has no such column. Empty: the names are the same.
    bounds
        By column what the table's log knows of its values.
    """

    storage: Storage
    key: str
    bytes: int | None = None
    row_count: int | None = None
    renames: dict[str, str | None] = field(default_factory=dict)
    bounds: dict[str, ColumnBounds] = field(default_factory=dict)

    @property
    def uri(self) -> str:
        """Its address in messages."""
        return self.storage.uri(self.key)

    def open(self) -> NCFFile:
        """Open the file; local ones are mapped, others read by ranges."""
        return NCFFile(self.storage.local_path(self.key) or self.storage.open_input(self.key))


@dataclass(frozen=True, kw_only=True)
class Found:
    """The files of one or more places; `schema` is a table's, else only the footers know."""

    files: tuple[Location, ...]
    schema: pa.Schema | None = None


def find_files(uris: Sequence[str], options: StorageOptions, version: int | None = None) -> Found:
    """The NCF files at some places, in the order of the places and of their names.

    Parameters
    ----------
    version
        Of a table; None is the newest.

    Raises
    ------
    StorageNotFoundError
        If nothing lies at one of them.
    TableError
        If tables are mixed with other places, or `version` is asked of no table.
    """
    found = [_find(uri, options, version) for uri in uris]
    if version is not None and any(one.schema is None for one in found):
        raise TableError(f"{', '.join(uris)}: only a table has versions")
    schemas = [one.schema for one in found if one.schema is not None]
    if schemas and (len(schemas) < len(found) or not all(schemas[0].equals(s) for s in schemas)):
        raise TableError(
            f"{', '.join(uris)}: a table cannot be read in one go with other files or with a "
            "table of another schema; read them one by one and union them"
        )
    files = tuple(file for one in found for file in one.files)
    return Found(files=files, schema=schemas[0] if schemas else None)


def read_schema(found: Found, *, merge: bool) -> pa.Schema:
    """The schema of what was found; from the first footer, or merged from all.

    Raises
    ------
    SchemaMismatchError
        If merged files disagree about the type of a column.
    """
    if found.schema is not None:
        return found.schema
    if not merge:
        with found.files[0].open() as file:
            return file.schema
    with ThreadPoolExecutor(FOOTERS_AT_ONCE) as pool:
        schemas = list(pool.map(_schema_of, found.files))
    try:
        return pa.unify_schemas(schemas, promote_options="permissive")
    except pa.ArrowException as exc:
        raise SchemaMismatchError(
            f"{found.files[0].uri} and {len(schemas) - 1} more files: "
            f"the schemas do not merge: {exc}"
        ) from exc


def place_of(uri: str, options: StorageOptions) -> tuple[Storage, str]:
    """The storage above a place and the place's key in it.

    Raises
    ------
    StorageError
        If the place is a whole bucket or the root of the disk.
    """
    plain = uri.removeprefix("file://") if uri.startswith("file:///") else uri
    plain = plain.removeprefix("file:").rstrip("/")
    if not plain.startswith(("s3://", "s3a://")):
        plain = str(Storage(plain).root) if plain else "/"
    parent, _, name = plain.rpartition("/")
    if not name or parent.rstrip("/") in ("s3:", "s3a:"):
        raise StorageError(f"{uri}: expected a path below a bucket or below the disk's root")
    return Storage(parent or "/", options), name


def _schema_of(file: Location) -> pa.Schema:
    with file.open() as opened:
        return opened.schema


def _find(uri: str, options: StorageOptions, version: int | None) -> Found:
    if _GLOB.search(uri):
        return _find_glob(uri, options)
    storage, name = place_of(uri, options)
    if storage.exists(name):
        return Found(files=(Location(storage=storage, key=name, bytes=storage.size(name)),))
    table = Table(storage, name, "ncf")
    if table.exists():
        return _find_table(table, version)
    files = tuple(_list_files(storage, name))
    if not files:
        raise StorageNotFoundError(
            f"{uri}: no NCF file, no table and no folder with {SUFFIX} files lies here"
        )
    return Found(files=files)


def _find_table(table: Table, version: int | None) -> Found:
    snapshot = table.snapshot(version)
    folder = table.folder
    files = tuple(_located(folder, snapshot, file) for file in snapshot.files)
    return Found(files=files, schema=snapshot.schema)


def _located(folder: Storage, snapshot: Snapshot, file: DataFile) -> Location:
    """A live file of a table; columns of older files are matched by id, not by name."""
    renames: dict[str, str | None] = {}
    current = snapshot.table_schema
    if file.schema_id != current.id:
        older = snapshot.schemas[file.schema_id]
        names = dict(zip(older.field_ids, older.schema.names, strict=True))
        pairs = zip(current.schema.names, current.field_ids, strict=True)
        renames = {name: names.get(number) for name, number in pairs}
    return Location(
        storage=folder,
        key=file.path,
        bytes=file.bytes,
        row_count=file.row_count,
        renames=renames,
        bounds=dict(file.bounds) if not renames else {},
    )


def _list_files(storage: Storage, folder: str) -> Iterator[Location]:
    """Files below a folder, by name; what begins with ``_`` or ``.`` is hidden."""
    for entry in sorted(storage.list(folder), key=lambda entry: entry.key):
        below = entry.key.removeprefix(f"{folder}/").split("/")
        hidden = any(part.startswith(("_", ".")) for part in below)
        if entry.key.endswith(SUFFIX) and not hidden:
            yield Location(storage=storage, key=entry.key, bytes=entry.bytes)


def _find_glob(uri: str, options: StorageOptions) -> Found:
    """Match a glob segment by segment; what it matches may be files, folders or tables."""
    segments = uri.rstrip("/").split("/")
    first = next(index for index, part in enumerate(segments) if _GLOB.search(part))
    storage, name = place_of("/".join(segments[:first]) + "/_", options)
    del name
    patterns = [_pattern(part) for part in segments[first:]]
    matched = []
    for entry in storage.list():
        parts = entry.key.split("/")[: len(patterns)]
        whole = len(parts) == len(patterns)
        if whole and all(p.fullmatch(part) for p, part in zip(patterns, parts, strict=True)):
            matched.append("/".join(parts))
    places = sorted(set(matched))
    if not places:
        raise StorageNotFoundError(f"{uri}: nothing matches this pattern")
    return find_files([storage.uri(place) for place in places if _is_shown(place)], options)


def _is_shown(place: str) -> bool:
    return not place.rsplit("/", 1)[-1].startswith(("_", "."))


def _pattern(glob: str) -> re.Pattern[str]:
    """One segment of a glob as a pattern: ``*``, ``?``, ``[...]`` and ``{a,b}``."""
    found, depth = "", 0
    for char in glob.replace("[!", "[^"):
        if char == "*":
            found += ".*"
        elif char == "?":
            found += "."
        elif char == "{":
            found, depth = found + "(?:", depth + 1
        elif char == "}" and depth:
            found, depth = found + ")", depth - 1
        elif char == "," and depth:
            found += "|"
        else:
            found += char if char in "[]^-" else re.escape(char)
    return re.compile(found)
