import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyspark.sql import SparkSession

from neurolake_dagster.errors import SessionConflictError, SparkError
from neurolake_dagster.resources import SparkResource, StorageResource
from neurolake_dagster.settings import CacheSettings

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


def run(script: str, cwd: Path | None = None, **variables: str) -> Any:
    """What a script says in a process of its own, with this Python first on its PATH."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    cache = {"NEUROLAKE_CACHE__DIR": str(CacheSettings.load().dir.absolute()), "PATH": path}
    found = subprocess.run(
        [sys.executable, "-c", script],
        cwd=cwd,
        env={**os.environ, **cache, **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert found.returncode == 0, found.stderr
    return json.loads(found.stdout.splitlines()[-1])


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


BAD_VALUES = """
import json
from neurolake_dagster.errors import SparkError
from neurolake_dagster.resources import SparkResource
told = []
for key in ("spark.memory.fraction", "spark.sql.codegen.maxFields"):
    try:
        SparkResource(extra_configs={key: "abc"}).spark_session
    except SparkError as exc:
        told.append(str(exc))
print(json.dumps([*told, SparkResource().spark_session.range(3).count()]))
"""


@pytest.mark.spark
@pytest.mark.slow
def test_values_that_spark_does_not_take_are_told_and_leave_nothing(tmp_path: Path) -> None:
    """Spark's trace, and then every session had the wrong value."""
    plain = {"NEUROLAKE_SPARK__DELTA_ENABLED": "false", "NEUROLAKE_SPARK__S3_ENABLED": "false"}
    *told, count = run(BAD_VALUES, tmp_path, NEUROLAKE_SPARK__UI_ENABLED="false", **plain)
    assert "memory.fraction" in told[0]
    assert "maxFields" in told[1]
    assert all("\n" not in one and "abc" in one for one in told)
    assert count == 3


@pytest.mark.spark
def test_a_further_session_refuses_what_spark_does_not_take(
    spark: SparkSession, spark_resource: SparkResource
) -> None:
    update = {"extra_configs": {"spark.sql.codegen.maxFields": "abc"}}
    with pytest.raises(SparkError, match=r"'abc' in the config \"spark\.sql\.codegen\.maxFields\""):
        _ = spark_resource.model_copy(update=update).spark_session
    assert spark_resource.spark_session is spark


@pytest.mark.spark
@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"master": "local[1]"}, r"of spark\.master,"),
        ({"master": "spark://dev:7077"}, r"spark\.master,"),
        ({"jars": ["/other.jar"]}, r"of spark\.jars,"),
        ({"extra_configs": {"spark.jars": "/other.jar"}}, r"of spark\.jars,"),
        ({"s3_region": "eu-9"}, r"of spark\.hadoop\.fs\.s3a\.endpoint\.region, .*storage=\.\.\."),
        ({"remote": "sc://localhost:1"}, "one with a JVM of its own, and pyspark takes only one"),
    ],
    ids=["local master", "cluster", "jars", "more jars", "s3", "remote"],
)
def test_what_a_jvm_is_started_with_is_part_of_its_identity(
    spark: SparkSession,
    spark_resource: SparkResource,
    changes: dict[str, object],
    told: str,
) -> None:
    """Another master, other jars or a remote got the session that happened to run."""
    with pytest.raises(SessionConflictError, match=told):
        _ = spark_resource.model_copy(update=changes).spark_session
    assert spark_resource.spark_session is spark


@pytest.mark.spark
def test_the_storage_of_the_resource_is_everybodys(
    spark: SparkSession, spark_resource: SparkResource
) -> None:
    """An asset's session had the environment's storage, an IO manager's the one in code."""
    own = StorageResource(region=StorageResource().settings().region)
    theirs = StorageResource(endpoint="http://127.0.0.1:1", access_key="id", secret_key="hidden")
    with pytest.raises(SessionConflictError, match=r"give the resource the storage"):
        spark_resource.session(theirs)
    resource = spark_resource.model_copy(update={"storage": own})
    assert resource.session(theirs) is resource.spark_session is spark


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


