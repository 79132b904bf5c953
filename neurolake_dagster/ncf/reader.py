"""Reading: opens a file tail first, decodes chunks, names the place of every fault.

The one place where faults of the bytes become `NCFCorruptError`.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from types import TracebackType
from typing import Any, Self

import pyarrow as pa
import xxhash

from neurolake_dagster.errors import NCFCorruptError, NotNCFError
from neurolake_dagster.ncf.checks import Damage
from neurolake_dagster.ncf.column import ChunkDecoder, ChunkMeta
from neurolake_dagster.ncf.footer import Footer, decode_footer
from neurolake_dagster.ncf.layout import (
    HEADER_BYTES,
    MAGIC,
    MIN_FILE_BYTES,
    TAIL_BYTES,
    Tail,
    decode_header,
    decode_tail,
)
from neurolake_dagster.ncf.memory import Budget
from neurolake_dagster.ncf.metadata import FileMetadata, build_metadata
from neurolake_dagster.ncf.pool import THREADS, pool
from neurolake_dagster.ncf.source import close_source, open_source

# One request for the end of the file: on S3 latency dwarfs 64 KiB, and most footers fit.
_SUFFIX_BYTES = 64 << 10
_DECODE_LIMIT_BYTES = 16 << 30
_DECODE_LIMIT_RATIO = 64
# Below this, handing work to other threads costs more than it saves.
_MIN_PARALLEL_BYTES = 1 << 19
_MIN_PARALLEL_ROWS = 1 << 17

# What numpy, Arrow and Python raise when bytes are not what they should be. MemoryError: a
# forged size within the budget may still be more than the machine gives.
_FAULTS = (
    Damage,
    pa.ArrowException,
    ValueError,
    TypeError,
    IndexError,
    OverflowError,
    MemoryError,
    RecursionError,
)


@dataclass(frozen=True)
class _Place:
    """A chunk to read: row group and column, by index."""

    group: int
    column: int


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
        What one request may allocate; 16 GiB or 64 times the file, whichever is more, by default.

    Raises
    ------
    NotNCFError, NCFVersionError, NCFCorruptError
        If the bytes are another format, too new, or damaged.
    """

    def __init__(
        self, source: Any, *, verify: bool = True, decode_limit_bytes: int | None = None
    ) -> None:
        self._given = source
        self._verify = verify
        self._source = open_source(source)
        try:
            with self._faults():
                self._size = int(self._source.size())
                self._footer, self._tail = self._open()
        except BaseException:
            self.close()
            raise
        default = max(_DECODE_LIMIT_BYTES, _DECODE_LIMIT_RATIO * self._size)
        self._limit = default if decode_limit_bytes is None else decode_limit_bytes

    @property
    def name(self) -> str:
        """Return the source's name, as errors give it."""
        return str(getattr(self._source, "name", "<source>"))

    @property
    def schema(self) -> Any:
        """Return the Arrow schema, metadata included."""
        return self._footer.schema

    @property
    def num_rows(self) -> int:
        """Return the rows in all."""
        return self._footer.rows

    @cached_property
    def metadata(self) -> FileMetadata:
        """Return rows, row groups, encodings, sizes and typed statistics."""
        return build_metadata(self._footer, self._tail.minor, self._size)

    def read(
        self,
        columns: Sequence[str] | None = None,
        filters: Any = None,
        *,
        use_threads: bool = True,
    ) -> Any:
        """Return the rows as a table: only some columns, only rows that pass ``filters``."""
        if filters is None:
            groups = list(range(len(self._footer.row_groups)))
            return self._read_groups(groups, self._select(columns), use_threads=use_threads)
        raise ValueError("filters are not available yet")

    def read_row_group(
        self, index: int, columns: Sequence[str] | None = None, *, use_threads: bool = True
    ) -> Any:
        """Return one row group as a table."""
        if not 0 <= index < len(self._footer.row_groups):
            raise IndexError(
                f"{self.name}: row group {index} of {len(self._footer.row_groups)} asked for"
            )
        return self._read_groups([index], self._select(columns), use_threads=use_threads)

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

    def _open(self) -> tuple[Footer, Tail]:
        if self._size < MIN_FILE_BYTES:
            head = self._read_at(0, min(4, self._size)).to_pybytes()
            if head != MAGIC[: len(head)] or not head:
                raise NotNCFError(f"{self.name}: not an NCF file, it begins with {head!r}")
            raise Damage(f"{self._size} bytes are too few for an NCF file")
        decode_header(self._read_at(0, HEADER_BYTES).to_pybytes(), self.name)
        suffix_at = max(HEADER_BYTES, self._size - _SUFFIX_BYTES)
        suffix = self._read_at(suffix_at, self._size - suffix_at)
        raw_tail = suffix.slice(suffix.size - TAIL_BYTES).to_pybytes()
        tail = decode_tail(raw_tail, self._size, self.name)
        if tail.footer_offset >= suffix_at:
            body = suffix.slice(tail.footer_offset - suffix_at, tail.footer_bytes)
        else:
            body = self._read_at(tail.footer_offset, tail.footer_bytes)
        return decode_footer(body, tail, self.name), tail

    def _read_at(self, offset: int, length: int) -> Any:
        """Return exactly ``length`` bytes as a buffer."""
        found = self._source.read_at(offset, length)
        data = found if isinstance(found, pa.Buffer) else pa.py_buffer(found)
        if data.size != length:
            raise Damage(f"source: {length} bytes asked for at {offset}, got {data.size}")
        return data

    def _select(self, columns: Sequence[str] | None) -> list[int]:
        """Return the indexes of the named columns, in the order asked for."""
        if columns is None:
            return list(range(len(self.schema)))
        found = [self.schema.get_field_index(name) for name in columns]
        if -1 in found:
            wrong = [name for name, at in zip(columns, found, strict=True) if at < 0]
            raise ValueError(
                f"{self.name}: no single column {', '.join(map(repr, wrong))}, the file has "
                f"{', '.join(self.schema.names[:50])}"
            )
        return found

    @contextmanager
    def _faults(self, place: _Place | None = None) -> Iterator[None]:
        """Turn every fault of the bytes into one `NCFCorruptError` that says where."""
        try:
            yield
        except (NCFCorruptError, NotNCFError):
            raise
        except _FAULTS as exc:
            reason = str(exc) if isinstance(exc, Damage) else f"{type(exc).__name__}: {exc}"
            group, column = (None, None) if place is None else (place.group, place.column)
            raise NCFCorruptError(
                self.name,
                reason,
                row_group=group,
                column=None if column is None else self.schema.field(column).name,
                page=exc.page if isinstance(exc, Damage) else None,
            ) from exc

    def _read_groups(self, groups: list[int], selected: list[int], *, use_threads: bool) -> Any:
        """Decode whole row groups into a table."""
        budget = Budget(self._limit)
        places = [_Place(group, column) for column in selected for group in groups]
        rows = sum(self._footer.row_groups[group].rows for group in groups)
        stored = sum(self._entry(place).size for place in places)
        small = stored < _MIN_PARALLEL_BYTES and rows < _MIN_PARALLEL_ROWS
        if small or not use_threads or THREADS == 1 or not places:
            arrays = {place: self._decode_chunk(place, budget) for place in places}
        else:
            arrays = self._decode_parallel(places, budget)
        schema = pa.schema([self.schema.field(i) for i in selected], self.schema.metadata)
        if not selected:
            return _table_without_columns(rows, schema)
        columns = [
            pa.chunked_array(
                [page for group in groups for page in arrays[_Place(group, column)]],
                self.schema.field(column).type,
            )
            for column in selected
        ]
        return pa.Table.from_arrays(columns, schema=schema)

    def _entry(self, place: _Place) -> Any:
        return self._footer.row_groups[place.group].columns[place.column]

    def _decoder(self, place: _Place, budget: Budget) -> ChunkDecoder:
        """Read a chunk in one request and check its meta."""
        entry = self._entry(place)
        chunk = self._read_at(entry.offset, entry.size)
        data_size = entry.size - entry.meta_size
        raw_meta = chunk.slice(data_size, entry.meta_size)
        computed = xxhash.xxh3_64_intdigest(raw_meta)
        if self._verify and computed != entry.meta_digest:
            raise Damage(
                f"chunk meta: checksum 0x{entry.meta_digest:016x} stored, 0x{computed:016x} "
                f"computed"
            )
        meta = ChunkMeta(raw_meta, self._footer.row_groups[place.group].rows, data_size)
        kind = self.schema.field(place.column).type
        return ChunkDecoder(meta, kind, chunk.slice, budget, verify=self._verify)

    def _decode_chunk(self, place: _Place, budget: Budget) -> list[Any]:
        with self._faults(place):
            decoder = self._decoder(place, budget)
            return [decoder.decode_page(index) for index in range(len(decoder.meta.pages))]

    def _decode_parallel(self, places: list[_Place], budget: Budget) -> dict[_Place, list[Any]]:
        """Decode chunks on the shared pool; by pages where there are few chunks."""
        threads = pool()
        fan_out = len(places) < 4 * THREADS
        if not fan_out:
            jobs = {place: threads.submit(self._decode_chunk, place, budget) for place in places}
            return _collect(jobs)
        largest_first = sorted(places, key=lambda place: -self._entry(place).size)
        starts = {
            place: threads.submit(self._start_pages, place, budget) for place in largest_first
        }
        opened = _collect(starts)
        pages = {
            place: [threads.submit(self._decode_page, place, decoder, index) for index in indexes]
            for place, (decoder, indexes) in opened.items()
        }
        flat = {
            (place, index): job for place, jobs in pages.items() for index, job in enumerate(jobs)
        }
        done = _collect(flat)
        return {place: [done[place, i] for i in range(len(pages[place]))] for place in places}

    def _start_pages(self, place: _Place, budget: Budget) -> tuple[ChunkDecoder, list[int]]:
        with self._faults(place):
            decoder = self._decoder(place, budget)
            return decoder, list(range(len(decoder.meta.pages)))

    def _decode_page(self, place: _Place, decoder: ChunkDecoder, index: int) -> Any:
        with self._faults(place):
            return decoder.decode_page(index)


def _collect(jobs: dict[Any, "Future[Any]"]) -> dict[Any, Any]:
    """Wait for all jobs; after a failure none of them runs on behind the caller's back."""
    try:
        return {key: job.result() for key, job in jobs.items()}
    except BaseException:
        for job in jobs.values():
            job.cancel()
        for job in jobs.values():
            if not job.cancelled():
                job.exception()
        raise


def _table_without_columns(rows: int, schema: Any) -> Any:
    """Return a table of no columns that still has its row count."""
    filler = pa.schema([pa.field("", pa.null())], schema.metadata)
    batch = pa.record_batch([pa.nulls(rows)], schema=filler)
    return pa.Table.from_batches([batch.select([])])


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
