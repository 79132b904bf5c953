"""The footer: schema, row groups, where the zone maps are. Owns its msgpack, both ways.

A map in one zstd frame::

    schema      Arrow IPC schema message, field and schema metadata included
    rows        rows in all
    row_groups  [[rows, [column, ...]], ...]
                column: [offset, bytes, meta_bytes, xxh3_64 of the meta, raw_bytes,
                         [encoding, ...], statistics]; offset is absolute, bytes include the meta
    zones       per column nil, or [offset, bytes, xxh3_64] of its zone map
    sections    [[name, offset, bytes, xxh3_64], ...]: unknown ones are skipped
    sorting     [[column, descending, nulls_first], ...]
    features    names that a reader must know to read this file
    writer      who wrote it
    metadata    {key: value}, strings

A zone map is msgpack ``[[[rows, statistics], ...], ...]``: per row group, per page. A column
that has one page in every row group has none: its chunk's statistics say the same.
"""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgpack
import xxhash

from neurolake_dagster.errors import NCFVersionError
from neurolake_dagster.ncf.checks import Damage, Node, brief, need_bytes, need_int, need_list
from neurolake_dagster.ncf.column import EncodedChunk, unpack
from neurolake_dagster.ncf.compression import codec, decompress
from neurolake_dagster.ncf.layout import (
    FREE_FOOTER_RAW_BYTES,
    HEADER_BYTES,
    MAX_FOOTER_RAW_BYTES,
    Tail,
)
from neurolake_dagster.ncf.schema import decode_schema, encode_schema
from neurolake_dagster.ncf.statistics import Stats, stats_from_node

WRITER = "neurolake_dagster 2"
# None in 2.0: unknown sections are skipped and need no feature.
FEATURES: frozenset[str] = frozenset()
MAX_ROWS = (1 << 63) - 1
_FOOTER_LEVEL = 3


class ColumnEntry(NamedTuple):
    """One chunk as the footer knows it."""

    offset: int
    size: int
    meta_size: int
    meta_digest: int
    raw_bytes: int
    encodings: list[str]
    stats: Stats

    def to_node(self) -> Node:
        """Return the stored form."""
        head = [self.offset, self.size, self.meta_size, self.meta_digest, self.raw_bytes]
        return [*head, self.encodings, self.stats.to_node()]


@dataclass(frozen=True)
class RowGroupEntry:
    """One row group as the footer knows it."""

    rows: int
    columns: list[ColumnEntry]


@dataclass(frozen=True)
class Section:
    """A range of bytes outside the chunks, with its hash."""

    offset: int
    size: int
    digest: int


@dataclass(frozen=True)
class Footer:
    """All of the footer, checked."""

    schema: Any
    rows: int
    row_groups: list[RowGroupEntry]
    zones: list[Section | None]
    sections: dict[str, Section] = field(default_factory=dict)
    sorting: list[tuple[str, bool, bool]] = field(default_factory=list)
    features: list[str] = field(default_factory=list)
    writer: str = WRITER
    metadata: dict[str, str] = field(default_factory=dict)


def column_entry(chunk: EncodedChunk, offset: int) -> ColumnEntry:
    """Return the entry of a chunk written at ``offset``."""
    return ColumnEntry(
        offset,
        chunk.size,
        chunk.meta_size,
        chunk.meta_digest,
        chunk.raw_bytes,
        chunk.encodings,
        chunk.stats,
    )


def encode_footer(footer: Footer, offset: int) -> tuple[Any, Tail]:
    """Return the compressed footer and the tail that finds it at ``offset``."""
    groups = [[g.rows, [c.to_node() for c in g.columns]] for g in footer.row_groups]
    raw = msgpack.packb(
        {
            "schema": encode_schema(footer.schema),
            "rows": footer.rows,
            "row_groups": groups,
            "zones": [None if z is None else [z.offset, z.size, z.digest] for z in footer.zones],
            "sections": [[k, s.offset, s.size, s.digest] for k, s in footer.sections.items()],
            "sorting": [list(key) for key in footer.sorting],
            "features": footer.features,
            "writer": footer.writer,
            "metadata": footer.metadata,
        }
    )
    if len(raw) > min(MAX_FOOTER_RAW_BYTES, FREE_FOOTER_RAW_BYTES + offset):
        raise ValueError(
            f"footer of {len(raw)} bytes for {len(groups)} row groups of {len(footer.schema)} "
            f"columns: no reader would take it; write larger row groups"
        )
    body = codec(_FOOTER_LEVEL).compress(raw)
    tail = Tail(
        footer_offset=offset,
        footer_bytes=body.size,
        footer_raw_bytes=len(raw),
        footer_xxh3=xxhash.xxh3_64_intdigest(body),
    )
    return body, tail


