"""The warm server, as its commands and its clients see it: each in a process of its own."""

import json
import os
import re
import stat
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest

from neurolake_dagster.settings import CacheSettings

pytestmark = [pytest.mark.spark, pytest.mark.slow]

BIN = Path(sys.executable).parent
CLIENT = """
import sys
from neurolake_dagster.resources import SparkResource
spark = SparkResource(remote=sys.argv[1]).spark_session
frame = spark.range(1000)
frame.write.format("ncf").mode("overwrite").save(sys.argv[2])
kept = spark.read.format("ncf").load(sys.argv[2]).where("id >= 990").count()
print(type(spark).__module__, kept)
"""

DELTA_AND_MORE = """
import json, sys
from neurolake_dagster.resources import SparkResource
from neurolake_dagster.spark import measured
resource = SparkResource(remote="auto")
spark, uri = resource.spark_session, sys.argv[1]
spark.range(100).withColumnRenamed("id", "k").write.format("delta").save(uri)
spark.sql(f"merge into delta.`{uri}` t using (select explode(array(5L, 500L)) k) s on t.k = s.k "
          "when matched then delete when not matched then insert *")
other = resource.model_copy(update={"shuffle_partitions": 5}).spark_session
with measured(spark) as found:
    rows = spark.read.format("delta").load(uri).count()
print(json.dumps({
    "rows": rows,
    "version": spark.sql(f"describe history delta.`{uri}`").count(),
    "misfits": [one.option for one in resource.effective() if not one.fits],
    "others": [spark.conf.get("spark.sql.shuffle.partitions"),
               other.conf.get("spark.sql.shuffle.partitions"),
               other.range(3).write.format("ncf").mode("overwrite").save(uri + "-ncf")],
    "application": [found.work.application_id, spark.conf.get("spark.app.id")],
}))
"""
PANDAS = """
import sys
from neurolake_dagster.resources import SparkResource
spark = SparkResource(remote="auto").spark_session
assert spark.range(3).count() == 3
before = "pandas" in sys.modules
import pandas as pd
found = spark.createDataFrame(pd.DataFrame({"k": [1, 2]})).toPandas()
print(before, isinstance(found, pd.DataFrame), str(found["k"].tolist()).replace(" ", ""))
"""
HELD = """
import sys
from neurolake_dagster.resources import SparkResource
resource = SparkResource(remote="auto")
first = resource.spark_session
first.client.release_session()
second = resource.spark_session
print(second.range(5).count(), second is resource.spark_session, second is first, flush=True)
sys.stdin.readline()
"""
RELATIVE = """
import os
from neurolake_dagster.resources import SparkResource
spark = SparkResource(remote="auto").spark_session
for name in ("parquet", "ncf"):
    spark.range(7).write.format(name).mode("overwrite").save(f"below/{name}")
    rows = spark.read.format(name).load(f"below/{name}").count()
    print(name, os.listdir(f"below/{name}") != [], rows)
"""
STOPPED = """
from neurolake_dagster.resources import SparkResource
SparkResource(remote="auto").spark_session.stop()
options = {"master": "local[1]", "delta_enabled": False, "s3_enabled": False}
spark = SparkResource(**options).spark_session
print(type(spark).__module__, spark.range(3).count())
"""
STRANGER = """
import socket, threading
from neurolake_dagster.resources import SparkResource
from neurolake_dagster.spark import connect
connect.READY_TIMEOUT_S = 1
with socket.create_server(("127.0.0.1", 0)) as stranger:
    remote = f"sc://localhost:{stranger.getsockname()[1]}/;token=" + "hid" + "den"
    SparkResource(remote=remote).spark_session
"""
CHAIN = """
import os
import dagster as dg
from pyspark.sql import DataFrame
from neurolake_dagster.io_managers import DeltaIOManager, NCFIOManager, ParquetIOManager
from neurolake_dagster.resources import SparkResource, StorageResource, step_processes

def told(context, frame):
    context.log.info(f"application {frame.sparkSession.conf.get('spark.app.id')} of the step")
    context.log.info(f"process {os.getpid()} of {os.getppid()} of the step")
    return frame

@dg.asset(io_manager_key="ncf")
def numbers(context: dg.AssetExecutionContext, spark: SparkResource) -> DataFrame:
    return told(context, spark.spark_session.range(1000))

@dg.asset(io_manager_key="delta")
def evens(context: dg.AssetExecutionContext, numbers: DataFrame) -> DataFrame:
    return told(context, numbers.where("id % 2 = 0"))

@dg.asset(io_manager_key="parquet")
def total(context: dg.AssetExecutionContext, evens: DataFrame) -> DataFrame:
    return told(context, evens.selectExpr("sum(id) as total"))

parts = {"storage": StorageResource(root="data"), "spark": SparkResource(remote="auto")}
defs = dg.Definitions(
    assets=[numbers, evens, total],
    executor=step_processes,
    jobs=[dg.define_asset_job("chain")],
    resources={
        "ncf": NCFIOManager(**parts),
        "delta": DeltaIOManager(**parts),
        "parquet": ParquetIOManager(**parts),
        "spark": parts["spark"],
    },
)
"""


