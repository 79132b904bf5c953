r"""Reader of NCF v1 files, the format of the original writer: read safely, never written.

Owns the file's structure (header, schema, statistics, column groups, footer, section index) and
its checks. Column payloads are `v1_column`'s. Nothing that a file says is believed before it is
checked against the file's size, and no pickle is handed to Python's unpickler.

Layout, little-endian::

    0    "NCF\x01", u32 1
    8    5 x u32: schema, stats, indexes (0), data, footer offset; 3 x u64: rows, created, modified;
         u8 compression (0 none, 1 zstd), u8 encryption (0), 14 x 0
    68   u32 n, n bytes of msgpack: the schema
         u32 n, n bytes of msgpack: the statistics
         groups: u32 id, u32 columns; column: name, 0, u64 stored bytes, u8 compression, bytes
         "NCFE", u32 1, u8 2, SHA-256 of all before; u32 5, 5 x (16 bytes name, u64 offset); end
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import msgpack
import pyarrow as pa

from neurolake_dagster.errors import NCFCorruptError, NCFVersionError, NotNCFError
from neurolake_dagster.ncf.checks import Damage
from neurolake_dagster.ncf.source import RangedSource
from neurolake_dagster.ncf.v1_column import NUMBER_TYPES, PICKLED_TYPES, decode_column

MAGIC = b"NCF\x01"
_SCHEMA_AT = 68
_FOOTER_BYTES = 41
_SECTIONS = (b"header", b"schema", b"stats", b"data", b"footer")
_INDEX_BYTES = 4 + 24 * len(_SECTIONS)
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_MAX_NAME = 64 * 1024
_DATA_TYPES = {*NUMBER_TYPES, *PICKLED_TYPES, "string"}


@dataclass(frozen=True, kw_only=True)
class V1Column:
    """One column of the schema block, with what it says about meaning."""

    name: str
    data_type: str
    nullable: bool
    semantic_type: str | None
    description: str | None
    contains_pii: bool


@dataclass(frozen=True, kw_only=True)
class V1Chunk:
    """Where one column's stored bytes lie."""

    column: V1Column
    group: int
    compression: str
    offset: int
    stored_bytes: int


@dataclass(frozen=True, kw_only=True)
class V1File:
    """What a v1 file says of itself, checked.

    `statistics` are the writer's, min and max as text; times are Unix seconds.
    """

    table_name: str
    row_count: int
    created: int
    modified: int
    chunks: tuple[V1Chunk, ...]
    statistics: Mapping[str, Mapping[str, object]]


def load_v1(source: RangedSource, *, verify: bool = True) -> tuple[V1File, pa.Table]:
    """Read a v1 file whole.

    Parameters
    ----------
    source
        The whole file.
    verify
        Check the SHA-256 over everything before the footer.

    Returns
    -------
    What the file says of itself, and its columns in the order of the file, one array each. A
    string slot of no bytes reads as null: the file cannot say whether it was null or empty.
    Meaning is in the field metadata `ncf.semantic`, `ncf.pii` and `ncf.description`.
    """
    reader = _Reader(source, verify=verify)
    file = reader.open()
    arrays = [reader.decode(chunk, file.row_count) for chunk in file.chunks]
    fields = [_field(c.column, a) for c, a in zip(file.chunks, arrays, strict=True)]
    metadata = {
        "ncf.version": "1",
        "ncf.v1.table_name": file.table_name,
        "ncf.v1.zero_length_strings": "read as null: the file cannot tell null from empty",
    }
    return file, pa.table(arrays, schema=pa.schema(fields, metadata))


def _field(column: V1Column, array: pa.Array) -> pa.Field:
    metadata = {"ncf.v1.type": column.data_type}
    if column.semantic_type not in (None, "unknown"):
        metadata["ncf.semantic"] = str(column.semantic_type)
    if column.contains_pii:
        metadata["ncf.pii"] = "true"
    if column.description is not None:
        metadata["ncf.description"] = column.description
    return pa.field(column.name, array.type, column.nullable or array.null_count > 0, metadata)


