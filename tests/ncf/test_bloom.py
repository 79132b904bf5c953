"""Bloom filters skip row groups that cannot match, and never one that does."""

import io
import random
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from neurolake_dagster import ncf
from neurolake_dagster.errors import NCFCorruptError
from neurolake_dagster.ncf.arrow import plain_of
from neurolake_dagster.ncf.bloom import build_bloom, hash_values
from tests.ncf.forge import assemble, explode
from tests.ncf.test_differential import random_table

GROUPS, ROWS = 30, 1000


def shuffled() -> pa.Table:
    """Ids in no order: bounds rule no row group out."""
    ids = list(range(GROUPS * ROWS))
    random.Random(1).shuffle(ids)
    return pa.table(
        {
            "id": pa.array(ids),
            "key": [f"key-{i:06d}" for i in ids],
            "ratio": [i / 8 for i in ids],
            "day": pa.array(ids, pa.int32()).cast(pa.date32()),
        }
    )


def written(table: pa.Table, columns: list[str]) -> bytes:
    sink = io.BytesIO()
    ncf.write_table(table, sink, row_group_size=ROWS, page_rows=500, bloom_filters=columns)
    return sink.getvalue()


class Counted:
    """Bytes that count how many of them are read."""

    name = "counted"

    def __init__(self, data: bytes) -> None:
        self.data, self.read = data, 0

    def size(self) -> int:
        return len(self.data)

    def read_at(self, offset: int, length: int) -> bytes:
        self.read += length
        return self.data[offset : offset + length]


FILTERS: dict[str, Any] = {
    "id": [("id", "==", 1234)],
    "text": [("key", "=", "key-001234")],
    "float": [("ratio", "==", 154.25)],
    "date": [("day", "in", [date(1973, 5, 19)])],
    "in": [("id", "in", [1234])],
    "and": [("id", "==", 1234), ("ratio", ">", 1.0)],
    "or": [[("id", "==", 1234)], [("key", "==", "nowhere")]],
    "lists": [["id", "==", 1234]],
    "tuples": ((("id", "==", 1234),),),
    "expression": pc.field("id") == 1234,
    "expression of a set": pc.field("key").isin(["key-001234", "nowhere"]),
    "mirrored": pc.scalar("key-001234") == pc.field("key"),
    "expression of both": (pc.field("ratio") > 1.0) & (pc.field("id") == 1234),
    "expression of either": (pc.field("id") == 1234) | (pc.field("ratio") == -1),
}


@pytest.mark.parametrize("name", FILTERS)
def test_few_row_groups_are_read(name: str) -> None:
    table = shuffled()
    source = Counted(written(table, ["id", "key", "ratio", "day"]))
    plain = Counted(written(table, []))
    found = ncf.read_table(source, filters=FILTERS[name])
    assert found["id"].to_pylist() == [1234]
    assert ncf.read_table(plain, filters=FILTERS[name]).equals(found)
    filters, footer = len(source.data) - len(plain.data), 1 << 16
    assert source.read - filters - footer < (plain.read - footer) / 4


@pytest.mark.parametrize("seed", range(30))
def test_no_matching_row_is_lost(seed: int) -> None:
    table, chance = random_table(1), random.Random(seed)
    names = ["i", "f", "s", "c", "w", "d", "t"]
    data = written(table, names)
    name = chance.choice(names)
    values = [table[name][chance.randrange(table.num_rows)].as_py() for _ in range(3)]
    wanted = [value for value in values if value is not None]
    filters = [(name, "in", wanted)] if chance.random() < 0.5 else [(name, "==", wanted[0])]
    plain = io.BytesIO()
    ncf.write_table(table, plain)
    want = ncf.read_table(plain.getvalue(), filters=filters)["row"]
    assert ncf.read_table(data, filters=filters)["row"].to_pylist() == want.to_pylist()


@pytest.mark.parametrize(
    "filters",
    [[("id", "==", 1234.0)], [("id", "!=", 1234)], [("day", "==", datetime(1973, 5, 19))]],
    ids=["float for integer", "unequal", "time for date"],
)
def test_what_does_not_convert_exactly_rules_nothing_out(filters: Any) -> None:
    table = shuffled()
    plain = written(table, [])
    data = written(table, ["id", "day"])
    assert ncf.read_table(data, filters=filters).equals(ncf.read_table(plain, filters=filters))


def test_signed_zeros_are_one_value_and_nan_is_none() -> None:
    zeros = hash_values(pa.array([0.0, -0.0, float("nan"), None]))
    assert len(zeros) == 1
    bloom = build_bloom(pa.array([-0.0]))
    assert bloom is not None
    assert bloom.may_hold(hash_values(pa.array([0.0]))).all()


