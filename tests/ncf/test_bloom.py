"""Bloom filters skip row groups that cannot match, and never one that does."""

import io
import random
from datetime import date, datetime
from typing import Any

import pyarrow as pa
import pytest

from neurolake_dagster import ncf
from neurolake_dagster.errors import NCFCorruptError
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
    assert bloom.may_hold(hash_values(pa.array([0.0])))


def test_one_in_a_hundred_absent_values_passes_at_most() -> None:
    bloom = build_bloom(pa.array(range(10_000)))
    assert bloom is not None
    absent = hash_values(pa.array(range(10**9, 10**9 + 5000)))
    passed = sum(bloom.may_hold(absent[i : i + 1]) for i in range(len(absent)))
    assert passed < 50


def test_unfit_columns_are_refused() -> None:
    table = pa.table({"l": [[1]], "a": [1]})
    for name in ("l", "none"):
        with pytest.raises(ValueError, match="bloom_filters"):
            ncf.write_table(table, io.BytesIO(), bloom_filters=[name])


@pytest.mark.parametrize(
    "section",
    [b"\xc0", b"\x91\x92\x05\x90", b"\x91\x92\x00\x90", b"\x91\x92\x00\x91\x93\x3f\x07\xc4\x00"],
    ids=["nil", "column", "groups", "bits"],
)
def test_forged_filters_are_refused(section: bytes) -> None:
    parts = explode(written(shuffled().slice(0, 50), ["id"]))
    parts.sections["bloom1"] = section
    data = assemble(parts)
    assert ncf.read_table(data).num_rows == 50
    with pytest.raises(NCFCorruptError):
        ncf.read_table(data, filters=[("id", "==", 1)])
