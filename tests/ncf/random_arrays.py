"""Random Arrow arrays of any type, nested or not, in the shapes that encoders look for."""

import random
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa

LEAVES = [
    pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32(),
    pa.uint64(), pa.float16(), pa.float32(), pa.float64(), pa.bool_(), pa.date32(), pa.date64(),
    pa.time32("s"), pa.time64("us"), pa.timestamp("ns", "UTC"), pa.duration("ms"), pa.string(),
    pa.large_string(), pa.string_view(), pa.binary(), pa.binary_view(), pa.binary(7), pa.binary(0),
    pa.decimal32(6, 2), pa.decimal64(14, 0), pa.decimal128(20, 3), pa.decimal256(50, 5),
    pa.month_day_nano_interval(), pa.null(),
]  # fmt: skip


def random_type(chance: random.Random, depth: int = 0) -> pa.DataType:
    if depth > 2 or chance.random() < 0.6:
        return chance.choice(LEAVES)
    child = random_type(chance, depth + 1)
    kind = chance.randrange(7)
    if kind == 0:
        return pa.list_(child)
    if kind == 1:
        return pa.large_list(child)
    if kind == 2:
        return pa.list_(child, chance.randint(1, 3))
    if kind == 3:
        return pa.list_view(child)
    if kind == 4:
        return pa.map_(chance.choice([pa.string(), pa.int32()]), child)
    if kind == 5 and not pa.types.is_null(child) and not pa.types.is_nested(child):
        return pa.dictionary(pa.int16(), pa.string())
    count = chance.randrange(4)
    return pa.struct([(f"f{i}", random_type(chance, depth + 1)) for i in range(count)])


def _words(chance: random.Random, n: int, bits: int, *, signed: bool) -> np.ndarray:
    """Integers in one of the shapes that have an encoding of their own."""
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1)) if signed else (0, 2**bits)
    generator = np.random.default_rng(chance.randrange(2**32))
    dtype = np.dtype(f"{'i' if signed else 'u'}{bits // 8}")
    span = chance.choice([1, 2, 3, 15, 100, 1000, 2**20, 2**40, 2**62])
    base = chance.choice([0, low, high - 1, chance.randrange(low, high)])
    kind = chance.randrange(7)
    with np.errstate(over="ignore"):
        if kind == 0:
            found = generator.integers(0, span, n)
        elif kind == 1:
            found = np.full(n, base % 2**63)
        elif kind == 2:
            found = np.arange(n) * chance.choice([1, -1, 7, 86_400_000, 2**40])
        elif kind == 3:
            found = np.cumsum(generator.integers(-span, span + 1, n))
        elif kind == 4:
            found = np.repeat(generator.integers(0, span, n), chance.choice([3, 10, 50]))[:n]
        elif kind == 5:
            found = generator.choice(generator.integers(-(2**62), 2**62, 5), n)
        else:
            found = generator.integers(0, 2**63 - 1, n) * chance.choice([1, 100, 1000])
        return (found.astype(np.int64) + np.int64(base % 2**63)).astype(dtype)


def _floats(chance: random.Random, n: int) -> np.ndarray:
    generator = np.random.default_rng(chance.randrange(2**32))
    kind = chance.randrange(5)
    if kind == 0:
        found = np.round(generator.normal(size=n) * 1000, chance.randrange(6))
    elif kind == 1:
        found = generator.normal(size=n)
    elif kind == 2:
        found = generator.integers(0, 2**63, n).view(np.float64)
    elif kind == 3:
        found = generator.choice([0.1, -0.0, 0.0, 1e300, 5e-324], n)
    else:
        found = np.arange(n) / 4
    if n and chance.random() < 0.5:
        for odd in (np.nan, -0.0, np.inf, -np.inf):
            found[chance.randrange(n)] = odd
    return found


def _texts(chance: random.Random, n: int) -> list[str]:
    kind = chance.randrange(6)
    if kind == 0:
        return [chance.choice(["", "red", "blåbär", "x" * 40]) for _ in range(n)]
    if kind == 1:
        return [f"{chance.randrange(2**32):08x}-{i % 16:x}" for i in range(n)]
    if kind == 2:
        return [
            chr(chance.choice([97, 228, 26481, 128512])) * chance.randrange(9) for _ in range(n)
        ]
    if kind == 3:
        return [str(i * 7919 % 10007) for i in range(n)]
    if kind == 4:
        return ["y" * 33 + chr(chance.randrange(1000, 1010)) for _ in range(n)]
    return [chance.choice("abcdefghij") for _ in range(n)]


