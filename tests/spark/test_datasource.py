import datetime as dt
import re
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession, functions as sf
from pyspark.sql.datasource import CaseInsensitiveDict, In, Not
from pyspark.sql.types import LongType, StructType

from neurolake_dagster import ncf
from neurolake_dagster.errors import (
    NeuroLakeError,
    PartitionError,
    SchemaMismatchError,
    SettingsError,
    TableError,
)
from neurolake_dagster.ncf.chunks import Place
from neurolake_dagster.spark.datasource import INNER_NAME, NCFDataSource, configured
from neurolake_dagster.spark.filters import read_filter, read_where
from neurolake_dagster.spark.reading import WHOLE_FILE_BYTES
from neurolake_dagster.spark.saving import OVERWRITE_MODE, write_ncf
from neurolake_dagster.spark.types import arrow_schema, spark_schema
from neurolake_dagster.spark.writing import NCFTableWriter
from neurolake_dagster.storage import Storage, StorageOptions
from neurolake_dagster.tables import Table, evolve_schema
from tests.s3_server import S3Server

pytestmark = pytest.mark.spark

ROWS = pa.table(
    {
        "id": pa.array(range(1000), pa.int64()),
        "name": pa.array([f"n{i % 7}" if i % 10 else None for i in range(1000)]),
        "value": pa.array([float("nan") if i % 100 == 0 else i / 2 for i in range(1000)]),
        "day": pa.array([dt.date(2024, 1, 1) + dt.timedelta(i // 100) for i in range(1000)]),
    }
)


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "rows.ncf"
    ncf.write_table(ROWS, path, row_group_size=100, page_rows=50)
    return str(path)


def read(spark: SparkSession, *uris: str, **options: str) -> DataFrame:
    return spark.read.format("ncf").options(**options).load(list(uris))


def ids(frame: DataFrame) -> list[int]:
    return sorted(row["id"] for row in frame.collect())


def table_at(folder: Path) -> Table:
    return Table(Storage(str(folder.parent)), folder.name, "ncf")


def test_file_folder_glob_and_list_read_the_same_rows(spark: SparkSession, tmp_path: Path) -> None:
    for number in range(3):
        part = tmp_path / "parts" / f"p{number}.ncf"
        part.parent.mkdir(exist_ok=True)
        ncf.write_table(ROWS.slice(number * 100, 100), part)
    (tmp_path / "parts" / "_hidden.ncf").write_bytes(b"no file of the data")
    parts = f"{tmp_path}/parts"
    assert ids(read(spark, f"{parts}/p1.ncf")) == list(range(100, 200))
    assert ids(read(spark, parts)) == list(range(300))
    assert ids(read(spark, f"{tmp_path}/pa*/p[12].ncf")) == list(range(100, 300))
    assert ids(read(spark, f"{tmp_path}/{{parts,none}}")) == list(range(300))
    assert ids(read(spark, f"file:{parts}/p0.ncf", f"{parts}/p2.ncf"))[99:101] == [99, 200]


def test_columns_option_and_user_schema_prune(spark: SparkSession, file: str) -> None:
    assert read(spark, file, columns="day,id").columns == ["day", "id"]
    assert read(spark, file, columns="DAY,id").columns == ["day", "id"]
    assert read(spark, file, columns='["id"]').count() == 1000
    pruned = spark.read.format("ncf").schema("value double, id long").load(file)
    assert pruned.where("id = 7").collect()[0].asDict() == {"value": 3.5, "id": 7}


@pytest.mark.parametrize(
    "condition",
    [
        "id > 993",
        "id <= 3 and name = 'n1'",
        "name is null and id < 50",
        "name <> 'n3' and id between 40 and 60",
        "name not in ('n1', 'n2') and id < 30",
        "name in ('n1', 'n2') and id < 30",
        "value > 498",
        "value < 2",
        "value = double('NaN')",
        "day = date'2024-01-04'",
        "name like 'n6%' and id > 900",
        "name <=> null and id >= 990",
        "id > 5000",
        "not (name is null) and id % 250 = 1",
    ],
)
def test_pushed_filters_keep_what_spark_keeps(
    spark: SparkSession, file: str, condition: str
) -> None:
    frame = read(spark, file)
    expected = ids(spark.createDataFrame(ROWS).where(condition))
    assert ids(frame.where(condition)) == expected


def plan_of(frame: DataFrame) -> str:
    return str(frame._jdf.queryExecution().executedPlan())


def test_filters_skip_row_groups_and_are_reported(spark: SparkSession, file: str) -> None:
    frame = read(spark, file).where("id >= 950 and id % 2 = 0")
    assert frame.rdd.getNumPartitions() == 1
    assert "PushedFilters: [IsNotNull(id), GreaterThanOrEqual(id,950)]" in plan_of(frame)
    assert ids(frame) == list(range(950, 1000, 2))


def test_days_that_python_has_not_are_left_to_spark(spark: SparkSession, file: str) -> None:
    """A filter on one failed; the last moment of 9999 in New York is such a one."""
    frame = read(spark, file)
    zone = "spark.sql.session.timeZone"
    assert frame.where("day > date'+10000-01-01' or day in (date'-0044-03-15')").count() == 0
    former = spark.conf.get(zone)
    spark.conf.set(zone, "America/New_York")
    try:
        write_ncf(frame.selectExpr("id", "timestamp(day) at"), f"{file}.moments")
        moments = read(spark, f"{file}.moments")
        found = moments.where("at < timestamp'9999-12-31 23:59:59' and id >= 998")
        told = plan_of(found)
        assert "GreaterThanOrEqual(id,998)" in told
        assert "LessThan(at" not in told
        assert ids(found) == [998, 999]
    finally:
        spark.conf.set(zone, former)
    assert "LessThan(day,9999-12-31)" in plan_of(frame.where("day < date'9999-12-31'"))


def test_python_functions_of_columns_end(spark: SparkSession, file: str) -> None:
    """Spark 4.2 gave their workers batches of columns without the types, and waited for ever."""
    doubled = sf.udf(lambda number: number * 2, "long")
    rows = read(spark, file).where("id < 3").select("name", doubled("id").alias("id"))
    assert ids(rows) == [0, 2, 4]


def test_a_query_reads_its_columns_only(spark: SparkSession, file: str) -> None:
    frame = read(spark, file)
    assert re.search(r"BatchScan ncf\[id#\d+L\]", plan_of(frame.select("id")))
    assert re.search(
        r"BatchScan ncf\[id#\d+L, day#\d+\]", plan_of(frame.where("id > 3").select("day"))
    )
    damaged = Path(file).with_name("damaged.ncf")
    stored = bytearray(Path(file).read_bytes())
    with ncf.NCFFile(file) as opened:
        stored[opened._chunks.entry(Place(0, ROWS.schema.get_field_index("name"))).offset] ^= 255
    damaged.write_bytes(stored)
    assert ids(read(spark, str(damaged)).select("id")) == list(range(1000))
    with pytest.raises(PySparkException, match="column 'name'"):
        read(spark, str(damaged)).collect()
    assert read(spark, str(damaged)).count() == 1000


def test_push_down_can_be_switched_off(spark: SparkSession, file: str) -> None:
    frame = read(spark, file, pushdown="false").where("id >= 950")
    assert "PushedFilters: []" in plan_of(frame)
    assert ids(frame) == list(range(950, 1000))


def test_one_frame_serves_several_queries(spark: SparkSession, file: str) -> None:
    """Spark 4.2 keeps the first query's filters of formats written in Python."""
    frame = read(spark, file)
    assert frame.where("id >= 950").count() == 50
    assert frame.count() == 1000
    assert frame.where("id >= 990").union(frame.where("id < 5")).count() == 15


@pytest.mark.parametrize("schema", [None, "id long"], ids=["inferred", "given"])
def test_a_frame_keeps_to_one_version(
    spark: SparkSession, tmp_path: Path, schema: str | None
) -> None:
    """A union of a frame with itself could see what was committed between its two halves."""
    table = table_at(tmp_path / "t")
    table.write(ROWS.select(["id"]))
    reader = spark.read if schema is None else spark.read.schema(schema)
    frame = reader.format("ncf").load(table.uri)
    assert frame.count() == 1000
    table.write(ROWS.select(["id"]), mode="append")
    assert frame.union(frame).count() == 2000
    assert read(spark, table.uri).count() == 2000


def test_the_python_side_alone_serves_a_foreign_server(spark: SparkSession, file: str) -> None:
    """Where Spark has no class of ours in front of it, and hands on neither columns nor filters."""
    reader = spark.read.format(INNER_NAME)
    frame = reader.option("columns", "id,day").option("where", "id >= 950").load(file)
    assert frame.columns == ["id", "day"]
    assert frame.where("id >= 990").union(frame.where("id < 955")).count() == 15
    once = spark.read.format(INNER_NAME).option("pushdown", "true").load(file)
    assert once.where("id >= 950").rdd.getNumPartitions() == 1


def test_where_belongs_to_the_frame(spark: SparkSession, file: str) -> None:
    frame = read(spark, file, where="id > 100 and id <= 150 and name is not null")
    assert ids(frame) == [i for i in range(101, 151) if i % 10]
    assert frame.where("id >= 140").count() == 9
    assert frame.count() == 45
    assert frame.rdd.getNumPartitions() == 1


TYPES = {field.name: field.type for field in ROWS.schema}


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("id in (3, 5, 5000)", [3, 5]),
        ("name is null and id < 25", [0, 10, 20]),
        ("name is not null and id between 9 and 11", [9, 11]),
        ("day = '2024-01-10' and name = 'n6' and id < 920", [902, 909, 916]),
        ("value > 499 and id < 990", list(range(0, 990, 100))),
    ],
)
def test_where_means_what_spark_means(where: str, expected: list[int]) -> None:
    kept = ROWS
    for term in read_where(where, TYPES):
        kept = kept.filter(term.expression())
    assert kept["id"].to_pylist() == expected


@pytest.mark.parametrize("kind", [pa.float32(), pa.float64()], ids=str)
def test_in_finds_either_zero(kind: pa.DataType) -> None:
    """Spark has one zero; Arrow's `isin` has two."""
    rows = pa.table({"x": pa.array([-0.0, 0.0, 1.5, 2.5], kind)})
    term = read_filter(In(("x",), (0.0, 1.5)), {"x": kind})
    opposite = read_filter(Not(In(("x",), (-0.0, 1.5))), {"x": kind})
    assert term is not None
    assert opposite is not None
    asked = read_where("x in (0, 1.5)", {"x": kind})[0]
    found = [rows.filter(one.expression()).num_rows for one in (term, asked, opposite)]
    assert found == [3, 3, 1]


@pytest.mark.parametrize("where", ["id > 1 or id < 3", "nope = 1", "id = 'x'", "id >"])
def test_where_refuses_what_it_cannot_answer(where: str) -> None:
    with pytest.raises(TableError, match=r"where: |predicate "):
        read_where(where, TYPES)


@pytest.mark.parametrize(("count", "tasks"), [(16_000, [2]), (40_000, [4, 5])])
def test_a_big_file_is_never_one_task(
    spark: SparkSession, tmp_path: Path, count: int, tasks: list[int]
) -> None:
    """Two cores share 16 MB by a task each, 40 MB by finer ones."""
    schema = pa.schema([("id", pa.int64()), ("noise", pa.binary(1024))])
    noise = pa.array([bytes([i % 256]) * 4 + i.to_bytes(4, "big") * 255 for i in range(count)])
    rows = pa.table([pa.array(range(count)), noise.cast(pa.binary(1024))], schema)
    ncf.write_table(rows, tmp_path / "big.ncf", row_group_size=1000, compression="none")
    frame = read(spark, str(tmp_path / "big.ncf"))
    assert frame.rdd.getNumPartitions() in tasks
    assert frame.agg(sf.sum("id")).collect()[0][0] == sum(range(count))


def test_merge_schema_reads_missing_columns_as_null(spark: SparkSession, tmp_path: Path) -> None:
    ncf.write_table(pa.table({"a": [1]}), tmp_path / "1.ncf")
    ncf.write_table(pa.table({"a": [2], "b": ["x"]}), tmp_path / "2.ncf")
    merged = read(spark, str(tmp_path), mergeSchema="true").orderBy("a")
    assert [tuple(row) for row in merged.collect()] == [(1, None), (2, "x")]
    with pytest.raises(PySparkException, match=r"no columns \['b'\].*mergeSchema"):
        spark.read.format("ncf").schema("a long, b string").load(str(tmp_path)).collect()


def test_nulls_are_read_though_the_schema_says_not_null(
    spark: SparkSession, tmp_path: Path
) -> None:
    """Spark took the value before a null for it."""
    path = str(tmp_path / "n.ncf")
    ncf.write_table(
        pa.table({"id": pa.array([7, None, 9], pa.int64()), "l": [[1], [None], []]}), path
    )
    schema = "id bigint not null, l array<bigint> not null"
    frame = spark.read.schema(schema).format("ncf").load(path)
    assert [tuple(row) for row in frame.collect()] == [(7, [1]), (None, [None]), (9, [])]
    assert frame.where("id is null").count() == 1
    assert frame.selectExpr("sum(id)").collect()[0][0] == 16
    alone = spark.read.schema(schema).format(INNER_NAME)
    with pytest.raises(PySparkException, match=r"column 'id': 1 nulls.*leave NOT NULL out"):
        alone.load(path).collect()
    ncf.write_table(pa.table({"id": [7, 9]}), path)
    assert alone.schema("id bigint not null").load(path).count() == 2


def rows_of(
    path: Path, schema: dict[str, pa.DataType] | StructType, **options: str
) -> list[dict[str, Any]]:
    """What the tasks of the Python side send, without Spark."""
    source = NCFDataSource(CaseInsensitiveDict({"path": str(path), **options}))
    asked = schema if isinstance(schema, StructType) else spark_schema(pa.schema(schema))
    reader = source.reader(asked)
    batches = [batch for part in reader.partitions() for batch in reader.read(part)]
    return [row for batch in batches for row in batch.to_pylist()]


@pytest.mark.parametrize("where", ["u = 2", "word = 'b'", "later = 3"])
def test_a_batch_without_a_row_that_passes(tmp_path: Path, where: str) -> None:
    """Columns that Arrow has filtered, not the core, were divided by their rows: by none."""
    words = pa.array(["a", "c"]).dictionary_encode()
    ncf.write_table(
        pa.table({"u": pa.array([1, 3], pa.uint16()), "word": words}), tmp_path / "1.ncf"
    )
    schema = {"u": pa.int32(), "word": pa.string(), "later": pa.int64()}
    assert rows_of(tmp_path, schema, where=where, mergeSchema="true") == []
    assert len(rows_of(tmp_path, schema, where="u = 3", mergeSchema="true")) == 1


def test_a_file_is_not_skipped_by_bounds_of_another_type(tmp_path: Path) -> None:
    """Nanoseconds are read as the microseconds below them: these lie below the file's bounds."""
    moments = pa.array([1_500, 2_000, 9_500], pa.timestamp("ns"))
    rows = pa.table({"at": moments, "word": pa.array(["b", "c", "d"]).dictionary_encode()})
    table_at(tmp_path / "t").write(rows)
    asked = {"at": pa.timestamp("us"), "word": pa.string()}
    found = {
        where: len(rows_of(tmp_path / "t", asked, where=where))
        for where in ("at = '1970-01-01 00:00:00.000001'", "at < '1970-01-01 00:00:00.000002'")
    }
    assert list(found.values()) == [1, 1]
    source = NCFDataSource(CaseInsensitiveDict({"path": f"{tmp_path}/t", "where": "word < 'b'"}))
    assert not source.reader(spark_schema(pa.schema(asked))).partitions()


@pytest.mark.parametrize("kind", ["timestamp", "duration"])
def test_moments_beyond_microseconds_are_refused(tmp_path: Path, kind: str) -> None:
    """Seconds beyond the range of microseconds came round to other moments."""
    at = getattr(pa, kind)
    ncf.write_table(pa.table({"at": pa.array([10**14], at("s"))}), tmp_path / "1.ncf")
    with pytest.raises(SchemaMismatchError, match=r"column 'at': .*does not fit .*us"):
        rows_of(tmp_path, {"at": at("us")})
    ncf.write_table(pa.table({"at": pa.array([-1_999], at("ns"))}), tmp_path / "1.ncf")
    assert len(rows_of(tmp_path, {"at": at("us")})) == 1


def nested(leaf: pa.DataType) -> pa.DataType:
    member = pa.struct([("m", pa.map_(pa.string(), leaf))])
    return pa.list_(pa.field("element", member))


KINDS = pa.table(
    {
        "id": pa.array([0, 5, None]),
        "tenth": pa.array([0.1, 2.0, float("nan")]),
        "half": pa.array([0.5, float("nan"), None]),
        "money": pa.array([Decimal("0.10"), Decimal("2.00"), None]),
        "at": pa.array([dt.datetime(2020, 1, 1, 12), None, None]),
        "on": pa.array([dt.date(2020, 1, 1), None, None]),
        "word": pa.array(["1", None, "x"]),
        "nested": pa.array([[{"m": [("k", 5)]}, None], None, []], nested(pa.int64())),
    }
)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *(("id", kind) for kind in (pa.bool_(), pa.string(), pa.timestamp("us", "UTC"))),
        *(("tenth", kind) for kind in (pa.float32(), pa.int64(), pa.decimal128(3, 1))),
        *(("at", kind) for kind in (pa.date32(), pa.string(), pa.int64())),
        ("on", pa.timestamp("us", "UTC")),
        ("word", pa.int32()),
        ("nested", nested(pa.bool_())),
        ("money", pa.string()),
    ],
    ids=str,
)
def test_a_schema_of_another_kind_is_refused(tmp_path: Path, name: str, kind: pa.DataType) -> None:
    """Arrow made other values of these: true of 5, a day of a moment, a moment of a number."""
    ncf.write_table(KINDS, tmp_path / "1.ncf")
    with pytest.raises(SchemaMismatchError, match=rf"column '{name}.*does not fit"):
        rows_of(tmp_path, {name: kind})


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *(("id", kind) for kind in (pa.int8(), pa.float32(), pa.float64(), pa.decimal128(21, 2))),
        *(("half", kind) for kind in (pa.float32(), pa.float64())),
        *(("money", kind) for kind in (pa.float64(), pa.decimal128(2, 1), pa.decimal128(9, 4))),
        *(("at", kind) for kind in (pa.timestamp("us"), pa.timestamp("us", "UTC"))),
        ("on", pa.timestamp("us")),
        ("word", pa.binary()),
        *(("nested", nested(leaf)) for leaf in (pa.int16(), pa.float64(), pa.decimal128(21, 2))),
    ],
    ids=str,
)
def test_a_schema_that_holds_the_values_is_read(
    tmp_path: Path, name: str, kind: pa.DataType
) -> None:
    ncf.write_table(KINDS, tmp_path / "1.ncf")
    found = pa.array([row[name] for row in rows_of(tmp_path, {name: kind})], kind)
    expected = KINDS[name].cast(kind).combine_chunks()
    assert str(found) == str(expected)