class Machine:
    """A cache folder of its own, so also a server of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.cache = folder / "cache"
        self.cache.mkdir()
        (self.cache / "jars").symlink_to(CacheSettings.load().dir.absolute() / "jars")

    @property
    def environment(self) -> dict[str, str]:
        return os.environ | {
            "NEUROLAKE_CACHE__DIR": str(self.cache),
            "NEUROLAKE_SPARK__MASTER": "local[2]",
            "NEUROLAKE_SPARK__UI_ENABLED": "false",
        }

    def run(self, *command: str, **settings: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            command,
            env=self.environment | settings,
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
            timeout=200,
        )

    def spark(self, *arguments: str, **settings: str) -> "subprocess.CompletedProcess[str]":
        return self.run(f"{BIN}/neurolake", "spark", *arguments, **settings)

    def client(self, remote: str, **settings: str) -> "subprocess.CompletedProcess[str]":
        return self.run(
            sys.executable, "-c", CLIENT, remote, str(self.folder / "table"), **settings
        )


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    found = Machine(tmp_path_factory.mktemp("machine"))
    yield found
    found.spark("stop")


@pytest.fixture(scope="module")
def lines(machine: Machine) -> list[str]:
    """What two starts at once say."""
    with ThreadPoolExecutor(2) as pool:
        starts = list(pool.map(lambda _: machine.spark("start"), range(2)))
    assert [one.returncode for one in starts] == [0, 0], starts
    return [one.stdout for one in starts]


def test_two_starts_give_one_server(machine: Machine, lines: list[str]) -> None:
    assert lines[0] == lines[1]
    status = machine.spark("status")
    assert status.returncode == 0
    assert "the same settings" in status.stdout


def test_its_files_are_private(machine: Machine, lines: list[str]) -> None:
    folder = machine.cache / "spark"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for name in ("service.json", "server.conf"):
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600


def test_auto_uses_it_and_ncf_works(machine: Machine, lines: list[str]) -> None:
    found = machine.client("auto")
    assert found.stdout.split() == ["pyspark.sql.connect.session", "10"], found.stderr


def test_relative_paths_begin_where_it_was_started(machine: Machine, lines: list[str]) -> None:
    """They began in the cache folder; of NCF in a folder that was deleted with the session."""
    found = machine.run(sys.executable, "-c", RELATIVE)
    assert found.stdout.splitlines() == ["parquet True 7", "ncf True 7"], found.stderr


def test_a_stopped_session_gives_way_to_one_of_the_process(
    machine: Machine, lines: list[str]
) -> None:
    """The process was kept to Connect for good, also with force_recreate=True."""
    found = machine.run(sys.executable, "-c", STOPPED)
    assert found.stdout.splitlines() == ["pyspark.sql.session 3"], found.stderr


def test_frames_of_pandas_work_though_it_is_imported_late(
    machine: Machine, lines: list[str]
) -> None:
    found = machine.run(sys.executable, "-c", PANDAS)
    assert found.stdout.split() == ["False", "True", "[1,2]"], found.stderr


def test_delta_and_sessions_of_their_own_work(machine: Machine, lines: list[str]) -> None:
    found = machine.run(sys.executable, "-c", DELTA_AND_MORE, str(machine.folder / "delta"))
    assert found.returncode == 0, found.stderr
    told = json.loads(found.stdout)
    assert (told["rows"], told["version"]) == (100, 2)
    assert told["misfits"] == []
    assert told["others"][:2] == ["2", "5"]
    assert len(set(told["application"])) == 1


def test_the_steps_of_a_run_share_its_jvm(machine: Machine, lines: list[str]) -> None:
    (machine.folder / "chain.py").write_text(CHAIN)
    home = machine.folder / "home"
    home.mkdir()
    found = machine.run(
        *(f"{BIN}/dagster", "job", "execute", "-f", "chain.py", "-j", "chain"),
        DAGSTER_HOME=str(home),
    )
    assert found.returncode == 0, found.stderr
    applications = re.findall(r"application (\S+) of the step", found.stderr)
    assert len(applications) == 3
    assert len(set(applications)) == 1
    processes = re.findall(r"process (\d+) of (\d+) of the step", found.stderr)
    assert len({own for own, _ in processes}) == 3
    assert len({parent for _, parent in processes}) == 1
    (total,) = pq.read_table(machine.folder / "data" / "total")["total"].to_pylist()
    assert total == sum(range(0, 1000, 2))


def test_other_settings_fall_back_with_a_notice(machine: Machine, lines: list[str]) -> None:
    other = {"NEUROLAKE_SPARK__SHUFFLE_PARTITIONS": "7"}
    found = machine.client("auto", **other)
    assert found.stdout.split() == ["pyspark.sql.session", "10"], found.stderr
    said = "the warm Spark server runs with other values of spark.sql.shuffle.partitions; "
    assert said in found.stderr
    status = machine.spark("status", **other)
    assert (status.returncode, "OTHER settings" in status.stdout) == (1, True)
    assert "other values of spark.sql.shuffle.partitions\n" in status.stdout
    refused = machine.spark("start", **other)
    assert (refused.returncode, "`neurolake spark stop` it first" in refused.stderr) == (1, True)


def test_a_wrong_token_is_refused(machine: Machine, lines: list[str]) -> None:
    port = lines[0].split("127.0.0.1:")[1].split(",")[0]
    found = machine.client(f"sc://localhost:{port}/;token=wrong;use_ssl=false")
    assert found.returncode != 0
    assert "nvalid authentication token" in found.stderr or "UNAUTHENTICATED" in found.stderr


@pytest.fixture(scope="module")
def held(machine: Machine, lines: list[str]) -> Iterator["subprocess.Popen[str]"]:
    """A process that keeps its session."""
    with subprocess.Popen(
        [sys.executable, "-c", HELD],
        env=machine.environment,
        cwd=machine.folder,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield process
        process.kill()


def test_a_session_that_the_server_ended_is_followed_by_another(
    held: "subprocess.Popen[str]",
) -> None:
    """A server ends what nobody used for an hour; the process had it for good."""
    assert held.stdout is not None
    assert held.stdout.readline().split() == ["5", "True", "False"]


def test_stop_leaves_no_process(machine: Machine, lines: list[str]) -> None:
    keeper = psutil.Process(int(lines[0].split("process ")[1].split(",")[0]))
    family = [keeper, *keeper.children(recursive=True)]
    assert any("java" in one.name() for one in family)
    assert machine.spark("stop").stdout.strip() == "stopped"
    assert not [one for one in family if one.is_running() and one.status() != "zombie"]
    assert machine.spark("stop").stdout.strip() == "no Spark server ran"
    assert machine.spark("status").returncode == 1


def test_a_process_ends_after_its_server(held: "subprocess.Popen[str]") -> None:
    """It told the server that it goes, for ten minutes."""
    held.communicate("\n", timeout=60)
    assert held.returncode == 0


def test_an_idle_server_ends_itself(machine: Machine) -> None:
    started = machine.spark("start", "--idle-timeout", "2")
    keeper = psutil.Process(int(started.stdout.split("process ")[1].split(",")[0]))
    psutil.wait_procs([keeper], timeout=60)
    assert not keeper.is_running() or keeper.status() == "zombie"
    assert "idle for 2 s" in (machine.cache / "spark" / "service.log").read_text()


def test_an_absent_endpoint_is_told_at_once(machine: Machine) -> None:
    found = machine.client("sc://localhost:1")
    assert "SparkError: Spark Connect: nothing answers on localhost:1" in found.stderr


def test_an_endpoint_that_is_no_connect_server_is_told(machine: Machine) -> None:
    """The client retried for many minutes; with MASTER set, pyspark showed the token."""
    found = machine.run(sys.executable, "-c", STRANGER, MASTER="local")
    assert "SparkError: Spark Connect: localhost:" in found.stderr
    assert "answers none as a Connect server within 1 s" in found.stderr
    assert "hidden" not in found.stdout + found.stderr
