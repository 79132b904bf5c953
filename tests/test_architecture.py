"""The house's rules that a machine can check."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def test_the_rooms_import_only_what_lies_below() -> None:
    result = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "0 broken" in result.stdout


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        ("neurolake_dagster", {"dagster", "pyspark", "pyarrow", "numpy"}),
        ("neurolake_dagster.ncf", {"dagster", "pyspark"}),
        ("neurolake_dagster.tables", {"dagster", "pyspark"}),
        ("neurolake_dagster.conversion", {"dagster", "pyspark"}),
        ("neurolake_dagster.storage", {"dagster", "pyspark"}),
        ("neurolake_dagster.spark", {"dagster"}),
        ("neurolake_dagster.cli", {"dagster", "pyspark", "pyarrow"}),
        # Steps of Spark, in processes of their own, need neither.
        ("neurolake_dagster.io_managers", {"pandas", "polars"}),
        ("neurolake_dagster.preload", {"pandas", "polars"}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_importing_a_room_loads_no_platform(module: str, unwanted: set[str]) -> None:
    """An executor that needs the format must not pay 1.4 s for Dagster's import."""
    code = f"import sys, {module}; print(*sorted({unwanted!r} & set(sys.modules)))"
    loaded = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert loaded.stdout.split() == []


def test_the_lock_holds_hashes_and_no_addresses() -> None:
    lock = (ROOT / "requirements.lock").read_text()
    pins = [line for line in lock.splitlines() if line and line[0].isalpha()]
    assert "://" not in lock
    assert len(pins) > 100
    assert all("==" in pin for pin in pins)
    assert lock.count("--hash=sha256:") >= len(pins)
