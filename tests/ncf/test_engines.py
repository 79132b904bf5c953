"""DuckDB and polars on NCF files: the rows they find in Parquet files of the same data."""

import io
import subprocess
import sys
from datetime import date
from pathlib import Path

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from pyarrow.dataset import InMemoryDataset, UnionDataset

from neurolake_dagster import ncf
from neurolake_dagster.errors import UnsupportedTypeError
from neurolake_dagster.ncf.engines import necessary_condition, polars_frame
from tests.ncf.test_differential import random_table


@pytest.fixture(scope="module", params=[1, 2])
def pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    folder, table = tmp_path_factory.mktemp("engines"), random_table(request.param)
    path, parquet = folder / "t.ncf", folder / "t.parquet"
    ncf.write_table(table, path, row_group_size=700, page_rows=100)
    pq.write_table(table, parquet)
    return path, parquet


SQL = [
    "i > 100 and f < 30",
    "f = 0",
    "f >= 'nan'::double",
    "isnan(f)",
    "u > 9223372036854775900",
    "s < 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx00100é'",
    "s is null or w = 'w3'",
    "m between -1.5 and 0.25",
    "d >= date '2024-06-01'",
    "t < timestamptz '2024-01-01 05:00:00+00'",
    "b is not true",
    "not (i = 7 or i is null)",
]


@pytest.mark.parametrize("where", SQL)
def test_duckdb_finds_the_same_rows(where: str, pair: tuple[Path, Path]) -> None:
    path, parquet = pair
    connection = duckdb.connect()
    connection.register("t", ncf.scan(path))
    connection.register("p", pq.read_table(parquet))
    got = connection.sql(f"select row from t where {where} order by row").fetchall()
    assert got == connection.sql(f"select row from p where {where} order by row").fetchall()


POLARS = {
    "and": (pl.col("i") > 100) & (pl.col("f") < 30.0),
    "zero": pl.col("f") == 0.0,
    "nan": pl.col("f").is_nan(),
    "above": pl.col("f") > 40.0,
    "unsigned": pl.col("u") > 2**63 + 92,
    "text": pl.col("s") < "x" * 40 + "00100é",
    "null": pl.col("w").is_null() | (pl.col("w") == "w3"),
    "date": pl.col("d") >= date(2024, 6, 1),
    "is in": pl.col("i").is_in([5, 50, 500]),
}


@pytest.mark.parametrize("name", POLARS)
def test_polars_finds_the_same_rows(name: str, pair: tuple[Path, Path]) -> None:
    path, parquet = pair
    lazy = ncf.scan_polars(path).filter(POLARS[name]).select("row", "i")
    want = pl.read_parquet(parquet).filter(POLARS[name]).select("row", "i")
    assert lazy.collect().sort("row").equals(want.sort("row"))


def test_nan_is_above_all_numbers_for_both_engines(pair: tuple[Path, Path]) -> None:
    path, parquet = pair
    connection = duckdb.connect()
    connection.register("t", ncf.scan(path))
    want = pl.read_parquet(parquet).filter(pl.col("f") > 60.0)
    assert want["f"].is_nan().any()
    assert connection.sql("select count(*) from t where f > 60").fetchall() == [(want.height,)]
    assert ncf.scan_polars(path).filter(pl.col("f") > 60.0).collect().height == want.height


def test_a_dataset_is_scanned_by_pyarrow_too(pair: tuple[Path, Path]) -> None:
    path, parquet = pair
    dataset, want = ncf.scan(path), pq.read_table(parquet)
    assert dataset.to_table(columns=["i", "row"]).equals(want.select(["i", "row"]))
    assert dataset.count_rows() == want.num_rows
    few = pc.field("row") < 10
    assert dataset.count_rows(filter=few) == 10
    assert dataset.head(5).num_rows == 5
    assert (
        dataset.to_table(columns={"twice": pc.field("row") * 2}, filter=few)["twice"][9].as_py()
        == 18
    )


def test_predicates_reach_the_file(pair: tuple[Path, Path]) -> None:
    schema = ncf.read_schema(pair[0])
    condition = necessary_condition((pl.col("i") > 100) & pl.col("w").is_in(["w1"]), schema)
    assert str(condition) == "(i > 100)"
    assert necessary_condition((pl.col("i") > 100) | pl.col("w").is_in(["w1"]), schema) is None
    assert "is_nan" in str(necessary_condition(pl.col("f") > 1.0, schema))


def test_head_of_a_lazy_frame_reads_no_more(pair: tuple[Path, Path]) -> None:
    assert ncf.scan_polars(pair[0]).head(7).collect().height == 7


def test_rows_are_counted_before_a_filter_that_follows(pair: tuple[Path, Path]) -> None:
    """The filter left rows out before `head` had counted them."""
    few = ncf.scan_polars(pair[0]).head(500).filter(pl.col("row") > 400).collect()
    assert few["row"].to_list() == list(range(401, 500))


