"""From what a user calls a place to the NCF files that lie there.

Owns the meaning of a path: one file, a folder of files, a table (its live files by the log), or
a glob of any of these; on disk or on S3. Reads footers only for schemas.
"""

import fnmatch
import re
from collections.abc import Iterator, Mapping, Sequence
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
from neurolake_dagster.tables.checkpoints import LOG_FOLDER
from neurolake_dagster.tables.snapshot import ColumnBounds

SUFFIX = ".ncf"
FOOTERS_AT_ONCE = 8
_GLOB = re.compile(r"[*?\[{]")
_PART = re.compile(r"part-[0-9a-f]{32}\.ncf")


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
    """The files of one or more places.

    Parameters
    ----------
    schema
        A table's; else only the footers know.
    versions
        Of each table, by its address.
    """

    files: tuple[Location, ...]
    schema: pa.Schema | None = None
    versions: dict[str, int] = field(default_factory=dict)


def find_files(
    uris: Sequence[str],
    options: StorageOptions,
    version: int | None = None,
    *,
    versions: Mapping[str, int] | None = None,
) -> Found:
    """The NCF files at some places, in the order of the places and of their names.

    Parameters
    ----------
    version
        Of a table; None is that in `versions`, or the newest.
    versions
        Of tables, by address, as an earlier `Found` has them.

    Raises
    ------
    StorageNotFoundError
        If nothing lies at one of them.
    TableError
        If tables are mixed with other places, or `version` is asked of no table.
    """
    known = {} if version is not None else versions or {}
    found = [one for uri in uris for one in _find(uri, options, version, known)]
    if version is not None and any(one.schema is None for one in found):
        raise TableError(f"{', '.join(uris)}: only a table has versions")
    schemas = [one.schema for one in found if one.schema is not None]
    if schemas and (len(schemas) < len(found) or not all(schemas[0].equals(s) for s in schemas)):
        raise TableError(
            f"{', '.join(uris)}: a table cannot be read in one go with other files or with a "
            "table of another schema; read them one by one and union them"
        )
    files = tuple(file for one in found for file in one.files)
    read = {table: number for one in found for table, number in one.versions.items()}
    return Found(files=files, schema=schemas[0] if schemas else None, versions=read)


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
    parent, _, name = address_of(uri).rpartition("/")
    if not name or parent.rstrip("/") == "s3:":
        raise StorageError(f"{uri}: expected a path below a bucket or below the disk's root")
    return Storage(parent or "/", options), name


def is_plain_folder(storage: Storage, folder: str) -> bool:
    """Whether a folder that is no table holds NCF files, here or in ``key=value`` folders.

    Parts that a killed first write of a table has left do not count, nor what lies deeper.
    """
    if any(storage.list(f"{folder}/{LOG_FOLDER}")):
        return False
    below = (file.key.removeprefix(f"{folder}/") for file in _list_files(storage, folder))
    return any(
        _PART.fullmatch(name) is None and all("=" in one for one in folders)
        for *folders, name in (key.split("/") for key in below)
    )


def address_of(uri: str) -> str:
    """The one spelling of a place: an absolute path, or ``s3://bucket/...``."""
    plain = uri.removeprefix("file://") if uri.startswith("file:///") else uri
    plain = plain.removeprefix("file:").rstrip("/")
    return str(Storage(plain).root) if plain else "/"


def _schema_of(file: Location) -> pa.Schema:
    with file.open() as opened:
        return opened.schema


def _find(
    uri: str, options: StorageOptions, version: int | None, versions: Mapping[str, int]
) -> list[Found]:
    places = _places(uri, options)
    found = [_find_place(storage, key, version, versions) for storage, key in places]
    if not any(found):
        raise StorageNotFoundError(
            f"{uri}: no NCF file, no table and no folder with {SUFFIX} files lies here"
            + (", and nothing matches this as a pattern" if _GLOB.search(uri) else "")
        )
    return [one for one in found if one is not None]


def _find_place(
    storage: Storage, key: str, version: int | None, versions: Mapping[str, int]
) -> Found | None:
    """The file, table or folder at a place; None if there is none."""
    if storage.exists(key):
        return Found(files=(Location(storage=storage, key=key, bytes=storage.size(key)),))
    table = Table(storage, key, "ncf")
    if table.exists():
        return _find_table(table, versions.get(table.uri, version))
    files = tuple(_list_files(storage, key))
    return Found(files=files) if files else None


def _find_table(table: Table, version: int | None) -> Found:
    snapshot = table.snapshot(version)
    folder = table.folder
    files = tuple(_located(folder, snapshot, file) for file in snapshot.files)
    return Found(files=files, schema=snapshot.schema, versions={table.uri: snapshot.version})


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


def _places(uri: str, options: StorageOptions) -> list[tuple[Storage, str]]:
    """The places that a path means: itself, or as a glob those that it matches.

    Segment by segment, so that only folders on the way are listed. Where something has a
    segment's very name, that is meant: ``[``, ``{``, ``*`` and ``?`` may be in names.
    """
    storage, name = place_of(uri, options)
    if not _GLOB.search(uri):
        return [(storage, name)]
    segments = storage.uri(name).split("/")
    first = next(index for index, one in enumerate(segments) if _GLOB.search(one))
    above = Storage("/".join(segments[:first]) or "/", options)
    keys = [""]
    for segment in segments[first:]:
        if _GLOB.search(segment):
            keys = [key for folder in keys for key in _matching(above, folder, segment)]
        else:
            keys = [f"{folder}/{segment}" for folder in keys]
    return [(above, key) for key in keys]


def _matching(storage: Storage, folder: str, segment: str) -> list[str]:
    """The keys directly in a folder that a segment of a glob means."""
    names = {key.rpartition("/")[2]: key for key in storage.children(folder)}
    if segment in names:
        return [names[segment]]
    pattern = _pattern(segment)
    shown = {name: key for name, key in names.items() if not name.startswith(("_", "."))}
    return [shown[name] for name in sorted(shown) if pattern.fullmatch(name)]


def _pattern(glob: str) -> re.Pattern[str]:
    """One segment of a glob as a pattern: ``*``, ``?``, ``[...]`` and ``{a,b}``."""
    texts = _alternatives(glob.replace("[^", "[!"))
    return re.compile("|".join(fnmatch.translate(text) for text in texts))


def _alternatives(glob: str) -> list[str]:
    """What a glob's braces stand for, from the inmost ones on."""
    braces = re.search(r"\{([^{}]*)\}", glob)
    if braces is None:
        return [glob]
    before, after = glob[: braces.start()], glob[braces.end() :]
    return [text for one in braces[1].split(",") for text in _alternatives(f"{before}{one}{after}")]
