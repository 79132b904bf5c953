"""The doctor where wheels lack or do not fit: in a process that sees other site packages."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = """
import dataclasses, json
from neurolake_dagster.doctor import diagnose
print(json.dumps({one.check: dataclasses.asdict(one) for one in diagnose()}))
"""


def site_without(folder: Path, *names: str) -> Path:
    """This environment's site packages, but for some."""
    spec = find_spec("pyspark")
    assert spec is not None
    assert spec.origin is not None
    for entry in Path(spec.origin).parents[1].iterdir():
        if not entry.name.lower().startswith(names):
            (folder / entry.name).symlink_to(entry)
    return folder


def findings(site: Path, tmp_path: Path) -> dict[str, Any]:
    storage = {"NEUROLAKE_STORAGE__ROOT": str(tmp_path / "data")}
    found = subprocess.run(
        [sys.executable, "-S", "-c", SCRIPT],
        env={**os.environ, **storage, "PYTHONPATH": f"{ROOT}{os.pathsep}{site}"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert found.returncode == 0, found.stderr
    told: dict[str, Any] = json.loads(found.stdout.splitlines()[-1])
    return told


@pytest.fixture
def site(tmp_path: Path) -> Path:
    folder = tmp_path / "site"
    folder.mkdir()
    return folder


@pytest.mark.parametrize(("wheel", "files"), [("delta-spark", "delta"), ("pyspark", "pyspark")])
def test_a_wheel_that_is_not_installed(site: Path, tmp_path: Path, wheel: str, files: str) -> None:
    """Without delta-spark it ended with PackageNotFoundError, without pyspark by an assertion."""
    found = findings(site_without(site, files), tmp_path)
    assert found["jars"]["status"] == "failure"
    assert found["jars"]["found"] == f"not installed: {wheel}"
    assert "requirements.lock" in found["jars"]["fix"]
    assert wheel in found["packages"]["found"]
    assert found["storage write"]["status"] == "ok"


def test_a_pyspark_of_another_hadoop(site: Path, tmp_path: Path) -> None:
    """The fix was `neurolake jars`, which cannot help: no jars are known for it."""
    site_without(site, "pyspark")
    spec = find_spec("pyspark")
    assert spec is not None
    assert spec.origin is not None
    real = Path(spec.origin).parent
    info = next(real.parent.glob("pyspark-*.dist-info"))
    (site / info.name).symlink_to(info)
    jars = site / "pyspark" / "jars"
    jars.mkdir(parents=True)
    for entry in real.iterdir():
        if entry.name != "jars":
            (site / "pyspark" / entry.name).symlink_to(entry)
    (jars / "hadoop-client-api-9.9.9.jar").touch()
    jars_finding = findings(site, tmp_path)["jars"]
    assert "pyspark brings Hadoop 9.9.9" in jars_finding["found"]
    assert "requirements.lock" in jars_finding["fix"]
