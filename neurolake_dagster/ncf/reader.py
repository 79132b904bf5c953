"""Reading: the front over one file. Decides which rows of which chunks are decoded."""

import operator
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa

from neurolake_dagster.ncf.arrow import numbers_of, take_chunked
from neurolake_dagster.ncf.batches import keep_rows, rowless_table, split_batches
from neurolake_dagster.ncf.checks import INT64_MAX, NDArray, brief, need_count
from neurolake_dagster.ncf.chunks import Place
from neurolake_dagster.ncf.filtering import RowFilter
from neurolake_dagster.ncf.memory import Budget
from neurolake_dagster.ncf.metadata import FileMetadata, build_metadata
from neurolake_dagster.ncf.source import close_source, open_source
from neurolake_dagster.ncf.v1_file import open_chunks
from neurolake_dagster.ncf.verifying import VerifyReport, verify_chunks

DECODE_LIMIT_BYTES = 16 << 30
DECODE_LIMIT_RATIO = 64


class NCFFile:
    """One NCF file, opened: the footer is read and checked, nothing else.

    Parameters
    ----------
    source
        A path, bytes, a `pyarrow.Buffer`, a seekable binary file, or an object with ``name``,
        ``size()`` and ``read_at(offset, length)``.
    verify
        Whether to compare every checksum before decoding. Without, only structure is checked,
        and text is checked to be UTF-8.
    decode_limit_bytes
        What one request (one row group of `iter_batches` and `scan`) may allocate; 16 GiB or 64
        times the file, whichever is more, by default.

    Raises
    ------
    NotNCFError, NCFVersionError, NCFCorruptError
        If the bytes are another format, too new, or damaged.
    """

    def __init__(
        self, source: Any, *, verify: bool = True, decode_limit_bytes: int | None = None
    ) -> None:
        self._given = source
        self._source = open_source(source)
        try:
            self._chunks = open_chunks(self._source, verify=verify)
        except BaseException:
            self.close()
            raise
        default = max(DECODE_LIMIT_BYTES, DECODE_LIMIT_RATIO * self._chunks.size)
        self._limit = default if decode_limit_bytes is None else decode_limit_bytes

    @property
    def schema(self) -> Any:
        """Return the Arrow schema, metadata included."""
        return self._chunks.footer.schema

    @property
    def num_rows(self) -> int:
        """Return the rows in all."""
        return self._chunks.footer.rows

    @cached_property
    def metadata(self) -> FileMetadata:
        """Return rows, row groups, encodings, sizes and typed statistics."""
        version = f"{self._chunks.major}.{self._chunks.tail.minor}"
        return build_metadata(self._chunks.footer, version, self._chunks.size)

    def read(
        self,
        columns: Sequence[str] | None = None,
        filters: Any = None,
        *,
        use_threads: bool = True,
    ) -> Any:
        """Return the rows as a table: only some columns, only rows that pass ``filters``.

        Parameters
        ----------
        filters
            A pyarrow expression, ``[(column, op, value), ...]`` (and) or a list of such lists
            (or). Row groups and pages are ruled out by statistics first.
        """
        selected = self._select(columns)
        budget = Budget(self._limit)
        groups = self._groups(None)
        if filters is None:
            budget = Budget(self._limit, self._raw_bytes(groups, selected))
            return self._read_groups(groups, selected, budget, use_threads=use_threads)
        parts = list(
            self._filtered(filters, selected, budget, use_threads=use_threads, groups=groups)
        )
        schema = self._projected(selected)
        if not selected:
            return rowless_table(sum(part.num_rows for part in parts), schema)
        return pa.concat_tables(parts) if parts else pa.Table.from_batches([], schema)

    def read_row_group(
        self, index: int, columns: Sequence[str] | None = None, *, use_threads: bool = True
    ) -> Any:
        """Return one row group as a table."""
        selected, budget = self._select(columns), Budget(self._limit)
        return self._read_groups(self._groups([index]), selected, budget, use_threads=use_threads)

    def iter_batches(
        self,
        batch_size: int = 1 << 17,
        columns: Sequence[str] | None = None,
        filters: Any = None,
        *,
        row_groups: Sequence[int] | None = None,
        use_threads: bool = True,
    ) -> Iterator[Any]:
        """Return an iterator of record batches of at most ``batch_size`` rows, in order.

        One row group at a time is in memory: its stored bytes and some decoded pages.
        """
        rows = need_count(batch_size, 1, None, "batch_size")
        selected, groups = self._select(columns), self._groups(row_groups)
        if filters is not None:
            tables = self._filtered(filters, selected, None, use_threads=use_threads, groups=groups)
        else:
            tables = self._windows(selected, groups, use_threads=use_threads)
        return (batch for table in tables for batch in split_batches(table, rows))

    def scan(
        self,
        columns: Sequence[str] | None = None,
        filters: Any = None,
        batch_size: int = 1 << 17,
        *,
        row_groups: Sequence[int] | None = None,
    ) -> Any:
        """Return a `pyarrow.RecordBatchReader` over `iter_batches`."""
        schema = self._projected(self._select(columns))
        batches = self.iter_batches(batch_size, columns, filters, row_groups=row_groups)
        return pa.RecordBatchReader.from_batches(schema, batches)

    def take(
        self, indices: Any, columns: Sequence[str] | None = None, *, use_threads: bool = True
    ) -> Any:
        """Return the rows of these numbers, in this order, decoding only their pages."""
        wanted = _row_numbers(indices)
        if len(wanted) and not (wanted.min() >= 0 and wanted.max() < self.num_rows):
            raise IndexError(
                f"{self._chunks.name}: rows {wanted.min()}..{wanted.max()} of {self.num_rows}"
            )
        selected = self._select(columns)
        rows, inverse = np.unique(wanted, return_inverse=True)
        by_group = self._by_group(rows)
        table = self._read_rows(by_group, selected, Budget(self._limit), use_threads=use_threads)
        if len(rows) == len(wanted) and (inverse[:-1] < inverse[1:]).all():
            return table
        taken = [take_chunked(column, inverse) for column in table.columns]
        if not selected:
            return rowless_table(len(wanted), self._projected(selected))
        return pa.Table.from_arrays(taken, schema=table.schema)

    def verify(self, progress: Callable[[int, int], None] | None = None) -> VerifyReport:
        """Decode everything, with every checksum, and compare it with the statistics.

        Parameters
        ----------
        progress
            Told after each chunk: stored bytes read so far, and in all.

        Raises
        ------
        NCFCorruptError
            At the first fault.
        """
        chunks = self._chunks
        if not chunks.verify:
            chunks = open_chunks(self._source, verify=True)
        return verify_chunks(chunks, self._limit, progress)

    def close(self) -> None:
        """Close what this object opened."""
        close_source(self._source, self._given)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _select(self, columns: Sequence[str] | None) -> list[int]:
        """Return the indexes of the named columns, in the order asked for."""
        if columns is None:
            return list(range(len(self.schema)))
        found = [self.schema.get_field_index(name) for name in columns]
        if -1 in found:
            wrong = [name for name, at in zip(columns, found, strict=True) if at < 0]
            raise ValueError(
                f"{self._chunks.name}: no single column {', '.join(map(repr, wrong))}, the file "
                f"has {', '.join(self.schema.names[:50])}"
            )
        return found

    def _projected(self, selected: Sequence[int]) -> Any:
        return pa.schema([self.schema.field(i) for i in selected], self.schema.metadata)

    def _groups(self, row_groups: Sequence[int] | None) -> list[int]:
        """Return the row groups asked for, None = all; numbers that do not exist are refused."""
        count = len(self._chunks.footer.row_groups)
        if row_groups is None:
            return list(range(count))
        groups = [operator.index(group) for group in row_groups]
        wrong = [group for group in groups if not 0 <= group < count]
        if wrong:
            raise IndexError(f"{self._chunks.name}: row groups {wrong} of {count} asked for")
        return groups

    def _raw_bytes(self, groups: Sequence[int], selected: Sequence[int]) -> int:
        """Return the bytes that whole chunks take as Arrow memory, as the writer stated."""
        stored = self._chunks.footer.row_groups
        return sum(
            stored[group].columns[column].raw_bytes for group in groups for column in selected
        )

    def _read_groups(
        self, groups: list[int], selected: list[int], budget: Budget, *, use_threads: bool
    ) -> Any:
        """Decode whole row groups into a table."""
        return self._read_rows([(g, None) for g in groups], selected, budget, use_threads)

    def _read_rows(
        self,
        wanted: list[tuple[int, NDArray | None]],
        selected: list[int],
        budget: Budget,
        use_threads: bool,
    ) -> Any:
        """Decode rows (None = all) of row groups into a table."""
        places = [(Place(g, column), rows) for column in selected for g, rows in wanted]
        arrays = self._chunks.decode_rows(places, budget, use_threads)
        schema = self._projected(selected)
        if not selected:
            groups = self._chunks.footer.row_groups
            count = sum(groups[g].rows if rows is None else len(rows) for g, rows in wanted)
            return rowless_table(count, schema)
        pages = [
            [page for g, _ in wanted for page in arrays[Place(g, column)]] for column in selected
        ]
        columns = [
            found[0] if len(found) == 1 else pa.chunked_array(found, self.schema.field(column).type)
            for column, found in zip(selected, pages, strict=True)
        ]
        return pa.Table.from_arrays(columns, schema=schema)

    def _by_group(self, rows: NDArray) -> list[tuple[int, NDArray | None]]:
        """Split ascending row numbers of the file by row group."""
        found: list[tuple[int, NDArray | None]] = []
        first = 0
        for index, group in enumerate(self._chunks.footer.row_groups):
            start, stop = np.searchsorted(rows, (first, first + group.rows))
            if stop > start:
                found.append((index, rows[start:stop] - first))
            first += group.rows
        return found

    def _windows(
        self, selected: list[int], groups: list[int], *, use_threads: bool
    ) -> Iterator[Any]:
        """Yield decoded pages as tables, a few at a time where all columns' pages agree."""
        for group in groups:
            budget = Budget(self._limit)
            places = [Place(group, column) for column in selected]
            if not selected:
                yield self._read_groups([group], selected, budget, use_threads=use_threads)
                continue
            schema = self._projected(selected)
            for pages in self._chunks.page_windows(places, budget, use_threads=use_threads):
                arrays = [pa.chunked_array(pages[place]) for place in places]
                yield pa.Table.from_arrays(arrays, schema=schema)

    def _filtered(
        self,
        filters: Any,
        selected: list[int],
        budget: Budget | None,
        *,
        use_threads: bool,
        groups: list[int],
    ) -> Iterator[Any]:
        """Yield the passing rows of each row group that statistics leave over.

        Parameters
        ----------
        budget
            Of all of them; None is one for each row group.
        """
        row_filter = RowFilter(filters, self._chunks)
        mentioned = row_filter.columns
        for group, rows in row_filter.candidates(groups):
            own = budget or Budget(self._limit)
            tested = self._read_rows([(group, rows)], mentioned, own, use_threads)
            passing = row_filter.passing(tested)
            if len(passing) == 0:
                continue
            if len(passing) < tested.num_rows:
                rows = passing if rows is None else rows[passing]
            if not selected:
                yield rowless_table(len(passing), self._projected(selected))
            elif set(selected) <= set(mentioned):
                yield keep_rows(tested.select([self.schema.names[i] for i in selected]), passing)
            else:
                yield self._read_rows([(group, rows)], selected, own, use_threads)


