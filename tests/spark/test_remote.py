"""A Spark Connect server that somebody else runs, whose Python lacks this package."""

import json
import os
import re
import secrets
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from neurolake_dagster.service import free_ports
from neurolake_dagster.settings import CacheSettings
from neurolake_dagster.spark import require_java
from neurolake_dagster.spark.jars import spark_home
from neurolake_dagster.spark.server import answers

pytestmark = [pytest.mark.spark, pytest.mark.slow]

START_TIMEOUT_S = 60
CLASS = "org.apache.spark.sql.connect.service.SparkConnectServer"
SCRIPT = """
import json, sys
from neurolake_dagster.errors import SparkError
from neurolake_dagster.resources import SparkResource
remote, table = sys.argv[1:]
def resource(**options):
    return SparkResource(**{"remote": remote, "shuffle_partitions": 7, "driver_memory": "777m",
                            "app_name": "mine", **options})
def partitions(session):
    return session.conf.get("spark.sql.shuffle.partitions")
def ask(session):
    try:
        session.read.format("ncf").load()
        session.read.format("ncf").load(table).count()
    except Exception as exc:
        return str(exc)
spark = resource()
session = spark.spark_session
session.range(1000).write.format("ncf").mode("overwrite").save(table)
other = resource(shuffle_partitions=8).spark_session
elsewhere = resource(remote=remote + ";user_id=somebody").spark_session
off = resource(neurolake_ncf_enabled=False)
try:
    resource(remote="sc://localhost:1/;token=hidden-too").spark_session
except SparkError as exc:
    absent = str(exc)
print(json.dumps({
    "kept": session.read.format("ncf").load(table).where("id >= 990").count(),
    "partitions": [partitions(one) for one in (session, other, elsewhere)],
    "zone": session.conf.get("spark.sql.session.timeZone"),
    "same": [session is resource().spark_session, session is other, session is elsewhere],
    "effective": {one.option: [one.asked, one.running, one.fits] for one in spark.effective()},
    "ncf off": [ask(off.spark_session),
                [one.running for one in off.effective()
                 if one.option == "neurolake_ncf_enabled"]],
    "absent": absent,
    "shown": repr(spark) + repr(spark.settings()),
}))
"""


@dataclass(frozen=True, kw_only=True)
class Remote:
    url: str
    token: str


@pytest.fixture(scope="module")
def remote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Remote]:
    folder = tmp_path_factory.mktemp("remote")
    # Without its site module, Python does not see the package that pip installed as editable.
    python = folder / "python"
    packages = sysconfig.get_path("purelib")
    python.write_text(
        f'#!/bin/sh\nPYTHONPATH="$PYTHONPATH:{packages}" exec {sys.executable} -S "$@"\n'
    )
    python.chmod(0o755)
    (port,), token = free_ports(1), secrets.token_hex(8)
    options = {
        "spark.connect.grpc.binding.port": str(port),
        "spark.connect.grpc.binding.address": "127.0.0.1",
        "spark.ui.enabled": "false",
        "spark.driver.memory": "1g",
        "spark.sql.session.timeZone": "Asia/Tokyo",
    }
    confs = [part for key, value in options.items() for part in ("--conf", f"{key}={value}")]
    command = [str(spark_home() / "bin" / "spark-submit"), "--class", CLASS, "--master", "local[2]"]
    log = folder / "log"
    with log.open("wb") as out:
        server = subprocess.Popen(
            [*command, *confs, "spark-internal"],
            cwd=folder,
            stdout=out,
            stderr=subprocess.STDOUT,
            env=os.environ
            | {
                "JAVA_HOME": str(require_java().home),
                "SPARK_HOME": str(spark_home()),
                "SPARK_LOCAL_IP": "127.0.0.1",
                "SPARK_CONNECT_AUTHENTICATE_TOKEN": token,
                "PYSPARK_PYTHON": str(python),
            },
        )
    deadline = time.monotonic() + START_TIMEOUT_S
    while not answers(port):
        assert time.monotonic() < deadline, log.read_text(errors="replace")[-2000:]
        time.sleep(0.2)
    yield Remote(url=f"sc://localhost:{port}/;token={token};use_ssl=false", token=token)
    server.terminate()
    server.wait(20)


@pytest.fixture(scope="module")
def said(remote: Remote, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("client")
    found = subprocess.run(
        [sys.executable, "-c", SCRIPT, remote.url, str(folder / "table")],
        env=os.environ | {"NEUROLAKE_CACHE__DIR": str(CacheSettings.load().dir.absolute())},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert found.returncode == 0, re.sub(r"\n\tat .*", "", found.stderr)
    result: dict[str, Any] = json.loads(found.stdout.splitlines()[-1])
    return result | {"stderr": found.stderr, "stdout": found.stdout}


def test_options_reach_the_session(said: dict[str, Any]) -> None:
    """Of a remote session no option was applied."""
    assert said["partitions"] == ["7", "8", "7"]
    assert said["zone"] == "UTC"


def test_each_remote_and_each_settings_have_their_own_session(said: dict[str, Any]) -> None:
    """A second remote got the session of the first."""
    assert said["same"] == [True, False, False]


def test_what_the_server_has_otherwise_is_told_once(said: dict[str, Any], remote: Remote) -> None:
    address = remote.url.split("/;")[0]
    notices = [line for line in said["stderr"].splitlines() if "a client cannot change" in line]
    assert len(notices) == 2  # one for each remote
    assert f"{address}/*** runs with other values of spark.app.name, " in notices[0]
    assert "spark.driver.memory" in notices[0]
    assert "spark.executor.memory" not in notices[0]  # nobody asked for it
    assert said["effective"]["driver_memory"] == ["777m", {"spark.driver.memory": "1g"}, False]


def test_ncf_works_by_the_package_that_is_sent_along(said: dict[str, Any]) -> None:
    assert said["kept"] == 10
    assert said["effective"]["neurolake_ncf_enabled"] == ["true", {"format ncf": "true"}, True]
    message, rows = said["ncf off"]
    assert "DATA_SOURCE_NOT_FOUND" in message
    assert rows == [{"format ncf": "false"}]


def test_the_server_is_told_without_its_token(said: dict[str, Any], remote: Remote) -> None:
    address = remote.url.split("/;")[0]
    shown = f"{address}/***"
    assert said["effective"]["remote"] == [shown, {"spark.remote": address}, True]
    assert said["absent"] == "Spark Connect: nothing answers on localhost:1; is the server up?"
    assert said["shown"].count(shown) == 2
    for secret in (remote.token, "hidden-too"):
        assert secret not in said["stdout"] + said["stderr"]
