"""Numbers: ``[2, validity, integers]``, ``[3, validity, floats]``, ``[4, validity, integers]``.

Kind 2 holds every integer-like type (integers, dates, times, timestamps, durations, 32- and
64-bit decimals, half floats as their bits), kind 4 decimal128 whose values fit in int64. Kind 6
is any of them through a table of the chunk: ``[6, validity, table, codes]``. Kind 17 is the same
with a table of at most 256 values in the node: ``[17, validity, values, codes]``.
"""

from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa

from neurolake_dagster.ncf.arrow import (
    allocate,
    array_from,
    build_fixed,
    decimal_words_of,
    decimals_fit_int64,
    fixed_of,
    gather,
    gather_rows,
    number_dictionary_of,
    rows_of,
    validity_of,
    words_of,
)
from neurolake_dagster.ncf.checks import Damage, NDArray, Node, need_bytes, need_list
from neurolake_dagster.ncf.compression import StreamWriter
from neurolake_dagster.ncf.encodings import frame
from neurolake_dagster.ncf.encodings.floats import FloatPlan, decode_floats, encode_floats
from neurolake_dagster.ncf.encodings.integers import (
    DELTA,
    IntPlan,
    decode_integers,
    encode_integers,
    need_integers,
)
from neurolake_dagster.ncf.encodings.packing import decode_packed, packed_bytes
from neurolake_dagster.ncf.encodings.planes import PlanePlan, single_plane
from neurolake_dagster.ncf.kinds.context import DecodeContext, PrepareContext
from neurolake_dagster.ncf.kinds.flat import NULL, WideChunk, prepare_wide
from neurolake_dagster.ncf.kinds.validity import (
    DENSE,
    SPARSE,
    Validity,
    decode_validity,
    encode_validity,
)
from neurolake_dagster.ncf.memory import scratch
from neurolake_dagster.ncf.planning.floats import plan_floats
from neurolake_dagster.ncf.planning.integers import MAX_NUMBER_DICTIONARY, plan_integers
from neurolake_dagster.ncf.planning.sample import fill_nulls, has_few
from neurolake_dagster.ncf.statistics import Stats, float_stats

INT, FLOAT, DECIMAL, NUMBER_TABLE, OWN_TABLE = 2, 3, 4, 6, 17
_MIN_DICTIONARY_ROWS = 1024
_TINY_TABLE = 256
_PLAIN = IntPlan(planes=PlanePlan(raw=frozenset(range(8))))