def decode_footer(body: Any, tail: Tail, name: str) -> Footer:
    """Verify, inflate and check the footer; nothing else is read from the file before."""
    computed = xxhash.xxh3_64_intdigest(body)
    if computed != tail.footer_xxh3:
        raise Damage(
            f"footer: checksum 0x{tail.footer_xxh3:016x} stored, 0x{computed:016x} computed"
        )
    raw = unpack(decompress(body, tail.footer_raw_bytes), tail.footer_raw_bytes)
    if type(raw) is not dict:
        raise Damage("footer: not a map")
    features = [
        _text(name_, "feature") for name_ in need_list(raw.get("features"), None, "features")
    ]
    unknown = sorted(set(features) - FEATURES)
    if unknown:
        raise NCFVersionError(
            f"{name}: needs {', '.join(unknown)}, unknown to this reader; update the reader"
        )
    schema = decode_schema(need_bytes(raw.get("schema"), 1, len(body) * 1000, "schema"))
    width = len(schema)
    rows = need_int(raw.get("rows"), 0, MAX_ROWS, "rows")
    groups = [
        _row_group(group, width, tail.footer_offset)
        for group in need_list(raw.get("row_groups"), None, "row groups")
    ]
    if sum(group.rows for group in groups) != rows:
        raise Damage(f"footer: row groups hold {sum(g.rows for g in groups)} rows, file {rows}")
    zones = [
        None if zone is None else _section(zone, tail.footer_offset)
        for zone in need_list(raw.get("zones"), width, "zones")
    ]
    footer = Footer(
        schema=schema,
        rows=rows,
        row_groups=groups,
        zones=zones,
        sections=_sections(raw.get("sections"), tail.footer_offset),
        sorting=_sorting(raw.get("sorting")),
        features=features,
        writer=_text(raw.get("writer"), "writer"),
        metadata=_metadata(raw.get("metadata")),
    )
    _check_overlap(footer)
    return footer


def _text(value: object, what: str) -> str:
    if type(value) is not str:
        raise Damage(f"footer: {what}: expected text, got {brief(value)}")
    return value


def _row_group(node: object, width: int, end: int) -> RowGroupEntry:
    rows, columns = need_list(node, 2, "row group")
    need_int(rows, 1, MAX_ROWS, "row group rows")
    entries = need_list(columns, width, "row group columns")
    return RowGroupEntry(rows, [_column(entry, rows, end) for entry in entries])


def _column(node: object, rows: int, end: int) -> ColumnEntry:
    offset, size, meta_size, digest, raw, encodings, stats = need_list(node, 7, "column entry")
    # Checked as one first: wide tables have many entries.
    if not (
        type(offset) is type(size) is type(meta_size) is type(digest) is type(raw) is int
        and HEADER_BYTES <= offset <= offset + size <= end
        and 1 <= meta_size <= size
        and 0 <= digest < 1 << 64
        and 0 <= raw <= MAX_ROWS
    ):
        need_int(offset, HEADER_BYTES, end, "chunk offset")
        need_int(size, 1, end - offset, "chunk bytes")
        need_int(meta_size, 1, size, "chunk meta bytes")
        need_int(digest, 0, (1 << 64) - 1, "chunk meta hash")
        need_int(raw, 0, MAX_ROWS, "chunk raw bytes")
    for name in need_list(encodings, None, "encodings"):
        _text(name, "encoding")
    known = stats_from_node(stats, rows)
    return ColumnEntry(offset, size, meta_size, digest, raw, encodings, known)


def _section(node: object, end: int) -> Section:
    offset, size, digest = need_list(node, 3, "section")
    need_int(offset, HEADER_BYTES, end, "section offset")
    need_int(size, 1, end - offset, "section bytes")
    need_int(digest, 0, (1 << 64) - 1, "section hash")
    return Section(offset, size, digest)


def _sections(node: object, end: int) -> dict[str, Section]:
    found = {}
    for entry in need_list(node, None, "sections"):
        fields = need_list(entry, 4, "section")
        found[_text(fields[0], "section name")] = _section(fields[1:], end)
    return found


def _sorting(node: object) -> list[tuple[str, bool, bool]]:
    keys = []
    for entry in need_list(node, None, "sorting"):
        column, descending, nulls_first = need_list(entry, 3, "sorting key")
        if type(descending) is not bool or type(nulls_first) is not bool:
            raise Damage("footer: sorting key: expected two booleans")
        keys.append((_text(column, "sorting column"), descending, nulls_first))
    return keys


def _metadata(node: object) -> dict[str, str]:
    if type(node) is not dict:
        raise Damage("footer: metadata is not a map")
    return {_text(key, "key"): _text(value, "value") for key, value in node.items()}


def _check_overlap(footer: Footer) -> None:
    """Refuse ranges that overlap: each byte of a file has one meaning."""
    ranges = [(c.offset, c.size) for g in footer.row_groups for c in g.columns]
    ranges += [(z.offset, z.size) for z in footer.zones if z is not None]
    ranges += [(s.offset, s.size) for s in footer.sections.values()]
    free_from = HEADER_BYTES
    for offset, size in sorted(ranges):
        if offset < free_from:
            raise Damage(f"footer: bytes {offset}..{free_from} belong to two chunks")
        free_from = offset + size


def encode_zones(groups: list[list[tuple[int, Stats]]]) -> bytes:
    """Return the zone map of one column: rows and statistics per row group and page."""
    packed: bytes = msgpack.packb(
        [[[rows, stats.to_node()] for rows, stats in pages] for pages in groups]
    )
    return packed


def decode_zones(raw: Any, groups: list[RowGroupEntry]) -> list[list[tuple[int, Stats]]]:
    """Check and return a zone map; pages must add up to their row group."""
    found = []
    stored = need_list(unpack(raw, len(raw)), len(groups), "zone map")
    for group, pages in zip(groups, stored, strict=True):
        zone = []
        for page in need_list(pages, None, "zones of a row group"):
            rows, stats = need_list(page, 2, "zone")
            need_int(rows, 0, group.rows, "zone rows")
            zone.append((rows, stats_from_node(stats, rows)))
        if sum(rows for rows, _ in zone) != group.rows:
            raise Damage("zone map: rows differ from the row group's")
        found.append(zone)
    return found
