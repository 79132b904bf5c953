"""Strings through a table of the chunk: ``[9, validity, table, codes]``.

Codes are an integer node, in order of first appearance; null slots have some valid code. A
tiny table with packed codes is decoded two, four or eight strings at a time (`super_table`).
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from neurolake_dagster.ncf.arrow import (
    as_buffer,
    build_bytes,
    bytes_of,
    concat_texts,
    dictionary_of,
    fixed_offsets,
    fixed_text_of,
    gather,
    join_texts,
    lengths_of,
    offset_dtype,
    repeat_rows,
    run_decode,
    take_texts,
    validity_of,
    with_validity,
)
from neurolake_dagster.ncf.checks import Damage, NDArray, Node, need_list
from neurolake_dagster.ncf.compression import StreamWriter
from neurolake_dagster.ncf.encodings import frame, runs
from neurolake_dagster.ncf.encodings.integers import (
    FRAME,
    IntPlan,
    decode_integers,
    decode_runs,
    encode_integers,
    need_integers,
)
from neurolake_dagster.ncf.encodings.packing import decode_packed, packed_bytes
from neurolake_dagster.ncf.encodings.planes import single_plane
from neurolake_dagster.ncf.kinds.context import DecodeContext, PrepareContext
from neurolake_dagster.ncf.kinds.flat import NULL
from neurolake_dagster.ncf.kinds.validity import Validity, decode_validity, encode_validity
from neurolake_dagster.ncf.planning.integers import plan_integers
from neurolake_dagster.ncf.statistics import Ranking, Stats, build_ranking

TEXT_TABLE = 9
# Longer groups would make a table that no cache holds.
_MAX_GROUP_BYTES = 255
_IMPOSSIBLE_LENGTH = 255
_MAX_NIBBLE_BASE = 9
_MAX_GROUPED = 16
_MIN_SUPER_ROWS = 65536
_MIN_ROWS_PER_RUN = 16


@dataclass(frozen=True)
class TextTableChunk:
    """Strings of one chunk as codes (int32) into a table.

    Parameters
    ----------
    ranking
        The order of the table's strings; None if there are too many.
    """

    number: int
    codes: NDArray
    mask: NDArray | None
    plan: IntPlan
    ranking: Ranking | None

    def encode(self, streams: StreamWriter, start: int, stop: int) -> Node:
        """Encode rows as one array node."""
        validity = None
        if self.mask is not None:
            mask = self.mask[start:stop]
            nulls = len(mask) - int(np.count_nonzero(mask))
            if nulls == len(mask):
                return [NULL]
            validity = encode_validity(streams, mask, nulls) if nulls else None
        codes = encode_integers(streams, self.codes[start:stop], self.plan)
        return [TEXT_TABLE, validity, self.number, codes]

    def stats(self, start: int, stop: int) -> Stats:
        """Return bounds in bytes of the strings used, where the table is ranked."""
        codes, nulls = valid_codes(self.codes, self.mask, start, stop)
        if not len(codes) or self.ranking is None:
            return Stats(null_count=nulls)
        if (start, stop) == (0, len(self.codes)):
            # The table was made of these rows: they use all of it.
            codes = np.arange(len(self.ranking.ranks))
        return self.ranking.stats(codes, nulls)

    def names(self) -> list[str]:
        """Return ``dictionary``, then the encoding of the codes."""
        return ["dictionary", self.plan.kind]


def valid_codes(codes: NDArray, mask: NDArray | None, start: int, stop: int) -> tuple[NDArray, int]:
    """Return the codes of the valid rows among ``start..stop``, and how many are null."""
    codes = codes[start:stop]
    if mask is None:
        return codes, 0
    codes = codes[mask[start:stop]]
    return codes, stop - start - len(codes)


def prepare_text_table(context: PrepareContext, array: Any) -> TextTableChunk | None:
    """Prepare a string array as codes; None if it has too many distinct values after all."""
    codes, table = dictionary_of(array)
    if len(table) > len(array) // 2 + 16:
        return None
    plan = plan_integers(codes, None, context.profile) if len(table) > 1 else FRAME
    if len(table) <= _MAX_GROUPED and plan.kind != "frame" and not _has_long_runs(codes):
        # Packed codes are read several at a time: worth more than a few bytes.
        plan = FRAME
    number = context.tables.add(table)
    return TextTableChunk(number, codes, validity_of(array), plan, build_ranking(table))


def _has_long_runs(codes: NDArray) -> bool:
    changes = int(np.count_nonzero(codes[1:] != codes[:-1]))
    return changes * _MIN_ROWS_PER_RUN < len(codes)


def decode_text_table(context: DecodeContext, node: Node, kind: Any, count: int) -> Any:
    """Decode codes and look the strings up, by the cheapest way their encoding allows."""
    need_list(node, 4, "text table node")
    validity = decode_validity(context.streams, node[1], count)
    number, codes = node[2], need_integers(node[3])
    table = context.tables.get(number, kind)
    if table.null_count:
        raise Damage("text table: holds nulls")
    decoded = _decode_groups(context, number, table, codes, validity)
    if decoded is not None:
        return decoded
    fixed = _fixed_table(context, number, table)
    if codes[0] == runs.CODE and type(codes[1]) is int and codes[1] * _MIN_ROWS_PER_RUN <= count:
        found = decode_runs(context.streams, codes, count, np.dtype(np.int32))
        if fixed is not None:
            context.budget.debit(count * fixed.type.byte_width)
            data = repeat_rows(fixed, found.values, found.lengths)
            return _build_fixed_texts(data, fixed.type.byte_width, kind, validity)
        context.budget.debit(count * _longest(context, number, table))
        texts = run_decode(found.ends, take_texts(table, found.values))
        return with_validity(texts, validity.buffer, validity.nulls)
    flat = np.empty(count, _code_dtype(len(table)))
    decode_integers(context.streams, codes, count, flat)
    unsigned = flat.view(f"<u{flat.itemsize}")
    context.budget.debit(count * (_longest(context, number, table) + offset_dtype(kind).itemsize))
    if fixed is not None:
        data = take_texts(fixed, unsigned).buffers()[1]
        return _build_fixed_texts(data, fixed.type.byte_width, kind, validity)
    return with_validity(take_texts(table, unsigned), validity.buffer, validity.nulls)


def _code_dtype(size: int) -> str:
    return "<i1" if size <= 1 << 8 else "<i2" if size <= 1 << 16 else "<i4"


def _longest(context: DecodeContext, number: object, table: Any) -> int:
    lengths = context.tables.keep(("lengths", number), lambda: lengths_of(table))
    return int(lengths.max()) if len(lengths) else 0


def _build_fixed_texts(data: Any, width: int, kind: Any, validity: Validity) -> Any:
    """Return strings of ``width`` bytes each."""
    offsets = fixed_offsets(validity.rows, width, offset_dtype(kind).str)
    return build_bytes(kind, validity.rows, validity.buffer, validity.nulls, offsets, data)


def _decode_groups(
    context: DecodeContext, number: object, table: Any, codes: Node, validity: Validity
) -> Any:
    """Decode packed codes of a tiny table several at a time; None where that does not apply."""
    count = validity.rows
    if codes[0] != frame.CODE or codes[1:3] != [0, 1] or count < _MIN_SUPER_ROWS:
        return None
    packed = single_plane(codes[3])
    if packed is None or packed[0] == 8 or not 0 < len(table) <= _MAX_GROUPED:
        return None
    bits, stream = packed
    base, per = (len(table), 4) if bits == 4 else (1 << bits, 8 // bits)
    longest = _longest(context, number, table)
    if (bits == 4 and base > _MAX_NIBBLE_BASE) or longest * per >= _MAX_GROUP_BYTES:
        return None
    if _IMPOSSIBLE_LENGTH * count >= 1 << 31:
        return None
    raw = context.streams.read(stream, packed_bytes(count, bits))
    groups, group_lengths = context.tables.keep(
        ("groups", number, bits), lambda: super_table(table, base, per)
    )
    whole = count // per
    keys = _group_keys(raw, bits, base, whole)
    lengths = gather(group_lengths, keys)
    rest = decode_packed(raw, bits, count)[whole * per :] if count % per else None
    fixed = _fixed_table(context, number, table)
    if fixed is not None:
        if (lengths != group_lengths[0]).any():
            raise Damage(f"codes: one is not below the {len(table)} strings of the table")
        wide = context.tables.keep(("wide", number, bits), lambda: fixed_text_of(groups))
        return _take_groups(context, wide, keys, fixed, rest, table.type, validity)
    offsets = np.empty(count + 1, offset_dtype(table.type))
    offsets[0] = 0
    offsets[1 : whole * per + 1] = lengths.view(np.uint8)
    np.add.accumulate(offsets[: whole * per + 1], out=offsets[: whole * per + 1])
    context.budget.debit(offsets.nbytes + int(offsets[whole * per]))
    data = take_texts(groups, keys).buffers()[2]
    if (data.size if data else 0) != int(offsets[whole * per]):
        raise Damage(f"codes: one is not below the {len(table)} strings of the table")
    if rest is not None:
        data = _append_rest(table, rest, offsets, whole * per, data)
    return build_bytes(
        table.type, count, validity.buffer, validity.nulls, offsets, data or as_buffer(b"")
    )


def _fixed_table(context: DecodeContext, number: object, table: Any) -> Any:
    """Return a table whose strings are equally long as fixed_size_binary, else None."""
    return context.tables.keep(("fixed", number), lambda: fixed_text_of(table))


def _take_groups(
    context: DecodeContext,
    groups: Any,
    keys: NDArray,
    fixed: Any,
    rest: NDArray | None,
    kind: Any,
    validity: Validity,
) -> Any:
    """Look groups of strings of one length up, then the strings after the last whole group."""
    width = fixed.type.byte_width
    context.budget.debit(validity.rows * (width + offset_dtype(kind).itemsize))
    data = take_texts(groups, keys).buffers()[1]
    if rest is not None:
        tail = np.frombuffer(take_texts(fixed, rest).buffers()[1], np.uint8, len(rest) * width)
        data = concat_texts(data, len(keys) * groups.type.byte_width, tail)
    return _build_fixed_texts(data, width, kind, validity)


def _append_rest(table: Any, codes: NDArray, offsets: NDArray, at: int, data: Any) -> Any:
    """Append the strings of the last, incomplete group."""
    tail = take_texts(table, codes)
    tail_offsets, tail_data = bytes_of(tail)
    offsets[at + 1 :] = offsets[at] + tail_offsets[1:]
    return concat_texts(data, int(offsets[at]), tail_data[: int(tail_offsets[-1])])


def _group_keys(raw: NDArray, bits: int, base: int, groups: int) -> NDArray:
    """Return for each whole group its place in the super table."""
    if bits < 4:
        return raw[:groups]
    if len(raw) % 2:
        raw = np.append(raw, np.uint8(0))
    return gather(_nibble_keys(base), raw.view("<u2")[:groups])


@lru_cache(maxsize=_MAX_NIBBLE_BASE + 1)
def _nibble_keys(base: int) -> NDArray:
    """Return for each uint16 of four nibbles its number to ``base``; base**4 = impossible."""
    words = np.arange(1 << 16)
    keys = np.zeros(1 << 16, np.int64)
    wrong = np.zeros(1 << 16, bool)
    for place in range(4):
        digit = (words >> (4 * place)) & 15
        wrong |= digit >= base
        keys += digit * base**place
    keys[wrong] = base**4
    return keys.astype("<u2")


def super_table(table: Any, base: int, per: int) -> tuple[Any, NDArray]:
    """Return all concatenations of ``per`` strings, and their lengths.

    The lengths of a group are the bytes of one word. Codes from ``len(table)`` to ``base`` have no
    string. Their groups state lengths that no group has, so the total gives them away.
    """
    keys = np.arange(base**per)
    own = lengths_of(table)
    lengths = np.zeros((base**per, per), np.int64)
    columns = []
    for place in range(per):
        digit = (keys // base**place) % base
        known = np.minimum(digit, len(table) - 1)
        columns.append(take_texts(table, known))
        lengths[:, place] = np.where(digit < len(table), own[known], _IMPOSSIBLE_LENGTH)
    words = lengths.astype(np.uint8).view(f"<u{per}")
    return join_texts(columns, table.type), words.ravel()
