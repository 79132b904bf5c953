"""Fixtures of the whole test run: one Spark session, one S3 server."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from neurolake_dagster.resources import SparkResource
from neurolake_dagster.spark import find_java, stop_session
from tests.s3_server import s3_server

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

__all__ = ["s3_server"]


@pytest.fixture(scope="session")
def spark_resource() -> Iterator[SparkResource]:
    """The settings of the run's one session; the JVM starts when a test first asks for it."""
    if find_java() is None:
        pytest.skip("no Java on this machine")
    yield SparkResource(master="local[2]", ui_enabled=False, app_name="tests")
    stop_session()


@pytest.fixture(scope="session")
def spark(spark_resource: SparkResource) -> "SparkSession":
    """The run's one Spark session."""
    return spark_resource.spark_session
