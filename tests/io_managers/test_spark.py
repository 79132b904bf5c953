"""Spark DataFrames in and out of all three IO managers, on a real session."""

import uuid
from collections.abc import Iterator
from datetime import date, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import polars as pl
import pyarrow as pa
import pytest
from pyspark.sql import DataFrame, SparkSession, functions as sf

from neurolake_dagster.errors import SessionConflictError, TableNotFoundError
from neurolake_dagster.io_managers import spark_digest, spark_rows
from neurolake_dagster.io_managers.base import LakehouseIOManager
from neurolake_dagster.io_managers.partitions import scope_of
from neurolake_dagster.io_managers.spark_digest import FrameDigest
from neurolake_dagster.io_managers.spark_rows import NUMBER_COLUMN, STRAY, with_key_numbers
from neurolake_dagster.resources import SparkResource, StorageResource
from neurolake_dagster.tables.scope import Scope
from tests.io_managers.test_io_managers import (
    DAYS,
    MANAGERS,
    failure,
    instance,
    metadata_of,
    run,
    run_range,
    stored,
)
from tests.io_managers.test_s3 import s3_storage
from tests.s3_server import S3Server

__all__ = ["instance"]
pytestmark = [
    pytest.mark.spark,
    pytest.mark.filterwarnings("ignore:Parameter `backfill_policy`:dagster.BetaWarning"),
]
ROWS = [(1, "a", date(2013, 1, 1), datetime(2013, 1, 1, 5)), (2, None, None, None)]
COLUMNS = "id long, name string, day date, at timestamp"


@pytest.fixture(params=list(MANAGERS))
def manager(
    request: pytest.FixtureRequest, tmp_path: Path, spark_resource: SparkResource
) -> LakehouseIOManager:
    storage = StorageResource(root=str(tmp_path / "lake"))
    return MANAGERS[request.param](storage=storage, spark=spark_resource)


@pytest.fixture
def jobs(spark: SparkSession) -> Iterator[Any]:
    """How many Spark jobs ran since the fixture was asked for."""
    if not hasattr(spark, "sparkContext"):
        pytest.skip("Spark Connect tells nothing of its jobs")
    tracker, group = spark.sparkContext.statusTracker(), uuid.uuid4().hex
    spark.sparkContext.setJobGroup(group, "counted by a test")
    yield lambda: len(tracker.getJobIdsForGroup(group))
    spark.sparkContext.setLocalProperty("spark.jobGroup.id", None)


def daily(spark: SparkSession, shift: int = 0, mode: str = "overwrite") -> Any:
    @dg.asset(
        name="events",
        partitions_def=DAYS,
        backfill_policy=dg.BackfillPolicy.single_run(),
        metadata={"partition_expr": "day", "mode": mode},
    )
    def events(context: dg.AssetExecutionContext) -> DataFrame:
        window = context.partition_time_window
        days = (window.end - window.start).days
        first = sf.lit(window.start.date())
        frame = spark.range(days).withColumn("day", sf.date_add(first, sf.col("id").cast("int")))
        return frame.select(sf.date_add("day", shift).alias("day"), sf.dayofmonth("day").alias("n"))

    return events


def test_frames_are_written_and_read_as_frames_and_as_arrow(
    manager: LakehouseIOManager, instance: dg.DagsterInstance, spark: SparkSession
) -> None:
    seen: dict[str, Any] = {}

    @dg.asset
    def made() -> DataFrame:
        return spark.createDataFrame(ROWS, COLUMNS).repartition(2)

    @dg.asset
    def as_frame(made: DataFrame) -> None:
        seen["frame"] = [tuple(row) for row in made.orderBy("id").collect()]

    @dg.asset
    def as_polars(made: pl.DataFrame) -> None:
        seen["polars"] = made.sort("id")

    assert run([made, as_frame, as_polars], manager, instance).success
    assert seen["frame"] == ROWS
    assert seen["polars"]["day"].to_list() == [date(2013, 1, 1), None]
    assert seen["polars"]["at"].dt.epoch("s").to_list() == [1357016400, None]
    found = metadata_of(instance, "made")
    assert found["dagster/row_count"] == 2
    assert found["bytes"] > 0
    columns = [column.name for column in found["dagster/column_schema"].columns]
    assert columns == ["id", "name", "day", "at"]
    shown = [record.data["id"] for record in found["preview"].records]
    assert sorted(shown) == [row[0] for row in ROWS][: len(shown)]
    assert shown
    assert found["spark/application_id"] == spark.conf.get("spark.app.id")
    assert found["spark/version"] == spark.version
    assert not any("spark" in name for name in metadata_of(instance, "as_polars"))


