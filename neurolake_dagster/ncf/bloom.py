"""Bloom filters: which values a row group cannot hold. Owns the section `bloom1`, both ways.

The section is msgpack ``[[column, [filter, ...]], ...]``, one filter or nil per row group. A filter
is ``[log2 of the bits, hashes, bytes]``; bit b is bit b % 8 of byte b / 8. A value sets the bits
``(low + i * high) mod bits`` for i below hashes, where low and high are the halves of the xxh3_64
of its bytes, high with its lowest bit set. Bytes of a value: 8 of an integer, date or time
(little-endian, sign-extended) or of a float64, 0.0 for -0.0; those of text and binary as they are.
Nulls and NaN are in no filter.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import msgpack
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from neurolake_dagster.ncf.arrow import bytes_of, words_of
from neurolake_dagster.ncf.checks import NDArray, Node, need_bytes, need_int, need_list
from neurolake_dagster.ncf.column import unpack

SECTION = "bloom1"
_HASHES = 7
_BITS_PER_VALUE = 10
_MIN_LOG2, _MAX_LOG2 = 6, 26
_MAX_HASHES = 16

Filter = tuple[str, str, Any]


@dataclass(frozen=True)
class Bloom:
    """The filter of one column of one row group; ``bits`` is uint8, 2 ** log2 / 8 long."""

    log2: int
    hashes: int
    bits: NDArray

    def may_hold(self, digests: NDArray) -> bool:
        """Tell whether at least one of the values with these hashes may be there."""
        places = _places(digests, self.log2, self.hashes)
        found = (self.bits[places >> 3] >> (places & 7).astype(np.uint8)) & 1
        return bool(found.all(axis=0).any())

    def to_node(self) -> Node:
        """Return the stored form."""
        return [self.log2, self.hashes, self.bits.tobytes()]


def supports(kind: Any) -> bool:
    """Whether values of an Arrow type can be looked up in a filter."""
    types = pa.types
    return bool(
        types.is_integer(kind)
        or (types.is_temporal(kind) and not types.is_interval(kind))
        or types.is_float32(kind)
        or types.is_float64(kind)
        or _is_text(kind)
    )


def _is_text(kind: Any) -> bool:
    types = pa.types
    return bool(
        types.is_string(kind)
        or types.is_large_string(kind)
        or types.is_binary(kind)
        or types.is_large_binary(kind)
    )


def build_bloom(array: Any) -> Bloom | None:
    """Return the filter of an array; None where it would take more than 8 MiB."""
    digests = hash_values(array)
    log2 = max(_MIN_LOG2, (max(len(digests), 1) * _BITS_PER_VALUE - 1).bit_length())
    if log2 > _MAX_LOG2:
        return None
    marks = np.zeros(1 << log2, bool)
    marks[_places(digests, log2, _HASHES)] = True
    return Bloom(log2, _HASHES, np.packbits(marks, bitorder="little"))


def hash_values(array: Any) -> NDArray:
    """Return the hashes of the distinct values of an array, uint64."""
    distinct = pc.unique(array).drop_null()
    if _is_text(array.type):
        offsets, data = bytes_of(distinct)
        raw = memoryview(data.tobytes())
        pieces = [raw[start:stop] for start, stop in pairwise(offsets.tolist())]
    else:
        raw = memoryview(_eight_bytes(distinct).tobytes())
        pieces = [raw[at : at + 8] for at in range(0, len(raw), 8)]
    return np.array([xxhash.xxh3_64_intdigest(piece) for piece in pieces], np.uint64)


def _eight_bytes(distinct: Any) -> NDArray:
    if pa.types.is_floating(distinct.type):
        values = distinct.to_numpy(zero_copy_only=False).astype("<f8")
        return np.unique(values[values == values] + 0.0)
    words = words_of(distinct)
    return np.ascontiguousarray(words if words.dtype == np.uint64 else words.astype("<i8"))


def _places(digests: NDArray, log2: int, hashes: int) -> NDArray:
    """Return the bits that values set, int64, shape ``(hashes, n)``."""
    low = (digests & np.uint64(0xFFFFFFFF)).astype(np.int64)
    high = ((digests >> np.uint64(32)) | np.uint64(1)).astype(np.int64)
    steps = np.arange(hashes, dtype=np.int64)[:, None]
    return (low + steps * high) & ((1 << log2) - 1)


def encode_blooms(blooms: dict[int, list[Bloom | None]]) -> bytes:
    """Return the section of columns by index, with one filter per row group."""
    packed: bytes = msgpack.packb(
        [[i, [None if b is None else b.to_node() for b in groups]] for i, groups in blooms.items()]
    )
    return packed


def decode_blooms(raw: Any, columns: int, groups: int) -> dict[int, list[Bloom | None]]:
    """Check and return a section."""
    found: dict[int, list[Bloom | None]] = {}
    for entry in need_list(unpack(raw, len(raw)), None, "Bloom filters"):
        column, stored = need_list(entry, 2, "Bloom filters of a column")
        need_int(column, 0, columns - 1, "column of Bloom filters")
        filters = need_list(stored, groups, "Bloom filters of a column")
        found[column] = [None if node is None else _bloom(node) for node in filters]
    return found


def _bloom(node: object) -> Bloom:
    log2, hashes, bits = need_list(node, 3, "Bloom filter")
    need_int(log2, _MIN_LOG2, _MAX_LOG2, "Bloom filter bits")
    need_int(hashes, 1, _MAX_HASHES, "Bloom filter hashes")
    size = 1 << (log2 - 3)
    return Bloom(
        log2, hashes, np.frombuffer(need_bytes(bits, size, size, "Bloom filter"), np.uint8)
    )


class Probe:
    """A DNF filter's equalities, hashed once; asked per row group whether it may match.

    Parameters
    ----------
    filters
        ``[(column, op, value), ...]`` or a list of such lists. Of an expression nothing is known:
        Arrow gives no way to take one apart.
    """

    def __init__(self, filters: Any, schema: Any, columns: set[int]) -> None:
        self._branches: list[list[tuple[int, NDArray]]] = []
        if not isinstance(filters, (list, tuple)):
            return
        branches = [filters] if isinstance(filters[0], tuple) else filters
        for branch in branches:
            known = [_equality(part, schema, columns) for part in branch]
            self._branches.append([part for part in known if part is not None])

    def may_match(self, filters: dict[int, Bloom | None]) -> bool:
        """Tell whether a row group with these filters may hold a row that passes."""
        if not self._branches:
            return True
        return any(
            all(_may_hold(filters.get(column), digests) for column, digests in branch)
            for branch in self._branches
        )


def _may_hold(bloom: Bloom | None, digests: NDArray) -> bool:
    return bloom is None or bloom.may_hold(digests)


def _equality(part: Filter, schema: Any, columns: set[int]) -> tuple[int, NDArray] | None:
    """Return the column and hashes of what it must equal; None where that is not known."""
    name, operator, value = part
    column = schema.get_field_index(name)
    if column not in columns or operator not in ("=", "==", "in"):
        return None
    wanted = list(value) if operator == "in" else [value]
    digests = _hash_wanted(wanted, schema.field(column).type)
    return None if digests is None else (column, digests)


def _hash_wanted(wanted: Sequence[Any], kind: Any) -> NDArray | None:
    """Hash Python values as the column holds them; None if one does not convert exactly."""
    plain = [value.as_py() if isinstance(value, pa.Scalar) else value for value in wanted]
    try:
        values = pa.array(plain, kind)
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        return None
    if values.null_count or any(a != b for a, b in zip(values.to_pylist(), plain, strict=True)):
        return None
    return hash_values(values)
