"""Joining files: chunks are copied byte for byte, only the footer is new."""

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import xxhash

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

_COPY_BYTES = 8 << 20


def concat(sources: Sequence[Any], where: Any) -> None:
    """Write the row groups of several files of one schema, in order, as one file.

    Nothing is decoded; metas and pages keep the checksums they had, so damage in a source stays
    detectable in the result.

    Raises
    ------
    ValueError
        If there is no source, or the schemas differ (metadata apart).
    """
    if not sources:
        raise ValueError("concat: no sources")
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


def _copy(opened: list[Chunks], sink: Any) -> None:
    sink.write([encode_header()])
    position = len(encode_header())
    groups = []
    for chunks in opened:
        for group in chunks.footer.row_groups:
            columns = []
            for entry in group.columns:
                pad = padding(position)
                sink.write([pad])
                position += len(pad)
                columns.append(_moved(entry, position))
                _copy_range(chunks, entry, sink)
                position += entry.size
            groups.append(RowGroupEntry(group.rows, columns))
    first = opened[0].footer
    zones: list[Section | None] = []
    for column in range(len(first.schema)):
        pages = [group for chunks in opened for group in chunks.zones(column)]
        if all(len(group) < 2 for group in pages):
            zones.append(None)
            continue
        raw = encode_zones(pages)
        zones.append(Section(position, len(raw), xxhash.xxh3_64_intdigest(raw)))
        sink.write([raw])
        position += len(raw)
    rows = sum(chunks.footer.rows for chunks in opened)
    features = sorted({name for chunks in opened for name in chunks.footer.features})
    footer = Footer(first.schema, rows, groups, zones, features=features, metadata=first.metadata)
    body, tail = encode_footer(footer, position)
    sink.write([body, encode_tail(tail)])


def _moved(entry: ColumnEntry, offset: int) -> ColumnEntry:
    return ColumnEntry(
        offset,
        entry.size,
        entry.meta_size,
        entry.meta_digest,
        entry.raw_bytes,
        entry.encodings,
        entry.stats,
    )


def _copy_range(chunks: Chunks, entry: ColumnEntry, sink: Any) -> None:
    for start in range(0, entry.size, _COPY_BYTES):
        size = min(_COPY_BYTES, entry.size - start)
        with chunks.faults():
            data = chunks.read_at(entry.offset + start, size)
        sink.write([data])
