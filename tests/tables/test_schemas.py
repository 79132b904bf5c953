"""Schemas that come to fit: columns that were all null, and types that widen without loss."""

from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from neurolake_dagster.errors import SchemaMismatchError
from neurolake_dagster.storage import Storage
from neurolake_dagster.tables import Table, evolve_schema, merge_rows, optimize
from neurolake_dagster.tables.schemas import fits


@pytest.fixture(params=["ncf", "parquet"])
def table(request: pytest.FixtureRequest, tmp_path: Path) -> Table:
    return Table(Storage(str(tmp_path)), "t", request.param)


def frame(**columns: list[Any]) -> pa.Table:
    return pa.Table.from_pandas(pd.DataFrame(columns), preserve_index=False)


@pytest.mark.parametrize("schema_mode", [None, "merge"])
@pytest.mark.parametrize("partition", [None, "b"], ids=["append", "partition"])
def test_a_column_that_was_all_null_takes_the_first_type(
    table: Table, schema_mode: Any, partition: str | None
) -> None:
    """pandas gives a column of None the type null, and no other rows fitted ever after."""
    table.write(frame(i=[1], c=[None]), partition=partition and "a")
    later = {"mode": "append"} if partition is None else {"partition": partition}
    table.write(frame(i=[2], c=["s"]), schema_mode=schema_mode, **later)
    table.write(frame(i=[3], c=[None]), mode="append", partition=partition)

    assert {row["i"]: row["c"] for row in table.read().to_pylist()} == {1: None, 2: "s", 3: None}
    assert table.read(filters=[("c", "=", "s")])["i"].to_pylist() == [2]
    with pytest.raises(SchemaMismatchError, match="'c' is int64, expected string"):
        table.write(frame(i=[4], c=[4]), mode="append", partition=partition)
    if table.format == "parquet":
        plain = f"{table.uri}/**/*.parquet"
        assert duckdb.sql(f"select count(c), count(*) from '{plain}'").fetchall() == [(1, 3)]
        assert pq.read_table(table.uri).num_rows == 3


def test_a_merge_types_a_column_that_was_all_null(table: Table) -> None:
    table.write(frame(i=[1], c=[None]))
    table.write(frame(i=[5], c=[None]), mode="append")
    merge_rows(table, frame(i=[1, 2], c=["one", "two"]), ["i"])
    found = {row["i"]: row["c"] for row in table.read().to_pylist()}
    assert found == {1: "one", 2: "two", 5: None}


WIDER = [
    (pa.decimal128(5, 2), pa.decimal128(10, 2), Decimal("1.25")),
    (pa.decimal128(5, 2), pa.decimal256(50, 4), Decimal("1.25")),
    (pa.int32(), pa.float64(), 2**31 - 1),
    (pa.uint8(), pa.float32(), 255),
    (pa.int64(), pa.decimal128(19, 0), -(2**63)),
    (pa.date32(), pa.timestamp("us"), date(2024, 2, 29)),
    (pa.timestamp("s"), pa.timestamp("ms"), datetime(2024, 2, 29, 12)),
]


@pytest.mark.parametrize(("have", "want", "value"), WIDER, ids=str)
def test_types_widen_without_loss(
    tmp_path: Path, have: pa.DataType, want: pa.DataType, value: Any
) -> None:
    table = Table(Storage(str(tmp_path)), "t", "ncf")
    rows = pa.table({"x": pa.array([value, None], have)})
    table.write(rows)
    evolve_schema(table, widen={"x": want})
    table.write(rows, mode="append")
    expected = rows["x"].cast(want).to_pylist()
    assert table.read()["x"].to_pylist() == expected * 2


@pytest.mark.parametrize(
    ("have", "want"),
    [
        (pa.decimal128(5, 2), pa.decimal128(5, 3)),
        (pa.decimal128(5, 2), pa.decimal128(10, 1)),
        (pa.int64(), pa.float64()),
        (pa.int32(), pa.float32()),
        (pa.int64(), pa.decimal128(18, 0)),
        (pa.date32(), pa.timestamp("ns")),
        (pa.date32(), pa.timestamp("us", "UTC")),
        (pa.float64(), pa.int64()),
        (pa.uint64(), pa.int64()),
        (pa.timestamp("us"), pa.timestamp("us", "UTC")),
    ],
    ids=str,
)
def test_types_that_would_lose_something_do_not_fit(have: pa.DataType, want: pa.DataType) -> None:
    assert not fits(have, want)


CATEGORIES = {
    "integers": [2012, 2013, 2012],
    "floats": [0.5, 1.5, 0.5],
    "flags": [True, False, True],
    "dates": [date(2024, 1, 1), date(2024, 1, 2), None],
    "times": [datetime(2024, 1, 1, 3), None, datetime(2024, 1, 1)],
    "decimals": [Decimal("1.5"), Decimal("2.5"), Decimal("1.5")],
    "text": ["a", None, "b"],
    "bytes": [b"a", b"", b"a"],
}


@pytest.mark.parametrize("name", CATEGORIES)
def test_categories_of_any_type_come_back(name: str, table: Table) -> None:
    """Parquet keeps only those of text as such: the others could be written and never read."""
    rows = pa.table({"c": pa.array(CATEGORIES[name]).dictionary_encode()})
    table.write(rows)
    table.write(rows, mode="append")
    found = table.read()
    assert found.schema.equals(rows.schema)
    assert found["c"].to_pylist() == CATEGORIES[name] * 2
    assert table.read(filters=[("c", "=", CATEGORIES[name][0])]).num_rows in (2, 4)
    assert sum(batch.num_rows for batch in table.scan()) == 6