@dataclass(frozen=True)
class NumberChunk:
    """Numbers of one chunk.

    Parameters
    ----------
    kind
        INT, FLOAT or DECIMAL.
    values
        Signed or unsigned integers, or floats; null slots hold anything.
    half
        Whether the integers are the bits of half floats.
    table
        Number of the chunk's table (None: the node is to hold it), the code of each row and the
        distinct words, where the plan is a dictionary.
    """

    kind: int
    values: NDArray
    mask: NDArray | None
    plan: IntPlan | FloatPlan
    half: bool = False
    table: tuple[int | None, NDArray, NDArray] | None = None
    _known: dict[tuple[int, int], Stats] = field(default_factory=dict, repr=False)
    _rows: dict[tuple[int, int], "_Rows"] = field(default_factory=dict, repr=False)

    def encode(self, streams: StreamWriter, start: int, stop: int) -> Node:
        """Encode rows as one array node."""
        values = self.values if self.table is None else self.table[1]
        rows = self._rows.pop((start, stop), None) or _store(values, self.mask, start, stop)
        validity = None
        if rows.mask is not None:
            if not len(rows.values):
                return [NULL]
            mode = DENSE if rows.filled else SPARSE
            validity = encode_validity(streams, rows.mask, rows.nulls, mode)
        if self.table is not None:
            number, _, distinct = self.table
            codes = encode_integers(streams, rows.values)
            if number is None:
                return [OWN_TABLE, validity, distinct.tobytes(), codes]
            return [NUMBER_TABLE, validity, number, codes]
        if isinstance(self.plan, FloatPlan):
            return [self.kind, validity, encode_floats(streams, rows.values, self.plan)]
        integers, bounds = _signed(rows.values), self._bounds(start, stop)
        return [self.kind, validity, encode_integers(streams, integers, self.plan, bounds)]

    def _bounds(self, start: int, stop: int) -> tuple[int, int] | None:
        """Return the page's bounds if they were found already and mean the same signed."""
        known = self._known.get((start, stop))
        if known is None or self.values.dtype == np.uint64:
            return None
        low, high = known.min, known.max
        return (low, high) if isinstance(low, int) and isinstance(high, int) else None

    def stats(self, start: int, stop: int) -> Stats:
        """Return bounds of the valid rows in physical values."""
        if (start, stop) not in self._known:
            self._known[start, stop] = self._of_table(start, stop) or self._of_rows(start, stop)
        return self._known[start, stop]

    def _of_table(self, start: int, stop: int) -> Stats | None:
        """Return the bounds of all rows from the distinct values; None where they do not tell."""
        if self.table is None or self.half or (start, stop) != (0, len(self.values)):
            return None
        distinct = _Rows(self.table[2].view(self.values.dtype))
        found = self._measure(distinct)
        nulls = 0 if self.mask is None else stop - int(np.count_nonzero(self.mask))
        return None if found.nan_count else found._replace(null_count=nulls)

    def _of_rows(self, start: int, stop: int) -> Stats:
        rows = _store(self.values, self.mask, start, stop)
        if self.table is None:
            # The encoder needs the same rows next.
            self._rows[start, stop] = rows
        return self._measure(rows)

    def _measure(self, rows: "_Rows") -> Stats:
        values, nulls = rows.values, rows.nulls
        if not len(values):
            return Stats(null_count=nulls)
        if self.half:
            values = values.view("<f2").astype("<f4")
        elif self.kind != FLOAT:
            return Stats(null_count=nulls, min=int(values.min()), max=int(values.max()))
        found = float_stats(values, nulls)
        if found.nan_count and rows.filled and rows.mask is not None:
            filler = values[int(np.argmin(rows.mask))]
            return found._replace(nan_count=found.nan_count - nulls * int(np.isnan(filler)))
        return found

    def names(self) -> list[str]:
        """Return the encoding and, below it, that of its integers."""
        if isinstance(self.plan, IntPlan):
            return [self.plan.kind]
        if self.plan.kind in ("bits", "decimals"):
            return [self.plan.kind, self.plan.integers.kind]
        return [self.plan.kind]


@dataclass(frozen=True)
class _Rows:
    """The values of a page that are stored, and its mask where it has nulls.

    Parameters
    ----------
    filled
        Whether null slots hold the first valid value; else they are left out.
    """

    values: NDArray
    mask: NDArray | None = None
    nulls: int = 0
    filled: bool = False


def _store(values: NDArray, mask: NDArray | None, start: int, stop: int) -> _Rows:
    """Return rows ``start..stop`` as they are stored."""
    values = values[start:stop]
    if mask is None:
        return _Rows(values)
    mask = mask[start:stop]
    valid = int(np.count_nonzero(mask))
    nulls = len(mask) - valid
    if not nulls:
        return _Rows(values)
    if 2 * valid < len(mask):
        return _Rows(values[mask], mask, nulls)
    return _Rows(fill_nulls(values, mask), mask, nulls, filled=True)


def _signed(values: NDArray) -> NDArray:
    """View uint64 as int64; narrower unsigned values fit anyway."""
    return values.view(np.int64) if values.dtype == np.uint64 else values