FORMATS = """
import json, sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from neurolake_dagster.resources import SparkResource, StorageResource

seen = []
class Store(BaseHTTPRequestHandler):
    def do_GET(self):
        seen.append(self.headers["Authorization"].split("Credential=")[1].split("/")[0])
        self.send_error(403)
    do_HEAD = do_GET
    def log_message(self, *_): ...
server = HTTPServer(("127.0.0.1", 0), Store)
Thread(target=server.serve_forever, daemon=True).start()

def resource(**options):
    return SparkResource(master="local[1]", ui_enabled=False, s3_enabled=False,
                         delta_enabled=False, **options)
def store(key):
    return StorageResource(endpoint=f"http://127.0.0.1:{server.server_port}",
                           access_key=key, secret_key="hidden")
def ask(session):
    try:
        session.read.format("ncf").load("s3://bucket/table").count()
    except Exception as exc:
        return str(exc)
off = resource(neurolake_ncf_enabled=False)
told = {"off": ask(off.spark_session)}
for key in ("first", "second", "first"):
    ask(resource(storage=store(key)).spark_session)
    told.setdefault("keys", []).append(sorted(set(seen)))
    seen.clear()
told["same"] = (resource(storage=store("first")).spark_session
                is resource(storage=store("first")).spark_session)
told["rows"] = [one.running["format ncf"] for spark in (off, resource())
                for one in spark.effective() if one.option == "neurolake_ncf_enabled"]
told["still off"] = ask(off.spark_session)
print(json.dumps(told))
"""


@pytest.mark.spark
@pytest.mark.slow
def test_the_format_is_each_sessions_own() -> None:
    """The second storage's tables were asked for with the first one's keys; off stayed off."""
    told = run(FORMATS)
    assert "DATA_SOURCE_NOT_FOUND" in told["off"]
    assert "DATA_SOURCE_NOT_FOUND" in told["still off"]
    assert told["keys"] == [["first"], ["second"], ["first"]]
    assert told["same"] is True
    assert told["rows"] == ["false", "true"]


SOMEBODY_ELSES = """
import json
from pyspark.sql import SparkSession
theirs = (SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false")
          .config("spark.driver.host", "127.0.0.1").config("spark.executor.memory", "1g")
          .config("spark.sql.shuffle.partitions", "33").getOrCreate())
from neurolake_dagster.errors import SessionConflictError, SparkError
from neurolake_dagster.resources import SparkResource
from neurolake_dagster.spark import get_spark_session
def conflict(**options):
    try:
        SparkResource(**options).spark_session
    except SessionConflictError as exc:
        return str(exc)
ours = get_spark_session({"shuffle_partitions": 9, "executor_memory": "1024m"})
ours.range(10).write.format("ncf").mode("overwrite").save("table")
told = {
    "partitions": [one.conf.get("spark.sql.shuffle.partitions") for one in (ours, theirs)],
    "rows": ours.read.format("ncf").load("table").count(),
    "unset": conflict(),
    "same": conflict(master="local[1]", speculation_enabled=False, ui_enabled=False),
    "set": conflict(executor_memory="2g", shuffle_partitions=8),
}
own = get_spark_session({"master": "local[2]", "ui_enabled": False}, force_recreate=True)
told["own"] = [own.sparkContext.master, own.range(4).count()]
print(json.dumps(told))
"""


@pytest.mark.spark
@pytest.mark.slow
def test_a_session_of_somebody_else_is_compared(tmp_path: Path) -> None:
    """It was taken as it was: options did nothing, and it knew no ncf."""
    told = run(SOMEBODY_ELSES, cwd=tmp_path)
    assert told["partitions"] == ["9", "33"]
    assert told["rows"] == 10
    assert told["unset"] is None
    assert told["same"] is None
    assert "a JVM that somebody else started here" in told["set"]
    assert "other values of spark.executor.memory, which" in told["set"]
    assert told["own"] == ["local[2]", 4]


TEARDOWN = """
import dagster as dg
import psutil
from neurolake_dagster.errors import SparkError
from neurolake_dagster.resources import SparkResource

@dg.asset
def uses(spark: SparkResource) -> int:
    return spark.spark_session.range(3).count()

try:
    SparkResource(driver_memory="999999999g").spark_session
except SparkError as exc:
    assert "JVM ended at its start" in str(exc)
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
    # Of another Spark; they broke the session, or made it one of Connect.
    others = {"SPARK_HOME": "/nowhere", "SPARK_REMOTE": "sc://h", "SPARK_API_MODE": "connect"}
    run(f"{TEARDOWN}\nprint(0)", **others)


@pytest.mark.spark
def test_context_is_the_sessions(spark: SparkSession, spark_resource: SparkResource) -> None:
    assert spark_resource.spark_context is spark.sparkContext


@pytest.mark.spark
def test_workers_have_their_imports_before_they_begin(spark: SparkSession) -> None:
    def imported(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        import sys

        for _ in batches:
            yield pa.record_batch({"found": ["neurolake_dagster.spark.reading" in sys.modules]})

    frame = spark.range(1, numPartitions=1).mapInArrow(imported, "found boolean")
    assert [row.found for row in frame.collect()] == [True]
