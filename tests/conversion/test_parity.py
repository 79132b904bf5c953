"""Parity: equal tables are equal in any layout, and each kind of change is found."""

import pyarrow as pa
import pytest

from neurolake_dagster.conversion.digest import hash_values
from neurolake_dagster.conversion.parity import ParityReport, compare, profile
from neurolake_dagster.errors import ParityError

TABLE = pa.table(
    {
        "carrier": pa.array(["UA", None, "AA", "", "UA"]),
        "delay": pa.array([2, 4, None, -1, 0], pa.int32()),
        "rate": pa.array([0.5, float("nan"), None, -0.0, 1e300]),
        "legs": pa.array([["EWR", "IAH"], [], None, [None], ["JFK"]]),
        "spot": pa.array([{"x": 1, "y": "a"}, None, {"x": None, "y": "b"}, {}, {"x": 3}]),
        "tags": pa.array(
            [[("a", 1)], None, [], [("b", 2), ("c", None)], [("a", 1)]],
            pa.map_(pa.string(), pa.int64()),
        ),
    }
)


def report(source: pa.Table, target: pa.Table) -> ParityReport:
    return compare(profile(source.to_reader()), profile(target.to_reader()))


def failed(source: pa.Table, target: pa.Table) -> list[str]:
    return [result.aspect for result in report(source, target).results if not result.is_equal]


def replaced(name: str, values: pa.Array) -> pa.Table:
    return TABLE.set_column(TABLE.schema.get_field_index(name), name, values)


SAME = {
    "itself": TABLE,
    "other batches": pa.concat_tables([TABLE.slice(0, 2), TABLE.slice(2)]),
    "other order": TABLE.take([4, 2, 0, 1, 3]),
    "odd offset": pa.concat_tables([TABLE.slice(0, 1), TABLE]).slice(1),
    "dictionary": replaced("carrier", TABLE["carrier"].dictionary_encode()),
    "large": replaced("carrier", TABLE["carrier"].cast(pa.large_string())),
    "view": replaced("carrier", TABLE["carrier"].cast(pa.string_view())),
    "large list": replaced("legs", TABLE["legs"].cast(pa.large_list(pa.string()))),
}


@pytest.mark.parametrize("target", SAME.values(), ids=SAME.keys())
def test_the_same_rows_in_another_layout_are_equal(target: pa.Table) -> None:
    assert report(TABLE, target).is_equal


CHANGED = {
    "a row less": (TABLE.slice(1), {"row_count", "digest"}),
    "a text changed": (replaced("carrier", pa.array(["UA", None, "AB", "", "UA"])), {"digest"}),
    "empty text became null": (
        replaced("carrier", pa.array(["UA", None, "AA", None, "UA"])),
        {"nulls", "digest"},
    ),
    "a number changed": (replaced("delay", pa.array([2, 4, None, -1, 1], pa.int32())), {"digest"}),
    "a type changed": (replaced("delay", TABLE["delay"].cast(pa.int64())), {"schema", "digest"}),
    "minus zero lost": (
        replaced("rate", pa.array([0.5, float("nan"), None, 0.0, 1e300])),
        {"digest"},
    ),
    "NaN became null": (
        replaced("rate", pa.array([0.5, None, None, -0.0, 1e300])),
        {"nulls", "digest"},
    ),
    "list order": (
        replaced("legs", pa.array([["IAH", "EWR"], [], None, [None], ["JFK"]])),
        {"digest"},
    ),
    "list borders": (
        replaced("legs", pa.array([["EWR"], ["IAH"], None, [None], ["JFK"]])),
        {"digest"},
    ),
    "values in other rows": (
        replaced("carrier", pa.array(["AA", None, "UA", "", "UA"])),
        {"digest"},
    ),
    "column renamed": (
        TABLE.rename_columns(["airline", *TABLE.column_names[1:]]),
        {"schema"},
    ),
    "columns swapped": (TABLE.select(TABLE.column_names[::-1]), {"schema"}),
}


@pytest.mark.parametrize(("target", "aspects"), CHANGED.values(), ids=CHANGED.keys())
def test_each_change_is_found_in_its_aspect(target: pa.Table, aspects: set[str]) -> None:
    assert set(failed(TABLE, target)) == aspects


def test_a_difference_is_told_with_its_column() -> None:
    target = replaced("carrier", pa.array(["UA", None, "AB", "", "UA"]))
    with pytest.raises(ParityError, match=r"s3://x: source and target differ: column 'carrier'"):
        report(TABLE, target).require("s3://x")


def test_empty_tables_of_one_schema_are_equal() -> None:
    empty = TABLE.schema.empty_table()
    assert report(empty, empty).is_equal


@pytest.mark.parametrize(
    "hidden",
    [
        pa.DictionaryArray.from_arrays(pa.array([0, 1, None], pa.int8()), pa.array(["a", None])),
        pa.RunEndEncodedArray.from_arrays(pa.array([1, 3], pa.int32()), pa.array(["a", None])),
    ],
    ids=["dictionary", "runs"],
)
def test_nulls_that_the_layout_hides_are_nulls(hidden: pa.Array) -> None:
    """A conversion that changed nothing was told to have made nulls."""
    plain = pa.table({"x": ["a", None, None]})
    report = compare(profile(pa.table({"x": hidden}).to_reader()), profile(plain.to_reader()))
    assert report.is_equal, report.results


def test_unions_are_compared_by_value_and_child() -> None:
    codes = pa.array([0, 1, 0, 1], pa.int8())
    numbers, texts = pa.array([1, 0, None, 0]), pa.array(["", "b", "", "d"])
    sparse = pa.UnionArray.from_sparse(codes, [numbers, texts])
    places = pa.array([1, 0, 0, 1], pa.int32())
    dense = pa.UnionArray.from_dense(codes, places, [pa.array([None, 1]), pa.array(["b", "d"])])
    for rows in (slice(0, 4), slice(1, 4)):
        assert hash_values(sparse[rows]).tolist() == hash_values(dense[rows]).tolist()
    swapped = pa.UnionArray.from_sparse(pa.array([1, 0, 1, 0], pa.int8()), [texts, numbers])
    assert failed(pa.table({"u": sparse}), pa.table({"u": swapped})) == ["schema", "digest"]
