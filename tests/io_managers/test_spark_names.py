"""Texts and column names that SQL has to quote, by Spark as by Arrow."""

from typing import Any

import dagster as dg
import pyarrow as pa
import pytest
from pyspark.sql import DataFrame, SparkSession

from neurolake_dagster.io_managers import DeltaIOManager
from neurolake_dagster.io_managers.base import LakehouseIOManager
from tests.io_managers.test_io_managers import failure, instance, run, stored
from tests.io_managers.test_spark import manager

__all__ = ["instance", "manager"]
pytestmark = pytest.mark.spark
TEXTS = pa.table({"id": [1, 2, 3, 4], "text": ["a\\b", "O'Neil", "c\\\\d", "x\\nz"]})


def read_ids(manager: LakehouseIOManager, **metadata: Any) -> list[list[int]]:
    """The ids that an input of ``made`` has, as Arrow and as Spark read it."""
    seen: dict[str, list[int]] = {}

    @dg.asset(ins={"made": dg.AssetIn(metadata=metadata)})
    def as_arrow(made: pa.Table) -> None:
        seen["arrow"] = sorted(made["id"].to_pylist())

    @dg.asset(ins={"made": dg.AssetIn(metadata=metadata)})
    def as_frame(made: DataFrame) -> None:
        seen["frame"] = sorted(row["id"] for row in made.collect())

    source = dg.AssetSpec("made").with_io_manager_key("io_manager")
    with dg.instance_for_test() as instance:
        chosen = ["as_arrow", "as_frame"]
        assert run([source, as_arrow, as_frame], manager, instance, selection=chosen).success
    return [seen["arrow"], seen["frame"]]


def test_a_backslash_in_a_condition_is_a_backslash(
    manager: LakehouseIOManager, instance: dg.DagsterInstance
) -> None:
    """Spark took it for an escape, and gave other rows."""

    @dg.asset
    def made() -> pa.Table:
        return TEXTS

    assert run([made], manager, instance).success
    cases = {
        "text = 'a\\b'": [1],
        "text IN ('c\\\\d', 'O''Neil')": [2, 3],
        "text != 'x\\nz'": [1, 2, 3],
        "text = 'a\\'": [],
    }
    found = {where: read_ids(manager, where=where) for where in cases}
    assert found == {where: [ids, ids] for where, ids in cases.items()}


def test_a_partition_with_a_backslash_is_replaced_merged_and_read(
    manager: LakehouseIOManager, instance: dg.DagsterInstance, spark: SparkSession
) -> None:
    """On Delta, no frame could overwrite it."""
    keys = dg.StaticPartitionsDefinition(["a\\b", "other"])
    seen: list[Any] = []

    @dg.asset(partitions_def=keys, metadata={"partition_expr": "key"})
    def made(context: dg.AssetExecutionContext) -> DataFrame:
        return spark.createDataFrame([(1, context.partition_key)], "id long, key string")

    merge = {"partition_expr": "key", "mode": "merge", "merge_keys": ["key"]}

    @dg.asset(name="made", partitions_def=keys, metadata=merge)
    def merged(context: dg.AssetExecutionContext) -> DataFrame:
        return spark.createDataFrame([(2, context.partition_key)], "id long, key string")

    @dg.asset(partitions_def=keys)
    def used(made: DataFrame) -> None:
        seen.extend(tuple(row) for row in made.collect())

    assert run([made], manager, instance, partition_key="other").success
    for asset in (made, made, merged):
        assert run([asset], manager, instance, partition_key="a\\b").success
    assert run([made, used], manager, instance, partition_key="a\\b", selection=["used"]).success
    assert seen == [(2, "a\\b")]
    assert stored(manager, "made").sort_by("id")["key"].to_pylist() == ["other", "a\\b"]


@pytest.mark.parametrize("name", [pytest.param("a.b", marks=pytest.mark.slow), "e`f"])
def test_columns_of_any_name_are_written_merged_and_read(
    manager: LakehouseIOManager, instance: dg.DagsterInstance, spark: SparkSession, name: str
) -> None:
    """A dot was taken for a path, a backtick for the end of the name."""
    keys = dg.StaticPartitionsDefinition(["x", "y"])

    def build(**metadata: Any) -> dg.AssetsDefinition:
        @dg.asset(name="made", partitions_def=keys, metadata={"partition_expr": name} | metadata)
        def made(context: dg.AssetExecutionContext) -> DataFrame:
            return spark.createDataFrame([(1, context.partition_key)], ["id", name])

        return made

    assert run([build()], manager, instance, partition_key="x").success
    assert run([build()], manager, instance, partition_key="y").success
    merged = build(mode="merge", merge_keys=[name])
    result = run([merged], manager, instance, partition_key="y", raise_on_error=False)
    if isinstance(manager, DeltaIOManager):
        assert "delta-spark cannot merge into columns" in str(failure(result))
    else:
        assert result.success
    assert stored(manager, "made").sort_by(name).to_pydict() == {"id": [1, 1], name: ["x", "y"]}
    quoted = "`" + name.replace("`", "``") + "`"
    found = read_ids(manager, columns=[name, "id"], where=f"{quoted} = 'x'")
    assert found == [[1], [1]]


def test_the_name_that_spark_has_for_null_is_no_key_of_its_frames(
    manager: LakehouseIOManager, instance: dg.DagsterInstance, spark: SparkSession
) -> None:
    """Delta had a null for it, and the write ended in a TypeError."""
    key = "__HIVE_DEFAULT_PARTITION__"

    @dg.asset(
        partitions_def=dg.StaticPartitionsDefinition([key]), metadata={"partition_expr": "key"}
    )
    def made(context: dg.AssetExecutionContext) -> DataFrame:
        return spark.createDataFrame([(1, context.partition_key)], "id long, key string")

    result = run([made], manager, instance, partition_key=key, raise_on_error=False)
    if isinstance(manager, DeltaIOManager):
        assert "PartitionError" in str(failure(result))
        assert not manager.dataset("made").exists()
    else:
        assert stored(manager, "made").to_pylist() == [{"id": 1, "key": key}]