def test_arrow_is_read_as_a_frame(
    manager: LakehouseIOManager, instance: dg.DagsterInstance
) -> None:
    seen: list[Any] = []

    @dg.asset
    def made() -> pa.Table:
        return pa.table({"id": pa.array([1, None, 3], pa.int32()), "l": [[1], [], None]})

    @dg.asset(ins={"made": dg.AssetIn(metadata={"columns": ["l", "id"]})})
    def used(made: DataFrame) -> None:
        seen.extend(tuple(row) for row in made.collect())

    assert run([made, used], manager, instance).success
    assert seen == [([1], 1), ([], None), (None, 3)]


@pytest.mark.parametrize("name", list(MANAGERS))
def test_a_session_that_looks_for_the_bucket_in_another_store_is_refused(
    name: str,
    instance: dg.DagsterInstance,
    spark: SparkSession,
    s3_server: S3Server,
    tmp_path: Path,
) -> None:
    """Rows came from, and went to, what had the same name where Spark looked for it."""
    lent = StorageResource()
    resource = SparkResource(master="local[2]", ui_enabled=False, app_name="tests", storage=lent)
    manager = MANAGERS[name](storage=s3_storage(s3_server, tmp_path.name), spark=resource)

    @dg.asset
    def made() -> pa.Table:
        return pa.table({"id": [1]})

    @dg.asset
    def framed() -> DataFrame:
        return spark.range(3)

    @dg.asset
    def used(made: DataFrame) -> None: ...

    told = "looks for the bucket at AWS, expected localhost:"
    with pytest.raises(SessionConflictError, match=told):
        run([made, used], manager, instance)
    if name != "ncf":  # whose files no Spark writes
        with pytest.raises(SessionConflictError, match=told):
            run([framed], manager, instance)
        assert not [*manager.dataset_storage().list("framed")]


@pytest.mark.parametrize("name", ["ncf", "parquet"])  # deltalake refuses such a root
def test_a_root_is_no_pattern(
    name: str, instance: dg.DagsterInstance, spark_resource: SparkResource, tmp_path: Path
) -> None:
    """Spark took a root's brackets for a pattern, and found none of the files."""
    storage = StorageResource(root=f"{tmp_path}/{{a}}[b]")
    manager = MANAGERS[name](storage=storage, spark=spark_resource)
    seen: list[int] = []

    @dg.asset
    def made() -> pa.Table:
        return pa.table({"id": [1, 2, 3]})

    @dg.asset
    def used(made: DataFrame) -> None:
        seen.append(made.count())

    assert run([made, used], manager, instance).success
    assert seen == [3]


def test_predicates_and_versions_reach_spark(
    manager: LakehouseIOManager, instance: dg.DagsterInstance, spark: SparkSession
) -> None:
    seen: list[Any] = []

    def made(first: int) -> Any:
        @dg.asset(name="made")
        def frame() -> DataFrame:
            return spark.range(first, first + 3).withColumn("odd", sf.col("id") % 2 == 1)

        return frame

    keeps_versions = type(manager) is not MANAGERS["parquet"]
    for first in (0, 10):
        assert run([made(first)], manager, instance).success
    metadata: dict[str, Any] = {"where": "odd = true", "columns": ["id"]}
    if keeps_versions:
        metadata["version"] = 0

    @dg.asset(ins={"made": dg.AssetIn(metadata=metadata)})
    def used(made: DataFrame) -> None:
        seen.extend(tuple(row) for row in made.collect())

    assert run([made(10), used], manager, instance, selection=[used]).success
    assert seen == [(1 if keeps_versions else 11,)]


def test_merging_a_frame_updates_and_inserts(
    manager: LakehouseIOManager, instance: dg.DagsterInstance, spark: SparkSession
) -> None:
    def made(rows: list[tuple[int, str]]) -> Any:
        @dg.asset(name="made", metadata={"mode": "merge", "merge_keys": ["id"]})
        def frame() -> DataFrame:
            return spark.createDataFrame(rows, "id long, name string")

        return frame

    for rows in ([(1, "a"), (2, "b")], [(2, "B"), (3, "c")]):
        assert run([made(rows)], manager, instance).success
    found = {row["id"]: row["name"] for row in stored(manager, "made").to_pylist()}
    assert found == {1: "a", 2: "B", 3: "c"}


