"""Reading: the front over one file. Decides which rows of which chunks are decoded."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import cached_property
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa

from neurolake_dagster.ncf import pruning
from neurolake_dagster.ncf.arrow import concat_rows, matching_rows, take_rows
from neurolake_dagster.ncf.batches import keep_rows, rowless_table, split_batches
from neurolake_dagster.ncf.bloom import Probe
from neurolake_dagster.ncf.checks import NDArray
from neurolake_dagster.ncf.chunks import Place
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
        with ExitStack() as failed:
            failed.callback(self.close)
            self._chunks = open_chunks(self._source, verify=verify)
            failed.pop_all()
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
        if filters is None:
            groups = list(range(len(self._chunks.footer.row_groups)))
            budget = Budget(self._limit, self._raw_bytes(groups, selected))
            return self._read_groups(groups, selected, budget, use_threads=use_threads)
        parts = list(self._filtered(filters, selected, budget, use_threads=use_threads))
        schema = self._projected(selected)
        if not selected:
            return rowless_table(sum(part.num_rows for part in parts), schema)
        return pa.concat_tables(parts) if parts else schema.empty_table()

    def read_row_group(
        self, index: int, columns: Sequence[str] | None = None, *, use_threads: bool = True
    ) -> Any:
        """Return one row group as a table."""
        count = len(self._chunks.footer.row_groups)
        if not 0 <= index < count:
            raise IndexError(f"{self._chunks.name}: row group {index} of {count} asked for")
        selected, budget = self._select(columns), Budget(self._limit)
        return self._read_groups([index], selected, budget, use_threads=use_threads)

    def iter_batches(
        self,
        batch_size: int = 1 << 17,
        columns: Sequence[str] | None = None,
        filters: Any = None,
        *,
        row_groups: Sequence[int] | None = None,
        use_threads: bool = True,
    ) -> Iterator[Any]:
        """Yield record batches of at most ``batch_size`` rows, in order.

        One row group at a time is in memory: its stored bytes and some decoded pages.
        """
        selected = self._select(columns)
        if filters is not None:
            tables = self._filtered(
                filters, selected, None, use_threads=use_threads, row_groups=row_groups
            )
        else:
            tables = self._windows(selected, row_groups, use_threads=use_threads)
        for table in tables:
            yield from split_batches(table, batch_size)

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
        wanted = np.asarray(indices, np.int64)
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
        taken = [take_rows(concat_rows(column), inverse) for column in table.columns]
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
        columns = [
            pa.chunked_array(
                [page for g, _ in wanted for page in arrays[Place(g, column)]],
                self.schema.field(column).type,
            )
            for column in selected
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
        self, selected: list[int], row_groups: Sequence[int] | None, *, use_threads: bool
    ) -> Iterator[Any]:
        """Yield decoded pages as tables, a few at a time where all columns' pages agree."""
        groups = range(len(self._chunks.footer.row_groups)) if row_groups is None else row_groups
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
        row_groups: Sequence[int] | None = None,
    ) -> Iterator[Any]:
        """Yield the passing rows of each row group that statistics leave over.

        Parameters
        ----------
        budget
            Of all of them; None is one for each row group.
        """
        expression = pruning.build_filter(filters)
        pruning.check_filter(expression, self.schema)
        names = pruning.mentioned_columns(expression, self.schema.names)
        mentioned = [i for i, name in enumerate(self.schema.names) if name in names]
        if any(self.schema.get_field_index(self.schema.names[i]) < 0 for i in mentioned):
            raise ValueError(f"{self._chunks.name}: the filter names a column that occurs twice")
        blooms = self._chunks.blooms()
        probe = Probe(filters, self.schema, set(blooms))
        for group, rows in self._candidates(expression, mentioned, row_groups):
            if not probe.may_match({column: found[group] for column, found in blooms.items()}):
                continue
            own = budget or Budget(self._limit)
            tested = self._read_rows([(group, rows)], mentioned, own, use_threads)
            passing = matching_rows(tested, expression)
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

    def _candidates(
        self, expression: Any, mentioned: list[int], row_groups: Sequence[int] | None
    ) -> Iterator[tuple[int, NDArray | None]]:
        """Yield row groups, and the rows of the pages in them, that may pass the filter."""
        stored = self._chunks.footer.row_groups
        groups = list(range(len(stored)) if row_groups is None else row_groups)
        fields = [self.schema.field(i) for i in mentioned]
        promises = [
            pruning.guarantee_all(
                fields, [(stored[g].rows, stored[g].columns[i].stats) for i in mentioned]
            )
            for g in groups
        ]
        for kept in pruning.surviving(expression, self.schema, promises):
            yield from self._candidate_pages(groups[kept], expression, mentioned)

    def _candidate_pages(
        self, group: int, expression: Any, mentioned: list[int]
    ) -> Iterator[tuple[int, NDArray | None]]:
        """Yield the rows of one row group whose pages may pass; nothing if none may."""
        zones = [self._chunks.zones(column)[group] for column in mentioned]
        bounds = [[rows for rows, _ in pages] for pages in zones]
        if not zones or len(bounds[0]) < 2 or any(b != bounds[0] for b in bounds):
            yield group, None
            return
        fields = [self.schema.field(i) for i in mentioned]
        promises = [
            pruning.guarantee_all(fields, [zone[page] for zone in zones])
            for page in range(len(bounds[0]))
        ]
        kept = pruning.surviving(expression, self.schema, promises)
        if len(kept) == len(promises):
            yield group, None
        elif kept:
            edges = np.concatenate([[0], np.cumsum(bounds[0])])
            yield group, np.concatenate([np.arange(edges[i], edges[i + 1]) for i in kept])


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
