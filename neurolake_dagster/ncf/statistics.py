"""Statistics of pages and chunks. Owns their node and what bounds mean.

Node ``[null_count, nan_count, min, max, flags]``: min and max are nil or the physical value (an
int for integers, dates, times and unscaled decimals, these a float beyond 64 bits; float; bytes
for strings, binary and fixed_size_binary; 0 or 1 for bool), nan_count is nil for types without
NaN. Flag 1: the bounds are exact values of the column, otherwise they only enclose it. NaN is
left out of the bounds, nulls too.
Statistics are hints: a reader survives wrong ones.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from neurolake_dagster.ncf.arrow import (
    bytes_of,
    is_text,
    offset_dtype,
    plain_of,
    plain_type,
    sort_ranks,
    validity_of,
    words_of,
)
from neurolake_dagster.ncf.checks import (
    INT64_MAX,
    INT64_MIN,
    Damage,
    NDArray,
    Node,
    brief,
    need_int,
    need_list,
)

types = pa.types
Bound = int | float | bytes | None
_BOUNDS = frozenset([int, float, bytes, type(None)])
_EXACT = 1
MAX_BOUND_BYTES = 32
_TEXT_SAMPLE = 4096
# Of more values than these the order is not found.
_MAX_RANKED = 65536


class Stats(NamedTuple):
    """Statistics in physical values; `NCFFile.metadata` shows them typed."""

    null_count: int
    nan_count: int | None = None
    min: Bound = None
    max: Bound = None
    exact: bool = True

    def to_node(self) -> Node:
        """Return the stored form."""
        return [self.null_count, self.nan_count, self.min, self.max, _EXACT if self.exact else 0]


def stats_from_node(node: object, rows: int) -> Stats:
    """Check and return stored statistics of ``rows`` rows."""
    nulls, nans, low, high, flags = need_list(node, 5, "statistics")
    need_int(nulls, 0, rows, "null count")
    if nans is not None:
        need_int(nans, 0, rows, "NaN count")
    for bound in (low, high):
        if type(bound) not in _BOUNDS:
            raise Damage(f"statistics: impossible bound {brief(bound)}")
    need_int(flags, 0, (1 << 32) - 1, "statistics flags")
    return Stats(null_count=nulls, nan_count=nans, min=low, max=high, exact=bool(flags & _EXACT))


def merge_stats(parts: Iterable[tuple[int, Stats]]) -> Stats:
    """Return the statistics of several pages, given with their rows, together.

    A bound that one page does not know, though it has values, is not known of all of them.
    """
    pages = list(parts)
    if len(pages) == 1:
        return pages[0][1]
    nans = [page.nan_count for _, page in pages if page.nan_count is not None]
    valued = [page for rows, page in pages if page.null_count + (page.nan_count or 0) < rows]
    lows: list[Any] = [page.min for page in valued]
    highs: list[Any] = [page.max for page in valued]
    counted = nans and all(page.nan_count is not None for page in valued)
    return Stats(
        null_count=sum(page.null_count for _, page in pages),
        nan_count=sum(nans) if counted else None,
        min=min(lows) if lows and None not in lows else None,
        max=max(highs) if highs and None not in highs else None,
        exact=all(page.exact for _, page in pages),
    )


def float_stats(values: NDArray, null_count: int) -> Stats:
    """Return statistics of valid floats; -0.0 and 0.0 bound each other."""
    is_nan = values != values
    nans = int(np.count_nonzero(is_nan))
    # Not `fmin`: of a signalling NaN and a number it makes NaN.
    numbers = values[~is_nan] if nans else values
    if not len(numbers):
        return Stats(null_count=null_count, nan_count=nans)
    low, high = float(numbers.min()), float(numbers.max())
    return Stats(null_count=null_count, nan_count=nans, min=low, max=high)


def wide_stats(values: NDArray, null_count: int, *, numbers: bool) -> Stats:
    """Return statistics of valid values of one width.

    Parameters
    ----------
    values
        Bytes, shape ``(n, width)``, at least one row and column.
    numbers
        Whether they are little-endian integers of whole words, else bytes in their order.
    """
    low, high = (values[_extreme_row(values, pick, numbers)].tobytes() for pick in (np.min, np.max))
    if not numbers:
        return cut_bounds(null_count, low, high)
    least, most = (int.from_bytes(raw, "little", signed=True) for raw in (low, high))
    bottom, top = _enclosing(least, -math.inf), _enclosing(most, math.inf)
    exact = isinstance(bottom, int) and isinstance(top, int)
    return Stats(null_count=null_count, min=bottom, max=top, exact=exact)


def _extreme_row(values: NDArray, pick: Callable[[NDArray], Any], numbers: bool) -> int:
    """Return the row of the least or greatest value: by words, keeping the rows that tie."""
    rows = np.arange(len(values))
    # What lies beyond the bytes of a bound decides nothing.
    starts = range(0, min(values.shape[1], MAX_BOUND_BYTES + 1), 8)
    for at in reversed(starts) if numbers else starts:
        block = np.zeros((len(rows), 8), np.uint8)
        part = values[rows, at : at + 8]
        block[:, : part.shape[1]] = part
        word = block.view("<u8").ravel()
        if not numbers:
            word = word.byteswap()
        elif at == starts[-1]:
            word = word.view("<i8")
        rows = rows[word == pick(word)]
        if len(rows) == 1:
            break
    return int(rows[0])


def _enclosing(value: int, direction: float) -> int | float:
    """Return an integer; of more than 64 bits the next float in a direction, if it is none."""
    if INT64_MIN <= value <= INT64_MAX:
        return value
    near = float(value)
    beyond = near < value if direction > 0 else near > value
    return math.nextafter(near, direction) if beyond else near


@dataclass(frozen=True)
class Ranking:
    """The order of a table's values: statistics of rows that are given by their places in it.

    Parameters
    ----------
    ranks
        Of each place.
    values
        Ascending, text or integer-like.
    """

    ranks: NDArray
    values: Any

    def stats(self, codes: NDArray, null_count: int) -> Stats:
        """Return the statistics of the values at ``codes``, at least one."""
        used = np.zeros(len(self.ranks), bool)
        used[codes] = True
        found = self.ranks[used]
        low, high = int(found.min()), int(found.max())
        if is_text(self.values.type):
            return cut_bounds(null_count, self._text(low), self._text(high))
        words = words_of(self.values)
        return Stats(null_count=null_count, min=int(words[low]), max=int(words[high]))

    def _text(self, rank: int) -> bytes:
        value = self.values[rank].as_py()
        return value.encode() if isinstance(value, str) else bytes(value)


def build_ranking(table: Any) -> Ranking | None:
    """Return the order of a table's values; None if they have none here, or are too many."""
    plain = plain_type(table.type)
    ordered = is_text(plain) or types.is_integer(plain) or types.is_temporal(plain)
    if not ordered or types.is_interval(plain) or table.null_count or len(table) > _MAX_RANKED:
        return None
    return Ranking(*sort_ranks(plain_of(table)))


