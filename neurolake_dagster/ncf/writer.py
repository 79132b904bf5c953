"""Writing: tables and batches into row groups, row groups into a sink. Owns the buffering.

Memory: the rows of the row group being filled, and the encoded bytes of the one being written.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import pyarrow as pa
import xxhash

from neurolake_dagster.ncf.arguments import (
    SortingColumn,
    bloom_column,
    checked_metadata,
    sorting_key,
)
from neurolake_dagster.ncf.arrow import (
    combine,
    holds_dictionary,
    is_text,
    memory_size,
    shared_sizes,
    shares_buffers,
    view_storage,
)
from neurolake_dagster.ncf.batches import joinable_tables
from neurolake_dagster.ncf.bloom import (
    Bloom,
    build_bloom,
    encode_blooms,
    section_name,
)
from neurolake_dagster.ncf.checks import MAX_PAGE_ROWS, need_count
from neurolake_dagster.ncf.column import ChunkJob, EncodedChunk, Submit, encode_chunk
from neurolake_dagster.ncf.compression import build_profile
from neurolake_dagster.ncf.footer import (
    ColumnEntry,
    Footer,
    RowGroupEntry,
    Section,
    column_entry,
    encode_footer,
    encode_zones,
)
from neurolake_dagster.ncf.layout import (
    MAJOR,
    MINOR,
    encode_header,
    encode_tail,
    padding,
)
from neurolake_dagster.ncf.metadata import FileMetadata, build_metadata
from neurolake_dagster.ncf.pool import THREADS, pool
from neurolake_dagster.ncf.schema import annotate_schema, check_schema
from neurolake_dagster.ncf.sink import open_sink
from neurolake_dagster.ncf.statistics import Stats

ROW_GROUP_ROWS = 1 << 20
# Of twice as many rows, reads take 7 % less CPU; of half as many, threads wait for the interpreter.
PAGE_ROWS = 1 << 17
MAX_ROW_GROUP_BYTES = 256 << 20
# Below this, handing work to other threads costs more than it saves.
_MIN_PARALLEL_BYTES = 1 << 23
# What Arrow and numpy raise at text that is not UTF-8 and indices outside of a dictionary.
_BAD_ROWS = (UnicodeDecodeError, IndexError, pa.ArrowInvalid)


@dataclass
class _RunningGroup:
    """A row group whose columns are being encoded, in the order in which they are written.

    Parameters
    ----------
    jobs
        Of each column its number, and its chunk job or a future of that.
    """

    rows: int
    jobs: deque[tuple[int, Any]]

    def cancel(self) -> None:
        """Give the group up; what runs already comes to its end unheard."""
        for _, job in self.jobs:
            if isinstance(job, Future):
                job.cancel()


class NCFWriter:
    """Writes one NCF file, row group by row group, strictly forward.

    As a context manager it publishes on success; after an exception nothing appears at the
    path, and an older file there stays.

    Parameters
    ----------
    where
        A path, or a writable binary file object that the caller closes.
    schema
        Every table and batch must have it.
    compression, compression_level
        "zstd" (default), "fast", "archive" (smallest) or "none"; the zstd level of text.
    row_group_size, page_rows
        In rows; a row group also ends at 256 MiB of Arrow memory, and is cut into about
        equal pages of that many rows or up to twice as many.
    sorting_columns
        Columns the rows are sorted by, as names, (name, "ascending" | "descending") or
        (name, descending, nulls first). Stated, not enforced.
    column_metadata
        Per column any of ``semantic``, ``pii``, ``description``.
    bloom_filters
        Columns whose row groups get a Bloom filter, for filters by ``==`` and ``in``: about
        10 bits and 0.5 us per distinct value.
    metadata
        Texts by name, for the file's reader.
    """

    def __init__(
        self,
        where: Any,
        schema: Any,
        *,
        compression: str | None = "zstd",
        compression_level: int | None = None,
        row_group_size: int = ROW_GROUP_ROWS,
        page_rows: int = PAGE_ROWS,
        sorting_columns: Sequence[SortingColumn] | None = None,
        column_metadata: Mapping[str, Mapping[str, Any]] | None = None,
        bloom_filters: Sequence[str] | None = None,
        metadata: Mapping[str, str] | None = None,
        use_threads: bool = True,
    ) -> None:
        self._row_group_rows = need_count(row_group_size, 1, None, "row_group_size")
        self._page_rows = need_count(page_rows, 1, MAX_PAGE_ROWS, "page_rows")
        self._metadata = checked_metadata(metadata)
        self._profile = build_profile(compression, compression_level)
        self.schema = annotate_schema(schema, column_metadata)
        check_schema(self.schema)
        self._given_schema = schema
        self._sorting = [sorting_key(key, schema) for key in sorting_columns or ()]
        self._blooms: dict[int, list[Bloom | None]] = {
            bloom_column(name, schema): [] for name in bloom_filters or ()
        }
        self._use_threads = use_threads and THREADS > 1
        self._pending: list[Any] = []
        self._pending_rows = self._pending_bytes = 0
        # Of dictionaries and bytes that pending rows share, each counts once: their addresses.
        self._counted: set[int] = set()
        self._groups: list[RowGroupEntry] = []
        self._zones: list[list[list[tuple[int, Stats]]]] = [[] for _ in schema]
        self._rows = 0
        self._running: _RunningGroup | None = None
        self._footer: Footer | None = None
        self._closed = False
        self._failure = ""
        self._sink = open_sink(where)
        self._position = 0
        self._write([encode_header()])

    def write_table(self, table: Any) -> None:
        """Append a table; full row groups are written at once."""
        self._check(table.schema)
        self._check_nulls(table)
        with self._given_up_on_error():
            for part, size in self._split(table):
                self._append(part, size)

    def write_batch(self, batch: Any) -> None:
        """Append a record batch."""
        self.write_table(pa.Table.from_batches([batch]))

    def write_reader(self, reader: Iterable[Any]) -> None:
        """Append every batch of a `pyarrow.RecordBatchReader`, or of any iterable of batches."""
        with self._given_up_on_error():
            for batch in reader:
                self.write_batch(batch)

    def close(self) -> None:
        """Write what is pending, the zone maps, the footer and the tail; then publish.

        Raises
        ------
        ValueError
            If a write failed before: rows are missing, so nothing is published.
        """
        if self._closed:
            if self._failure:
                raise ValueError(self._failure)
            return
        with self._given_up_on_error():
            self._flush()
            footer = self._finish()
        self._closed = True
        self._sink.publish()
        self._footer = footer

    @property
    def metadata(self) -> FileMetadata:
        """What the file says of itself, as `NCFFile.metadata` reads it.

        Raises
        ------
        ValueError
            Before `close` published the file.
        """
        if self._footer is None:
            raise ValueError(self._failure or f"{self._sink.name}: no file was published")
        return build_metadata(self._footer, f"{MAJOR}.{MINOR}", self._position)

    def abort(self) -> None:
        """Give the file up: nothing is published."""
        if not self._closed:
            self._closed = True
            if self._running is not None:
                self._running.cancel()
            self._sink.discard()

    @contextmanager
    def _given_up_on_error(self) -> Iterator[None]:
        """Give the file up where a write fails: rows that it had taken before may be lost."""
        try:
            yield
        except BaseException as exc:
            if not self._closed:
                reason = f"{type(exc).__name__}: {exc}"
                self._failure = f"{self._sink.name}: given up, a write failed ({reason})"
                self.abort()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()

    def _check(self, schema: Any) -> None:
        if self._closed:
            raise ValueError(self._failure or f"{self._sink.name}: the writer is closed")
        if not schema.equals(self._given_schema) and not schema.equals(self.schema):
            raise ValueError(
                f"{self._sink.name}: rows of another schema, expected\n{self._given_schema}\n"
                f"got\n{schema}"
            )

    def _check_nulls(self, table: Any) -> None:
        for field, column in zip(self.schema, table.columns, strict=True):
            if not field.nullable and column.null_count:
                raise ValueError(
                    f"{self._sink.name}: column {field.name!r} is not nullable, "
                    f"{column.null_count} nulls given"
                )

    def _split(self, table: Any) -> Iterable[tuple[Any, int]]:
        """Yield slices that end where row groups end, by rows and by bytes, and their bytes."""
        if table.num_rows == 0:
            return
        size = self._new_bytes(table)
        row_bytes = max(size / table.num_rows, 1e-9)
        start = 0
        while start < table.num_rows:
            free_rows = self._row_group_rows - self._pending_rows
            free_bytes = MAX_ROW_GROUP_BYTES - self._pending_bytes
            rows = min(free_rows, max(int(free_bytes / row_bytes), 1), table.num_rows - start)
            if rows == table.num_rows:
                yield table, size
            else:
                part = table.slice(start, rows)
                yield part, self._new_bytes(part)
            start += rows

    def _new_bytes(self, table: Any) -> int:
        """Return the bytes that rows add to those pending, with which they may share some."""
        size, seen = sum(map(memory_size, table.columns)), set(self._counted)
        for address, shared in _shared_sizes(table):
            if address in seen:
                size -= shared
            seen.add(address)
        return size

    def _append(self, table: Any, size: int) -> None:
        self._pending.append(table)
        self._pending_rows += table.num_rows
        self._counted.update(address for address, _ in _shared_sizes(table))
        self._pending_bytes += size
        full = self._pending_rows >= self._row_group_rows
        if full or self._pending_bytes >= MAX_ROW_GROUP_BYTES:
            # Rows that the caller holds anyway may wait for the next row group to start.
            ahead = len(self._pending) == 1
            self._flush(ahead=ahead)
            if not ahead:
                # A stream's memory is not to grow by what the pool keeps of each thread's pages.
                pa.default_memory_pool().release_unused()

    def _flush(self, *, ahead: bool = False) -> None:
        """Encode the pending rows as one row group and write it.

        Parameters
        ----------
        ahead
            Leave it to be written when the next row group has started, so that no thread waits
            for the last column of this one.
        """
        size = self._pending_bytes
        for table in self._take_pending():
            started = self._start(table, size)
            if self._running is not None:
                running, self._running = self._running, None
                self._write_group(running)
            if ahead:
                self._running = started
            else:
                self._write_group(started)
        if not ahead and self._running is not None:
            running, self._running = self._running, None
            self._write_group(running)

    def _take_pending(self) -> list[Any]:
        """Return the pending rows as one table, or several if dictionaries cannot be joined."""
        tables, self._pending = self._pending, []
        self._pending_rows = self._pending_bytes = 0
        self._counted.clear()
        if not tables:
            return []
        table = tables[0] if len(tables) == 1 else pa.concat_tables(tables)
        encoded = [i for i, kind in enumerate(table.schema.types) if holds_dictionary(kind)]
        return joinable_tables(table, encoded) if encoded else [table]

    def _start(self, table: Any, size: int) -> "_RunningGroup":
        """Start to encode a row group; of so many bytes, with those that are joined to it."""
        for index, blooms in self._blooms.items():
            blooms.append(build_bloom(combine(table.column(index))))
        parallel = self._use_threads and size >= _MIN_PARALLEL_BYTES
        jobs = self._encode(table, pool().submit if parallel else None)
        return _RunningGroup(table.num_rows, jobs)

    def _write_group(self, group: "_RunningGroup") -> None:
        columns: dict[int, ColumnEntry] = {}
        with ExitStack() as failed:
            failed.callback(group.cancel)
            while group.jobs:
                # No name for the job: it holds the chunk's bytes.
                index = group.jobs[0][0]
                chunk = self._finished(*group.jobs.popleft())
                gap = padding(self._position)
                columns[index] = column_entry(chunk, self._position + len(gap))
                self._zones[index].append(chunk.page_stats)
                self._write([gap, *chunk.parts])
            failed.pop_all()
        self._groups.append(RowGroupEntry(group.rows, [columns[i] for i in range(len(columns))]))
        self._rows += group.rows

    def _encode(self, table: Any, submit: Submit | None) -> deque[tuple[int, Any]]:
        """Start all columns in the order in which they are written: each as soon as it can be.

        The dearest first, so that no thread is left with one at the end; by type alone, for equal
        rows give equal bytes however they lie in memory.
        """
        order = sorted(range(table.num_columns), key=lambda i: _rank(self.schema.field(i).type))
        if submit is None:
            return deque((i, self._encode_column(i, table.column(i), None)) for i in order)
        return deque((i, submit(self._encode_column, i, table.column(i), submit)) for i in order)

    def _encode_column(self, index: int, column: Any, submit: Submit | None) -> ChunkJob:
        try:
            return encode_chunk(combine(column), self._profile, self._page_rows, submit)
        except _BAD_ROWS as exc:
            raise self._bad_rows(index, exc) from exc

    def _finished(self, index: int, job: Any) -> EncodedChunk:
        try:
            chunk: EncodedChunk = (job.result() if isinstance(job, Future) else job).finish()
        except _BAD_ROWS as exc:
            raise self._bad_rows(index, exc) from exc
        return chunk

    def _bad_rows(self, index: int, exc: Exception) -> ValueError:
        name = self.schema.field(index).name
        return ValueError(
            f"{self._sink.name}: column {name!r}: {exc}; what is wrong with the rows tells "
            "table.validate(full=True)"
        )

    def _finish(self) -> Footer:
        zones = [self._write_zone(groups) for groups in self._zones]
        sections = {
            section_name(column): self._write_section(encode_blooms(blooms))
            for column, blooms in self._blooms.items()
        }
        footer = Footer(
            self.schema,
            self._rows,
            self._groups,
            zones,
            sections,
            sorting=self._sorting,
            metadata=self._metadata,
        )
        body, tail = encode_footer(footer, self._position)
        self._write([body, encode_tail(tail)])
        return footer

    def _write_zone(self, groups: list[list[tuple[int, Stats]]]) -> Section | None:
        if all(len(pages) < 2 for pages in groups):
            return None
        return self._write_section(encode_zones(groups))

    def _write_section(self, raw: bytes) -> Section:
        section = Section(self._position, len(raw), xxhash.xxh3_64_intdigest(raw))
        self._write([raw])
        return section

    def _write(self, parts: list[Any]) -> None:
        self._sink.write(parts)
        self._position += sum(len(part) for part in parts)


def _shared_sizes(table: Any) -> Iterator[tuple[int, int]]:
    for column in table.columns:
        if not pa.types.is_primitive(column.type) and shares_buffers(column.type):
            for chunk in column.chunks:
                yield from shared_sizes(chunk)


def _rank(kind: Any) -> int:
    """Return how dear a type is to encode, the dearest first: nested, texts and bytes, others."""
    if kind.num_fields:
        return 0
    return 1 if is_text(kind) or view_storage(kind) else 2


def write_table(
    table: Any,
    where: Any,
    *,
    compression: str | None = "zstd",
    compression_level: int | None = None,
    row_group_size: int = ROW_GROUP_ROWS,
    page_rows: int = PAGE_ROWS,
    sorting_columns: Sequence[SortingColumn] | None = None,
    column_metadata: Mapping[str, Mapping[str, Any]] | None = None,
    bloom_filters: Sequence[str] | None = None,
    metadata: Mapping[str, str] | None = None,
    use_threads: bool = True,
) -> None:
    """Write a table as one NCF file; arguments as `NCFWriter` takes them."""
    writer = NCFWriter(
        where,
        table.schema,
        compression=compression,
        compression_level=compression_level,
        row_group_size=row_group_size,
        page_rows=page_rows,
        sorting_columns=sorting_columns,
        column_metadata=column_metadata,
        bloom_filters=bloom_filters,
        metadata=metadata,
        use_threads=use_threads,
    )
    with writer:
        writer.write_table(table)