def random_array(chance: random.Random, kind: pa.DataType, n: int) -> pa.Array:
    """Return `n` rows of `kind`, some of them null."""
    share = chance.choice([0, 0, 0.01, 0.3, 0.9, 1])
    types = pa.types
    mask = np.array([chance.random() < share for _ in range(n)], bool)
    if types.is_null(kind):
        return pa.nulls(n)
    if types.is_dictionary(kind):
        return random_array(chance, kind.value_type, n).dictionary_encode().cast(kind)
    if types.is_nested(kind):
        return _nested(chance, kind, n, mask)
    if types.is_boolean(kind):
        return pa.array([chance.random() < 0.5 for _ in range(n)], kind, mask=mask)
    if types.is_floating(kind):
        with np.errstate(all="ignore"):
            values = _floats(chance, n).astype(f"f{kind.bit_width // 8}")
        return pa.array(values, kind, mask=mask, from_pandas=False)
    if types.is_decimal(kind):
        top = 10 ** min(kind.precision, 17)
        values = [Decimal(chance.randrange(-top + 1, top)).scaleb(-kind.scale) for _ in range(n)]
        return pa.array([None if m else v for v, m in zip(values, mask, strict=True)], kind)
    if types.is_interval(kind):
        values = [
            pa.MonthDayNano([chance.randrange(99), i, chance.randrange(2**40)]) for i in range(n)
        ]
        return pa.array([None if m else v for v, m in zip(values, mask, strict=True)], kind)
    if types.is_fixed_size_binary(kind):
        values = [chance.randbytes(kind.byte_width) for _ in range(n)]
        return pa.array([None if m else v for v, m in zip(values, mask, strict=True)], kind)
    if kind in (pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.binary_view()):
        values = _texts(chance, n)
        return pa.array([None if m else v for v, m in zip(values, mask, strict=True)]).cast(kind)
    return _temporal_or_integer(chance, kind, n, mask)


def _temporal_or_integer(
    chance: random.Random, kind: pa.DataType, n: int, mask: np.ndarray
) -> pa.Array:
    if pa.types.is_integer(kind):
        signed = pa.types.is_signed_integer(kind)
        return pa.array(_words(chance, n, kind.bit_width, signed=signed), kind, mask=mask)
    words = _words(chance, n, kind.bit_width, signed=True)
    # What Python's own dates hold: tests compare as Python values where types are nested.
    if pa.types.is_time(kind):
        words = words % 86_400
    elif kind.bit_width == 32:
        words = words % 2_900_000
    else:
        words = words % 2**46
    if pa.types.is_date64(kind):
        words = words // 86_400_000 * 86_400_000
    storage = pa.int32() if kind.bit_width == 32 else pa.int64()
    return pa.array(words, storage, mask=mask).view(kind)


def _nested(chance: random.Random, kind: pa.DataType, n: int, mask: np.ndarray) -> pa.Array:
    nulls = pa.array(mask)
    if pa.types.is_struct(kind):
        fields = [kind.field(i) for i in range(kind.num_fields)]
        if not fields:
            return pa.array([None if m else {} for m in mask], kind)
        children = [random_array(chance, field.type, n) for field in fields]
        return pa.StructArray.from_arrays(children, fields=fields, mask=nulls)
    if pa.types.is_fixed_size_list(kind):
        child = random_array(chance, kind.value_type, n * kind.list_size)
        return pa.FixedSizeListArray.from_arrays(child, type=kind, mask=nulls)
    lengths = np.array([chance.choice([0, 1, 2, 5]) for _ in range(n)], np.int64)
    rows = int(lengths.sum())
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    if pa.types.is_map(kind):
        keys = random_array(chance, kind.key_type, rows)
        keys = pa.array(
            [str(i) if kind.key_type == pa.string() else i for i in range(len(keys))], kind.key_type
        )
        items = random_array(chance, kind.item_type, rows)
        return pa.MapArray.from_arrays(pa.array(offsets, pa.int32()), keys, items, type=kind)
    child = random_array(chance, kind.value_type, rows)
    if pa.types.is_list_view(kind):
        starts, sizes = pa.array(offsets[:-1], pa.int32()), pa.array(lengths, pa.int32())
        return pa.ListViewArray.from_arrays(starts, sizes, child, type=kind, mask=nulls)
    if pa.types.is_large_list(kind):
        return pa.LargeListArray.from_arrays(pa.array(offsets), child, type=kind, mask=nulls)
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), child, type=kind, mask=nulls)


def random_table(seed: int) -> pa.Table:
    """A table of one to four columns whose chunks are slices at odd offsets."""
    chance = random.Random(seed)
    n = chance.choice([0, 1, 2, 7, 8, 9, 63, 100, 101, 300, 1030])
    columns = {}
    for index in range(chance.randint(1, 4)):
        kind = random_type(chance)
        start = chance.randrange(12)
        whole = random_array(chance, kind, n + start + chance.randrange(5))
        column: Any = whole.slice(start, n)
        columns[f"c{index}"] = column
    return pa.table(columns)
