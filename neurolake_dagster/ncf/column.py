"""One column of one row group: the chunk. Owns its layout and meta, both ways.

Chunk, all parts back to back::

    TABLE 0, TABLE 1, ...   arrays that all pages share (dictionaries)
    PAGE 0, PAGE 1, ...     streams back to back (compression.py)
    META                    msgpack [rows, tables, pages]

``tables`` and ``pages`` are lists of ``[rows, stored_bytes, xxh3_64, node]``; positions follow
from the sizes. A page's rows add up to the chunk's; a table's node may refer to tables before it
only. A node is an array node::

    [0]                                          all null                     kinds/flat.py
    [1, validity, stream]                        bool                         kinds/flat.py
    [2, validity, integers]                      integer-like                 kinds/numbers.py
    [3, validity, floats]                        float32, float64             kinds/numbers.py
    [4, validity, integers]                      decimal128 within int64      kinds/numbers.py
    [5, validity, transposed, stream]            opaque fixed width           kinds/flat.py
    [6, validity, table, integers]               number through a table       kinds/numbers.py
    [17, validity, values, integers]             the same, table in the node  kinds/numbers.py
    [7, validity, integers, bytes, stream]       text                         kinds/text.py
    [8, validity, integers, bytes, nibbles]      text of <= 16 letters        kinds/text.py
    [9, validity, table, integers]               text through a table         kinds/text_table.py
    [10, validity, children]                     struct                       kinds/nested.py
    [11, validity, integers, rows, child]        list, large_list, map        kinds/nested.py
    [12, validity, child]                        fixed_size_list              kinds/nested.py
    [13, validity, integers, rows, child]        list views                   kinds/nested.py
    [14, integers, [[rows, child], ...]]         union                        kinds/variants.py
    [15, run_count, integers, child]             run_end_encoded              kinds/variants.py
    [16, validity, table, integers]              dictionary                   kinds/variants.py

Integer nodes: encodings/integers.py; float nodes: encodings/floats.py; validity:
kinds/validity.py; streams: compression.py.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from threading import RLock
from typing import Any, NamedTuple

import msgpack
import numpy as np
import xxhash

from neurolake_dagster.ncf.arrow import memory_size, take_rows
from neurolake_dagster.ncf.checks import MAX_PAGE_ROWS, Damage, NDArray, Node, need_int, need_list
from neurolake_dagster.ncf.compression import PROFILES, Profile, StreamReader, StreamWriter
from neurolake_dagster.ncf.kinds.context import DecodeContext, PrepareContext, Prepared
from neurolake_dagster.ncf.kinds.dispatch import decode_array, prepare_array
from neurolake_dagster.ncf.kinds.picking import pick_rows
from neurolake_dagster.ncf.memory import Budget
from neurolake_dagster.ncf.statistics import Stats, merge_stats

Submit = Callable[..., "Future[Any]"]
MAX_TABLE_ROWS = (1 << 31) - 1
# Lists that so few bytes can claim, one within the other, take 16 MiB at most.
_TRUSTED_SIZE = 4096
# Fewer rows of a page than one in so many are made alone.
_FEW = 16


@dataclass(frozen=True)
class EncodedPage:
    """The bytes of one table or page, its entry in the chunk's meta, and its statistics."""

    rows: int
    parts: list[Any]
    size: int
    digest: int
    node: Node
    stats: Stats | None = None

    def entry(self) -> Node:
        """Return the meta entry."""
        return [self.rows, self.size, self.digest, self.node]


@dataclass(frozen=True)
class EncodedChunk:
    """A finished chunk: its bytes in order, and what the footer says of it."""

    parts: list[Any]
    size: int
    meta_size: int
    meta_digest: int
    raw_bytes: int
    encodings: list[str]
    stats: Stats
    page_stats: list[tuple[int, Stats]]


@dataclass
class _TableWriter:
    """Encodes tables as they are added, before the page that refers to them."""

    profile: Profile
    encoded: list[EncodedPage] = field(default_factory=list)

    def add(self, array: Any) -> int:
        prepared = prepare_array(
            PrepareContext(self.profile, self, prepare_array, share_values=False), array
        )
        self.encoded.append(_encode_page(prepared, self.profile, 0, len(array), stats=False))
        return len(self.encoded) - 1


def _encode_page(
    prepared: Prepared, profile: Profile, start: int, stop: int, *, stats: bool = True
) -> EncodedPage:
    # Statistics first: the encoder takes the bounds from them.
    known = prepared.stats(start, stop) if stats else None
    streams = StreamWriter(profile)
    node = prepared.encode(streams, start, stop)
    hasher = xxhash.xxh3_64()
    for part in streams.parts:
        hasher.update(part)
    return EncodedPage(
        stop - start,
        streams.parts,
        streams.size,
        hasher.intdigest(),
        node,
        known,
    )


