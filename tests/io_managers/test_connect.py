"""Frames of Spark Connect through all IO managers: the tests of `test_spark` on a warm server."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from neurolake_dagster.settings import CacheSettings
from neurolake_dagster.spark import find_java

pytestmark = [pytest.mark.spark, pytest.mark.slow, pytest.mark.timeout(900)]
ROOT = Path(__file__).parents[2]
LEAST_PASSED = 49


@pytest.fixture
def warm(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment of processes that start a server of their own, and share it."""
    if find_java() is None:
        pytest.skip("no Java on this machine")
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / "jars").symlink_to(CacheSettings.load().dir.absolute() / "jars")
    found = {**os.environ, "NEUROLAKE_CACHE__DIR": str(cache), "NEUROLAKE_SPARK__REMOTE": "start"}
    found.pop("PYTEST_XDIST_WORKER", None)
    yield found
    stop = [Path(sys.executable).parent / "neurolake", "spark", "stop"]
    subprocess.run(stop, env=found, check=True, timeout=60, capture_output=True)


def test_connect_frames_pass_the_tests_of_classic_ones(warm: dict[str, str]) -> None:
    tests = "tests/io_managers/test_spark.py"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", tests]
    found = subprocess.run(
        command, env=warm, cwd=ROOT, capture_output=True, text=True, check=False, timeout=850
    )
    assert found.returncode == 0, found.stdout[-4000:]
    counted = re.search(r"(\d+) passed, 3 skipped", found.stdout)
    assert counted is not None, found.stdout[-4000:]
    assert int(counted[1]) >= LEAST_PASSED