def text_stats(array: Any) -> Stats:
    """Return statistics of a string or binary array, bounds cut to 32 bytes."""
    nulls = array.null_count
    if nulls == len(array):
        return Stats(null_count=nulls)
    return cut_bounds(nulls, *_text_bounds(array))


def cut_bounds(nulls: int, low: bytes, high: bytes) -> Stats:
    """Return statistics whose bounds take at most 32 bytes; a cut upper bound is raised."""
    exact = len(low) <= MAX_BOUND_BYTES and len(high) <= MAX_BOUND_BYTES
    top: bytes | None = high
    if len(high) > MAX_BOUND_BYTES:
        top = _raise_prefix(high[:MAX_BOUND_BYTES])
    bottom = low[:MAX_BOUND_BYTES]
    return Stats(null_count=nulls, min=bottom, max=top, exact=exact)


def _raise_prefix(prefix: bytes) -> bytes | None:
    """Return the smallest bytes above everything that starts with ``prefix``."""
    body = prefix.rstrip(b"\xff")
    return body[:-1] + bytes([body[-1] + 1]) if body else None


def _text_bounds(array: Any) -> tuple[bytes, bytes]:
    """Return minimum and maximum: by bytes where they diverge early, else by Arrow."""
    if len(array) > _TEXT_SAMPLE:
        low, high = _arrow_bounds(array.slice(0, _TEXT_SAMPLE))
        if low[:2] != high[:2]:
            offsets, data = bytes_of(array)
            starts, stops = offsets[:-1], offsets[1:]
            mask = validity_of(array)
            if mask is not None:
                starts, stops = starts[mask], stops[mask]
            return _radix_bounds(starts, stops, data)
    return _arrow_bounds(array)


