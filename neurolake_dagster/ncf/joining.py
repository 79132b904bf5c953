"""Joining files: chunks are copied byte for byte, only the footer is new."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import xxhash

from neurolake_dagster.ncf.bloom import Bloom, encode_blooms, section_name
from neurolake_dagster.ncf.chunks import Chunks
from neurolake_dagster.ncf.footer import (
    ColumnEntry,
    Footer,
    RowGroupEntry,
    Section,
    encode_footer,
    encode_zones,
)
from neurolake_dagster.ncf.layout import encode_header, encode_tail, padding
from neurolake_dagster.ncf.sink import open_sink
from neurolake_dagster.ncf.source import close_source, open_source
from neurolake_dagster.ncf.statistics import merge_stats

_COPY_BYTES = 8 << 20


def concat(sources: Sequence[Any], where: Any) -> None:
    """Write the row groups of several files of one schema, in order, as one file.

    Nothing is decoded; metas and pages keep the checksums they had, so damage in a source stays
    detectable in the result. The order that all files state is kept where their bounds prove it.

    Raises
    ------
    ValueError
        If there is no source, or the schemas differ (metadata apart).
    """
    if isinstance(sources, (str, bytes)) or not sources:
        raise ValueError("concat: no sources, expected a list of them")
    with ExitStack() as stack:
        opened = []
        for given in sources:
            source = open_source(given)
            stack.callback(close_source, source, given)
            opened.append(Chunks(source, verify=True))
        _check_schemas(opened)
        sink = open_sink(where)
        with ExitStack() as failed:
            failed.callback(sink.discard)
            _copy(opened, sink)
            failed.pop_all()
        sink.publish()


def _check_schemas(opened: list[Chunks]) -> None:
    first = opened[0]
    for other in opened[1:]:
        if not other.footer.schema.equals(first.footer.schema):
            raise ValueError(
                f"concat: {other.name} has another schema than {first.name}, expected\n"
                f"{first.footer.schema}\ngot\n{other.footer.schema}"
            )


@dataclass
class _Output:
    """The new file, and how far it is written."""

    sink: Any
    position: int = 0

    def write(self, data: Any) -> None:
        self.sink.write([data])
        self.position += len(data)

    def write_section(self, raw: bytes) -> Section:
        section = Section(self.position, len(raw), xxhash.xxh3_64_intdigest(raw))
        self.write(raw)
        return section


def _copy(opened: list[Chunks], sink: Any) -> None:
    out = _Output(sink)
    out.write(encode_header())
    groups = [
        RowGroupEntry(group.rows, [_copy_chunk(chunks, entry, out) for entry in group.columns])
        for chunks in opened
        for group in chunks.footer.row_groups
    ]
    first = opened[0].footer
    zones: list[Section | None] = []
    for column in range(len(first.schema)):
        pages = [group for chunks in opened for group in chunks.zones(column)]
        few = all(len(group) < 2 for group in pages)
        zones.append(None if few else out.write_section(encode_zones(pages)))
    sections = {
        section_name(column): out.write_section(encode_blooms(_joined_blooms(opened, column)))
        for column in sorted({column for chunks in opened for column in chunks.bloom_columns()})
    }
    rows = sum(chunks.footer.rows for chunks in opened)
    features = sorted({name for chunks in opened for name in chunks.footer.features})
    footer = Footer(
        first.schema,
        rows,
        groups,
        zones,
        sections,
        sorting=_joined_sorting([chunks.footer for chunks in opened]),
        features=features,
        metadata=first.metadata,
    )
    body, tail = encode_footer(footer, out.position)
    sink.write([body, encode_tail(tail)])


def _joined_sorting(footers: list[Footer]) -> list[tuple[str, bool, bool]]:
    """Return the order that all files state, if each lies wholly after the one before it.

    By the bounds of the first key: equal values or nulls on both sides would leave it open.
    """
    filled = [footer for footer in footers if footer.rows]
    if not filled or any(footer.sorting != filled[0].sorting for footer in filled):
        return []
    sorting = filled[0].sorting
    if len(filled) == 1 or not sorting:
        return sorting
    name, descending, _ = sorting[0]
    column = filled[0].schema.get_field_index(name)
    if column < 0:
        return []
    spans = [
        merge_stats([(group.rows, group.columns[column].stats) for group in footer.row_groups])
        for footer in filled
    ]
    if any(span.null_count or span.nan_count or None in (span.min, span.max) for span in spans):
        return []
    pairs: Any = pairwise(reversed(spans) if descending else spans)
    return sorting if all(low.max < high.min for low, high in pairs) else []


def _joined_blooms(opened: list[Chunks], column: int) -> list[Bloom | None]:
    """Return a column's Bloom filters of all row groups; none where a file has no filters."""
    return [
        bloom
        for chunks in opened
        for bloom in (
            chunks.blooms(column)
            if column in chunks.bloom_columns()
            else [None] * len(chunks.footer.row_groups)
        )
    ]


def _copy_chunk(chunks: Chunks, entry: ColumnEntry, out: _Output) -> ColumnEntry:
    out.write(padding(out.position))
    moved = entry._replace(offset=out.position)
    for start in range(0, entry.size, _COPY_BYTES):
        size = min(_COPY_BYTES, entry.size - start)
        with chunks.faults():
            data = chunks.read_at(entry.offset + start, size)
        out.write(data)
    return moved