def test_a_type_polars_lacks_is_named(tmp_path: Path) -> None:
    table = pa.table({"u": pa.UnionArray.from_sparse(pa.array([0], pa.int8()), [pa.array([1])])})
    ncf.write_table(table, tmp_path / "u.ncf")
    with pytest.raises(UnsupportedTypeError, match="polars"):
        ncf.scan_polars(tmp_path / "u.ncf")


def test_columns_that_polars_lacks_are_named_where_all_rows_are_read() -> None:
    """polars panicked, or told of no column."""
    rows = pa.table({"id": [1], "d": pa.array([100], pa.decimal128(5, -2))})
    with pytest.raises(UnsupportedTypeError, match=r"columns 'd' \(decimal128\(5, -2\)\)"):
        polars_frame(rows)
    with pytest.raises(UnsupportedTypeError, match="decimal256"):
        polars_frame(pa.table({"d": pa.array([1], pa.decimal256(70))}))


def test_a_column_without_a_name_keeps_it() -> None:
    """polars called it `column_0`."""
    rows = pa.table([[1], [2]], names=["", "column_0"])
    assert polars_frame(rows).to_dicts() == rows.to_pylist()


UNFINISHED = {
    "duckdb limit": "duckdb.sql('select * from rows limit 3').fetchall()",
    "head": "rows.head(5)",
    "first batch": "next(iter(rows.to_batches()))",
    "scanner take": "rows.filter(pc.field('row') >= 0).take([5, 1])",
}


@pytest.mark.parametrize("name", UNFINISHED)
def test_a_scan_that_is_not_read_to_the_end_lets_python_exit(
    name: str, pair: tuple[Path, Path]
) -> None:
    """A thread of Arrow's asked for the next batch while the interpreter went: exit code 134."""
    code = "import sys, duckdb, pyarrow.compute as pc\nfrom neurolake_dagster import ncf\n"
    code += f"rows = ncf.scan(sys.argv[1])\n{UNFINISHED[name]}\n"
    command = [sys.executable, "-c", code, str(pair[0])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_dataset_is_filtered_sorted_and_joined(pair: tuple[Path, Path]) -> None:
    """What pyarrow does with a dataset in C++ crashed the process."""
    dataset, want = ncf.scan(pair[0]), pq.read_table(pair[1])
    few, fewer = pc.field("row") < 10, pc.field("row") > 2
    narrow = dataset.filter(few).filter(fewer)
    assert narrow.to_table(columns=["i"]).equals(want.filter(few & fewer).select(["i"]))
    assert narrow.count_rows() == narrow.count_rows(filter=few) == 7
    assert narrow.take([6, 0], columns=["row"])["row"].to_pylist() == [9, 3]
    down = narrow.sort_by([("row", "descending")])
    assert down.to_table()["row"].to_pylist() == list(range(9, 2, -1))
    other = InMemoryDataset(pa.table({"row": [3, 4], "x": ["a", "b"]}))
    joined = dataset.join(other, "row", join_type="inner").to_table()
    assert sorted(joined["x"].to_pylist()) == ["a", "b"]


def test_a_dataset_is_joined_with_the_nearest_rows() -> None:
    file = io.BytesIO()
    ncf.write_table(pa.table({"at": [0, 5, 20]}), file)
    other = InMemoryDataset(pa.table({"at": [4, 7], "x": ["a", "b"]}))
    nearest = ncf.scan(file.getvalue()).join_asof(other, "at", [], 5).to_table()
    assert nearest["x"].to_pylist() == ["a", "b", None]


def test_a_dataset_is_sent_to_other_processes(pair: tuple[Path, Path]) -> None:
    rebuild, known = ncf.scan(pair[0]).filter(pc.field("row") < 10).__reduce__()
    assert rebuild(*known).to_table()["row"].to_pylist() == list(range(10))


def test_take_decodes_only_the_pages_it_needs(pair: tuple[Path, Path]) -> None:
    dataset, want = ncf.scan(pair[0]), pq.read_table(pair[1])
    rows = [2999, 0, 7, 7]
    assert dataset.take(rows, columns=["i", "s"]).equals(
        want.select(["i", "s"]).take(rows).combine_chunks()
    )


REFUSED = {
    "fragments": lambda dataset: dataset.get_fragments(),
    "schema": lambda dataset: dataset.replace_schema(dataset.schema),
    "union": lambda dataset: UnionDataset(dataset.schema, [dataset, dataset]).to_table(),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_dataset_cannot_do_is_said(name: str, pair: tuple[Path, Path]) -> None:
    with pytest.raises((NotImplementedError, OSError), match="to_table"):
        REFUSED[name](ncf.scan(pair[0]))


def test_the_format_imports_no_engine() -> None:
    code = "import sys\nimport neurolake_dagster.ncf\n"
    code += "print(sorted({'pandas', 'dagster', 'pyspark', 'polars'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