@pytest.mark.parametrize("manager", ["ncf", "parquet"], indirect=True)
def test_merging_more_than_one_machine_is_to_hold_is_refused(
    manager: LakehouseIOManager,
    instance: dg.DagsterInstance,
    spark: SparkSession,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The rows to merge are held by one machine, unless the table is Delta's."""
    monkeypatch.setattr(spark_rows, "COLLECTED_BYTES", 1 << 20)

    def made(count: int) -> Any:
        @dg.asset(name="made", metadata={"mode": "merge", "merge_keys": ["id"]})
        def frame() -> DataFrame:
            return spark.range(count)

        return frame

    assert run([made(10)], manager, instance).success
    refused = run([made(1 << 18)], manager, instance, raise_on_error=False)
    assert "over 1 MiB of rows to merge" in str(failure(refused))
    assert stored(manager, "made").num_rows == 10
    assert not list(Path(manager.storage.root).rglob("*staging*/*/*"))


def test_single_runs_of_frames_replace_exactly_their_days(
    manager: LakehouseIOManager, instance: dg.DagsterInstance, spark: SparkSession
) -> None:
    for day in ("2013-01-02", "2013-01-06"):
        assert run([daily(spark)], manager, instance, partition_key=day).success
    for _ in range(2):
        assert run_range(daily(spark), manager, instance, "2013-01-01", "2013-01-03").success
    assert sorted(stored(manager, "events")["n"].to_pylist()) == [1, 2, 3, 6]
    found = metadata_of(instance, "events")
    assert found["dagster/row_count"] == 4
    assert found["dagster/partition_row_count"] == 1
    assert [record.data["rows"] for record in found["partitions"].records] == [1, 1, 1]
    assert all(record.data["bytes"] > 0 for record in found["partitions"].records)

    seen: list[list[int]] = []

    @dg.asset(partitions_def=DAYS)
    def used(events: DataFrame) -> None:
        seen.append([row.n for row in events.collect()])

    events = daily(spark)
    for day in ("2013-01-03", "2013-01-06"):
        assert run([events, used], manager, instance, selection=[used], partition_key=day).success
    assert seen == [[3], [6]]


@pytest.mark.parametrize("mode", ["overwrite", "append"])
@pytest.mark.parametrize("end", ["2013-01-01", "2013-01-02"], ids=["one day", "two days"])
def test_frames_with_rows_of_other_days_are_refused(
    manager: LakehouseIOManager,
    instance: dg.DagsterInstance,
    spark: SparkSession,
    end: str,
    mode: str,
) -> None:
    """Delta took them where a run appends."""
    assert run([daily(spark)], manager, instance, partition_key="2013-01-01").success
    stray = daily(spark, shift=1, mode=mode)
    tags = {
        "dagster/asset_partition_range_start": "2013-01-01",
        "dagster/asset_partition_range_end": end,
    }
    result = run([stray], manager, instance, tags=tags, raise_on_error=False)
    assert not result.success
    assert "PartitionError" in str(failure(result))
    assert stored(manager, "events")["day"].to_pylist() == [date(2013, 1, 1)]


def test_the_first_frame_of_a_table_has_no_rows_of_other_days(
    manager: LakehouseIOManager, instance: dg.DagsterInstance, spark: SparkSession
) -> None:
    """Delta took them, where there was no table to replace rows of."""
    stray = daily(spark, shift=1)
    result = run([stray], manager, instance, partition_key="2013-01-01", raise_on_error=False)
    assert "PartitionError" in str(failure(result))
    with pytest.raises(TableNotFoundError):
        stored(manager, "events")
    assert run([daily(spark)], manager, instance, partition_key="2013-01-01").success


def test_hours_of_frames_are_counted_found_and_missed_one_by_one(
    manager: LakehouseIOManager, instance: dg.DagsterInstance, spark: SparkSession
) -> None:
    """Delta counted the run's rows for each hour, and took an hour nobody wrote for empty."""
    hours = dg.HourlyPartitionsDefinition("2013-01-01-00:00", end_date="2013-01-01-06:00")
    seen: list[int] = []

    @dg.asset(
        partitions_def=hours,
        backfill_policy=dg.BackfillPolicy.single_run(),
        metadata={"partition_expr": "at"},
    )
    def events(context: dg.AssetExecutionContext) -> DataFrame:
        rows = [
            (f"{key[:10]}T{key[11:]}:01",) for key in context.partition_keys if "02:" not in key
        ]
        return spark.createDataFrame(rows * 2, "at string")

    @dg.asset(partitions_def=hours)
    def used(events: DataFrame) -> None:
        seen.append(events.count())

    assert run_range(events, manager, instance, "2013-01-01-01:00", "2013-01-01-03:00").success
    found = metadata_of(instance, "events")["partitions"].records
    assert [record.data["rows"] for record in found] == [2, 0, 2]
    for hour in ("02", "03", "05"):
        key = f"2013-01-01-{hour}:00"
        options = {"selection": [used], "partition_key": key, "raise_on_error": False}
        result = run([events, used], manager, instance, **options)
        assert result.success or "never written: 2013-01-01-05:00" in str(failure(result))
    assert seen == [0, 2]


def test_rows_that_a_replaced_file_held_beside_are_not_counted(
    manager: LakehouseIOManager, instance: dg.DagsterInstance, spark: SparkSession
) -> None:
    """Delta's files of a table that is not partitioned on disk hold several days."""

    @dg.asset(
        partitions_def=DAYS,
        backfill_policy=dg.BackfillPolicy.single_run(),
        metadata={"partition_expr": "day"},
    )
    def events(context: dg.AssetExecutionContext) -> DataFrame:
        days = [(date.fromisoformat(key),) for key in context.partition_keys]
        return spark.createDataFrame(days, "day date").coalesce(1)

    for ends in (("2013-01-01", "2013-01-03"), ("2013-01-03", "2013-01-04")):
        assert run_range(events, manager, instance, *ends).success
    found = metadata_of(instance, "events")["partitions"].records
    assert {record.data["partition"]: record.data["rows"] for record in found} == {
        "2013-01-03": 1, "2013-01-04": 1,
    }  # fmt: skip
    assert stored(manager, "events").num_rows == 4


def test_a_frame_asset_reads_its_own_past_from_the_first_day_on(
    manager: LakehouseIOManager, instance: dg.DagsterInstance, spark: SparkSession
) -> None:
    """M12 for frames: there was no table, and so no frame."""
    seen: list[int] = []
    before = dg.TimeWindowPartitionMapping(start_offset=-1, end_offset=-1)

    @dg.asset(
        partitions_def=DAYS,
        metadata={"partition_expr": "day"},
        ins={"grown": dg.AssetIn(partition_mapping=before)},
    )
    def grown(context: dg.AssetExecutionContext, grown: DataFrame) -> DataFrame:
        seen.append(grown.count())
        return spark.createDataFrame([(date.fromisoformat(context.partition_key),)], "day date")

    for day in ("2013-01-01", "2013-01-02"):
        assert run([grown], manager, instance, partition_key=day).success
    assert seen == [0, 1]


def test_a_year_of_hours_is_told_apart_by_a_lookup(spark: SparkSession) -> None:
    """The key's expression was nested once for each key."""
    hours = dg.HourlyPartitionsDefinition("2013-01-01-00:00", end_date="2014-01-01-00:00")
    scope = scope_of(hours, hours.get_partition_keys(), "at")
    frame = spark.createDataFrame([(f"{key[:10]} {key[11:]}",) for key in KEYS], "at string")
    found = [row[NUMBER_COLUMN] for row in with_key_numbers(frame, scope).collect()]
    assert found == [0, 5000, 8759, STRAY]


KEYS = ["2013-01-01-00:00", "2013-07-28-08:00", "2013-12-31-23:59", "2014-01-01-00:00"]


def test_a_failed_frame_leaves_the_former_table(
    manager: LakehouseIOManager, instance: dg.DagsterInstance, spark: SparkSession
) -> None:
    @dg.asset(name="made")
    def good() -> DataFrame:
        return spark.range(3)

    @dg.asset(name="made")
    def bad() -> DataFrame:
        return spark.range(3).select(sf.raise_error(sf.lit("boom")).cast("long").alias("id"))

    assert run([good], manager, instance).success
    result = run([bad], manager, instance, raise_on_error=False)
    assert "boom" in str(failure(result))
    assert sorted(stored(manager, "made")["id"].to_pylist()) == [0, 1, 2]


def test_metadata_takes_no_spark_job_beyond_the_write(
    manager: LakehouseIOManager,
    instance: dg.DagsterInstance,
    spark: SparkSession,
    jobs: Any,
    tmp_path: Path,
) -> None:
    """Counts came from a second, costly job in every peer that has them."""

    @dg.asset
    def made() -> DataFrame:
        return spark.range(1000).repartition(2)

    assert run([made], manager, instance).success
    ours = jobs()
    is_delta = type(manager) is MANAGERS["delta"]
    bare = spark.range(1000).repartition(2).write.format("delta" if is_delta else "noop")
    bare.mode("overwrite").option("overwriteSchema", "true").save(str(tmp_path / "bare"))
    assert 0 < ours <= jobs() - ours
    found = metadata_of(instance, "made")
    assert found["dagster/row_count"] == 1000
    assert found["spark/jobs"] == ours
    assert found["spark/tasks"] >= found["spark/stages"] >= 1
    assert found["spark/shuffle_write_bytes"] > 0


def test_the_same_rows_of_a_frame_have_the_same_data_version(
    manager: LakehouseIOManager, instance: dg.DagsterInstance, spark: SparkSession
) -> None:
    """Frames in Parquet and Delta had none: unchanged data went downstream again.

    Nested times that differ in microseconds alone had the same one; of a range some days of which
    had changed, all had a new one.
    """
    changed: set[str] = set()
    runs = 0

    @dg.asset(
        partitions_def=DAYS,
        backfill_policy=dg.BackfillPolicy.single_run(),
        metadata={"partition_expr": "day"},
    )
    def events(context: dg.AssetExecutionContext) -> DataFrame:
        rows = [
            (
                date.fromisoformat(key),
                [{"n": n, "at": datetime(2013, 1, 1, microsecond=key in changed)}],
            )
            for key in sorted(context.partition_keys)
            for n in range(9)
        ]
        backwards = rows[:: 1 - 2 * (runs % 2)]
        types = "day date, n array<struct<n: int, at: timestamp>>"
        return spark.createDataFrame(backwards, types).repartition(runs % 3 + 1)

    def versions(first: str, last: str) -> dict[str, str]:
        nonlocal runs
        runs += 1
        assert run_range(events, manager, instance, f"2013-01-{first}", f"2013-01-{last}").success
        told = instance.event_log_storage.get_latest_tags_by_partition(
            dg.AssetKey("events"),
            dg.DagsterEventType.ASSET_MATERIALIZATION,
            ["dagster/data_version"],
        )
        return {key: tags["dagster/data_version"] for key, tags in told.items()}

    first = versions("01", "09")
    assert versions("03", "03") == first
    changed.add("2013-01-02")
    then = versions("02", "10")
    assert {key for key in first if then[key] != first[key]} == changed
    assert then.keys() - first.keys() == {"2013-01-10"}


def test_each_of_many_partitions_has_the_digest_that_it_has_alone(
    spark: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of more than 31 there was one for all, and what is below the unchanged ones was stale."""
    keys = dg.StaticPartitionsDefinition([f"k{n}" for n in range(1024)])  # all that a sketch holds
    scope = scope_of(keys, keys.get_partition_keys(), "k")
    rows = spark.range(9000, numPartitions=5).selectExpr("concat('k', id % 1000) k", "id / 7 x")
    found = digests(rows, scope)
    for alone in scope.single()[4::300]:  # the first has no rows
        name = alone.keys[0].name
        mine = rows.where(rows["k"] == name).repartition(1)
        assert digests(mine, alone) == {name: found[name]}
    changed = rows.withColumn("x", sf.when(rows["k"] == "k5", sf.lit(0.5)).otherwise(rows["x"]))
    others = digests(changed, scope)
    assert [key for key in found if found[key] != others[key]] == ["k5"]
    assert len(set(found.values())) == 1001
    monkeypatch.setattr(spark_digest, "_SKETCHES_SINCE", (9, 0))
    assert digests(rows, scope) == {}  # an older server writes, and tells none


def test_keys_that_only_sql_reads_are_refused(
    manager: LakehouseIOManager, instance: dg.DagsterInstance, spark: SparkSession
) -> None:
    """Delta took 1.0 for '1.0', which no text of Arrow's is: what changed later was not seen."""
    keys = dg.StaticPartitionsDefinition(["1.0"])
    made = dg.asset(name="made", partitions_def=keys, metadata={"partition_expr": "k"})(
        lambda: spark.sql("select 1d k")
    )
    result = run([made], manager, instance, partition_key="1.0", raise_on_error=False)
    assert "'k' is double, no value of which reads '1.0'" in str(failure(result))


@pytest.mark.parametrize("mode", ["ignore", "overwrite", "append"])
def test_a_frame_without_the_partition_column_is_refused(
    manager: LakehouseIOManager, instance: dg.DagsterInstance, spark: SparkSession, mode: str
) -> None:
    """Spark's own error came out, or a KeyError; where nothing is written, nothing is refused."""

    def made(query: str) -> Any:
        metadata = {"partition_expr": "day", "mode": mode}
        return dg.asset(name="made", partitions_def=DAYS, metadata=metadata)(
            lambda: spark.sql(query)
        )

    day = "2013-01-01"
    failed = run(
        [made("select 1 x, 2 y")], manager, instance, partition_key=day, raise_on_error=False
    )
    assert "partition_expr names ['day'], expected columns of ['x', 'y']" in str(failure(failed))
    if mode == "ignore":
        assert run([made(f"select '{day}' day")], manager, instance, partition_key=day).success
        assert run([made("select 1 x, 2 y")], manager, instance, partition_key=day).success


def test_maps_of_structs_and_variants_have_a_data_version(
    spark: SparkSession, tmp_path: Path
) -> None:
    """The one told the address of a key in memory, the other could not be written at all."""
    frame = spark.sql("select map(named_struct('a', 1), 2) m, array(parse_json('[1]')) v")
    frame.write.parquet(str(tmp_path / "rows"))
    first, again = (digests(spark.read.parquet(str(tmp_path / "rows"))) for _ in range(2))
    assert list(first) == [""]
    assert first == again


def digests(frame: DataFrame, scope: Scope | None = None) -> dict[str, str]:
    digest = FrameDigest(frame, scope)
    digest.frame.write.format("noop").mode("overwrite").save()
    return digest.by_partition()


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ("select 1 a, 2 A", "columns ['a', 'A'] have the same name to Spark"),
        ("select 1 a, 2 __Neurolake_key", "columns ['__Neurolake_key'] would be taken for"),
        ("select make_interval(1) c", "UnsupportedTypeError"),
    ],
    ids=["names", "ours", "interval"],
)
def test_frames_that_no_file_holds_are_refused(
    manager: LakehouseIOManager,
    instance: dg.DagsterInstance,
    spark: SparkSession,
    query: str,
    told: str,
) -> None:
    """Spark's and Arrow's own errors came out."""
    made = dg.asset(name="made")(lambda: spark.sql(query))
    result = run([made], manager, instance, raise_on_error=False)
    assert told in str(failure(result))


