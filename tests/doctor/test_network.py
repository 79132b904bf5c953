"""Ports that are taken and servers that do not answer, for real."""

import json
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
import pytest

from neurolake_dagster.doctor.network import RETRIES, check_ports, check_server
from neurolake_dagster.settings import SparkSettings, StorageSettings
from neurolake_dagster.spark.server import fingerprint, server_service

STORAGE = StorageSettings.load({})
FIRST = 47_100


def spark(**options: object) -> SparkSettings:
    return SparkSettings.load({}, **options)


@contextmanager
def listening(*ports: int) -> Iterator[list[int]]:
    """Hold ports of loopback; 0 is any."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in ports]
        for held, port in zip(sockets, ports, strict=True):
            held.bind(("127.0.0.1", port))
            held.listen()
        yield [held.getsockname()[1] for held in sockets]


@pytest.mark.parametrize(
    ("options", "fix"),
    [
        ({"ui_port": FIRST}, "UI_PORT"),
        ({"extra_configs": {"spark.driver.port": str(FIRST)}}, "EXTRA_CONFIGS"),
        ({"extra_configs": {"spark.blockManager.port": str(FIRST)}}, "EXTRA_CONFIGS"),
    ],
)
def test_no_free_port(options: dict[str, object], fix: str) -> None:
    with listening(*range(FIRST, FIRST + int(RETRIES) + 1)):
        finding = check_ports(spark(**options), STORAGE)
    assert finding.status == "failure"
    assert fix in finding.fix
    assert f"none free from {FIRST} to {FIRST + 16}" in finding.found
    assert check_ports(spark(**options), STORAGE).status == "ok"


def test_a_single_port_without_retries_is_taken() -> None:
    tried = {"spark.driver.port": str(FIRST), "spark.port.maxRetries": "0"}
    with listening(FIRST):
        assert check_ports(spark(extra_configs=tried), STORAGE).status == "failure"


def test_ports_that_are_not_needed() -> None:
    with listening(*range(FIRST, FIRST + int(RETRIES) + 1)):
        off = check_ports(spark(ui_port=FIRST, ui_enabled=False), STORAGE)
    assert (off.status, off.found) == ("ok", "none named")
    assert check_ports(spark(remote="sc://elsewhere"), STORAGE).status == "skipped"


def test_an_address_that_is_not_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPARK_LOCAL_IP", "192.0.2.1")
    finding = check_ports(spark(), STORAGE)
    assert (finding.status, finding.fix) == ("failure", "unset SPARK_LOCAL_IP")


def test_a_connect_endpoint_that_does_not_answer() -> None:
    """It was not looked at: the first asset told."""
    gone = check_server(spark(remote="sc://localhost:1/;token=hidden"), STORAGE)
    assert (gone.status, gone.found) == ("failure", "nothing answers on localhost:1")
    with listening(0) as (port,):
        finding = check_server(spark(remote=f"sc://127.0.0.1:{port}"), STORAGE)
    assert finding.status == "ok"
    assert check_server(spark(), STORAGE).status == "skipped"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NEUROLAKE_CACHE__DIR", str(tmp_path))
    return tmp_path


def record(port: int, settings: SparkSettings) -> None:
    """Record this very process as the warm server, on a port."""
    facts = {"port": port, "token": "t", "keys": fingerprint(settings, STORAGE, "t")}
    started = psutil.Process().create_time()
    found = {"pid": os.getpid(), "started": started, "facts": facts}
    server_service().record_path.write_text(json.dumps(found))


def test_a_warm_server_that_does_not_run(cache: Path) -> None:
    missing = check_server(spark(remote="auto"), STORAGE)
    assert (missing.status, missing.found) == ("warning", "none runs")
    assert "neurolake spark start" in missing.fix
    assert check_server(spark(remote="start"), STORAGE).status == "ok"


def test_a_warm_server_that_hangs_or_has_other_settings(cache: Path) -> None:
    with listening(0) as (port,):
        record(port, spark(shuffle_partitions=7))
        assert check_server(spark(remote="auto", shuffle_partitions=7), STORAGE).status == "ok"
        other = check_server(spark(remote="auto"), STORAGE)
        assert (other.status, "spark.sql.shuffle.partitions" in other.found) == ("warning", True)
        assert check_server(spark(remote="start"), STORAGE).status == "failure"
    hangs = check_server(spark(remote="auto"), STORAGE)
    assert (hangs.status, "does not answer" in hangs.found) == ("failure", True)
