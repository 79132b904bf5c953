"""What Spark did for an asset, on its materialization: in its body, its inputs and its output."""

import json
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest
from pyspark.sql import DataFrame, SparkSession

from neurolake_dagster.io_managers import NCFIOManager, report_spark
from neurolake_dagster.io_managers.base import LakehouseIOManager
from neurolake_dagster.resources import SparkResource, StorageResource
from tests.io_managers.test_io_managers import instance, metadata_of, run
from tests.spark.test_server import Machine

__all__ = ["instance"]
pytestmark = pytest.mark.spark


@pytest.fixture
def manager(tmp_path: Path, spark_resource: SparkResource) -> LakehouseIOManager:
    return NCFIOManager(storage=StorageResource(root=str(tmp_path)), spark=spark_resource)


def jobs_of(spark: SparkSession) -> int:
    """How many jobs its Spark has run in all."""
    return int(spark.sparkContext._jsc.sc().statusStore().jobsList(None).size())


def test_jobs_of_the_body_count_whatever_it_returns(
    manager: LakehouseIOManager, instance: dg.DagsterInstance, spark: SparkSession
) -> None:
    """Only an asset that returned a frame had numbers, and only those of its write."""

    @dg.asset
    def collected() -> pa.Table:
        session = manager.spark.spark_session  # type: ignore[union-attr]
        return session.range(0, 1000, 1, 4).repartition(2).toArrow()

    @dg.asset
    def framed(collected: DataFrame) -> DataFrame:
        collected.count()
        return collected

    @dg.asset
    def without(framed: pa.Table) -> pa.Table:
        return framed

    before = jobs_of(spark)
    assert run([collected, framed, without], manager, instance).success
    first, second = metadata_of(instance, "collected"), metadata_of(instance, "framed")
    assert first["spark/jobs"] >= 1
    assert first["spark/input_rows"] == 1000
    assert first["spark/shuffle_write_bytes"] > 0
    assert first["spark/version"] == spark.version
    # A count, and the write: the rows of our own format are counted too.
    assert second["spark/jobs"] >= 2
    assert (second["spark/output_rows"], second["spark/output_bytes"]) == (1000, second["bytes"])
    assert first["spark/jobs"] + second["spark/jobs"] == jobs_of(spark) - before
    assert not [name for name in metadata_of(instance, "without") if name.startswith("spark/")]


def test_assets_without_an_io_manager_tell_by_the_block(
    manager: LakehouseIOManager, instance: dg.DagsterInstance, spark_resource: SparkResource
) -> None:
    @dg.asset
    def silent(context: dg.AssetExecutionContext) -> None:
        with report_spark(context):
            spark_resource.spark_session.range(7).collect()

    @dg.asset
    def told(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        with report_spark(context):
            spark_resource.spark_session.range(7).collect()
        return dg.MaterializeResult(metadata={"mine": 1})

    @dg.asset
    def idle(context: dg.AssetExecutionContext) -> None:
        with report_spark(context):
            pass

    assert run([silent, told, idle], manager, instance).success
    assert metadata_of(instance, "silent")["spark/input_rows"] == 7
    found = metadata_of(instance, "told")
    assert (found["mine"], found["spark/input_rows"]) == (1, 7)
    assert metadata_of(instance, "idle") == {}


def test_each_output_of_a_step_has_its_own_jobs_and_a_failed_step_leaves_none(
    manager: LakehouseIOManager, instance: dg.DagsterInstance, spark_resource: SparkResource
) -> None:
    @dg.asset
    def fails() -> pa.Table:
        spark_resource.spark_session.range(5).collect()
        raise ValueError("boom")

    @dg.multi_asset(outs={"one": dg.AssetOut(), "two": dg.AssetOut()})
    def both() -> Iterator[dg.Output[pa.Table]]:
        session = spark_resource.spark_session
        yield dg.Output(session.range(10).toArrow(), "one")
        yield dg.Output(session.range(20).toArrow(), "two")

    assert not run([fails], manager, instance, raise_on_error=False).success
    assert run([both], manager, instance).success
    rows = [metadata_of(instance, name)["spark/input_rows"] for name in ("one", "two")]
    assert rows == [10, 20]


SCRIPT = """
import json, sys
import dagster as dg
import pyarrow as pa
from pyspark.sql import DataFrame
from neurolake_dagster.io_managers import DeltaIOManager, NCFIOManager
from neurolake_dagster.resources import SparkResource, StorageResource

spark = SparkResource(remote=sys.argv[1] or None)
parts = {"storage": StorageResource(root="data"), "spark": spark}

@dg.asset(io_manager_key="ncf")
def numbers(spark: SparkResource) -> DataFrame:
    return spark.spark_session.range(0, 1000, 1, 4).repartition(3)

@dg.asset(io_manager_key="delta")
def evens(numbers: DataFrame) -> DataFrame:
    return numbers.where("id % 2 = 0")

@dg.asset(io_manager_key="ncf")
def total(evens: DataFrame) -> pa.Table:
    return evens.selectExpr("sum(id) as total").toArrow()

resources = {"ncf": NCFIOManager(**parts), "delta": DeltaIOManager(**parts), "spark": spark}
assets = [numbers, evens, total]
result = dg.materialize(assets, resources=resources, selection=sys.argv[2:] or None)
told = {}
for event in result.get_asset_materialization_events():
    metadata = event.materialization.metadata
    told[event.asset_key.to_user_string()] = {
        key: value.value for key, value in metadata.items() if key.startswith("spark/")
    }
print(json.dumps(told))
"""
WITH_UI = {"NEUROLAKE_SPARK__UI_ENABLED": "true", "NEUROLAKE_SPARK__UI_PORT": "47350"}


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    found = Machine(tmp_path_factory.mktemp("machine"))
    yield found
    found.spark("stop")


def materialized(
    machine: Machine, remote: str, *selection: str, **settings: str
) -> dict[str, dict[str, Any]]:
    found = machine.run(sys.executable, "-c", SCRIPT, remote, *selection, **settings)
    assert found.returncode == 0, found.stderr
    told: dict[str, dict[str, Any]] = json.loads(found.stdout.splitlines()[-1])
    return told


def get(url: str) -> Any:
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url) as answer:
        return json.loads(answer.read())


