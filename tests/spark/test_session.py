import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from neurolake_dagster.errors import SessionConflictError
from neurolake_dagster.resources import SparkResource

LAZY = """
import dagster as dg
import psutil
from neurolake_dagster.errors import JarsNotFoundError
from neurolake_dagster.resources import SparkResource

@dg.asset
def plain(spark: SparkResource) -> int:
    return spark.settings().ui_port

assert dg.materialize([plain], resources={"spark": SparkResource()}).success
try:
    SparkResource(delta_enabled=True).spark_session
except JarsNotFoundError as exc:
    print(exc)
children = [child.name() for child in psutil.Process().children(recursive=True)]
assert "java" not in children, children
"""


def test_no_jvm_without_need_nor_without_jars(tmp_path: Path) -> None:
    found = subprocess.run(
        [sys.executable, "-c", LAZY],
        env={**os.environ, "NEUROLAKE_CACHE__DIR": str(tmp_path), "DAGSTER_HOME": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    assert "run `neurolake jars` once" in found.stdout


@pytest.mark.spark
def test_32_threads_get_one_session(spark: SparkSession, spark_resource: SparkResource) -> None:
    found: list[SparkSession] = []
    threads = [
        threading.Thread(target=lambda: found.append(spark_resource.spark_session))
        for _ in range(32)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 32
    assert {id(one) for one in found} == {id(spark)}


@pytest.mark.spark
def test_settings_that_a_jvm_cannot_take_are_refused_by_name(
    spark: SparkSession, spark_resource: SparkResource
) -> None:
    other = spark_resource.model_copy(update={"driver_memory": "777m", "ui_port": 5050})
    with pytest.raises(SessionConflictError, match=r"of spark\.driver\.memory, spark\.ui\.port"):
        _ = other.spark_session
    assert spark_resource.spark_session is spark


@pytest.mark.spark
def test_two_resources_never_leak_into_each_other(
    spark: SparkSession, spark_resource: SparkResource
) -> None:
    changes = {"shuffle_partitions": 77, "session_timezone": "Asia/Tokyo"}
    other = spark_resource.model_copy(update=changes)
    session = other.spark_session
    assert session is not spark
    assert session is other.spark_session
    assert session.sparkContext is spark.sparkContext
    assert session.conf.get("spark.sql.shuffle.partitions") == "77"
    assert spark.conf.get("spark.sql.shuffle.partitions") == "2"
    assert spark.conf.get("spark.sql.session.timeZone") == "UTC"
    assert all(one.fits for one in other.effective())
    assert all(one.fits for one in spark_resource.effective())


TEARDOWN = """
import dagster as dg
import psutil
from neurolake_dagster.resources import SparkResource

@dg.asset
def uses(spark: SparkResource) -> int:
    return spark.spark_session.range(3).count()

for policy, left in (("keep", 1), ("stop", 0)):
    spark = SparkResource(master="local[1]", ui_enabled=False, teardown=policy)
    assert dg.materialize([uses], resources={"spark": spark}).success
    children = [child.name() for child in psutil.Process().children(recursive=True)]
    assert children.count("java") == left, children
assert spark.session(force_recreate=True).range(5).count() == 5
"""


@pytest.mark.spark
@pytest.mark.slow
def test_the_session_stays_or_goes_after_a_run_by_policy() -> None:
    found = subprocess.run(
        [sys.executable, "-c", TEARDOWN], capture_output=True, text=True, check=False, timeout=200
    )
    assert found.returncode == 0, found.stderr


@pytest.mark.spark
def test_context_is_the_sessions(spark: SparkSession, spark_resource: SparkResource) -> None:
    assert spark_resource.spark_context is spark.sparkContext
