"""NCF on a real standalone cluster: a master and two workers on loopback.

The workers' Python has what the package needs, but not the package: it comes as an archive.
"""

import json
import os
import re
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from neurolake_dagster.settings import CacheSettings
from neurolake_dagster.spark import require_java
from neurolake_dagster.spark.jars import spark_home

pytestmark = [pytest.mark.spark, pytest.mark.slow]

START_TIMEOUT_S = 60
JOB = """
import json, sys
from neurolake_dagster.resources import SparkResource
spark = SparkResource(
    master=sys.argv[1], executor_memory="512m", executor_memory_overhead="256m",
    executor_cores=1, driver_memory="1g", dynamic_allocation_enabled=False, ui_enabled=False,
    speculation_enabled=False, shuffle_partitions=4,
).spark_session
def where(_):
    import neurolake_dagster.ncf as ncf, socket, os
    from pyspark import SparkFiles
    yield ncf.__file__, os.environ.get("SPARK_EXECUTOR_DIRS", SparkFiles.getRootDirectory())
found = spark.sparkContext.parallelize(range(8), 8).mapPartitions(where).collect()
frame = spark.range(0, 200_000, 1, 4).selectExpr("id", "id % 3 as k", "cast(id as string) as s")
frame.write.format("ncf").mode("overwrite").save(sys.argv[2])
again = spark.read.format("ncf").load(sys.argv[2])
print(json.dumps({
    "modules": sorted({module for module, _ in found}),
    "executors": len({folder for _, folder in found}),
    "rows": again.count(),
    "kept": again.where("id >= 199990 and k = 1").count(),
    "sum": again.selectExpr("sum(id)").collect()[0][0],
}))
"""


@pytest.fixture(scope="module")
def master(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("cluster")
    with ExitStack() as stack:
        log = folder / "master.log"
        options = ["--host", "127.0.0.1", "--port", "0", "--webui-port", "0"]
        stack.callback(_stop, _daemon("master.Master", options, log))
        url = _wait_for(log, r"Starting Spark master at (spark://\S+)")
        for number in range(2):
            log = folder / f"worker{number}.log"
            options = ["-h", "127.0.0.1", "-c", "1", "-m", "1g", "--webui-port", "0"]
            options += ["-d", str(folder / f"work{number}"), url]
            stack.callback(_stop, _daemon("worker.Worker", options, log))
            _wait_for(log, r"Successfully registered with master (\S+)")
        yield url


def _daemon(name: str, options: list[str], log: Path) -> "subprocess.Popen[bytes]":
    command = [str(spark_home() / "bin" / "spark-class"), f"org.apache.spark.deploy.{name}"]
    environment = os.environ | {
        "SPARK_HOME": str(spark_home()),
        "JAVA_HOME": str(require_java().home),
        "SPARK_LOCAL_IP": "127.0.0.1",
        "SPARK_DAEMON_MEMORY": "256m",
    }
    with log.open("wb") as out:
        return subprocess.Popen(
            [*command, *options], stdout=out, stderr=subprocess.STDOUT, env=environment
        )


def _stop(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    process.wait(20)


def _wait_for(log: Path, pattern: str) -> str:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        found = re.search(pattern, log.read_text(errors="replace"))
        if found is not None:
            return found.group(1)
        time.sleep(0.2)
    raise TimeoutError(f"{log}: no {pattern!r} in {log.read_text(errors='replace')[-2000:]}")


def test_executors_get_the_package_by_an_archive(master: str, tmp_path: Path) -> None:
    # Without its site module, Python does not see the package that pip installed as editable.
    python = tmp_path / "python"
    packages = sysconfig.get_path("purelib")
    python.write_text(
        f'#!/bin/sh\nPYTHONPATH="$PYTHONPATH:{packages}" exec {sys.executable} -S "$@"\n'
    )
    python.chmod(0o755)
    bare = subprocess.run(
        [str(python), "-c", "import pyarrow, neurolake_dagster"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert "No module named 'neurolake_dagster'" in bare.stderr
    options = {
        "PYSPARK_PYTHON": str(python),
        "NEUROLAKE_CACHE__DIR": str(CacheSettings.load().dir.absolute()),
    }
    found = subprocess.run(
        [sys.executable, "-c", JOB, master, str(tmp_path / "table")],
        env=os.environ | options,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert found.returncode == 0, found.stderr[-4000:]
    told = json.loads(found.stdout.splitlines()[-1])
    assert all(".zip" in module for module in told["modules"]), told
    assert told["executors"] == 2
    assert (told["rows"], told["kept"], told["sum"]) == (200_000, 4, sum(range(200_000)))
    parts = list((tmp_path / "table").glob("*.ncf"))
    assert len(parts) == 4
