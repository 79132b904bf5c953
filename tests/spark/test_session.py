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
def test_other_settings_are_refused_by_name(
    spark: SparkSession, spark_resource: SparkResource
) -> None:
    other = spark_resource.model_copy(update={"shuffle_partitions": 77})
    with pytest.raises(SessionConflictError, match=r"spark\.sql\.shuffle\.partitions"):
        _ = other.spark_session
    assert spark_resource.spark_session is spark


@pytest.mark.spark
def test_context_is_the_sessions(spark: SparkSession, spark_resource: SparkResource) -> None:
    assert spark_resource.spark_context is spark.sparkContext
