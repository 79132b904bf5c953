"""Fixtures of the whole test run: one Spark session, one S3 server, one converted project."""

import os
import signal
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from neurolake_dagster.resources import SparkResource
from neurolake_dagster.spark import find_java, stop_session
from tests.project import Project, make_project
from tests.s3_server import s3_server

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

__all__ = ["s3_server"]

# Its JVMs do not live long enough for the better code of C2, on which a third of their time was
# spent, nor for the threads of G1.
os.environ.setdefault("JAVA_TOOL_OPTIONS", "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC")
# Modules whose tests share one dear project: one worker runs all of them.
PROJECT_MODULES = ("test_commands.py", "test_ui.py")


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep what shares a Spark session or a project together on one of the run's workers."""
    for item in items:
        fixtures = getattr(item, "fixturenames", ())
        if item.path.name in PROJECT_MODULES:
            item.add_marker(pytest.mark.xdist_group("project"))
        elif "spark_resource" in fixtures or item.get_closest_marker("spark"):
            item.add_marker(pytest.mark.xdist_group("spark"))


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


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project folder with nothing in it."""
    return make_project(tmp_path_factory.mktemp("project"))


@pytest.fixture(scope="session")
def converted(project: Project) -> Project:
    """The project after one run of the main job by `dagster job execute`."""
    project.run(
        *("dagster", "job", "execute", "-m", "neurolake_dagster.definitions"),
        *("-j", "convert_flights"),
    )
    return project


def pytest_configure() -> None:
    """Take SIGINT again where a shell in the background had it ignored.

    Dagster gives SIGTERM the same handler: what tests start would ignore that too, and not end.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
