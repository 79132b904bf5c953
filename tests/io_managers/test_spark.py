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

from neurolake_dagster.io_managers.base import LakehouseIOManager
from neurolake_dagster.resources import SparkResource, StorageResource
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


def daily(spark: SparkSession, shift: int = 0) -> Any:
    @dg.asset(
        name="events",
        partitions_def=DAYS,
        backfill_policy=dg.BackfillPolicy.single_run(),
        metadata={"partition_expr": "day"},
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
    # Delta's commit tells the rows of the run, not of each partition.
    per_partition = type(manager) is not MANAGERS["delta"]
    assert found["dagster/partition_row_count"] == (1 if per_partition else 3)

    seen: list[list[int]] = []

    @dg.asset(partitions_def=DAYS)
    def used(events: DataFrame) -> None:
        seen.append([row.n for row in events.collect()])

    events = daily(spark)
    for day in ("2013-01-03", "2013-01-06"):
        assert run([events, used], manager, instance, selection=[used], partition_key=day).success
    assert seen == [[3], [6]]


@pytest.mark.parametrize("end", ["2013-01-01", "2013-01-02"], ids=["one day", "two days"])
def test_frames_with_rows_of_other_days_are_refused(
    manager: LakehouseIOManager, instance: dg.DagsterInstance, spark: SparkSession, end: str
) -> None:
    assert run([daily(spark)], manager, instance, partition_key="2013-01-01").success
    stray = daily(spark, shift=1)
    tags = {
        "dagster/asset_partition_range_start": "2013-01-01",
        "dagster/asset_partition_range_end": end,
    }
    result = run([stray], manager, instance, tags=tags, raise_on_error=False)
    assert not result.success
    assert "PartitionError" in str(failure(result))
    assert stored(manager, "events")["day"].to_pylist() == [date(2013, 1, 1)]


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
