"""One small table with a column of every Arrow type, made to pass every encoding's way."""

from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa

_DAY = datetime(2024, 5, 6, 7, 8, 9, 123456)


def _pick(rows: int, *values: Any) -> list[Any]:
    return [values[index % len(values)] for index in range(rows)]


def numbers(rows: int) -> dict[str, pa.Array]:
    generator = np.random.default_rng(7)
    spread = generator.integers(0, 100, rows)
    columns = {
        str(kind): pa.array(spread, pa.int64()).cast(kind)
        for kind in (
            pa.int8(), pa.int16(), pa.int32(), pa.int64(),
            pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64(),
        )
    }  # fmt: skip
    columns["extremes"] = pa.array(_pick(rows, 2**63 - 1, -(2**63), None, 0), pa.int64())
    columns["large unsigned"] = pa.array(_pick(rows, 2**64 - 1, 0, None), pa.uint64())
    columns["sequence"] = pa.array(range(1000, 1000 + 3 * rows, 3), pa.int64())
    columns["walk"] = pa.array(np.cumsum(generator.integers(-5, 6, rows)) * 1000)
    columns["wide few"] = pa.array(_pick(rows, 10**15, 3, 10**12, -(10**17)), pa.int64())
    columns["random"] = pa.array(generator.integers(-(2**62), 2**62, rows))
    columns["constant"] = pa.array([42] * rows, pa.int32())
    columns["runs"] = pa.array(np.repeat(generator.integers(0, 9, rows), 50)[:rows])
    columns["mostly null"] = pa.array(_pick(rows, None, None, None, None, 7), pa.int32())
    columns["half"] = pa.array(spread.astype(np.float16))
    columns["float"] = pa.array(generator.normal(size=rows).astype(np.float32))
    columns["double"] = pa.array(generator.normal(size=rows))
    columns["cents"] = pa.array(np.round(spread * 1.37, 2))
    columns["odd floats"] = pa.array(_pick(rows, float("nan"), -0.0, 0.0, float("inf"), None))
    for kind in (pa.decimal32(7, 2), pa.decimal64(15, 3), pa.decimal128(30, 4)):
        columns[str(kind)] = pa.array(_pick(rows, Decimal("1.5"), None, Decimal("-2.25")), kind)
    wide = _pick(rows, Decimal("1" * 60), None, Decimal(-7))
    columns["decimal256"] = pa.array(wide, pa.decimal256(70, 0))
    return columns


def times(rows: int) -> dict[str, pa.Array]:
    columns = {
        "boolean": pa.array(_pick(rows, True, None, False), pa.bool_()),
        "date32": pa.array(_pick(rows, date(2024, 2, 29), None), pa.date32()),
        "date64": pa.array(_pick(rows, date(2024, 2, 29), None), pa.date64()),
        "time32": pa.array(_pick(rows, time(1, 2, 3), None), pa.time32("ms")),
        "time64": pa.array(_pick(rows, time(1, 2, 3, 4), None), pa.time64("ns")),
        "interval": pa.array(
            _pick(rows, pa.MonthDayNano([1, 2, 3]), None), pa.month_day_nano_interval()
        ),
    }
    for unit in ("s", "ms", "us", "ns"):
        stamps = [_DAY + timedelta(minutes=index) for index in range(rows)]
        columns[f"timestamp {unit}"] = pa.array(stamps).cast(pa.timestamp(unit), safe=False)
        columns[f"duration {unit}"] = pa.array(_pick(rows, 5, None, -1), pa.duration(unit))
    zoned = _pick(rows, datetime(2024, 1, 1, tzinfo=UTC), None)
    columns["zoned"] = pa.array(zoned, pa.timestamp("us", "Europe/Berlin"))
    return columns


