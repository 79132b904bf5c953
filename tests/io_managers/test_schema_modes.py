"""What becomes of rows with other columns than the table's: NCF and Parquet, Arrow and Spark."""

from typing import Any

import dagster as dg
import pyarrow as pa
import pytest
from pyspark.sql import DataFrame

from neurolake_dagster.io_managers import NCFIOManager
from neurolake_dagster.io_managers.base import LakehouseIOManager
from neurolake_dagster.resources import SparkResource
from tests.io_managers.test_io_managers import failure, instance, manager, run, stored
from tests.io_managers.test_modes import asset, people

__all__ = ["instance", "manager"]

WIDER = pa.table({"age": [7], "id": [2]})


def refusal(asset: Any, manager: LakehouseIOManager, instance: dg.DagsterInstance) -> str:
    return str(failure(run([asset], manager, instance, raise_on_error=False)))


def test_a_strict_overwrite_refuses_other_columns(
    manager: LakehouseIOManager, instance: dg.DagsterInstance
) -> None:
    assert run([asset(people((1, "a")))], manager, instance).success
    told = refusal(asset(WIDER, schema_mode="strict"), manager, instance)
    assert "SchemaMismatchError" in told
    assert stored(manager, "people").column_names == ["id", "name"]
    assert run([asset(WIDER)], manager, instance).success
    assert stored(manager, "people").column_names == ["age", "id"]


def test_an_overwrite_can_keep_the_columns_there_were(
    manager: LakehouseIOManager, instance: dg.DagsterInstance
) -> None:
    assert run([asset(people((1, "a")))], manager, instance).success
    assert run([asset(WIDER, schema_mode="merge")], manager, instance).success
    found = stored(manager, "people").select(["id", "name", "age"]).to_pylist()
    assert found == [{"id": 2, "name": None, "age": 7}]


@pytest.mark.parametrize("manager", ["ncf", "delta"], indirect=True)
def test_an_append_adds_columns_where_asked(
    manager: LakehouseIOManager, instance: dg.DagsterInstance
) -> None:
    assert run([asset(people((1, "a")))], manager, instance).success
    assert "SchemaMismatch" in refusal(asset(WIDER, mode="append"), manager, instance)
    assert run([asset(WIDER, mode="append", schema_mode="merge")], manager, instance).success
    found = stored(manager, "people").sort_by("id").select(["id", "name", "age"])
    assert found.to_pydict() == {"id": [1, 2], "name": ["a", None], "age": [None, 7]}


@pytest.mark.parametrize("manager", ["parquet"], indirect=True)
def test_parquet_does_not_hide_new_columns_from_other_readers(
    instance: dg.DagsterInstance, manager: LakehouseIOManager
) -> None:
    assert run([asset(people((1, "a")))], manager, instance).success
    told = refusal(asset(WIDER, mode="append", schema_mode="merge"), manager, instance)
    assert "would not see the new columns" in told


@pytest.mark.parametrize("manager", ["ncf", "delta"], indirect=True)
def test_a_merge_adds_columns_where_asked(
    manager: LakehouseIOManager, instance: dg.DagsterInstance
) -> None:
    assert run([asset(people((1, "a"), (2, "b")))], manager, instance).success
    rows = pa.table({"id": [2, 3], "name": ["B", "c"], "age": [7, 8]})
    options: dict[str, Any] = {"mode": "merge", "merge_keys": ["id"]}
    assert run([asset(rows, **options, schema_mode="merge")], manager, instance).success
    found = stored(manager, "people").sort_by("id").to_pydict()
    assert found == {"id": [1, 2, 3], "name": ["a", "B", "c"], "age": [None, 7, 8]}


@pytest.mark.parametrize(
    ("metadata", "told"),
    [
        ({"schema_mode": "wild"}, "schema_mode 'wild', expected one of"),
        ({"schema_mode": "overwrite", "mode": "append"}, "replaces the whole table"),
    ],
)
def test_schema_modes_that_make_no_sense_are_refused(
    manager: LakehouseIOManager,
    instance: dg.DagsterInstance,
    metadata: dict[str, str],
    told: str,
) -> None:
    assert told in refusal(asset(people((1, "a")), **metadata), manager, instance)


@pytest.mark.parametrize("manager", ["ncf", "parquet"], indirect=True)
def test_what_only_delta_has_is_refused_elsewhere(
    manager: LakehouseIOManager, instance: dg.DagsterInstance
) -> None:
    told = refusal(asset(people((1, "a")), constraints={"c": "id > 0"}), manager, instance)
    assert "constraints: only Delta tables have that" in told


@pytest.mark.spark
@pytest.mark.parametrize("manager", ["ncf"], indirect=True)
def test_frames_add_columns_to_ncf(
    spark: Any,
    spark_resource: SparkResource,
    instance: dg.DagsterInstance,
    manager: LakehouseIOManager,
) -> None:
    manager = NCFIOManager(storage=manager.storage, spark=spark_resource)
    seen: list[Any] = []

    @dg.asset(name="people", metadata={"mode": "append", "schema_mode": "merge"})
    def wider() -> Any:
        return spark.createDataFrame([(7, 2)], "age long, id long")

    @dg.asset
    def used(people: DataFrame) -> None:
        seen.extend(people.orderBy("id").collect())

    assert run([asset(people((1, "a")))], manager, instance).success
    assert run([wider, used], manager, instance).success
    assert [tuple(row) for row in seen] == [(1, "a", None), (2, None, 7)]