def test_partitioned_parquet_of_spark_is_a_plain_folder(
    instance: dg.DagsterInstance, spark: SparkSession, spark_resource: SparkResource, tmp_path: Path
) -> None:
    storage = StorageResource(root=str(tmp_path))
    manager = MANAGERS["parquet"](storage=storage, spark=spark_resource)
    assert run_range(daily(spark), manager, instance, "2013-01-01", "2013-01-03").success
    query = (
        f"select partition_key, n from read_parquet('{tmp_path}/events/**/*.parquet') order by n"
    )
    assert duckdb.sql(query).fetchall() == [
        (date(2013, 1, 1), 1), (date(2013, 1, 2), 2), (date(2013, 1, 3), 3),
    ]  # fmt: skip
    assert spark.read.parquet(f"{tmp_path}/events").count() == 3


def test_frames_leave_the_partitions_that_are_there(
    manager: LakehouseIOManager, instance: dg.DagsterInstance, spark: SparkSession
) -> None:
    """Mode ``ignore`` of a run over several days writes those that are missing."""
    assert run_range(daily(spark), manager, instance, "2013-01-02", "2013-01-02").success
    before = metadata_of(instance, "events")
    ignoring = daily(spark, mode="ignore")
    assert run_range(ignoring, manager, instance, "2013-01-01", "2013-01-03").success
    found = stored(manager, "events").sort_by("day")
    assert found["n"].to_pylist() == [1, 2, 3]
    assert metadata_of(instance, "events")["dagster/row_count"] == 3 > before["dagster/row_count"]
    shifted = daily(spark, shift=40, mode="ignore")
    tags = {
        "dagster/asset_partition_range_start": "2013-01-03",
        "dagster/asset_partition_range_end": "2013-01-04",
    }
    result = run([shifted], manager, instance, tags=tags, raise_on_error=False)
    assert not result.success
    assert stored(manager, "events").num_rows == 3