MERGED = {"mergeSchema": "true"}


def test_names_are_found_whatever_their_case(tmp_path: Path) -> None:
    """With mergeSchema a column in another case was null, a field of a struct ever."""
    rows = pa.table({"id": [1, 2], "s": [{"x": 1, "Y": 2}] * 2, "a": [3, 4], "A": [5, 6]})
    ncf.write_table(rows, tmp_path / "1.ncf")
    asked = {"ID": pa.int64(), "s": pa.struct([("y", pa.int32()), ("X", pa.int64())])}
    for options in ({}, MERGED):
        found = rows_of(tmp_path, asked, where="ID = 2", **options)
        assert found == [{"ID": 2, "s": {"y": 2, "X": 1}}]
    assert rows_of(tmp_path, {"ID": pa.int64()}, where="id = 2 and a = 4") == [{"ID": 2}]
    assert rows_of(tmp_path, {"A": pa.int64()}, where="A = 6") == [{"A": 6}]


@pytest.mark.parametrize("nests", [False, True], ids=["column", "field"])
def test_a_name_of_several_cases_is_refused(tmp_path: Path, nests: bool) -> None:
    rows, asked = {"ab": [1], "aB": [2]}, {"AB": pa.int64()}
    held = {"s": pa.array([{"ab": 1, "aB": 2}])} if nests else rows
    ncf.write_table(pa.table(held), tmp_path / "1.ncf")
    with pytest.raises(SchemaMismatchError, match=r"'AB' may be any of \['ab', 'aB'\]"):
        rows_of(tmp_path, {"s": pa.struct(asked)} if nests else asked, **MERGED)


