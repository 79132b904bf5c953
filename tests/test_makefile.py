"""What `make` does when it is interrupted, with a command of ours in the place of `neurolake`."""

import os
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest

NEUROLAKE = """#!/usr/bin/env python3
import pathlib, sys, time
with open("calls", "a") as calls:
    print(*sys.argv[1:], file=calls)
try:
    time.sleep(30)
except KeyboardInterrupt:
    sys.exit(1)
"""


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_ctrl_c_ends_the_demo(tmp_path: Path) -> None:
    """It ended the first job only; the second ran, then the report."""
    shutil.copy("Makefile", tmp_path)
    command = tmp_path / ".venv" / "bin" / "neurolake"
    command.parent.mkdir(parents=True)
    command.write_text(NEUROLAKE)
    command.chmod(0o755)
    demo = subprocess.Popen(
        ["make", "run-demo"],
        cwd=tmp_path,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        # What a shell starts in the background ignores it, and so do its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    calls = tmp_path / "calls"
    for _ in range(500):
        if calls.exists() and calls.read_text():
            break
        time.sleep(0.02)
    os.killpg(demo.pid, signal.SIGINT)
    try:
        assert demo.wait(20) != 0
    finally:
        with suppress(ProcessLookupError):
            os.killpg(demo.pid, signal.SIGKILL)
    assert calls.read_text() == "run convert_flights\n"