def measure_stats(array: Any) -> Stats:
    """Return the statistics that a page of these rows would get."""
    tables = _TableWriter(PROFILES["none"])
    prepared = prepare_array(PrepareContext(tables.profile, tables, prepare_array), array)
    return prepared.stats(0, len(array))


@dataclass(frozen=True)
class ChunkJob:
    """A chunk whose pages are being encoded, perhaps by other threads."""

    tables: list[EncodedPage]
    pages: list["Future[EncodedPage] | EncodedPage"]
    names: list[str]
    rows: int
    raw_bytes: int

    def finish(self) -> EncodedChunk:
        """Wait for the pages and put the chunk together."""
        pages = [p.result() if isinstance(p, Future) else p for p in self.pages]
        meta = msgpack.packb(
            [self.rows, [t.entry() for t in self.tables], [p.entry() for p in pages]]
        )
        parts = [part for page in (*self.tables, *pages) for part in page.parts]
        page_stats = [(page.rows, page.stats) for page in pages if page.stats is not None]
        return EncodedChunk(
            parts=[*parts, meta],
            size=sum(page.size for page in (*self.tables, *pages)) + len(meta),
            meta_size=len(meta),
            meta_digest=xxhash.xxh3_64_intdigest(meta),
            raw_bytes=self.raw_bytes,
            encodings=self.names,
            stats=merge_stats(page_stats),
            page_stats=page_stats,
        )


def encode_chunk(array: Any, profile: Profile, page_rows: int, submit: Submit | None) -> ChunkJob:
    """Plan one column of a row group and start encoding its pages.

    Parameters
    ----------
    array
        At least one row.
    submit
        Starts a page on another thread; None encodes here.
    """
    tables = _TableWriter(profile)
    spans = _page_spans(len(array), page_rows)
    context = PrepareContext(profile, tables, prepare_array, is_one_page=len(spans) == 1)
    prepared = prepare_array(context, array)
    pages: list[Future[EncodedPage] | EncodedPage]
    if submit is None or len(spans) == 1:
        pages = [_encode_page(prepared, profile, *span) for span in spans]
    else:
        pages = [submit(_encode_page, prepared, profile, *span) for span in spans]
    return ChunkJob(tables.encoded, pages, prepared.names(), len(array), memory_size(array))


