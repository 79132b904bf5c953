"""Bloom filters: which values a row group cannot hold. Owns their sections, both ways.

The section ``bloom.N`` of the column at place N is msgpack: per row group a filter or nil. A filter
is ``[log2 of the bits, hashes, bytes]``; bit b is bit b % 8 of byte b / 8. A value sets the bits
``(low + i * high) mod bits`` for i below hashes, where low and high are the halves of the xxh3_64
of its bytes, high with its lowest bit set. Bytes of a value: 8 of an integer, date or time
(little-endian, sign-extended) or of a float64, 0.0 for -0.0; 16 of a decimal, or 32 of decimal256;
those of text and binary as they are. Nulls and NaN are in no filter.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import msgpack
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from neurolake_dagster.ncf.arrow import (
    bytes_of,
    convert_exactly,
    fixed_bytes_of,
    is_text,
    numbers_of,
    plain_of,
    plain_type,
    words_of,
)
from neurolake_dagster.ncf.checks import NDArray, Node, need_bytes, need_int, need_list
from neurolake_dagster.ncf.column import unpack
from neurolake_dagster.ncf.expressions import Call, Literal, Reference, Tree

types = pa.types
_SECTION = "bloom."
_HASHES = 7
_BITS_PER_VALUE = 10
_MIN_LOG2, _MAX_LOG2 = 6, 26
_MAX_HASHES = 16


def section_name(column: int) -> str:
    """Return the name of a column's section."""
    return f"{_SECTION}{column}"


@dataclass(frozen=True)
class Bloom:
    """The filter of one column of one row group; ``bits`` is uint8, 2 ** log2 / 8 long."""

    log2: int
    hashes: int
    bits: NDArray

    def may_hold(self, digests: NDArray) -> NDArray:
        """Tell for each of the values with these hashes whether it may be there."""
        places = _places(digests, self.log2, self.hashes)
        found = (self.bits[places >> 3] >> (places & 7).astype(np.uint8)) & 1
        held: NDArray = found.all(axis=0)
        return held

    def to_node(self) -> Node:
        """Return the stored form."""
        return [self.log2, self.hashes, self.bits.tobytes()]


def supports(kind: Any) -> bool:
    """Whether values of an Arrow type can be looked up in a filter."""
    kind = plain_type(kind)
    return bool(
        types.is_integer(kind)
        or (types.is_temporal(kind) and not types.is_interval(kind))
        or types.is_floating(kind)
        or _is_rows(kind)
        or is_text(kind)
    )


def _is_rows(kind: Any) -> bool:
    return bool(types.is_decimal(kind) or types.is_fixed_size_binary(kind))


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
    distinct = pc.unique(plain_of(array)).drop_null()
    if is_text(distinct.type):
        offsets, data = bytes_of(distinct)
        raw = memoryview(data.tobytes())
        pieces = [raw[start:stop] for start, stop in pairwise(offsets.tolist())]
    else:
        rows = fixed_bytes_of(distinct) if _is_rows(distinct.type) else _eight_bytes(distinct)
        raw, width = memoryview(rows.tobytes()), rows[:1].nbytes
        pieces = [raw[row * width : (row + 1) * width] for row in range(len(rows))]
    return np.array([xxhash.xxh3_64_intdigest(piece) for piece in pieces], np.uint64)


def _eight_bytes(distinct: Any) -> NDArray:
    if types.is_floating(distinct.type):
        with np.errstate(invalid="ignore"):
            values = numbers_of(distinct).astype("<f8")
        return np.unique(values[values == values] + 0.0)
    words = words_of(distinct)
    return np.ascontiguousarray(words if words.dtype == np.uint64 else words.astype("<i8"))


def _places(digests: NDArray, log2: int, hashes: int) -> NDArray:
    """Return the bits that values set, int64, shape ``(hashes, n)``."""
    low = (digests & np.uint64(0xFFFFFFFF)).astype(np.int64)
    high = ((digests >> np.uint64(32)) | np.uint64(1)).astype(np.int64)
    steps = np.arange(hashes, dtype=np.int64)[:, None]
    return (low + steps * high) & ((1 << log2) - 1)


def encode_blooms(blooms: Sequence[Bloom | None]) -> bytes:
    """Return the section of a column, with one filter per row group."""
    packed: bytes = msgpack.packb([None if bloom is None else bloom.to_node() for bloom in blooms])
    return packed


def decode_blooms(raw: Any, groups: int) -> list[Bloom | None]:
    """Check and return a section."""
    stored = need_list(unpack(raw, len(raw)), groups, "Bloom filters of a column")
    return [None if node is None else _bloom(node) for node in stored]


def _bloom(node: object) -> Bloom:
    log2, hashes, bits = need_list(node, 3, "Bloom filter")
    need_int(log2, _MIN_LOG2, _MAX_LOG2, "Bloom filter bits")
    need_int(hashes, 1, _MAX_HASHES, "Bloom filter hashes")
    size = 1 << (log2 - 3)
    return Bloom(
        log2, hashes, np.frombuffer(need_bytes(bits, size, size, "Bloom filter"), np.uint8)
    )


@dataclass(frozen=True)
class Lookup:
    """The values that a column must equal one of, hashed once."""

    column: int
    digests: NDArray

    def may_match(self, filter_of: Callable[[int], Bloom | None]) -> bool:
        """Tell whether a row group may hold one, given its filters by column."""
        bloom = filter_of(self.column)
        return bloom is None or bool(bloom.may_hold(self.digests).any())


@dataclass(frozen=True)
class Lookups:
    """Several lookups, all of which a matching row group passes, or one of which."""

    every: bool
    parts: Sequence["Lookup | Lookups"]

    def may_match(self, filter_of: Callable[[int], Bloom | None]) -> bool:
        """Tell whether a row group may hold a row that passes."""
        found = (part.may_match(filter_of) for part in self.parts)
        return all(found) if self.every else any(found)


def find_lookups(tree: Tree | None, schema: Any, columns: set[int]) -> Lookup | Lookups | None:
    """Return what a filter expression demands of columns that have filters; None if nothing."""
    if not isinstance(tree, Call):
        return None
    name = tree.function.removesuffix("_kleene")
    if name in ("and", "or"):
        parts = [find_lookups(part, schema, columns) for part in tree.arguments]
        known = [part for part in parts if part is not None]
        enough = known if name == "and" else len(known) == len(parts)
        return Lookups(name == "and", known) if enough else None
    match tree:
        case Call("equal" | "is_in", (Reference(column, False), Literal(values))):
            return _lookup(column, values, schema, columns)
        case Call("equal", (Literal(values), Reference(column, False))):
            return _lookup(column, values, schema, columns)
    return None


def _lookup(name: str, values: Any, schema: Any, columns: set[int]) -> Lookup | None:
    column = schema.get_field_index(name)
    if column not in columns:
        return None
    wanted = convert_exactly(plain_of(values), plain_type(schema.field(column).type))
    return None if wanted is None else Lookup(column, hash_values(wanted))
