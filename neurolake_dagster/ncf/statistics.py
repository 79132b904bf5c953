"""Statistics of pages and chunks. Owns their node and what bounds mean.

Node ``[null_count, nan_count, min, max, flags]``: min and max are nil or the physical value
(int for integers, dates, times and unscaled decimals; float; bytes for strings and binary;
0 or 1 for bool), nan_count is nil for types without NaN. Flag 1: the bounds are exact values of
the column, otherwise they only enclose it. NaN is left out of the bounds, nulls too.
Statistics are hints: a reader survives wrong ones.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from neurolake_dagster.ncf.arrow import bytes_of, validity_of
from neurolake_dagster.ncf.checks import Damage, NDArray, Node, brief, need_int, need_list

Bound = int | float | bytes | None
_EXACT = 1
MAX_BOUND_BYTES = 32
_TEXT_SAMPLE = 4096


@dataclass(frozen=True, kw_only=True)
class Stats:
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
    fields = need_list(node, 5, "statistics")
    need_int(fields[0], 0, rows, "null count")
    if fields[1] is not None:
        need_int(fields[1], 0, rows, "NaN count")
    for bound in fields[2:4]:
        if not (bound is None or type(bound) in (int, float, bytes)):
            raise Damage(f"statistics: impossible bound {brief(bound)}")
    need_int(fields[4], 0, (1 << 32) - 1, "statistics flags")
    return Stats(
        null_count=fields[0],
        nan_count=fields[1],
        min=fields[2],
        max=fields[3],
        exact=bool(fields[4] & _EXACT),
    )


def merge_stats(parts: Iterable[tuple[int, Stats]]) -> Stats:
    """Return the statistics of several pages, given with their rows, together.

    A bound that one page does not know, though it has values, is not known of all of them.
    """
    pages = list(parts)
    nans = [page.nan_count for _, page in pages if page.nan_count is not None]
    valued = [page for rows, page in pages if page.null_count + (page.nan_count or 0) < rows]
    lows: list[Any] = [page.min for page in valued]
    highs: list[Any] = [page.max for page in valued]
    return Stats(
        null_count=sum(page.null_count for _, page in pages),
        nan_count=sum(nans) if nans else None,
        min=min(lows) if lows and None not in lows else None,
        max=max(highs) if highs and None not in highs else None,
        exact=all(page.exact for _, page in pages),
    )


def float_stats(values: NDArray, null_count: int) -> Stats:
    """Return statistics of valid floats; -0.0 and 0.0 bound each other."""
    with np.errstate(invalid="ignore"):
        low, high = float(np.fmin.reduce(values)), float(np.fmax.reduce(values))
    if low != low:
        return Stats(null_count=null_count, nan_count=len(values))
    nans = int(np.count_nonzero(values != values))
    return Stats(null_count=null_count, nan_count=nans, min=low, max=high)


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
    """Return a physical bound as the Arrow scalar of ``kind``; None where it does not fit.

    A cut text bound may end inside a character or be no text at all: then there is none.
    """
    if value is None:
        return None
    try:
        return _typed(value, kind)
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        return None


def _typed(value: int | float | bytes, kind: Any) -> Any:
    types = pa.types
    if types.is_boolean(kind):
        return pa.scalar(bool(value), kind)
    if types.is_floating(kind):
        return pa.scalar(float(value), kind)
    if types.is_decimal(kind):
        whole = pa.scalar(int(value), pa.decimal128(38, 0)).as_py()
        return pa.scalar(whole.scaleb(-kind.scale), kind)
    if isinstance(value, bytes):
        if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
            return pa.scalar(value.decode("utf-8"), kind)
        return pa.scalar(value, kind)
    if types.is_integer(kind):
        return pa.scalar(value, kind)
    storage = pa.int32() if kind.bit_width == 32 else pa.int64()
    return pa.scalar(value, storage).cast(kind)