def _row_numbers(indices: Any) -> NDArray:
    """Return row numbers as int64; what is no list of integers is refused."""
    if isinstance(indices, (pa.Array, pa.ChunkedArray)):
        if indices.null_count or not pa.types.is_integer(indices.type):
            raise TypeError(f"indices: expected integers without nulls, got {indices.type}")
        whole = indices.combine_chunks() if isinstance(indices, pa.ChunkedArray) else indices
        return numbers_of(whole).astype(np.int64)
    given = np.asarray(indices)
    if given.ndim != 1 or (given.size and given.dtype.kind not in "iu"):
        raise TypeError(f"indices: expected a list of integers, got {brief(indices)}")
    if given.size and int(given.max()) > INT64_MAX:
        raise IndexError(f"indices: no file has row {given.max()}")
    return given.astype(np.int64)


def read_table(
    source: Any,
    columns: Sequence[str] | None = None,
    filters: Any = None,
    use_threads: bool = True,
    verify: bool = True,
) -> Any:
    """Read an NCF file into a table; arguments as in `NCFFile`."""
    with NCFFile(source, verify=verify) as file:
        return file.read(columns, filters, use_threads=use_threads)


def read_schema(source: Any) -> Any:
    """Return the Arrow schema of an NCF file."""
    with NCFFile(source) as file:
        return file.schema


def read_metadata(source: Any) -> FileMetadata:
    """Return what an NCF file says of itself."""
    with NCFFile(source) as file:
        return file.metadata
