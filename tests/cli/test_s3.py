"""`neurolake s3`: one server, its settings for a shell, its data kept over a restart."""

import os
import subprocess
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from neurolake_dagster.storage import Storage, StorageOptions
from neurolake_dagster.storage.server import find_s3_server, stop_s3_server

NEUROLAKE = Path(sysconfig.get_path("scripts")) / "neurolake"
Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def command(tmp_path: Path) -> Iterator[Command]:
    environment = os.environ | {"NEUROLAKE_CACHE__DIR": str(tmp_path)}

    def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [NEUROLAKE, "s3", *arguments],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=90,
        )

    yield run
    stop_s3_server(tmp_path / "s3", grace_s=1)


def exported(text: str) -> dict[str, str]:
    lines = [line.removeprefix("export NEUROLAKE_STORAGE__") for line in text.splitlines()]
    return {name.lower(): value.strip("'") for name, _, value in (x.partition("=") for x in lines)}


def test_a_server_is_started_once_used_and_stopped(command: Command, tmp_path: Path) -> None:
    assert command("status").returncode == 1
    assert "`neurolake s3 start`" in command("env").stderr
    first, second = command("start"), command("start")
    assert first.returncode == 0, first.stderr
    assert first.stdout == second.stdout  # the same process on the same port
    for name in ("", "s3.json", "service.json"):  # read by their owner only
        assert (tmp_path / "s3" / name).stat().st_mode & 0o077 == 0
    settings = exported(command("env", "--prefix", "shop").stdout)
    assert settings["secret_key"] not in first.stdout + command("status").stdout
    root = settings.pop("root")
    assert root == "s3://lake/shop"
    Storage(root, StorageOptions(**settings)).put("a", b"kept")
    assert command("stop").stdout == "stopped\n"
    assert command("stop").stdout == "no S3 server ran\n"
    assert command("start").returncode == 0
    again = exported(command("env", "--prefix", "shop").stdout)
    assert again["access_key"] == settings["access_key"]
    settings["endpoint"] = again["endpoint"]
    assert Storage(root, StorageOptions(**settings)).read("a") == b"kept"
    assert find_s3_server(tmp_path / "s3") is not None