def test_a_field_that_is_not_there_is_null_by_merge_schema_only(tmp_path: Path) -> None:
    ncf.write_table(pa.table({"l": [[{"x": 1}], None]}), tmp_path / "1.ncf")
    member = pa.struct([("x", pa.int64()), ("z", pa.string())])
    asked = {"l": pa.list_(pa.field("element", member))}
    with pytest.raises(SchemaMismatchError, match=r"'l.element': no field 'z'.*mergeSchema"):
        rows_of(tmp_path, asked)
    assert rows_of(tmp_path, asked, **MERGED) == [{"l": [{"x": 1, "z": None}]}, {"l": None}]


def test_renamed_columns_are_found_whatever_their_case(tmp_path: Path) -> None:
    table = table_at(tmp_path / "t")
    table.write(pa.table({"id": [1], "b": ["x"], "gone": [0]}))
    evolve_schema(table, rename={"id": "Key"}, drop=["gone"], add={"new": pa.int64()})
    asked = {"key": pa.int64(), "NEW": pa.int64()}
    assert rows_of(tmp_path / "t", asked, where="key = 1") == [{"key": 1, "NEW": None}]
    for name in ("id", "gone"):
        with pytest.raises(SchemaMismatchError, match=rf"no columns \['{name}'\]"):
            rows_of(tmp_path / "t", {name: pa.int64()})


