"""All-null pages ``[0]``, booleans ``[1, validity, stream]`` and opaque fixed-width values.

Fixed-width values of any size (fixed_size_binary, wide decimals, month-day-nano intervals):
``[5, validity, transposed, stream]``; transposed means byte 0 of every value first.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from neurolake_dagster.ncf.arrow import (
    aligned,
    bits_of,
    build_dictionary,
    build_fixed,
    build_list,
    build_nested,
    build_runs,
    build_union,
    fixed_bytes_of,
    holds_type,
    offset_dtype,
    validity_of,
)
from neurolake_dagster.ncf.checks import NDArray, Node, need_int, need_list
from neurolake_dagster.ncf.compression import StreamWriter, compressed_size
from neurolake_dagster.ncf.encodings.packing import packed_bytes
from neurolake_dagster.ncf.kinds.context import DecodeContext, PrepareContext
from neurolake_dagster.ncf.kinds.validity import (
    Validity,
    decode_validity,
    encode_validity,
)
from neurolake_dagster.ncf.statistics import Stats, wide_stats

NULL, BOOL, WIDE = 0, 1, 5
_SAMPLE_ROWS = 2048


@dataclass(frozen=True)
class NullChunk:
    """A chunk without a single valid value."""

    def encode(self, streams: StreamWriter, start: int, stop: int) -> Node:  # noqa: ARG002
        """Encode any range: it has no bytes."""
        return [NULL]

    def stats(self, start: int, stop: int) -> Stats:
        """Count the rows as nulls."""
        return Stats(null_count=stop - start)

    def names(self) -> list[str]:
        """Return ``["null"]``."""
        return ["null"]


def decode_null(context: DecodeContext, node: Node, kind: Any, count: int) -> Any:
    """Return ``count`` nulls."""
    need_list(node, 1, "null node")
    if not pa.types.is_null(kind):
        context.budget.debit(count * max(_value_bytes(kind), 1))
    return _build_nulls(kind, count)


def _build_nulls(kind: Any, count: int) -> Any:
    """Return nulls of any type; those of pyarrow 26 are not valid where runs are nested."""
    if isinstance(kind, pa.BaseExtensionType):
        return kind.wrap_array(_build_nulls(kind.storage_type, count))
    if not holds_type(kind, pa.types.is_run_end_encoded):
        return pa.nulls(count, kind)
    if pa.types.is_run_end_encoded(kind):
        ends = np.full(min(count, 1), count, np.int64)
        return build_runs(kind, ends, _build_nulls(kind.value_type, len(ends)), count)
    if pa.types.is_union(kind):
        first, *others = (kind.field(i).type for i in range(kind.num_fields))
        rows = count if kind.mode == "sparse" else 0
        children = [_build_nulls(first, count), *(_build_nulls(one, rows) for one in others)]
        return build_union(kind, np.full(count, kind.type_codes[0], np.int8), children)
    if pa.types.is_dictionary(kind):
        return build_dictionary(
            pa.nulls(count, kind.index_type), _build_nulls(kind.value_type, 0), kind
        )
    validity = Validity(count, count, bits=np.zeros(-(-count // 8), np.uint8))
    if pa.types.is_struct(kind) or pa.types.is_fixed_size_list(kind):
        rows = count if pa.types.is_struct(kind) else count * kind.list_size
        children = [_build_nulls(kind.field(i).type, rows) for i in range(kind.num_fields)]
        return build_nested(kind, count, [validity.buffer], count, children)
    offsets = np.zeros(count + 1, offset_dtype(kind))
    return build_list(kind, count, validity, offsets, lambda child: _build_nulls(child, 0))


def _value_bytes(kind: Any) -> int:
    """Return the bytes per row that an array of nulls of ``kind`` takes, roughly."""
    if pa.types.is_fixed_size_list(kind):
        return int(kind.list_size) * _value_bytes(kind.value_type)
    if pa.types.is_struct(kind) or pa.types.is_union(kind):
        return 5 + sum(_value_bytes(kind.field(i).type) for i in range(kind.num_fields))
    return 16 if pa.types.is_nested(kind) else kind.byte_width if _is_fixed(kind) else 16


def _is_fixed(kind: Any) -> bool:
    return pa.types.is_primitive(kind) and not pa.types.is_boolean(kind)


@dataclass(frozen=True)
class BoolChunk:
    """Booleans as uint8 of 0 and 1."""

    values: NDArray
    mask: NDArray | None

    def encode(self, streams: StreamWriter, start: int, stop: int) -> Node:
        """Encode rows as one bit each; null slots are 0."""
        values, mask = self.values[start:stop], self.mask
        validity = None
        if mask is not None:
            mask = mask[start:stop]
            nulls = len(mask) - int(np.count_nonzero(mask))
            if nulls == len(mask):
                return [NULL]
            if nulls:
                validity = encode_validity(streams, mask, nulls)
                values = values & mask
        return [BOOL, validity, streams.put_plane(np.packbits(values, bitorder="little"))]

    def stats(self, start: int, stop: int) -> Stats:
        """Return whether there is a False and a True among the valid rows."""
        values, nulls = self.values[start:stop], 0
        if self.mask is not None:
            mask = self.mask[start:stop]
            values = values[mask]
            nulls = len(mask) - len(values)
        if not len(values):
            return Stats(null_count=nulls)
        return Stats(null_count=nulls, min=int(values.min()), max=int(values.max()))

    def names(self) -> list[str]:
        """Return ``["bits"]``."""
        return ["bits"]


def prepare_bool(array: Any) -> BoolChunk:
    """Prepare a boolean array."""
    bits = bits_of(array.buffers()[1], array.offset, len(array))
    return BoolChunk(bits, validity_of(array))


def decode_bool(context: DecodeContext, node: Node, kind: Any, count: int) -> Any:
    """Decode booleans: the stream is Arrow's own bitmap."""
    need_list(node, 3, "bool node")
    validity = decode_validity(context.streams, node[1], count)
    context.budget.debit(packed_bytes(count, 1))
    values = context.streams.read_buffer(node[2], packed_bytes(count, 1))
    return build_fixed(kind, count, validity.buffer, validity.nulls, values)


