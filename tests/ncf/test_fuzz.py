"""The fuzz target starts and finds nothing in a few runs; `make fuzz` runs it for longer."""

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
def test_the_fuzz_target_finds_nothing_in_a_thousand_runs() -> None:
    command = [sys.executable, str(TARGET), "-runs=1000", "-seed=1", "-timeout=60"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=250, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    runs = re.search(r"Done (\d+) runs", done.stderr)
    assert runs is not None
    assert int(runs.group(1)) >= 1000