def test_nulls_of_a_field_that_must_not_be_null_are_refused(tmp_path: Path) -> None:
    ncf.write_table(pa.table({"s": [{"x": 1}, None]}), tmp_path / "1.ncf")
    asked = StructType().add("s", StructType().add("x", LongType(), nullable=False))
    assert rows_of(tmp_path, asked) == [{"s": {"x": 1}}, {"s": None}]
    ncf.write_table(pa.table({"s": [{"x": 1}, {"x": None}]}), tmp_path / "1.ncf")
    with pytest.raises(SchemaMismatchError, match=r"'s.x'.*nulls"):
        rows_of(tmp_path, asked)


def test_a_row_group_is_not_skipped_by_bounds_of_another_type(tmp_path: Path) -> None:
    """A double becomes another number as a float, which lay beyond the group's bounds."""
    count = WHOLE_FILE_BYTES // 6  # of noise: of so large a file the driver judges row groups
    noise = pa.array(np.random.default_rng(1).random(count))
    money = pa.repeat(pa.scalar(Decimal("0.1"), pa.decimal128(5, 2)), count)
    tenth = pa.repeat(pa.scalar(0.1), count)
    ncf.write_table(pa.table({"x": tenth, "d": money, "noise": noise}), tmp_path / "big.ncf")
    asked = {"x": pa.float32(), "d": pa.float64(), "noise": pa.float64()}
    source = {"path": f"{tmp_path}/big.ncf"}
    found = {}
    for where in ("x = 0.1", "x <= 0.1", "d = 0.1", "noise > 2"):
        options = CaseInsensitiveDict({**source, "where": where})
        reader = NCFDataSource(options).reader(spark_schema(pa.schema(asked)))
        found[where] = bool(reader.partitions())
    assert found == {"x = 0.1": True, "x <= 0.1": True, "d = 0.1": True, "noise > 2": False}


