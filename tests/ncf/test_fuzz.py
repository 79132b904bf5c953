"""The fuzz target finds nothing: 15 s by default, a minute if slow, `make fuzz` for longer."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

TARGET = Path(__file__).parent / "fuzz_reader.py"


@pytest.mark.skipif(
    importlib.util.find_spec("atheris") is None, reason="atheris has no wheel for this Python"
)
@pytest.mark.parametrize("seconds", [5, pytest.param(60, marks=pytest.mark.slow)])
def test_the_fuzz_target_finds_nothing(seconds: int) -> None:
    command = [sys.executable, str(TARGET), f"-max_total_time={seconds}", "-timeout=60"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=250, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    runs = re.search(r"Done (\d+) runs", done.stderr)
    assert runs is not None
    print(f"{runs.group(1)} runs in {seconds} s")
    # Ten times less than a quiet machine does.
    assert int(runs.group(1)) >= 10 * seconds
