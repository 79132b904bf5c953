"""Background processes: what becomes of one that is not there yet."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from neurolake_dagster.errors import NeuroLakeError
from neurolake_dagster.service import Service

# A keeper with a child of its own that, as a JVM does, ends with its input.
KEEPER = """
import pathlib, subprocess, time
child = subprocess.Popen(["cat"], stdin=subprocess.PIPE)
pathlib.Path("pid").write_text(str(child.pid))
time.sleep(60)
"""
STARTER = """
import os, sys
from pathlib import Path
from neurolake_dagster.service import Service
service = Service("test", Path(sys.argv[1]))
def is_ready():
    if (service.folder / "pid").exists():
        print("waiting", flush=True)
    return False
service.launch([sys.executable, "-c", sys.argv[2]], environment=os.environ,
               facts=lambda pid: {}, is_ready=is_ready, timeout_s=50)
"""

READY: dict[str, Any] = {
    "environment": os.environ, "facts": lambda _: {}, "is_ready": lambda: True, "timeout_s": 5,
}  # fmt: skip


def left_in(folder: Path) -> list[psutil.Process]:
    """The processes that a service of this folder has left."""
    return [one for one in psutil.process_iter() if cwd_of(one) == str(folder)]


def cwd_of(process: psutil.Process) -> str | None:
    try:
        return process.cwd()
    except psutil.Error:
        return None


def test_ctrl_c_while_it_starts_leaves_no_process(tmp_path: Path) -> None:
    """Keeper and JVM ran on, and neither `status` nor `stop` knew of them."""
    command = [sys.executable, "-c", STARTER, str(tmp_path), KEEPER]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as starter:
        assert starter.stdout is not None
        assert starter.stdout.readline() == b"waiting\n"
        assert len(left_in(tmp_path)) == 2
        starter.send_signal(signal.SIGINT)
        _out, told = starter.communicate(timeout=50)
    assert b"KeyboardInterrupt" in told
    assert left_in(tmp_path) == []
    assert Service("test", tmp_path).find() is None


def test_what_a_killed_starter_left_is_ended_by_the_next(tmp_path: Path) -> None:
    """A starter ended by SIGTERM left a server that neither `status` nor `stop` knew of."""
    command = [sys.executable, "-c", STARTER, str(tmp_path), KEEPER]
    service = Service("test", tmp_path)

    def start_and_stop() -> None:
        service.launch(["sleep", "60"], **READY)
        service.stop()

    for end in (service.stop, start_and_stop):
        with subprocess.Popen(command, stdout=subprocess.PIPE) as starter:
            assert starter.stdout is not None
            assert starter.stdout.readline() == b"waiting\n"
            starter.kill()
        assert len(left_in(tmp_path)) == 2
        assert service.find() is None
        assert service.pid() is not None
        end()
        assert left_in(tmp_path) == []
        (tmp_path / "pid").unlink()


@pytest.mark.parametrize("is_told", [True, False], ids=["facts", "readiness"])
def test_a_failing_question_leaves_no_process(tmp_path: Path, is_told: bool) -> None:
    def fail(*_: object) -> bool:
        raise NeuroLakeError("cannot tell")

    with pytest.raises(NeuroLakeError, match="cannot tell"):
        Service("test", tmp_path).launch(
            ["sleep", "60"],
            environment=os.environ,
            facts=fail,  # type: ignore[arg-type]
            is_ready=(lambda: True) if is_told else fail,
            timeout_s=5,
        )
    assert left_in(tmp_path) == []