def test_types_go_round(spark: SparkSession, tmp_path: Path) -> None:
    frame = spark.sql(
        """select true bo, 1Y by, 2S sh, 3 i, 4L lo, 1.5F fl, 2.5D do, 12.34BD de, 'ä' st,
        X'00ff' bi, date'2024-02-29' da, timestamp'2024-02-29 12:00:00.123456' ts,
        timestamp_ntz'2024-02-29 12:00:00.123456' tn, interval '1 02:03:04.5' day to second iv,
        array(1, null) ar, map('k', array(1.5D)) ma, struct(1 as x, array('y') as y) sr,
        cast(null as string) nu, cast(1 as decimal(38, 10)) bd"""
    )
    both = frame.union(frame.select(*(sf.lit(None).cast(f.dataType) for f in frame.schema)))
    write_ncf(both, str(tmp_path / "t"))
    again = read(spark, str(tmp_path / "t"))
    assert again.dtypes == frame.dtypes
    assert sorted(map(str, again.collect())) == sorted(map(str, both.collect()))


@pytest.mark.parametrize(("digits", "scale"), [(1, 0), (9, 2), (18, 0), (18, 18), (19, 0), (38, 9)])
def test_decimals_of_every_width_go_round(
    spark: SparkSession, tmp_path: Path, digits: int, scale: int
) -> None:
    """Those of up to 18 digits are sent to the writer as whole numbers."""
    values = [Decimal((sign, nines, -scale)) for sign in (0, 1) for nines in [(9,) * digits, (1,)]]
    values += [Decimal(0), None]
    kind = f"value decimal({digits}, {scale})"
    write_ncf(spark.createDataFrame([(one,) for one in values], kind), str(tmp_path / "t"))
    found = [row.value for row in read(spark, str(tmp_path / "t")).collect()]
    assert Counter(found) == Counter(values)


