"""A v1 file behind `NCFFile`: one row group, one page per column, decoded when it is opened.

Owns the translation of v1's own description into that of v2; the bytes are `v1`'s.
"""

from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from neurolake_dagster.errors import NotNCFError
from neurolake_dagster.ncf.arrow import take_rows
from neurolake_dagster.ncf.checks import NDArray
from neurolake_dagster.ncf.chunks import Chunks, Place
from neurolake_dagster.ncf.column import PageEntry
from neurolake_dagster.ncf.footer import ColumnEntry, Footer, RowGroupEntry
from neurolake_dagster.ncf.layout import V1_MAGIC, Tail
from neurolake_dagster.ncf.memory import Budget
from neurolake_dagster.ncf.statistics import Stats
from neurolake_dagster.ncf.v1 import V1Chunk, load_v1
from neurolake_dagster.ncf.v1_column import NUMBER_TYPES


def open_chunks(source: Any, *, verify: bool) -> Chunks:
    """Open a file of either version, at no cost for those of v2."""
    try:
        return Chunks(source, verify=verify)
    except NotNCFError:
        if source.size() < len(V1_MAGIC) or bytes(source.read_at(0, 4)) != V1_MAGIC:
            raise
    return V1Chunks(source, verify=verify)


class V1Chunks(Chunks):
    """The chunks of a v1 file. Its statistics are text and are left out, but for null counts."""

    major = 1

    def _open(self) -> tuple[Footer, Tail]:
        file, table = load_v1(self.source, verify=self.verify)
        self._arrays = [
            pa.concat_arrays(column.chunks) if column.num_chunks > 1 else column.chunk(0)
            for column in table.columns
        ]
        columns = [_entry(*pair) for pair in zip(file.chunks, self._arrays, strict=True)]
        footer = Footer(
            schema=table.schema,
            rows=table.num_rows,
            row_groups=[RowGroupEntry(table.num_rows, columns)] if table.num_rows else [],
            zones=[None] * table.num_columns,
            writer="NCF v1 writer",
            metadata={
                "table_name": file.table_name,
                "created": str(file.created),
                "modified": str(file.modified),
            },
        )
        tail = Tail(footer_offset=0, footer_bytes=0, footer_raw_bytes=0, footer_xxh3=0)
        return footer, tail

    def decoder(self, place: Place, budget: Budget, rows: NDArray | None = None) -> Any:  # noqa: ARG002
        """Return what gives the column, already decoded, as its one page."""
        return _V1Decoder(self._arrays[place.column])


class _V1Decoder:
    """Stands where a v2 chunk's decoder does."""

    def __init__(self, array: Any) -> None:
        self._array = array
        self.meta = self
        self.tables: list[PageEntry] = []
        self.pages = [PageEntry(len(array), 0, 0, 0, [0])]

    def decode_page(self, index: int, rows: NDArray | None = None) -> Any:
        """Return the column, or its ``rows``."""
        assert index == 0
        return self._array if rows is None else take_rows(self._array, rows)

    def split_rows(self, rows: NDArray) -> Iterator[tuple[int, NDArray]]:
        """Yield the one page."""
        yield 0, rows


def _entry(chunk: V1Chunk, array: Any) -> ColumnEntry:
    kind = chunk.column.data_type
    layout = "plain" if kind in NUMBER_TYPES else "text" if kind == "string" else "pickle"
    return ColumnEntry(
        offset=chunk.offset,
        size=chunk.stored_bytes,
        meta_size=0,
        meta_digest=0,
        raw_bytes=array.nbytes,
        encodings=[layout, chunk.compression],
        stats=Stats(null_count=array.null_count),
    )