class _Reader:
    """Reads ranges of one file and refuses what lies outside of it."""

    def __init__(self, source: RangedSource, *, verify: bool) -> None:
        self._source = source
        self._name = source.name
        self._size = source.size()
        self._verify = verify
        self._whole: memoryview | None = None
        # Bounds what a small file may blow up to, with room for columns of one repeated value.
        self._budget = max(512 << 20, 1000 * self._size)
        self._step_limit = max(8_000_000, 16 * self._size)

    def _refuse(self, reason: str, column: str | None = None) -> NoReturn:
        raise NCFCorruptError(self._name, reason, column=column)

    def _read(self, offset: int, length: int, what: str, end: int | None = None) -> memoryview:
        end = self._size if end is None else end
        if length > end - offset:
            self._refuse(f"{what} at byte {offset} takes {length} bytes, {end - offset} are left")
        if self._whole is not None:
            return self._whole[offset : offset + length]
        raw = memoryview(self._source.read_at(offset, length)).cast("B")
        if len(raw) != length:
            self._refuse(f"{what} at byte {offset}: {length} bytes asked, {len(raw)} got")
        return raw

    def _number(self, offset: int, width: int, what: str, end: int | None = None) -> int:
        return int.from_bytes(self._read(offset, width, what, end), "little")

    def open(self) -> V1File:
        if self._size < 4 or self._read(0, 4, "the magic") != MAGIC:
            raise NotNCFError(f"{self._name}: not an NCF v1 file, it does not start with {MAGIC!r}")
        if (version := self._number(4, 4, "the version")) != 1:
            raise NCFVersionError(f"{self._name}: v1 magic with version {version}, expected 1")
        header = self._read(8, 60, "the header")
        self._refuse_look_alikes(header)
        at = [int.from_bytes(header[4 * i : 4 * i + 4], "little") for i in range(5)]
        numbers = [int.from_bytes(header[20 + 8 * i : 28 + 8 * i], "little") for i in range(3)]
        if header[44] > 1 or header[45] or at[2] or any(header[46:]):
            self._refuse("header with a compression, encryption or index that v1 never had")
        schema_at, stats_at, _, data_at, footer_at = at
        if schema_at != _SCHEMA_AT or not schema_at < stats_at < data_at <= footer_at:
            self._refuse(f"section offsets {at} do not rise from {_SCHEMA_AT}")
        self._check_footer(at)
        if self._verify:
            self._check_digest(footer_at)
        schema = self._unpack(schema_at, stats_at, "the schema")
        columns = self._columns(schema)
        return V1File(
            table_name=str(schema.get("table_name")),
            row_count=numbers[0],
            created=numbers[1],
            modified=numbers[2],
            chunks=tuple(self._chunks(data_at, footer_at, columns)),
            statistics=self._statistics(stats_at, data_at, columns),
        )

    def _refuse_look_alikes(self, header: memoryview) -> None:
        """Both start with u64 offsets, the first of them 64; v1's first is the u32 68."""
        if int.from_bytes(header[:8], "little") != 64:
            return
        if not any(header[40:56]):
            self._refuse("made by the Rust writer: another layout under v1's magic, not readable")
        self._refuse(
            'made by the "v1.1 optimized" writer: it overwrote column bytes with its statistics, '
            "the values are lost"
        )

    def _check_footer(self, at: list[int]) -> None:
        schema_at, stats_at, _, data_at, footer_at = at
        footer = self._read(footer_at, _FOOTER_BYTES + _INDEX_BYTES, "the footer")
        if self._size != footer_at + len(footer):
            self._refuse(f"{self._size} bytes, {footer_at + len(footer)} expected")
        if bytes(footer[:9]) != b"NCFE\x01\x00\x00\x00\x02":
            self._refuse(f"no footer with a SHA-256 at byte {footer_at}")
        places = (8, schema_at, stats_at, data_at, footer_at)
        expected = len(_SECTIONS).to_bytes(4, "little") + b"".join(
            name.ljust(16, b"\0") + place.to_bytes(8, "little")
            for name, place in zip(_SECTIONS, places, strict=True)
        )
        if footer[_FOOTER_BYTES:] != expected:
            self._refuse("the section index after the footer differs from the header")

    def _check_digest(self, footer_at: int) -> None:
        self._whole = self._read(0, self._size, "the file")
        computed = hashlib.sha256(self._whole[:footer_at]).digest()
        stored = self._whole[footer_at + 9 : footer_at + _FOOTER_BYTES]
        if computed != stored:
            self._refuse(f"SHA-256 {stored.hex()} stored, {computed.hex()} computed")

    def _unpack(self, offset: int, end: int, what: str) -> dict[Any, Any]:
        length = self._number(offset, 4, what, end)
        if length != end - offset - 4:
            self._refuse(f"{what} says {length} bytes, {end - offset - 4} lie before the next part")
        raw = self._read(offset + 4, length, what, end)
        try:
            # The maps have integer keys where the writer's `column_groups` was set.
            value = msgpack.unpackb(raw, strict_map_key=False, max_ext_len=0)
        except (msgpack.UnpackException, ValueError, TypeError) as exc:
            raise NCFCorruptError(self._name, f"{what} is no msgpack: {exc}") from exc
        if not isinstance(value, dict):
            self._refuse(f"{what} is a {type(value).__name__}, a map expected")
        return value

    def _columns(self, schema: dict[Any, Any]) -> dict[str, V1Column]:
        entries = schema.get("columns")
        if not isinstance(entries, list):
            self._refuse("the schema has no list of columns")
        columns: dict[str, V1Column] = {}
        for entry in entries:
            column = self._column(entry)
            if column.name in columns:
                self._refuse("twice in the schema", column.name)
            columns[column.name] = column
        return columns

    def _column(self, entry: object) -> V1Column:
        match entry:
            case {
                "name": str(name),
                "data_type": str(data_type),
                "nullable": bool(nullable),
                "semantic_type": str() | None as semantic_type,
                "description": str() | None as description,
                "contains_pii": bool(contains_pii),
            }:
                pass
            case _:
                self._refuse("a schema entry lacks a name, a type or its labels")
        if data_type not in _DATA_TYPES:
            self._refuse(f"data type {data_type[:40]!r}, known are {sorted(_DATA_TYPES)}", name)
        return V1Column(
            name=name,
            data_type=data_type,
            nullable=nullable,
            semantic_type=semantic_type,
            description=description,
            contains_pii=contains_pii,
        )

    def _statistics(
        self, offset: int, end: int, columns: Mapping[str, V1Column]
    ) -> dict[str, dict[str, object]]:
        found = self._unpack(offset, end, "the statistics")
        for name, entry in found.items():
            if name not in columns or not isinstance(entry, dict):
                self._refuse("the statistics name no column of the schema")
        return found

    def _chunks(self, offset: int, end: int, columns: Mapping[str, V1Column]) -> Iterator[V1Chunk]:
        seen: set[str] = set()
        while offset < end:
            group = self._number(offset, 4, "a column group", end)
            count = self._number(offset + 4, 4, "a column group", end)
            if not 0 < count <= len(columns) - len(seen):
                self._refuse(f"group {group} at byte {offset} says it has {count} columns")
            offset += 8
            for _ in range(count):
                chunk = self._chunk(offset, end, group, columns)
                if chunk.column.name in seen:
                    self._refuse("stored twice", chunk.column.name)
                seen.add(chunk.column.name)
                offset = chunk.offset + chunk.stored_bytes
                yield chunk

    def _chunk(self, offset: int, end: int, group: int, columns: Mapping[str, V1Column]) -> V1Chunk:
        label = bytes(self._read(offset, min(_MAX_NAME, end - offset), "a column name", end))
        name, zero, _ = label.partition(b"\0")
        column = columns.get(name.decode("utf-8", "replace"))
        if not zero or column is None:
            self._refuse(f"no column of the schema is named at byte {offset}, got {name[:40]!r}")
        offset += len(name) + 1
        stored = self._number(offset, 8, "a column's size", end)
        compression = self._number(offset + 8, 1, "a column's compression", end)
        if stored > end - offset - 9 or compression > 1:
            self._refuse(f"{stored} bytes of compression {compression}", column.name)
        return V1Chunk(
            column=column,
            group=group,
            compression="zstd" if compression else "none",
            offset=offset + 9,
            stored_bytes=stored,
        )

    def decode(self, chunk: V1Chunk, row_count: int) -> pa.Array:
        name = chunk.column.name
        try:
            payload = self._payload(chunk)
            return decode_column(payload, chunk.column.data_type, row_count, self._step_limit)
        except Damage as exc:
            raise NCFCorruptError(self._name, str(exc), column=name) from exc

    def _payload(self, chunk: V1Chunk) -> pa.Buffer:
        stored = self._read(chunk.offset, chunk.stored_bytes, "a column")
        plain_bytes = _frame_content_bytes(stored) if chunk.compression == "zstd" else len(stored)
        self._budget -= plain_bytes
        if self._budget < 0:
            raise Damage(f"{plain_bytes} bytes from {len(stored)}: beyond what is decoded")
        if chunk.compression == "none":
            return pa.py_buffer(stored)
        try:
            return pa.Codec("zstd").decompress(stored, plain_bytes)
        except (OSError, pa.ArrowException) as exc:
            raise Damage(f"zstd: {exc}") from exc


def _frame_content_bytes(frame: memoryview) -> int:
    """Read the content size from a zstd frame header (RFC 8878, 3.1.1.1)."""
    if len(frame) < 6 or frame[:4] != _ZSTD_MAGIC:
        raise Damage("no zstd frame")
    descriptor = frame[4]
    single, dictionary, width = descriptor >> 5 & 1, descriptor & 3, descriptor >> 6
    if dictionary or not (single or width):
        raise Damage("a zstd frame without its content size")
    start, length = (5 if single else 6), 1 << width
    content = int.from_bytes(frame[start : start + length], "little")
    return content + 256 if length == 2 else content