def prepare_integers(context: PrepareContext, array: Any, *, half: bool = False) -> NumberChunk:
    """Prepare an integer-like array."""
    values, mask = words_of(array), validity_of(array)
    if not context.share_values and mask is None:
        return NumberChunk(INT, values, None, _PLAIN if _is_tiny(values) else DELTA, half)
    dictionary = context.share_values and len(array) >= _MIN_DICTIONARY_ROWS
    plan = plan_integers(_signed(values), mask, context.profile, dictionary=dictionary)
    return _with_table(context, array, NumberChunk(INT, values, mask, plan, half))


def prepare_floats(context: PrepareContext, array: Any) -> NumberChunk:
    """Prepare a float32 or float64 array."""
    values = fixed_of(array, f"<f{array.type.bit_width // 8}")
    mask = validity_of(array)
    if not context.share_values and mask is None:
        plan = FloatPlan(kind="words") if _is_tiny(values) else FloatPlan(integers=DELTA)
        return NumberChunk(FLOAT, values, None, plan)
    dictionary = context.share_values and len(array) >= _MIN_DICTIONARY_ROWS
    at_sight = context.profile.plans_at_sight(len(array))
    if dictionary and at_sight and has_few(values.view(f"<u{values.itemsize}")):
        codes, distinct = number_dictionary_of(array)
        if _is_tiny(distinct):
            chunk = NumberChunk(FLOAT, values, mask, FloatPlan(kind="dictionary"))
            return _add_table(context, array, chunk, codes, distinct)
    plan = plan_floats(values, mask, context.profile, dictionary=dictionary and not at_sight)
    return _with_table(context, array, NumberChunk(FLOAT, values, mask, plan))


def _is_tiny(values: NDArray) -> bool:
    """Whether a table is stored plain: each plane of its own would cost as much as its values.

    A larger one is sorted: its differences need no sample.
    """
    return len(values) <= _TINY_TABLE


def prepare_decimals(context: PrepareContext, array: Any) -> NumberChunk | WideChunk:
    """Prepare a decimal128 array: as integers where every valid value fits in int64."""
    low, high = decimal_words_of(array)
    mask = validity_of(array)
    if not decimals_fit_int64(low, high, mask):
        return prepare_wide(context, array)
    plan = plan_integers(low, mask, context.profile)
    return NumberChunk(DECIMAL, low, mask, plan)


def _with_table(context: PrepareContext, array: Any, chunk: NumberChunk) -> NumberChunk:
    """Add the table of values that a dictionary plan needs, or fall back from it."""
    if chunk.plan.kind != "dictionary":
        return chunk
    codes, distinct = number_dictionary_of(array)
    if len(distinct) > MAX_NUMBER_DICTIONARY:
        return replace(chunk, plan=FloatPlan() if chunk.kind == FLOAT else IntPlan())
    return _add_table(context, array, chunk, codes, distinct)


def _add_table(
    context: PrepareContext, array: Any, chunk: NumberChunk, codes: NDArray, distinct: NDArray
) -> NumberChunk:
    number = None
    if not context.is_one_page or not _is_tiny(distinct):
        number = context.tables.add(array_from(distinct, array.type))
    return replace(chunk, table=(number, codes, distinct))


def decode_numbers(context: DecodeContext, node: Node, kind: Any, count: int) -> Any:
    """Decode kind 2 or 3 into a fixed-width Arrow array."""
    need_list(node, 3, "number node")
    validity = decode_validity(context.streams, node[1], count)
    width = kind.bit_width // 8
    dtype = f"<f{width}" if node[0] == FLOAT else f"<i{width}"
    buffer, out = allocate(context.budget, count, dtype)
    target = out if not validity.sparse else np.empty(validity.stored, dtype)
    if node[0] == FLOAT:
        decode_floats(context.streams, node[2], len(target), target)
    else:
        decode_integers(context.streams, node[2], len(target), target)
    if validity.sparse:
        scatter(target, validity, out)
    return build_fixed(kind, count, validity.buffer, validity.nulls, buffer)


