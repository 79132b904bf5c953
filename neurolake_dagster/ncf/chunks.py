"""The chunks of an opened file: opening tail first, byte ranges, decoding on threads.

The one place where faults of the bytes become `NCFCorruptError`, and where they get their place.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import pyarrow as pa
import xxhash

from neurolake_dagster.errors import NCFCorruptError, NCFVersionError, NotNCFError
from neurolake_dagster.ncf.bloom import Bloom, decode_blooms, section_name
from neurolake_dagster.ncf.checks import Damage, NDArray
from neurolake_dagster.ncf.column import ChunkDecoder, ChunkMeta
from neurolake_dagster.ncf.footer import (
    ColumnEntry,
    Footer,
    Section,
    decode_footer,
    decode_zones,
)
from neurolake_dagster.ncf.layout import (
    HEADER_BYTES,
    MAGIC,
    MAJOR,
    MIN_FILE_BYTES,
    MINOR,
    TAIL_BYTES,
    Tail,
    decode_header,
    decode_tail,
)
from neurolake_dagster.ncf.memory import Budget
from neurolake_dagster.ncf.pool import THREADS, run_all
from neurolake_dagster.ncf.statistics import Stats

# One request for the end of the file, or all of a small one: on S3 latency dwarfs 64 KiB, and most
# footers fit.
_SUFFIX_BYTES = 64 << 10
# Ranges closer than this are read in one request, unless the source says otherwise.
_COALESCE_BYTES = 1 << 20
# Below this, handing work to other threads costs more than it saves.
_MIN_PARALLEL_BYTES = 1 << 20
_MIN_PARALLEL_RAW_BYTES = 1 << 22
# A smaller share of a chunk's rows is read by pages.
_PARTIAL_SHARE = 0.5

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
# Errors that say where already.
_PUBLIC = (NCFCorruptError, NotNCFError, NCFVersionError)


class Place(NamedTuple):
    """A chunk: row group and column, by index."""

    group: int
    column: int


class Chunks:
    """Decodes chunks of one file.

    Parameters
    ----------
    source
        A ranged source.
    verify
        Whether to compare every checksum before decoding.
    """

    major = MAJOR

    def __init__(self, source: Any, *, verify: bool) -> None:
        self.source = source
        self.verify = verify
        self._zones: dict[int, list[list[tuple[int, Stats]]]] = {}
        self._blooms: dict[int, list[Bloom | None]] = {}
        # What the caller's source raises says nothing of the file.
        self._foreign: list[BaseException] = []
        self.size = int(source.size())
        with self.faults():
            self.footer, self.tail = self._open()

    @property
    def name(self) -> str:
        """Return the source's name, as errors give it."""
        return str(getattr(self.source, "name", "<source>"))

    def faults(self, place: Place | None = None) -> "_Faults":
        """Turn every fault of the bytes into one `NCFCorruptError` that says where.

        Errors of the source pass through as they are.
        """
        return _Faults(self, place)

    def corrupt_error(self, fault: BaseException, place: Place | None) -> NCFCorruptError | None:
        """Return the public error of a fault; None where it is no fault of the bytes."""
        if isinstance(fault, _PUBLIC) or not isinstance(fault, _FAULTS):
            return None
        if any(fault is foreign for foreign in self._foreign):
            return None
        reason = str(fault) if isinstance(fault, Damage) else f"{type(fault).__name__}: {fault}"
        if place is not None and self.tail.minor > MINOR:
            reason += f"; version {MAJOR}.{self.tail.minor} is newer than this reader, update it"
        return NCFCorruptError(
            self.name,
            reason,
            row_group=None if place is None else place.group,
            column=None if place is None else self.footer.schema.field(place.column).name,
            page=fault.page if isinstance(fault, Damage) else None,
        )

    def read_at(self, offset: int, length: int) -> Any:
        """Return exactly ``length`` bytes as a buffer; of a small file no second read is made."""
        at = offset - self._suffix_at
        if at >= 0 and at + length <= self._suffix.size:
            return self._suffix.slice(at, length)
        return self._fetch(offset, length)

    def _fetch(self, offset: int, length: int) -> Any:
        try:
            found = self.source.read_at(offset, length)
            data = found if isinstance(found, pa.Buffer) else pa.py_buffer(found)
        except _FAULTS as exc:
            self._foreign.append(exc)
            raise
        if data.size != length:
            raise Damage(f"source: {length} bytes asked for at {offset}, got {data.size}")
        return data

    def entry(self, place: Place) -> ColumnEntry:
        """Return what the footer says of a chunk."""
        return self.footer.row_groups[place.group].columns[place.column]

    def zones(self, column: int) -> list[list[tuple[int, Stats]]]:
        """Return rows and statistics of a column, per row group and page."""
        if column not in self._zones:
            section = self.footer.zones[column]
            groups = self.footer.row_groups
            if section is None:
                self._zones[column] = [[(g.rows, g.columns[column].stats)] for g in groups]
            else:
                with self.faults():
                    self._zones[column] = decode_zones(self.read_section(section), groups)
        return self._zones[column]

    def bloom_columns(self) -> set[int]:
        """Return the places of the columns that have Bloom filters."""
        named = self.footer.sections
        return {i for i in range(len(self.footer.schema)) if section_name(i) in named}

    def blooms(self, column: int) -> list[Bloom | None]:
        """Return the Bloom filters of one of `bloom_columns`, one per row group."""
        if column not in self._blooms:
            with self.faults():
                raw = self.read_section(self.footer.sections[section_name(column)])
                self._blooms[column] = decode_blooms(raw, len(self.footer.row_groups))
        return self._blooms[column]

    def read_section(self, section: Section) -> Any:
        """Return the verified bytes of a section."""
        raw = self.read_at(section.offset, section.size)
        computed = xxhash.xxh3_64_intdigest(raw)
        if self.verify and computed != section.digest:
            raise Damage(
                f"section at byte {section.offset}: checksum 0x{section.digest:016x} stored, "
                f"0x{computed:016x} computed"
            )
        return raw

    def decoder(self, place: Place, budget: Budget, rows: NDArray | None = None) -> ChunkDecoder:
        """Read a chunk and check its meta.

        Parameters
        ----------
        rows
            Ascending row numbers that will be asked for: of few rows only the pages are read.
        """
        entry = self.entry(place)
        group_rows = self.footer.row_groups[place.group].rows
        data_size = entry.size - entry.meta_size
        few = rows is not None and len(rows) < _PARTIAL_SHARE * group_rows
        if few:
            raw_meta = self.read_at(entry.offset + data_size, entry.meta_size)
        else:
            chunk = self.read_at(entry.offset, entry.size)
            raw_meta = chunk.slice(data_size, entry.meta_size)
        computed = xxhash.xxh3_64_intdigest(raw_meta)
        if self.verify and computed != entry.meta_digest:
            raise Damage(
                f"chunk meta: checksum 0x{entry.meta_digest:016x} stored, "
                f"0x{computed:016x} computed"
            )
        meta = ChunkMeta(raw_meta, group_rows, data_size)
        read = chunk.slice if not few else self._page_ranges(entry, meta, rows)
        kind = self.footer.schema.field(place.column).type
        return ChunkDecoder(meta, kind, read, budget, verify=self.verify)

    def _page_ranges(
        self, chunk: ColumnEntry, meta: ChunkMeta, rows: NDArray | None
    ) -> Callable[[int, int], Any]:
        """Read the tables and the pages of ``rows``, near ones together; return their reader."""
        assert rows is not None
        pages = [meta.pages[index] for index, _ in meta.split_rows(rows)]
        entries = [entry for entry in (*meta.tables, *pages) if entry.size]
        wanted = sorted((entry.offset, entry.offset + entry.size) for entry in entries)
        gap = int(getattr(self.source, "coalesce_bytes", _COALESCE_BYTES))
        spans: list[list[int]] = []
        for start, stop in wanted:
            if spans and start - spans[-1][1] <= gap:
                spans[-1][1] = max(stop, spans[-1][1])
            else:
                spans.append([start, stop])
        parts = [(a, b, self.read_at(chunk.offset + a, b - a)) for a, b in spans]

        def read(offset: int, size: int) -> Any:
            if not size:
                return pa.py_buffer(b"")
            for start, stop, data in parts:
                if start <= offset and offset + size <= stop:
                    return data.slice(offset - start, size)
            raise Damage(f"page at {offset} was not asked for")

        return read

    def decode(self, places: list[Place], budget: Budget, *, use_threads: bool) -> dict[Any, Any]:
        """Return the pages of whole chunks, as lists of arrays."""
        return self.decode_rows([(place, None) for place in places], budget, use_threads)

    def decode_rows(
        self, wanted: list[tuple[Place, NDArray | None]], budget: Budget, use_threads: bool
    ) -> dict[Any, Any]:
        """Return rows of chunks, as lists of arrays: all, or ascending local row numbers."""
        entries = [self.entry(place) for place, _ in wanted]
        small = (
            sum(entry.size for entry in entries) < _MIN_PARALLEL_BYTES
            and sum(entry.raw_bytes for entry in entries) < _MIN_PARALLEL_RAW_BYTES
        )
        if small or not use_threads or THREADS == 1:
            return {place: self._decode_chunk(place, part, budget) for place, part in wanted}
        # The dearest first, so that no thread is left with one at the end.
        dearest = sorted(wanted, key=lambda item: -self._price(item[0]))
        if len(wanted) >= 4 * THREADS:
            return run_all({p: partial(self._decode_chunk, p, part, budget) for p, part in dearest})
        return self._decode_pages(dearest, budget)

    def _price(self, place: Place) -> int:
        """Return how dear a chunk is to decode, roughly: what is inflated, then what is filled."""
        entry = self.entry(place)
        return 8 * entry.size + entry.raw_bytes

    def page_windows(
        self, places: list[Place], budget: Budget, *, use_threads: bool
    ) -> Iterator[dict[Place, list[Any]]]:
        """Yield the pages of one row group's chunks a few at a time, in order.

        Where the pages of the columns do not agree, all of them come at once.
        """
        opened = {}
        for place in places:
            with self.faults(place):
                opened[place] = self.decoder(place, budget)
        rows = [[page.rows for page in decoder.meta.pages] for decoder in opened.values()]
        agree = all(other == rows[0] for other in rows)
        windows = [[i] for i in range(len(rows[0]))] if agree else [None]
        for window in windows:
            parts = {
                (place, i): (place, decoder, (i, None))
                for place, decoder in opened.items()
                for i in window or range(len(decoder.meta.pages))
            }
            if use_threads and THREADS > 1 and len(parts) > 1:
                done = run_all({k: partial(self._decode_page, *part) for k, part in parts.items()})
            else:
                done = {key: self._decode_page(*part) for key, part in parts.items()}
            yield {place: [done[key] for key in parts if key[0] == place] for place in places}

    def _decode_chunk(self, place: Place, rows: NDArray | None, budget: Budget) -> list[Any]:
        with self.faults(place):
            decoder = self.decoder(place, budget, rows)
            return [decoder.decode_page(*part) for part in _parts(decoder, rows)]

    def _decode_pages(
        self, wanted: list[tuple[Place, NDArray | None]], budget: Budget
    ) -> dict[Any, Any]:
        """Decode few chunks by pages, so that no thread is left with one at the end."""
        opened = run_all({p: partial(self._start, p, part, budget) for p, part in wanted})
        done = run_all(
            {
                (place, at): partial(self._decode_page, place, decoder, part)
                for place, (decoder, parts) in opened.items()
                for at, part in enumerate(parts)
            }
        )
        return {
            place: [done[place, i] for i in range(len(opened[place][1]))] for place, _ in wanted
        }

    def _start(
        self, place: Place, rows: NDArray | None, budget: Budget
    ) -> tuple[ChunkDecoder, list[tuple[int, NDArray | None]]]:
        with self.faults(place):
            decoder = self.decoder(place, budget, rows)
            return decoder, _parts(decoder, rows)

    def _decode_page(
        self, place: Place, decoder: ChunkDecoder, part: tuple[int, NDArray | None]
    ) -> Any:
        with self.faults(place):
            return decoder.decode_page(*part)

    def _open(self) -> tuple[Footer, Tail]:
        if self.size < MIN_FILE_BYTES:
            head = self._fetch(0, min(4, self.size)).to_pybytes()
            if head != MAGIC[: len(head)] or not head:
                raise NotNCFError(f"{self.name}: not an NCF file, it begins with {head!r}")
            raise Damage(f"{self.size} bytes are too few for an NCF file")
        self._suffix_at = max(0, self.size - _SUFFIX_BYTES)
        self._suffix = self._fetch(self._suffix_at, self.size - self._suffix_at)
        decode_header(self.read_at(0, HEADER_BYTES).to_pybytes(), self.name)
        tail_at = self.size - TAIL_BYTES
        tail = decode_tail(self.read_at(tail_at, TAIL_BYTES).to_pybytes(), self.size, self.name)
        body = self.read_at(tail.footer_offset, tail.footer_bytes)
        return decode_footer(body, tail, self.name), tail


def _parts(decoder: ChunkDecoder, rows: NDArray | None) -> list[tuple[int, NDArray | None]]:
    """Return the pages to decode and which of their rows to keep, None = all."""
    if rows is None:
        return [(index, None) for index in range(len(decoder.meta.pages))]
    return list(decoder.meta.split_rows(rows))


class _Faults:
    """A block in which faults of the bytes get their place: a generator takes twice the time."""

    __slots__ = ("_chunks", "_place")

    def __init__(self, chunks: Chunks, place: Place | None) -> None:
        self._chunks = chunks
        self._place = place

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, fault: BaseException | None, trace: Any) -> None:
        if fault is not None:
            error = self._chunks.corrupt_error(fault, self._place)
            if error is not None:
                raise error from fault