def test_rows_larger_than_a_batch_go_round(spark: SparkSession, tmp_path: Path) -> None:
    frame = spark.range(5, numPartitions=1).selectExpr("id", "repeat('x', 9000000 + id) as text")
    write_ncf(frame, str(tmp_path / "t"))
    found = read(spark, str(tmp_path / "t")).selectExpr("id", "length(text) as length")
    assert sorted(map(tuple, found.collect())) == [(one, 9_000_000 + one) for one in range(5)]


def test_arrow_types_that_spark_lacks_are_widened(spark: SparkSession, tmp_path: Path) -> None:
    rows = pa.table(
        {
            "u8": pa.array([255], pa.uint8()),
            "u64": pa.array([2**64 - 1], pa.uint64()),
            "ns": pa.array([1_001], pa.timestamp("ns")),
            "word": pa.array(["a"]).dictionary_encode(),
            "large": pa.array(["b"], pa.large_string()),
        }
    )
    ncf.write_table(rows, tmp_path / "w.ncf")
    found = read(spark, str(tmp_path / "w.ncf")).collect()[0]
    moment = dt.datetime(1970, 1, 1, 0, 0, 0, 1)
    assert tuple(found) == (255, Decimal(2**64 - 1), moment, "a", "b")


def test_variant_is_refused_by_name(spark: SparkSession, tmp_path: Path) -> None:
    frame = spark.sql("select 1 i, parse_json('1') v")
    with pytest.raises(PySparkException, match=r"'v' \(variant\).*cast them"):
        write_ncf(frame, str(tmp_path / "t"))
    assert not (tmp_path / "t").exists()


def test_collated_text_is_refused_by_name(spark: SparkSession, tmp_path: Path) -> None:
    """The collation was lost, so that the same query found fewer rows; Spark alone can have it."""
    frame = spark.sql(
        "select 'A' collate UTF8_LCASE s, array(named_struct('x', 'b' collate UNICODE)) l, 'c' p"
    )
    with pytest.raises(PySparkException, match=r"'s' \(string collate .*'l' \(.*cast them"):
        write_ncf(frame, str(tmp_path / "t"))
    assert not (tmp_path / "t").exists()
    write_ncf(frame.select(sf.col("s").cast("string"), "p"), str(tmp_path / "t"))
    asked = spark.read.format("ncf").schema("s string collate UTF8_LCASE, p string")
    assert asked.load(str(tmp_path / "t")).where("s = 'a'").count() == 1


def test_modes(spark: SparkSession, tmp_path: Path) -> None:
    uri, frame = str(tmp_path / "t"), spark.range(5)

    def write(rows: DataFrame, mode: str | None) -> None:
        rows.write.format("ncf").mode(mode).save(uri)

    write(frame, None)
    for mode in (None, "error", "errorifexists"):
        with pytest.raises(PySparkException, match="exists already"):
            write(frame, mode)
    write(spark.range(9), "ignore")
    assert read(spark, uri).count() == 5
    write(frame, "append")
    assert read(spark, uri).count() == 10
    write(frame, "overwrite")
    assert read(spark, uri).count() == 5
    assert read(spark, uri, version="1").count() == 10
    write(frame.limit(0), "overwrite")
    assert read(spark, uri).count() == 0
    assert not list((tmp_path / "t" / "_staging").rglob("*.ncf"))


def test_write_ncf_has_the_same_modes(spark: SparkSession, tmp_path: Path) -> None:
    uri, frame = str(tmp_path / "t"), spark.range(5)
    write_ncf(frame, uri)
    with pytest.raises(TableError, match="exists already"):
        write_ncf(frame, uri, mode="errorifexists")
    write_ncf(spark.range(9), uri, mode="ignore")
    write_ncf(frame, uri, mode="append")
    assert read(spark, uri).count() == 10


@pytest.mark.parametrize("place", ["rows.ncf", "day=1/rows.ncf"])
def test_a_folder_of_files_does_not_become_a_table(
    spark: SparkSession, tmp_path: Path, place: str
) -> None:
    """The table's log hid the files that lay there before."""
    uri, frame = str(tmp_path / "t"), spark.range(5)
    (tmp_path / "t" / place).parent.mkdir(parents=True)
    ncf.write_table(ROWS, tmp_path / "t" / place)
    for mode in ("append", "overwrite", "errorifexists"):
        with pytest.raises(TableError, match="exists already, as a folder of NCF files"):
            write_ncf(frame, uri, mode=mode)  # type: ignore[arg-type]
        with pytest.raises(PySparkException, match="write to another folder"):
            frame.write.format("ncf").mode(mode).save(uri)
    write_ncf(frame, uri, mode="ignore")
    assert read(spark, uri).count() == 1000
    assert [path.name for path in (tmp_path / "t").iterdir()] == [place.split("/")[0]]


def test_a_table_is_written_above_a_table_and_over_what_a_killed_write_left(tmp_path: Path) -> None:
    table_at(tmp_path / "t" / "daily").write(ROWS)
    ncf.write_table(ROWS, tmp_path / "t" / f"part-{'0' * 32}.ncf")
    appender(tmp_path / "t").commit([])
    assert table_at(tmp_path / "t").snapshot().files == ()


