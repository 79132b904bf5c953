"""Statistics: what metadata shows of them, what they may rule out, and that verify knows lies."""

import io
import subprocess
import sys
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from neurolake_dagster import ncf
from neurolake_dagster.errors import NCFCorruptError
from tests.ncf.forge import Parts, assemble, explode


def written(table: pa.Table, **options: Any) -> bytes:
    file = io.BytesIO()
    ncf.write_table(table, file, **options)
    return file.getvalue()


def bounds_of(data: bytes) -> tuple[Any, Any]:
    chunk = ncf.read_metadata(data).row_groups[0].columns[0].statistics
    return chunk.min, chunk.max


def physical(values: list[int], kind: pa.DataType) -> pa.Array:
    return pa.array(values, pa.int64() if kind.bit_width == 64 else pa.int32()).view(kind)


EXTREME: dict[str, tuple[pa.DataType, list[int]]] = {
    "timestamp": (pa.timestamp("s"), [2**62, -(2**62)]),
    "date": (pa.date32(), [2**31 - 1, -(2**31)]),
    "duration": (pa.duration("s"), [2**62, -(2**62)]),
    "time zone": (pa.timestamp("us", "No/Where"), [1, 2]),
    "timestamp in a zone": (pa.timestamp("us", "Europe/Berlin"), [2**62, -(2**62)]),
}


@pytest.mark.parametrize("name", EXTREME)
def test_metadata_leaves_out_what_python_has_not(name: str) -> None:
    """The typed bounds of sound files raised OverflowError and UnknownTimeZoneError."""
    kind, values = EXTREME[name]
    data = written(pa.table({"c": physical(values, kind)}))
    assert bounds_of(data) == (None, None)
    assert ncf.read_table(data, filters=pc.field("c").is_valid()).num_rows == 2
    ncf.NCFFile(data).verify()


@pytest.mark.parametrize("bound", [2**62, -1, b"x", 1.5, float("nan"), float("inf"), None])
@pytest.mark.parametrize(
    "array",
    [
        physical([1, 2], pa.timestamp("us", "No/Where")),
        physical([1, 2], pa.time64("us")),
        physical([1, 2], pa.date64()),
        pa.nulls(2, pa.decimal128(5, -100)),
        pa.array(["a"]),
        pa.array([1.5], pa.float32()),
        pa.array([True]),
        pa.array([[1]]),
        pa.array([b"abcd"], pa.binary(4)),
        pa.array(["a"]).dictionary_encode(),
    ],
    ids=lambda array: str(array.type),
)
def test_forged_bounds_hurt_neither_metadata_nor_filters(array: pa.Array, bound: Any) -> None:
    parts = explode(written(pa.table({"c": array})))
    parts.groups[0][0].entry[6][2] = parts.groups[0][0].entry[6][3] = bound
    data = assemble(parts)
    repr(ncf.read_metadata(data))
    ncf.read_table(data, filters=pc.field("c").is_valid())
    assert ncf.read_table(data).num_rows == len(array)


ORDERED: dict[str, tuple[pa.Array, Any, Any]] = {
    "dictionary of text": (
        pa.array(["b", "a", None, "c"]).dictionary_encode().slice(0, 3),
        "a",
        "b",
    ),
    "dictionary of numbers": (pa.array([7, -3, 7]).dictionary_encode(), -3, 7),
    "wide decimal": (
        pa.array([Decimal(-(2**70)), None, Decimal(2**80)], pa.decimal128(38, 0)),
        Decimal(-(2**70)),
        Decimal(2**80),
    ),
    "decimal256": (
        pa.array([Decimal("-1.5"), Decimal("2.5")], pa.decimal256(60, 1)),
        Decimal("-1.5"),
        Decimal("2.5"),
    ),
    "bytes": (pa.array([b"b\0a", b"a\0z", b"a\0b"], pa.binary(3)), b"a\0b", b"b\0a"),
    "long bytes": (
        pa.array([b"x" * 39 + b"b", b"x" * 39 + b"a"], pa.binary(40)),
        b"x" * 32 + bytes(8),
        b"x" * 31 + b"y" + bytes(8),
    ),
    "half": (
        pa.array([2.5, None, float("nan"), -1], pa.float32()).cast(pa.float16()),
        -1.0,
        2.5,
    ),
    "view": (pa.array(["b", "a"], pa.string_view()), "a", "b"),
}