@pytest.mark.slow
def test_the_warm_server_tells_all_of_it(machine: Machine, tmp_path: Path) -> None:
    """Over Connect there were an application id and a version, and nothing else."""
    any_port = WITH_UI | {"NEUROLAKE_SPARK__EXTRA_CONFIGS": '{"spark.ui.port": "0"}'}
    assert machine.spark("start", **any_port).returncode == 0
    told = materialized(machine, "auto", **any_port)
    assert "spark/not_told" not in told["numbers"], told
    assert told["numbers"]["spark/output_rows"] == 1000
    assert told["numbers"]["spark/shuffle_write_bytes"] > 0
    assert told["evens"]["spark/output_rows"] == 500
    assert told["evens"]["spark/input_rows"] >= 1000
    assert told["total"]["spark/tasks"] >= told["total"]["spark/stages"] >= 1
    names = set(told["numbers"])
    assert {"spark/spilled_memory_bytes", "spark/spilled_disk_bytes"} < names
    assert names == set(told["evens"]) == set(told["total"])
    ui, application = told["total"]["spark/ui"], told["total"]["spark/application_id"]
    assert [one["id"] for one in get(f"{ui}/api/v1/applications")] == [application]
    # Every job is of one of the assets: none was run for the numbers.
    jobs = get(f"{ui}/api/v1/applications/{application}/jobs")
    assert len(jobs) == sum(one["spark/jobs"] for one in told.values())

    # The same server is somebody else's to a process with another cache folder.
    record = json.loads((machine.cache / "spark" / "service.json").read_text())["facts"]
    assert (record["ui_url"], record["application_id"]) == (ui, application)
    remote = f"sc://localhost:{record['port']}/;token={record['token']};use_ssl=false"
    (tmp_path / "cache").mkdir()
    elsewhere = {**WITH_UI, "NEUROLAKE_CACHE__DIR": str(tmp_path / "cache")}
    foreign = materialized(machine, remote, "numbers", **elsewhere)["numbers"]
    assert foreign["spark/application_id"] == application
    assert "whose UI is not known" in foreign["spark/not_told"]
    assert not {"spark/ui", "spark/jobs"} & set(foreign)


@pytest.mark.slow
def test_a_warm_server_without_a_ui_says_so(machine: Machine) -> None:
    machine.spark("stop")
    told = materialized(machine, "start", "numbers")["numbers"]
    assert "UI_ENABLED=true" in told["spark/not_told"]
    assert told["spark/application_id"]


@pytest.mark.slow
def test_a_classic_session_links_its_ui(machine: Machine) -> None:
    told = materialized(machine, "", "numbers", **WITH_UI)["numbers"]
    assert told["spark/ui"].endswith(":47350")
    assert told["spark/jobs"] >= 1