def _page_spans(rows: int, page_rows: int) -> list[tuple[int, int]]:
    """Cut rows into pages of about equal size, none much shorter than asked for.

    A short page at the end would cost as many steps as a full one.
    """
    count = max(1, rows // page_rows, -(-rows // MAX_PAGE_ROWS))
    each = -(-rows // count)
    # Bits of eight rows share a byte.
    step = min(-(-each // 8) * 8, MAX_PAGE_ROWS)
    return [(at, min(at + step, rows)) for at in range(0, rows, step)]


class PageEntry(NamedTuple):
    """Where a table or page lies in its chunk, and its node."""

    rows: int
    offset: int
    size: int
    digest: int
    node: object


class ChunkMeta:
    """The checked meta of a chunk: tables and pages, back to back before it.

    Parameters
    ----------
    raw
        The msgpack bytes, verified against the footer's hash.
    rows
        Rows that the footer states.
    data_size
        Bytes of the chunk before the meta.
    """

    def __init__(self, raw: Any, rows: int, data_size: int) -> None:
        fields = need_list(unpack(raw, len(raw)), 3, "chunk meta")
        need_int(fields[0], rows, rows, "chunk rows")
        position = 0
        self.tables: list[PageEntry] = []
        self.pages: list[PageEntry] = []
        for entry in _entries(fields[1], position, data_size, MAX_TABLE_ROWS):
            self.tables.append(entry)
            position = entry.offset + entry.size
        for entry in _entries(fields[2], position, data_size, MAX_PAGE_ROWS):
            self.pages.append(entry)
            position = entry.offset + entry.size
        if position != data_size:
            raise Damage(f"chunk meta: pages end at {position}, data at {data_size}")
        total = sum(page.rows for page in self.pages)
        if total != rows:
            raise Damage(f"chunk meta: pages hold {total} rows, the chunk {rows}")

    def split_rows(self, rows: NDArray) -> Iterator[tuple[int, NDArray]]:
        """Yield each page that holds some of the ascending ``rows``, and its own row numbers."""
        first = 0
        for index, page in enumerate(self.pages):
            start, stop = np.searchsorted(rows, (first, first + page.rows))
            if stop > start:
                yield index, rows[start:stop] - first
            first += page.rows


def _entries(stored: object, position: int, limit: int, max_rows: int) -> Iterator[PageEntry]:
    for entry in need_list(stored, None, "chunk meta entries"):
        rows, size, digest, node = need_list(entry, 4, "chunk meta entry")
        need_int(rows, 0, max_rows, "page rows")
        need_int(size, 0, limit - position, "page bytes")
        need_int(digest, 0, (1 << 64) - 1, "page hash")
        yield PageEntry(rows, position, size, digest, node)
        position += size


def unpack(raw: Any, size: int) -> Any:
    """Return the object in msgpack bytes; maps must have string keys, no extension types."""
    limits = {
        "strict_map_key": True,
        "max_str_len": size,
        "max_bin_len": size,
        "max_array_len": size,
        "max_map_len": size,
        "max_ext_len": 0,
    }
    try:
        if size > _TRUSTED_SIZE:
            # Unpacking allocates a list as its header claims it; skipping first allocates nothing
            # and fails where the items are not there.
            probe = msgpack.Unpacker(None, max_buffer_size=size, **limits)
            probe.feed(raw)
            probe.skip()
        return msgpack.unpackb(raw, **limits)
    except (msgpack.UnpackException, ValueError, UnicodeDecodeError) as exc:
        raise Damage(f"msgpack: {type(exc).__name__} {exc}") from exc


class ChunkDecoder:
    """Decodes the pages of one chunk; safe to use from several threads.

    Parameters
    ----------
    read
        Returns a buffer of ``(offset, size)`` within the chunk.
    verify
        Whether to compare the hash of each page before it is decoded.
    """

    def __init__(
        self,
        meta: ChunkMeta,
        kind: Any,
        read: Callable[[int, int], Any],
        budget: Budget,
        *,
        verify: bool,
    ) -> None:
        self.meta = meta
        self._kind = kind
        self._read = read
        self._budget = budget
        self._verify = verify
        self._lock = RLock()
        self._kept: dict[tuple[Any, ...], Any] = {}

    def decode_page(self, index: int, rows: NDArray | None = None) -> Any:
        """Return page ``index`` as an Arrow array, or its ``rows``."""
        try:
            return self._decode(self.meta.pages[index], self._kind, self, rows)
        except Damage as exc:
            if exc.page is None:
                exc.page = index
            raise

    def get(self, number: object, kind: Any) -> Any:
        """Return table ``number`` as an Arrow array of ``kind``."""
        return self.get_below(number, kind, len(self.meta.tables))

    def get_below(self, number: object, kind: Any, limit: int) -> Any:
        """Return a table whose number must be below ``limit``."""
        index = need_int(number, 0, limit - 1, "table number")
        entry = self.meta.tables[index]
        tables = _TablesBelow(self, index)
        return self.keep(("table", index, kind), lambda: self._decode(entry, kind, tables))

    def keep(self, key: tuple[Any, ...], build: Callable[[], Any]) -> Any:
        """Return what ``build`` made for ``key`` the first time it was asked for."""
        with self._lock:
            if key not in self._kept:
                self._kept[key] = build()
            return self._kept[key]

    def _decode(self, entry: PageEntry, kind: Any, tables: Any, rows: NDArray | None = None) -> Any:
        page = self._read(entry.offset, entry.size)
        if self._verify:
            computed = xxhash.xxh3_64_intdigest(page)
            if computed != entry.digest:
                raise Damage(
                    f"checksum 0x{entry.digest:016x} stored, 0x{computed:016x} computed over "
                    f"{entry.size} bytes"
                )
        context = DecodeContext(StreamReader(page), tables, self._budget, decode_array)
        picked: Any = None
        if rows is not None and len(rows) * _FEW < entry.rows:
            picked = pick_rows(context, entry.node, kind, entry.rows, rows)
        array = picked
        if picked is None:
            array = decode_array(context, entry.node, kind, entry.rows)
        array.validate(full=not self._verify)
        return array if rows is None or picked is not None else take_rows(array, rows)


@dataclass(frozen=True)
class _TablesBelow:
    """The tables that a table may refer to: those before it."""

    chunk: ChunkDecoder
    limit: int

    def get(self, number: object, kind: Any) -> Any:
        return self.chunk.get_below(number, kind, self.limit)

    def keep(self, key: tuple[Any, ...], build: Callable[[], Any]) -> Any:
        return self.chunk.keep(("below", self.limit, *key), build)