@pytest.mark.parametrize(
    ("array", "wanted"),
    [
        (pa.array([b"", None], pa.binary(0)), b""),
        (pa.RunEndEncodedArray.from_arrays([1, 3], pa.array(["a", "b"], pa.string_view())), "b"),
    ],
    ids=["bytes of no width", "runs of views"],
)
def test_odd_keys_are_found(array: pa.Array, wanted: Any) -> None:
    """The one was in no filter, so its rows were lost; the other could not be written."""
    data = written(pa.table({"key": array}), ["key"])
    plain = plain_of(array)
    found = ncf.read_table(data, filters=pc.field("key") == pa.scalar(wanted, plain.type))
    assert plain_of(found["key"].chunk(0)).to_pylist() == [
        value for value in plain.to_pylist() if value == wanted
    ]


def test_one_in_a_hundred_absent_values_passes_at_most() -> None:
    bloom = build_bloom(pa.array(range(10_000)))
    assert bloom is not None
    absent = hash_values(pa.array(range(10**9, 10**9 + 5000)))
    assert bloom.may_hold(absent).sum() < 50


KINDS: dict[str, Any] = {
    "decimal64": pa.decimal64(12, 2),
    "decimal128": pa.decimal128(30, 2),
    "decimal256": pa.decimal256(50, 2),
    "bytes": pa.binary(8),
    "view": pa.string_view(),
    "dictionary": pa.dictionary(pa.int32(), pa.string()),
    "half": pa.float16(),
    "uuid": pa.uuid(),
}


def values_of(kind: pa.DataType, ids: list[int]) -> pa.Array:
    """Return an array that has another value per id."""
    if pa.types.is_decimal(kind):
        return pa.array([Decimal(i) / 4 for i in ids], kind)
    if kind == pa.uuid():
        return pa.array([i.to_bytes(16) for i in ids], pa.binary(16)).cast(kind)
    if pa.types.is_float16(kind):
        return pa.array(ids, pa.float32()).cast(kind)
    texts = pa.array([f"{i:08d}" for i in ids])
    if pa.types.is_dictionary(kind):
        return texts.dictionary_encode()
    return texts.cast(pa.binary()).cast(kind) if kind == pa.binary(8) else texts.cast(kind)


@pytest.mark.parametrize("bounds", [True, False], ids=["sorted", "shuffled"])
@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_key_is_looked_up(name: str, bounds: bool) -> None:
    """Only integers, floats, times and text had filters, and fewer had bounds."""
    ids = list(range(2000))
    if not bounds:
        random.Random(1).shuffle(ids)
    keys = values_of(KINDS[name], ids)
    noise = pa.array([random.Random(i).randbytes(100) for i in ids])
    table, sink = pa.table({"key": keys, "noise": noise}), io.BytesIO()
    filters = [] if bounds else ["key"]
    ncf.write_table(table, sink, row_group_size=200, page_rows=200, bloom_filters=filters)
    source = Counted(sink.getvalue())
    with ncf.NCFFile(source) as file:
        opening = source.read
        wanted = values_of(KINDS[name], [1234])
        plain = plain_of(wanted)[0]
        found = file.read(filters=pc.field("key") == plain)
        assert found["noise"].to_pylist() == [noise[ids.index(1234)].as_py()]
        assert source.read - opening < len(source.data) / 4
        file.verify()


def test_unfit_columns_are_refused() -> None:
    table = pa.table({"l": [[1]], "a": [1]})
    for name in ("l", "none"):
        with pytest.raises(ValueError, match="bloom_filters"):
            ncf.write_table(table, io.BytesIO(), bloom_filters=[name])


@pytest.mark.parametrize(
    "section",
    [b"\xc0", b"\x90", b"\x92\xc0\xc0", b"\x91\x93\x3f\x07\xc4\x00"],
    ids=["nil", "none", "groups", "bits"],
)
def test_forged_filters_are_refused(section: bytes) -> None:
    table = shuffled().slice(0, 50)
    parts = explode(written(table, ["id"]))
    parts.sections["bloom.0"] = section
    data = assemble(parts)
    assert ncf.read_table(data).equals(table)
    with pytest.raises(NCFCorruptError):
        ncf.read_table(data, filters=pc.field("id") == table["id"][0])


def test_a_filter_on_another_column_leaves_the_bloom_filters_unread() -> None:
    """Every filtered read fetched the filters of all columns."""
    source = Counted(written(shuffled(), ["id", "key"]))
    with ncf.NCFFile(source) as file:
        opening = source.read
        assert file.read(["day"], filters=pc.field("day") < date(1900, 1, 1)).num_rows == 0
        assert source.read == opening
        assert file.read(["id"], filters=pc.field("id") == -5).num_rows == 0
        assert source.read == opening
        file.read(["id"], filters=pc.field("id") == 5)
        section = next(s for s in explode(source.data).footer["sections"] if s[0] == "bloom.0")
        assert source.read - opening < 2 * section[2]