@dataclass(frozen=True)
class WideChunk:
    """Values of any width as rows of bytes, shape ``(n, width)``."""

    values: NDArray
    mask: NDArray | None
    transposed: bool
    order: Literal["numbers", "bytes"] | None

    def encode(self, streams: StreamWriter, start: int, stop: int) -> Node:
        """Encode rows as one stream; null slots are zero bytes."""
        values, mask = self.values[start:stop], self.mask
        validity = None
        if mask is not None:
            mask = mask[start:stop]
            nulls = len(mask) - int(np.count_nonzero(mask))
            if nulls == len(mask):
                return [NULL]
            if nulls:
                validity = encode_validity(streams, mask, nulls)
                values = values * mask[:, None]
        body = np.ascontiguousarray(values.T if self.transposed else values)
        return [WIDE, validity, int(self.transposed), streams.put_plane(body)]

    def stats(self, start: int, stop: int) -> Stats:
        """Return bounds of decimals and bytes; intervals have no order."""
        values, nulls = self.values[start:stop], 0
        if self.mask is not None:
            values = values[self.mask[start:stop]]
            nulls = stop - start - len(values)
        if self.order is None or not values.size:
            return Stats(null_count=nulls)
        return wide_stats(values, nulls, numbers=self.order == "numbers")

    def names(self) -> list[str]:
        """Return ``["transposed"]`` or ``["plain"]``."""
        return ["transposed" if self.transposed else "plain"]


def prepare_wide(context: PrepareContext, array: Any) -> WideChunk:
    """Prepare a fixed-width array; a sample says whether transposing helps."""
    values = fixed_bytes_of(array)
    head = values[:_SAMPLE_ROWS]
    transposed = False
    if context.profile.plane_level and values.shape[1] > 1:
        rows = compressed_size(np.ascontiguousarray(head))
        transposed = compressed_size(np.ascontiguousarray(head.T)) < 0.97 * rows
    return WideChunk(values, validity_of(array), transposed, _order_of(array.type))


def _order_of(kind: Any) -> Literal["numbers", "bytes"] | None:
    if pa.types.is_fixed_size_binary(kind):
        return "bytes"
    return "numbers" if pa.types.is_decimal(kind) else None


def decode_wide(context: DecodeContext, node: Node, kind: Any, count: int) -> Any:
    """Decode fixed-width values."""
    need_list(node, 4, "wide node")
    validity = decode_validity(context.streams, node[1], count)
    width = kind.bit_width // 8
    context.budget.debit(count * width)
    if need_int(node[2], 0, 1, "transposed") and count and width:
        body = context.streams.read(node[3], count * width)
        values = pa.py_buffer(np.ascontiguousarray(body.reshape(width, count).T))
    else:
        values = aligned(context.streams.read_buffer(node[3], count * width))
    return build_fixed(kind, count, validity.buffer, validity.nulls, values)