def scatter(values: NDArray, validity: Validity, out: NDArray) -> None:
    """Write the stored values to the valid slots of ``out``, zero to the others."""
    out[...] = 0
    out[validity.mask()] = values


def decode_decimals(context: DecodeContext, node: Node, kind: Any, count: int) -> Any:
    """Decode kind 4 into decimal128: low words, then their sign."""
    need_list(node, 3, "decimal node")
    validity = decode_validity(context.streams, node[1], count)
    integers = need_integers(node[2])
    if not validity.sparse and integers[0] == frame.CODE:
        values = _gather_decimals(context, integers, count)
        if values is not None:
            return build_fixed(kind, count, validity.buffer, validity.nulls, values)
    buffer, flat = allocate(context.budget, 2 * count, "<i8")
    words = flat.reshape(count, 2)
    low = words[:, 0]
    target = low if not validity.sparse else np.empty(validity.stored, "<i8")
    decode_integers(context.streams, integers, len(target), target)
    if validity.sparse:
        scatter(target, validity, low)
    np.right_shift(low, 63, out=words[:, 1])
    return build_fixed(kind, count, validity.buffer, validity.nulls, buffer)


def _gather_decimals(context: DecodeContext, integers: Node, count: int) -> Any:
    """Look one-byte residuals up among their 256 decimals: a quarter of the arithmetic's time.

    None where the residuals are wider.
    """
    plane = single_plane(integers[3])
    if plane is None:
        return None
    bits, stream = plane
    raw = context.streams.read(stream, packed_bytes(count, bits))
    per = 2 if bits == 4 else 1
    codes = raw if per == 2 else decode_packed(raw, bits, count)
    context.budget.debit(16 * per * len(codes))
    return gather_rows(_decimals_of_byte(*frame.read_frame(integers), per), codes)


@lru_cache(maxsize=64)
def _decimals_of_byte(base: int, gcd: int, per: int) -> Any:
    """Return for each byte the words of its decimal, or of those of its two halves."""
    places = np.arange(256, dtype=np.uint64)
    digits = places[:, None] if per == 1 else np.stack([places & 15, places >> 4], axis=1)
    low = (digits * np.uint64(gcd)).view(np.int64) + np.int64(base)
    return rows_of(np.stack([low, low >> 63], axis=2))


def _codes_of(context: DecodeContext, node: object, count: int) -> NDArray:
    """Return codes: one byte each as they lie in the page, else int32."""
    integers = need_integers(node)
    if integers[0] == frame.CODE and integers[1:3] == [0, 1]:
        plane = single_plane(integers[3])
        if plane is not None:
            bits, stream = plane
            packed = context.streams.read(stream, packed_bytes(count, bits))
            return decode_packed(packed, bits, count)
    codes = scratch(count, np.int32)
    decode_integers(context.streams, integers, count, codes)
    return codes


def decode_number_table(context: DecodeContext, node: Node, kind: Any, count: int) -> Any:
    """Decode codes and look them up in the chunk's or the node's table, bounds-checked."""
    need_list(node, 4, "number table node")
    validity = decode_validity(context.streams, node[1], count)
    if node[0] == OWN_TABLE:
        table = _own_table(node[2], kind.bit_width // 8)
    else:
        table = words_of(context.tables.get(node[2], kind))
    context.budget.debit(count * table.dtype.itemsize)
    values = gather(table, _codes_of(context, node[3], validity.stored))
    if validity.sparse:
        out = np.empty(count, table.dtype)
        scatter(values, validity, out)
        values = out
    return build_fixed(kind, count, validity.buffer, validity.nulls, pa.py_buffer(values))


def _own_table(stored: object, width: int) -> NDArray:
    """Return the words of the values in a node of kind 17."""
    raw = need_bytes(stored, width, _TINY_TABLE * width, "table in the node")
    if len(raw) % width:
        raise Damage(f"table in the node: {len(raw)} bytes are no whole values of {width}")
    return np.frombuffer(raw, f"<i{width}")