@pytest.mark.parametrize("name", ORDERED)
def test_every_type_with_an_order_has_bounds(name: str) -> None:
    array, low, high = ORDERED[name]
    data = written(pa.table({"c": array}))
    assert bounds_of(data) == (low, high)
    ncf.NCFFile(data).verify()


@pytest.mark.parametrize("seed", range(4))
def test_bounds_of_wide_decimals_enclose_them(seed: int) -> None:
    """Of more than 64 bits they are floats, rounded away from the values."""
    chance = np.random.default_rng(seed)
    wide = [
        int(v) * 10 ** int(p)
        for v, p in zip(
            chance.integers(-(2**62), 2**62, 50), chance.integers(0, 19, 50), strict=True
        )
    ]
    values = [Decimal(value) for value in wide]
    for kind in (pa.decimal128(38, 0), pa.decimal256(60, 0)):
        data = written(pa.table({"c": pa.array(values, kind)}), page_rows=5)
        low, high = bounds_of(data)
        assert low <= min(values)
        assert high >= max(values)
        edge = pa.scalar(values[7], kind)
        found = ncf.read_table(data, filters=pc.field("c") >= edge)
        assert found.num_rows == sum(value >= values[7] for value in values)


def test_uncounted_nan_promises_nothing() -> None:
    """SPEC: a NaN count of nil is not known; it was read as none."""
    table = pa.table({"f": [1.0, float("nan"), 3.0, 4.0] * 4})
    not_below = ~(pc.field("f") < 200)
    parts = explode(written(table, page_rows=8))
    for _, stats in parts.zones[0][0]:
        stats[1] = None
    parts.groups[0][0].entry[6][1] = None
    assert ncf.read_table(assemble(parts), filters=not_below).num_rows == 4


def lying(change: Callable[[Parts], None]) -> bytes:
    table = pa.table({"a": range(100), "f": [float("nan"), *map(float, range(99))]})
    parts = explode(written(table, page_rows=25, bloom_filters=["a"]))
    change(parts)
    return assemble(parts)


def set_entry(column: int, at: int, value: Any) -> Callable[[Parts], None]:
    def change(parts: Parts) -> None:
        parts.groups[0][column].entry[6][at] = value

    return change


def set_zone(column: int, page: int, at: int, value: Any) -> Callable[[Parts], None]:
    def change(parts: Parts) -> None:
        parts.zones[column][0][page][1][at] = value

    return change


def join_zones(parts: Parts) -> None:
    (first, stats), (second, other) = parts.zones[0][0][:2]
    stats[3] = other[3]
    parts.zones[0][0][:2] = [[first + second, stats]]


def empty_bloom(parts: Parts) -> None:
    filters = msgpack.unpackb(parts.sections["bloom.0"])
    filters[0][2] = bytes(len(filters[0][2]))
    parts.sections["bloom.0"] = msgpack.packb(filters)


LIES: dict[str, tuple[Callable[[Parts], None], str]] = {
    "chunk's bounds": (set_entry(0, 2, 50), "enclose"),
    "chunk's nulls": (set_entry(0, 0, 3), "nulls"),
    "chunk's NaN": (set_entry(1, 1, 0), "NaN"),
    "chunk's exactness": (set_entry(0, 2, -7), "exact"),
    "half of exact bounds": (set_entry(0, 3, None), "exact"),
    "page's bounds": (set_zone(0, 2, 3, 60), "enclose"),
    "page's NaN": (set_zone(1, 0, 1, 0), "NaN"),
    "page's exactness": (set_zone(0, 1, 3, 99), "exact"),
    "pages": (join_zones, "pages stated"),
    "Bloom filter": (empty_bloom, "Bloom"),
}


@pytest.mark.parametrize("name", LIES)
def test_verify_refuses_statistics_that_lie(name: str) -> None:
    change, words = LIES[name]
    data = lying(change)
    assert ncf.read_table(data).num_rows == 100
    with pytest.raises(NCFCorruptError, match=words):
        ncf.NCFFile(data).verify()


