"""Which Spark frames fit a table: the same rules in all three formats."""

from datetime import datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from pyspark.sql import DataFrame, SparkSession

from neurolake_dagster.io_managers.base import LakehouseIOManager
from neurolake_dagster.io_managers.ncf import NCFIOManager
from neurolake_dagster.resources import SparkResource, StorageResource
from tests.io_managers.test_io_managers import failure, instance, run, stored
from tests.io_managers.test_spark import manager

__all__ = ["instance", "manager"]
pytestmark = pytest.mark.spark
FIRST = ("id long, x long", [(1, 1)])
MERGE = {"mode": "merge", "merge_keys": ["id"]}


def asset(spark: SparkSession, columns: str, rows: list[Any], **metadata: Any) -> Any:
    @dg.asset(name="made", metadata=metadata)
    def made() -> DataFrame:
        return spark.createDataFrame(rows, columns)

    return made


def test_frames_that_would_lose_something_are_refused(
    manager: LakehouseIOManager, instance: dg.DagsterInstance, spark: SparkSession
) -> None:
    """On Delta numbers were cut, columns dropped or made null, or Spark's own errors raised."""
    assert run([asset(spark, *FIRST)], manager, instance).success
    cases: list[tuple[str, list[Any], dict[str, Any], str]] = [
        ("id long, x string", [(1, "2")], {"mode": "append"}, "'x' is string, expected int64"),
        ("id long", [(2,)], {"mode": "append"}, "column 'x' is missing"),
        ("id long", [(2,)], {"schema_mode": "strict"}, "column 'x' is missing"),
        ("id long, x double", [(1, 2.7)], MERGE, "'x' is double, expected int64"),
        ("id long, x double", [(1, 2.7)], MERGE | {"schema_mode": "merge"}, "'x' is double"),
        ("id long, x long, z long", [(1, 1, 2)], MERGE, "column 'z' is not in the table"),
        ("id long", [(1,)], MERGE, "column 'x' is missing"),
    ]
    for columns, rows, metadata, told in cases:
        refused = asset(spark, columns, rows, **metadata)
        error = str(failure(run([refused], manager, instance, raise_on_error=False)))
        assert "SchemaMismatchError" in error
        assert told in error
    assert stored(manager, "made").to_pylist() == [{"id": 1, "x": 1}]


@pytest.mark.parametrize("metadata", [{"mode": "append"}, MERGE], ids=["append", "merge"])
def test_frames_of_the_tables_types_fit(
    manager: LakehouseIOManager,
    instance: dg.DagsterInstance,
    spark: SparkSession,
    metadata: dict[str, Any],
) -> None:
    columns = (
        "id long, at timestamp, wall timestamp_ntz, price decimal(9, 2), raw binary, "
        "list array<int>, pairs map<string, double>, one struct<a: int, b: array<string>>"
    )
    moment = datetime(2013, 1, 1)
    rows = [(1, moment, moment, None, b"a", [1], {"a": 1.0}, (1, ["x"]))]
    assert run([asset(spark, columns, rows)], manager, instance).success
    again = asset(spark, columns, [(2, *rows[0][1:])], **metadata)
    assert run([again], manager, instance).success
    narrower = asset(spark, columns.replace("id long", "id int"), [(3, *rows[0][1:])], **metadata)
    assert run([narrower], manager, instance).success
    assert sorted(stored(manager, "made")["id"].to_pylist()) == [1, 2, 3]


def test_text_with_a_collation_is_no_ncf_table(
    instance: dg.DagsterInstance,
    spark: SparkSession,
    spark_resource: SparkResource,
    tmp_path: Path,
) -> None:
    """Its collation was lost, so that a query of the table found fewer rows."""
    manager = NCFIOManager(storage=StorageResource(root=str(tmp_path)), spark=spark_resource)
    rows = asset(spark, "id long, s string collate UTF8_LCASE", [(1, "A")])
    error = str(failure(run([rows], manager, instance, raise_on_error=False)))
    assert "'s' (string collate UTF8_LCASE)" in error
    assert "UnsupportedTypeError" in error