def test_rows_without_columns_are_refused(spark: SparkSession, tmp_path: Path) -> None:
    """They were written as no rows."""
    with pytest.raises(PySparkException, match="the rows have no columns"):
        spark.range(3).select().write.format("ncf").save(str(tmp_path / "t"))
    with pytest.raises(TableError, match="partition_by: expected a list of names, got the text"):
        write_ncf(spark.range(3), str(tmp_path / "t"), partition_by="id")
    assert not (tmp_path / "t").exists()


def test_a_thread_without_a_session_writes(spark: SparkSession, tmp_path: Path) -> None:
    """Spark finds formats in the thread's own session: no other thread found this one."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(write_ncf, spark.range(5), str(tmp_path / "t")).result()
    assert read(spark, str(tmp_path / "t")).count() == 5


def test_partition_by_and_dynamic_overwrite(spark: SparkSession, tmp_path: Path) -> None:
    uri = str(tmp_path / "t")
    frame = spark.range(30).withColumn("k", sf.when(sf.col("id") % 3 > 0, sf.col("id") % 3))
    frame.write.format("ncf").partitionBy("k").save(uri)
    assert {dict(p)["k"] for p in table_at(tmp_path / "t").snapshot().partitions} == {
        "1",
        "2",
        "__HIVE_DEFAULT_PARTITION__",
    }
    change = frame.where("k = 1").limit(1)
    dynamic = change.write.option("partitionOverwriteMode", "dynamic").partitionBy("K")
    dynamic.format("ncf").mode("overwrite").save(uri)
    assert read(spark, uri).count() == 21
    assert read(spark, uri).where("k = 1").count() == 1
    with pytest.raises(PySparkException, match="names no columns"):
        write_ncf(frame, uri, mode="append", partition_by=["nope"])


def test_the_sessions_overwrite_mode_holds(spark: SparkSession, tmp_path: Path) -> None:
    """`spark.sql.sources.partitionOverwriteMode` was passed over: other partitions were lost."""
    uri = str(tmp_path / "t")
    frame = spark.range(30).selectExpr("id", "id % 3 as k")
    change = frame.where("id = 1")
    spark.conf.set(OVERWRITE_MODE, "DYNAMIC")
    try:
        frame.write.format("ncf").partitionBy("k").save(uri)
        change.write.format("ncf").partitionBy("k").mode("overwrite").save(uri)
        assert read(spark, uri).count() == 21
        write_ncf(frame.where("id < 2"), uri, mode="overwrite", partition_by=["k"])
        assert read(spark, uri).count() == 12
        write_ncf(change, uri, mode="append", partition_by=["k"])
        assert read(spark, uri).count() == 13
        static = change.write.option("partitionOverwriteMode", "static").partitionBy("k")
        static.format("ncf").mode("overwrite").save(uri)
        assert read(spark, uri).count() == 1
    finally:
        spark.conf.unset(OVERWRITE_MODE)


def test_a_failing_task_leaves_the_former_version(spark: SparkSession, tmp_path: Path) -> None:
    uri = str(tmp_path / "t")
    write_ncf(spark.range(5), uri)
    bad = spark.range(0, 1000, 1, 4).select(
        sf.when(sf.col("id") == 999, sf.raise_error(sf.lit("boom"))).otherwise(sf.col("id")),
    )
    with pytest.raises(PySparkException, match="boom"):
        bad.toDF("id").write.format("ncf").mode("overwrite").save(uri)
    assert ids(read(spark, uri)) == list(range(5))
    assert table_at(tmp_path / "t").snapshot().version == 0
    deadline = time.monotonic() + 30  # the other tasks run on after the failure is told
    while list((tmp_path / "t" / "_staging").rglob("*.ncf")):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def appender(path: Path) -> NCFTableWriter:
    return NCFTableWriter(
        table=table_at(path), schema=ROWS.schema, mode="append", partition_by=(), is_dynamic=False
    )


def test_a_task_that_ends_after_the_abort_leaves_nothing(tmp_path: Path) -> None:
    """The abort comes while a task is in the midst of its rows."""
    writer = appender(tmp_path / "t")
    batches = ROWS.to_batches(max_chunksize=100)

    def rows() -> Iterator[pa.RecordBatch]:
        yield from batches[:5]
        writer.abort([])
        yield from batches[5:]

    with pytest.raises(TableError, match="ended before this task did"):
        writer.write(rows())
    assert not [path for path in (tmp_path / "t").rglob("*") if path.is_file()]


def test_a_speculative_attempt_leaves_nothing(tmp_path: Path) -> None:
    writer = appender(tmp_path / "t")
    first, _second = (writer.write(iter(ROWS.to_batches())) for _ in range(2))
    writer.commit([first])
    assert table_at(tmp_path / "t").read().num_rows == 1000
    assert len(list((tmp_path / "t").rglob("*.ncf"))) == 1


def partitioned(path: Path, rows: pa.Table, *names: str, is_dynamic: bool) -> None:
    """Write rows as one task does, without Spark."""
    writer = NCFTableWriter(
        table=table_at(path),
        schema=rows.schema,
        mode="overwrite",
        partition_by=names,
        is_dynamic=is_dynamic,
    )
    writer.commit([writer.write(iter(rows.to_batches()))])


@pytest.mark.parametrize(
    ("text", "told"), [("", "empty text"), ("__HIVE_DEFAULT_PARTITION__", "partition of nulls")]
)
def test_some_texts_cannot_name_a_partition(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(PartitionError, match=told):
        partitioned(tmp_path / "t", pa.table({"k": ["a", text]}), "k", is_dynamic=False)
    assert not list(tmp_path.rglob("*.ncf"))


def test_texts_that_differ_in_a_last_nul_are_partitions(tmp_path: Path) -> None:
    """They were one, and dynamic overwrite of the one deleted rows of the other."""
    rows = pa.table({"k": ["a", "a\0", "a", None], "n": [1, 1, 1, 2], "v": [1, 2, 3, 4]})
    partitioned(tmp_path / "t", rows, "k", "n", is_dynamic=True)
    change = pa.table({"k": ["a"], "n": [1], "v": [10]})
    partitioned(tmp_path / "t", change, "k", "n", is_dynamic=True)
    table = table_at(tmp_path / "t")
    assert len(table.snapshot().partitions) == 3
    assert sorted(table.read()["v"].to_pylist()) == [2, 4, 10]


def test_wrong_places_and_columns_are_told(spark: SparkSession, file: str) -> None:
    with pytest.raises(PySparkException, match="no NCF file, no table and no folder"):
        read(spark, f"{file}.gone").collect()
    with pytest.raises(PySparkException, match=r"no columns \['nope'\]; expected some of"):
        read(spark, file, columns="nope").collect()
    with pytest.raises(PySparkException, match="no path"):
        spark.read.format("ncf").load().collect()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"colums": "a"}, "unknown option 'colums'; did you mean columns"),
        ({"mergeSchema": "yes"}, "option mergeSchema: expected false or true, got 'yes'"),
        ({"version": "x"}, "option version: expected a whole number, got 'x'"),
        ({"location": "/data"}, "Spark's catalog holds no NCF tables"),
        ({"__clustering_columns": '["a"]'}, "clusterBy is not supported"),
        ({"paths": "[bad"}, r"option paths: expected a JSON list, got '\[bad'"),
    ],
)
def test_wrong_options_are_told(options: dict[str, str], told: str) -> None:
    with pytest.raises(SettingsError, match=told):
        NCFDataSource(CaseInsensitiveDict({"path": "/data", **options})).schema()


def test_wrong_options_of_writing_are_told(tmp_path: Path) -> None:
    options = {"path": str(tmp_path / "t"), "partitionOverwriteMode": "dinamic"}
    with pytest.raises(SettingsError, match="expected static or dynamic, got 'dinamic'"):
        NCFDataSource(CaseInsensitiveDict(options)).writer(StructType(), overwrite=True)


def test_s3_is_reached_without_keys_in_the_plan(spark: SparkSession, s3_server: S3Server) -> None:
    keys = {
        "endpoint": s3_server.endpoint,
        "access_key": s3_server.access_key,
        "secret_key": s3_server.secret_key,
    }
    uri = f"s3a://{s3_server.bucket}/spark/t"
    spark.range(10).write.format("ncf").mode("overwrite").options(**keys).save(uri)
    frame = read(spark, uri, **keys)
    assert ids(frame) == list(range(10))
    plan = frame._jdf.queryExecution().toString()
    assert s3_server.secret_key not in plan
    assert s3_server.access_key not in plan


def test_session_keys_travel_with_the_format() -> None:
    options = StorageOptions(endpoint="localhost:1", access_key="a", secret_key="hidden")
    source = configured(options, parallelism=4, pushdown=False)
    assert source.name() == NCFDataSource.name() == "ncf"
    assert NCFDataSource.storage is None
    assert "hidden" not in repr(source.storage)


def test_a_bucket_is_reached_by_its_own_options(s3_server: S3Server, tmp_path: Path) -> None:
    own = StorageOptions(
        endpoint=s3_server.endpoint,
        access_key=s3_server.access_key,
        secret_key=s3_server.secret_key,
    )
    Table(Storage("s3://lake", own), tmp_path.name, "ncf").write(pa.table({"id": [1]}))
    other = StorageOptions(endpoint="http://127.0.0.1:9", access_key="a", secret_key="b")
    source = configured(other, parallelism=1, pushdown=False, buckets={"lake": own})
    uri = f"s3a://lake/{tmp_path.name}"
    assert source({"path": uri}).schema().names == ["id"]
    with pytest.raises(TableError, match="reached in other ways"):
        source({"path": uri, "paths": '["s3://elsewhere/t"]'}).schema()


def test_arrow_schema_names_every_refused_column() -> None:
    schema = StructType.fromDDL("a int, b variant, c interval year")
    with pytest.raises(TypeError, match=r"'b' \(variant\), 'c' \(interval year\)"):
        arrow_schema(schema)


@pytest.mark.parametrize(
    ("folder", "found"), [("/home", r"^/home/below/t: no NCF"), (None, "expected an absolute path")]
)
def test_relative_paths_begin_in_the_sessions_folder(folder: str | None, found: str) -> None:
    """On a Connect server rows went to a folder that was deleted with the session."""
    source = configured(StorageOptions(), parallelism=1, pushdown=False, folder=folder)
    with pytest.raises(NeuroLakeError, match=found):
        source({"path": "below/t"}).schema()