def test_verify_takes_statistics_that_are_left_out() -> None:
    def forget(parts: Parts) -> None:
        for chunk in parts.groups[0]:
            chunk.entry[6][1:4] = [None, None, None]

    ncf.NCFFile(lying(forget)).verify()


def test_reading_and_metadata_leave_pandas_alone(tmp_path: Path) -> None:
    """Its import takes a second, once per process, for nothing here."""
    table = pa.table(
        {
            "i": pa.array([1, 2, None] * 2000),
            "f": [1.5, 2.25, float("nan")] * 2000,
            "s": ["a", "bb", None] * 2000,
            "runs": ["x"] * 5999 + ["y"],
            "d": pa.array([Decimal("1.5")] * 6000),
            "t": pa.array([0, 1, 2] * 2000, pa.timestamp("us", "UTC")),
            "l": [[1], [], None] * 2000,
            "c": pa.array(["a", "b", "c"] * 2000).dictionary_encode(),
        }
    )
    ncf.write_table(table, tmp_path / "t.ncf")
    code = (
        "import sys\nfrom neurolake_dagster import ncf\n"
        "with ncf.NCFFile(sys.argv[1]) as file:\n"
        "    file.read(); file.metadata; list(file.iter_batches()); file.verify()\n"
        "    ncf.write_table(file.read(), sys.argv[1])\n"
        "print('pandas' in sys.modules)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "t.ncf")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("False\n", "")


@pytest.mark.parametrize("page_rows", [512, 131072], ids=["several pages", "one page"])
@pytest.mark.parametrize("nulls", [0.0, 0.1, 0.9])
@pytest.mark.parametrize("kind", ["<f4", "<f8"])
def test_small_columns_of_few_floats_keep_their_bits_and_bounds(
    kind: str, nulls: float, page_rows: int
) -> None:
    """They become a dictionary at sight, and their bounds come from its values."""
    generator = np.random.default_rng(5)
    word = np.dtype(kind.replace("f", "u"))
    odd = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1.5, -2.25], kind).view(word)
    # A NaN of another payload is another value, and a signalling one makes NaN of any minimum.
    known = np.concatenate([odd, odd[4:5] | word.type(3), odd[2:3] | word.type(3)])
    for values in (known, known[5:7], np.arange(1, 300).astype(kind).view(word)):
        rows = values[generator.integers(0, len(values), 3001)]
        rows[: len(values)] = values
        mask = generator.random(len(rows)) < nulls
        array = pa.array(rows.view(kind), mask=mask, from_pandas=False)
        data = written(pa.table({"c": array}).slice(1), page_rows=page_rows)
        got, kept = ncf.read_table(data)["c"].combine_chunks(), ~mask[1:]
        assert got.is_valid().to_numpy(False).tolist() == kept.tolist()
        found = np.frombuffer(got.buffers()[1], word, len(got), got.offset * word.itemsize)
        assert (found[kept] == rows[1:][kept]).all()
        chunk = ncf.read_metadata(data).row_groups[0].columns[0]
        assert (chunk.encodings[0] == "dictionary") is (len(values) < 256)
        valid = rows[1:][kept].view(kind)
        assert chunk.statistics.null_count == int(mask[1:].sum())
        assert chunk.statistics.nan_count == int(np.isnan(valid).sum())
        bounds, numbers = (chunk.statistics.min, chunk.statistics.max), valid[~np.isnan(valid)]
        assert bounds == (numbers.min(), numbers.max())
        ncf.NCFFile(data).verify()


def test_small_columns_are_planned_at_sight_but_where_size_is_worth_time() -> None:
    steps = np.random.default_rng(3).integers(-1, 2, 20_000).cumsum() % 200
    table = pa.table({"c": steps / 10})
    quick, patient = written(table), written(table, compression="archive")
    assert ncf.read_metadata(quick).row_groups[0].columns[0].encodings[0] == "dictionary"
    assert ncf.read_metadata(patient).row_groups[0].columns[0].encodings[0] == "decimals"
    assert len(patient) < len(quick)
    assert ncf.read_table(patient).equals(table)
