"""Strings and binary: plain ``[7, validity, lengths, data_bytes, stream]`` and nibbles.

Nibbles are ``[8, validity, lengths, data_bytes, body]``, the body as in encodings/nibbles.py.
Lengths are an integer node, one per row; they add up to ``data_bytes``. Null slots have a
length too, as a rule 0. Dictionaries of strings are in text_table.py.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from neurolake_dagster.ncf.arrow import (
    as_buffer,
    build_bytes,
    bytes_of,
    fixed_offsets,
    offset_dtype,
    validity_of,
)
from neurolake_dagster.ncf.checks import Damage, NDArray, Node, need_int, need_list
from neurolake_dagster.ncf.compression import StreamReader, StreamWriter
from neurolake_dagster.ncf.encodings import constant, frame
from neurolake_dagster.ncf.encodings.frame import add_base
from neurolake_dagster.ncf.encodings.integers import (
    decode_integers,
    encode_integers,
    need_integers,
)
from neurolake_dagster.ncf.encodings.nibbles import decode_nibbles, encode_nibbles
from neurolake_dagster.ncf.encodings.planes import decode_planes
from neurolake_dagster.ncf.kinds.context import DecodeContext, PrepareContext, Prepared
from neurolake_dagster.ncf.kinds.flat import NULL
from neurolake_dagster.ncf.kinds.text_table import prepare_text_table
from neurolake_dagster.ncf.kinds.validity import decode_validity, encode_validity
from neurolake_dagster.ncf.planning.text import TextPlan, has_few_texts, plan_text
from neurolake_dagster.ncf.statistics import Stats, text_stats

TEXT, NIBBLES = 7, 8
_LARGE_BYTES = 1 << 40
# A table of fewer strings is not worth a plan.
_MIN_TABLE = 256


@dataclass(frozen=True)
class TextChunk:
    """Strings of one chunk, stored as characters."""

    array: Any
    offsets: NDArray
    data: NDArray
    mask: NDArray | None
    plan: TextPlan

    def encode(self, streams: StreamWriter, start: int, stop: int) -> Node:
        """Encode rows as one array node."""
        validity = None
        if self.mask is not None:
            mask = self.mask[start:stop]
            nulls = len(mask) - int(np.count_nonzero(mask))
            if nulls == len(mask):
                return [NULL]
            validity = encode_validity(streams, mask, nulls) if nulls else None
        window = self.offsets[start : stop + 1]
        body = self.data[int(window[0]) : int(window[-1])]
        lengths = encode_integers(streams, np.diff(window), self.plan.lengths)
        if self.plan.kind == "nibbles":
            packed = self._encode_nibbles(streams, body, lengths, stop - start)
            if packed is not None:
                return [NIBBLES, validity, lengths, len(body), packed]
        return [TEXT, validity, lengths, len(body), streams.put(body, self._level(streams))]

    def _level(self, streams: StreamWriter) -> int:
        if self.plan.kind == "plain":
            return self.plan.level
        return streams.profile.text_level

    def _encode_nibbles(
        self, streams: StreamWriter, body: NDArray, lengths: Node, count: int
    ) -> Node | None:
        plan = self.plan
        if plan.constant is None:
            return encode_nibbles(streams, body, plan.alphabet, None, plan.level)
        if lengths != [constant.CODE, len(plan.constant)]:
            return None
        rows = body.reshape(count, len(plan.constant))
        return encode_nibbles(streams, rows, plan.alphabet, plan.constant, plan.level)

    def stats(self, start: int, stop: int) -> Stats:
        """Return bounds in bytes, cut to 32."""
        return text_stats(self.array.slice(start, stop - start))

    def names(self) -> list[str]:
        """Return the encoding of the characters, then that of their lengths."""
        return [self.plan.kind, self.plan.lengths.kind]


def prepare_text(context: PrepareContext, array: Any) -> Prepared:
    """Prepare a (large) string or binary array."""
    at_sight = context.share_values and context.profile.plans_at_sight(len(array))
    if at_sight and has_few_texts(array):
        table = prepare_text_table(context, array)
        if table is not None:
            return table
    if context.share_values or len(array) >= _MIN_TABLE:
        plan = plan_text(array, context.profile, dictionary=context.share_values)
    else:
        plan = TextPlan(level=context.profile.text_level)
    if plan.kind == "dictionary":
        table = prepare_text_table(context, array)
        if table is not None:
            return table
        plan = TextPlan(level=context.profile.text_level)
    offsets, data = bytes_of(array)
    return TextChunk(array, offsets, data, validity_of(array), plan)


def decode_text(context: DecodeContext, node: Node, kind: Any, count: int) -> Any:
    """Decode kind 7 or 8 into a (large) string or binary array."""
    need_list(node, 5, "text node")
    validity = decode_validity(context.streams, node[1], count)
    dtype = offset_dtype(kind)
    limit = (1 << 31) - 1 if dtype.itemsize == 4 else _LARGE_BYTES
    data_bytes = need_int(node[3], 0, limit, "characters")
    context.budget.debit((count + 1) * dtype.itemsize)
    offsets = decode_offsets(context.streams, node[2], count, dtype, data_bytes)
    data: Any
    if node[0] == NIBBLES:
        body = decode_nibbles(context.streams, node[4], count, data_bytes, context.budget)
        data = as_buffer(body)
    else:
        context.budget.debit(data_bytes)
        data = context.streams.read_buffer(node[4], data_bytes)
    return build_bytes(kind, count, validity.buffer, validity.nulls, offsets, data)


def decode_offsets(
    streams: StreamReader, node: object, count: int, dtype: np.dtype[Any], total: int
) -> NDArray:
    """Return ``count + 1`` offsets of lengths that must add up to ``total``.

    Parameters
    ----------
    dtype
        int32 or int64; ``total`` fits in it.

    Returns
    -------
    Perhaps shared with other arrays: not to be written to.
    """
    lengths = need_integers(node)
    if lengths[0] == constant.CODE:
        length = need_int(lengths[1], 0, total, "length")
        if length * count != total:
            raise Damage(f"lengths: {count} times {length} is not {total}")
        return fixed_offsets(count, length, dtype.str)
    offsets = np.empty(count + 1, dtype)
    offsets[0] = 0
    if lengths[0] == frame.CODE and lengths[2] == 1:
        base = need_int(lengths[1], 0, total, "shortest length")
        _sum_frame(decode_planes(streams, lengths[3], count), base, total, offsets)
    else:
        wide = np.empty(count, np.int64)
        decode_integers(streams, lengths, count, wide)
        if count and (int(wide.min()) < 0 or int(wide.max()) > total):
            raise Damage(f"lengths: one lies outside 0..{total}")
        np.cumsum(wide, out=wide)
        if (np.diff(wide) < 0).any():
            raise Damage("lengths: their sum overflows")
        offsets[1:] = wide
        total_found = int(wide[-1]) if count else 0
        _check_total(total_found, total)
    _check_total(int(offsets[-1]), total)
    return offsets


def _check_total(found: int, total: int) -> None:
    if found != total:
        raise Damage(f"lengths: they add up to {found}, expected {total}")


def _sum_frame(residual: NDArray | None, base: int, total: int, offsets: NDArray) -> None:
    """Write the sums of ``base + residual`` to ``offsets``, whose first is 0."""
    count = len(offsets) - 1
    if residual is None:
        _check_total(base * count, total)
        offsets[1:] = np.arange(1, count + 1, dtype=offsets.dtype) * base
        return
    highest = int(residual.max()) if count else 0
    if (highest + base) * count >= 1 << (8 * offsets.itemsize - 1):
        # The sum could wrap around unnoticed: add it up exactly first.
        if highest > total:
            raise Damage(f"lengths: {highest} is more than all {total}")
        _check_total(int(residual.sum(dtype=np.uint64)) + base * count, total)
    add_base(residual, base, 1, offsets[1:])
    np.add.accumulate(offsets, out=offsets)