def test_categories_of_many_writes_come_together_in_one_file(table: Table) -> None:
    """pandas' int8 indices overflowed: an optimized Parquet table could not be read any more."""
    days = [[f"{day}-{number}" for number in range(n)] for day, n in enumerate((100, 100, 200))]
    categories = [pd.DataFrame({"c": pd.Categorical(day)}) for day in days]
    batches = [pa.RecordBatch.from_pandas(frame) for frame in categories[:2]]
    table.write(pa.RecordBatchReader.from_batches(batches[0].schema, batches))
    table.write(pa.Table.from_pandas(categories[2]), mode="append")
    table.write(pa.table({"c": ["text"]}), mode="append")
    optimize(table)
    merge_rows(table, pa.Table.from_pandas(categories[2]), ["c"])
    expected = ["text", *(text for day in days for text in day)]
    assert sorted(table.read()["c"].to_pylist()) == sorted(expected)
    assert len(table.read().to_pandas()["c"].cat.categories) == 401


NESTS = {
    "struct": lambda codes: pa.StructArray.from_arrays([codes], ["x"]),
    "list": lambda codes: pa.ListArray.from_arrays(range(101), codes),
    "fixed": lambda codes: pa.FixedSizeListArray.from_arrays(codes, 1),
    "map": lambda codes: pa.MapArray.from_arrays(range(101), range(100), codes),
}


@pytest.mark.parametrize("nest", NESTS)
def test_categories_within_others_come_together_too(table: Table, nest: str) -> None:
    for begin in (0, 100):
        texts = pa.array(map(str, range(begin, begin + 100)))
        codes = texts.dictionary_encode().cast(pa.dictionary(pa.int8(), pa.string()))
        table.write(pa.table({"c": NESTS[nest](codes)}), mode="append")
    optimize(table)
    assert len(set(map(str, table.read()["c"].to_pylist()))) == 200


@pytest.mark.parametrize("values", [[2012, 2013, 2012], ["a", None, "b"]], ids=["int", "text"])
def test_categories_within_others_come_back(values: list[Any], table: Table) -> None:
    """Parquet's files of them were committed, and could never be read."""
    category = pa.array(values).dictionary_encode()
    keys, starts = pa.array(["a", "b", "c"]), pa.array([0, 2, 3], pa.int32())
    rows = pa.table(
        {
            "struct": pa.StructArray.from_arrays([category], ["c"]).take(pa.array([0, None])),
            "list": pa.ListArray.from_arrays(starts, category),
            "fixed": pa.FixedSizeListArray.from_arrays(category.slice(1), 1),
            "map": pa.MapArray.from_arrays(starts, keys, category),
        }
    )
    table.write(rows)
    table.write(rows.slice(1), mode="append")
    found = table.read()
    found.validate(full=True)
    assert found.schema.equals(rows.schema)
    assert found.to_pylist() == [*rows.to_pylist(), *rows.slice(1).to_pylist()]


@pytest.mark.parametrize(
    "values",
    [
        pa.UnionArray.from_sparse(pa.array([0], pa.int8()), [pa.array([1]), pa.array(["x"])]),
        pa.RunEndEncodedArray.from_arrays(pa.array([1], pa.int32()), pa.array(["a"])),
        pa.array([[1]], pa.large_list_view(pa.int8())),
    ],
    ids=lambda values: str(values.type)[:12],
)
def test_nulls_take_types_that_arrow_has_no_cast_to(tmp_path: Path, values: pa.Array) -> None:
    """The commit stood, and the table could not be read any more."""
    table = Table(Storage(str(tmp_path)), "t", "ncf")
    table.write(pa.table({"x": pa.nulls(1)}))
    table.write(pa.table({"x": values}), mode="append")
    table.write(pa.table({"x": pa.nulls(1)}), mode="append")
    assert table.read()["x"].to_pylist() == [None, values[0].as_py(), None]


def test_list_views_are_written_as_lists(table: Table) -> None:
    """A raw ArrowInvalid: Arrow's cast leaves out an offset."""
    rows = [[1, None], [], None]
    table.write(pa.table({"x": pa.array([[9], *rows], pa.list_view(pa.int8())).slice(1)}))
    assert table.read()["x"].type == pa.list_(pa.int8())
    assert table.read()["x"].to_pylist() == rows


VIEWS = {
    "structs": (pa.struct([("a", pa.list_view(pa.string_view()))]), [{"a": ["b", None]}, None]),
    "fixed lists": (pa.list_(pa.list_view(pa.int8()), 2), [[[1], None], None, [[], [2, 3]]]),
    "maps": (pa.map_(pa.string(), pa.large_list_view(pa.int8())), [[("a", [1])], None, []]),
    "lists": (pa.list_(pa.binary_view()), [[b"a" * 20], None, []]),
}


@pytest.mark.parametrize("name", VIEWS)
def test_views_within_others_are_written_as_plain_types(name: str, table: Table) -> None:
    """They stayed views, which polars does not take, and at which pandas aborts the process."""
    type_, values = VIEWS[name]
    table.write(pa.table({"x": pa.array([None, *values], type_).slice(1)}))
    found = table.read()
    found.validate(full=True)
    assert "view" not in str(found["x"].type)
    assert found["x"].to_pylist() == values
    assert len(table.read(filters=pc.scalar(False)).to_pandas()) == 0