def _arrow_bounds(array: Any) -> tuple[bytes, bytes]:
    found = pc.min_max(array).as_py()
    low, high = (
        b"" if value is None else value.encode() if isinstance(value, str) else value
        for value in (found["min"], found["max"])
    )
    return low, high


def _radix_bounds(starts: NDArray, stops: NDArray, data: NDArray) -> tuple[bytes, bytes]:
    """Return the first 33 bytes of minimum and maximum, by bytes; the first one for both."""
    empty = starts >= stops
    if empty.any():
        return b"", _radix_high(starts, stops, data)
    first = data[starts]
    low, high = first.min(), first.max()
    at_low, at_high = first == low, first == high
    return (
        bytes([low]) + _radix_low(starts[at_low] + 1, stops[at_low], data)[:MAX_BOUND_BYTES],
        bytes([high]) + _radix_high(starts[at_high] + 1, stops[at_high], data)[:MAX_BOUND_BYTES],
    )


def _radix_low(starts: NDArray, stops: NDArray, data: NDArray) -> bytes:
    """Return the minimum's first 33 bytes: byte by byte, keeping the rows that tie."""
    found = bytearray()
    for at in range(MAX_BOUND_BYTES + 1):
        places = starts + at
        if (places >= stops).any():
            break
        column = data[places]
        lowest = column.min()
        found.append(int(lowest))
        keep = column == lowest
        starts, stops = starts[keep], stops[keep]
    return bytes(found)


def _radix_high(starts: NDArray, stops: NDArray, data: NDArray) -> bytes:
    """Return the maximum's first 33 bytes."""
    found = bytearray()
    for at in range(MAX_BOUND_BYTES + 1):
        places = starts + at
        live = places < stops
        if not live.all():
            starts, stops, places = starts[live], stops[live], places[live]
            if not len(starts):
                break
        column = data[places]
        highest = column.max()
        found.append(int(highest))
        keep = column == highest
        starts, stops = starts[keep], stops[keep]
    return bytes(found)


def typed_bound(value: Bound, kind: Any) -> Any:
    """Return a physical bound as a scalar of ``kind``'s plain type; None where it does not fit.

    A cut text bound may end inside a character or be no text at all: then there is none.
    """
    kind = plain_type(kind)
    try:
        raw = _physical_bytes(value, kind)
    except (OverflowError, UnicodeDecodeError):
        return None
    if raw is None:
        return None
    buffers = [None, pa.py_buffer(raw)]
    if is_text(kind):
        offsets = np.array([0, len(raw)], offset_dtype(kind))
        buffers[1:1] = [pa.py_buffer(offsets)]
    # Not `pa.scalar`: it imports pandas, a second.
    return pa.Array.from_buffers(kind, 1, buffers)[0]


def _physical_bytes(value: Bound, kind: Any) -> bytes | None:
    """Return a bound as Arrow stores it in ``kind``; None if it is no bound of that type."""
    if isinstance(value, bytes):
        if types.is_fixed_size_binary(kind):
            return value.ljust(kind.byte_width, b"\0")[: kind.byte_width]
        if types.is_string(kind) or types.is_large_string(kind):
            value.decode("utf-8")
        return value if is_text(kind) else None
    if value is None or isinstance(value, bool) or value != value:
        return None
    if types.is_floating(kind):
        with np.errstate(over="ignore"):
            return np.array([float(value)], f"<f{kind.bit_width // 8}").tobytes()
    if types.is_decimal(kind):
        limit = 10**kind.precision - 1
        whole: int = max(-limit, min(limit, int(value)))
        return whole.to_bytes(kind.bit_width // 8, "little", signed=True)
    if not isinstance(value, int) or not types.is_primitive(kind):
        return None
    signed = not (types.is_unsigned_integer(kind) or types.is_boolean(kind))
    return value.to_bytes(max(kind.bit_width // 8, 1), "little", signed=signed)