def texts(rows: int) -> dict[str, pa.Array]:
    words = _pick(rows, "red", "green", None, "", "blåbär", "red")
    raw = _pick(rows, b"\x00\xff", None, b"", b"abc")
    unique = [f"https://example.org/item?id={index * 7919 % 9973}" for index in range(rows)]
    return {
        "string": pa.array(words, pa.string()),
        "large_string": pa.array(words, pa.large_string()),
        "string_view": pa.array(words, pa.string_view()),
        "unique text": pa.array(unique),
        "uuid": pa.array([f"{index * 2654435761 % 2**32:08x}-4a" for index in range(rows)]),
        "binary": pa.array(raw, pa.binary()),
        "large_binary": pa.array(raw, pa.large_binary()),
        "binary_view": pa.array(raw, pa.binary_view()),
        "fixed": pa.array(_pick(rows, b"abcd", None, b"\0\0\0\0"), pa.binary(4)),
        "dictionary": pa.array(words).dictionary_encode(),
    }


def nested(rows: int) -> dict[str, pa.Array]:
    lists = _pick(rows, [1, None, 3], [], None, [4])
    pairs = _pick(rows, {"a": 1, "b": "x"}, None, {"a": None, "b": "y"})
    shape = pa.struct([("a", pa.int64()), ("b", pa.string())])
    ints, texts_ = pa.array(range(rows), pa.int32()), pa.array(_pick(rows, "p", None))
    codes = pa.array(_pick(rows, 0, 1), pa.int8())
    deep = _pick(rows, [["a"], [], None], None)
    offsets = pa.array([index // 2 for index in range(rows)], pa.int32())
    runs = (rows + 9) // 10
    ends = pa.array([min(rows, 10 * (index + 1)) for index in range(runs)], pa.int32())
    return {
        "list": pa.array(lists, pa.list_(pa.int64())),
        "large_list": pa.array(lists, pa.large_list(pa.int16())),
        "list_view": pa.array(lists, pa.list_view(pa.int64())),
        "fixed_list": pa.array(_pick(rows, [1, 2], None, [3, None]), pa.list_(pa.int32(), 2)),
        "deep list": pa.array(deep, pa.list_(pa.list_(pa.string()))),
        "struct": pa.array(pairs, shape),
        "list of struct": pa.array(_pick(rows, [{"a": 1, "b": "q"}], None), pa.list_(shape)),
        "map": pa.array(_pick(rows, [("k", 1), ("l", None)], None, []), pa.map_("string", "int64")),
        "dense union": pa.UnionArray.from_dense(codes, offsets, [ints, texts_]),
        "sparse union": pa.UnionArray.from_sparse(codes, [ints, texts_]),
        "run ends": pa.RunEndEncodedArray.from_arrays(ends, pa.array(_pick(runs, "x", None))),
        "null": pa.nulls(rows),
    }  # fmt: skip


def extensions(rows: int) -> dict[str, pa.Array]:
    ids = _pick(rows, bytes(range(16)), None, b"\xff" * 16)
    pairs = pa.array(_pick(rows, [1.5, -0.0], [2.5, 3.5]), pa.list_(pa.float32(), 2))
    documents = pa.array(_pick(rows, '{"a": 1}', None, "[]"))
    return {
        "uuid type": pa.ExtensionArray.from_storage(pa.uuid(), pa.array(ids, pa.binary(16))),
        "json": pa.ExtensionArray.from_storage(pa.json_(), documents),
        "bool8": pa.ExtensionArray.from_storage(
            pa.bool8(), pa.array(_pick(rows, 1, None, 0), pa.int8())
        ),
        "opaque": pa.ExtensionArray.from_storage(
            pa.opaque(pa.int64(), "point", "elsewhere"), pa.array(_pick(rows, 1, None))
        ),
        "tensor": pa.ExtensionArray.from_storage(
            pa.fixed_shape_tensor(pa.float32(), [1, 2]), pairs
        ),
    }


def every_type(rows: int = 100) -> pa.Table:
    columns = {
        **numbers(rows),
        **times(rows),
        **texts(rows),
        **nested(rows),
        **extensions(rows),
    }
    return pa.table(columns).replace_schema_metadata({"made": "by the tests"})
