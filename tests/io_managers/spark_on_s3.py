"""Spark DataFrames through all IO managers on S3, in a process with a session of its own.

`python -m tests.io_managers.spark_on_s3 ROOT ENDPOINT ACCESS_KEY SECRET_KEY` ends with 0 if each
format kept an unpartitioned, a daily and a multi-partitioned asset right. The keys must be
the session's from its start, so the tests' shared session cannot serve.
"""

import sys
from datetime import date
from typing import Any

import dagster as dg
import pyarrow as pa
from pyspark.sql import DataFrame

from neurolake_dagster.io_managers.base import LakehouseIOManager
from neurolake_dagster.resources import SparkResource, StorageResource
from tests.io_managers.test_io_managers import DAYS, MANAGERS, run, run_range

REGIONS = dg.MultiPartitionsDefinition(
    {"day": DAYS, "region": dg.StaticPartitionsDefinition(["eu/west", "us"])}
)


def check(manager: LakehouseIOManager, spark: Any, instance: dg.DagsterInstance) -> None:
    """Write with Spark, read with Spark and Arrow."""
    seen: dict[str, list[Any]] = {"whole": [], "day": [], "both": []}

    @dg.asset
    def whole() -> DataFrame:
        return spark.range(1000).repartition(2)

    @dg.asset
    def whole_read(whole: DataFrame) -> None:
        seen["whole"].append(whole.count())

    @dg.asset(
        partitions_def=DAYS,
        metadata={"partition_expr": "day"},
        backfill_policy=dg.BackfillPolicy.single_run(),
    )
    def days(context: dg.AssetExecutionContext) -> DataFrame:
        rows = [(date.fromisoformat(key),) for key in context.partition_keys]
        return spark.createDataFrame(rows, "day date")

    @dg.asset(partitions_def=DAYS)
    def day_read(days: pa.Table) -> None:
        seen["day"].append(days["day"].to_pylist())

    @dg.asset(
        partitions_def=REGIONS, metadata={"partition_expr": {"day": "day", "region": "region"}}
    )
    def both(context: dg.AssetExecutionContext) -> DataFrame:
        keys = context.partition_key.keys_by_dimension
        row = (date.fromisoformat(keys["day"]), keys["region"], 1)
        return spark.createDataFrame([row], "day date, region string, n int")

    @dg.asset(partitions_def=REGIONS)
    def both_read(both: DataFrame) -> None:
        seen["both"].append([row.region for row in both.collect()])

    for _ in range(2):
        assert run([whole, whole_read], manager, instance).success
    assert run_range(days, manager, instance, "2013-01-01", "2013-01-03").success
    assert run_range(days, manager, instance, "2013-01-03", "2013-01-04").success
    run([days, day_read], manager, instance, selection=[day_read], partition_key="2013-01-03")
    for region in ("us", "eu/west"):
        key = dg.MultiPartitionKey({"day": "2013-01-01", "region": region})
        assert run([both, both_read], manager, instance, partition_key=key).success
    assert seen["whole"] == [1000, 1000]
    assert seen["day"] == [[date(2013, 1, 3)]]
    assert seen["both"] == [["us"], ["eu/west"]]


def main(root: str, endpoint: str, access_key: str, secret_key: str) -> None:
    """Check all formats."""
    spark = SparkResource(master="local[2]", ui_enabled=False)
    for name, kind in MANAGERS.items():
        storage = StorageResource(
            root=f"{root}/{name}", endpoint=endpoint, access_key=access_key, secret_key=secret_key
        )
        with dg.DagsterInstance.ephemeral() as instance:
            check(kind(storage=storage, spark=spark), spark.session(storage), instance)
        print(name, "is right")


if __name__ == "__main__":
    main(*sys.argv[1:])
