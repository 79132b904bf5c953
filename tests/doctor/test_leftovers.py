"""Left-overs of work that was killed: made as such work leaves them."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pyarrow as pa
import pytest

from neurolake_dagster.doctor.leftovers import check_leftovers, check_stages
from neurolake_dagster.settings import CacheSettings
from neurolake_dagster.spark.keeper import MAIN_CLASS
from neurolake_dagster.storage import Storage
from neurolake_dagster.tables import RETENTION, Table, vacuum

DAY_S = 24 * 3600
ROWS = pa.table({"id": [1, 2, 3]})


def make_older(path: Path, seconds: float) -> None:
    os.utime(path, (0, time.time() - seconds))


def test_old_folders(tmp_path: Path) -> None:
    cache, scratch = CacheSettings(dir=tmp_path / "cache"), tmp_path / "scratch"
    scratch.mkdir()
    old = [tmp_path / "cache" / "jars" / "resolving-x", scratch / "blockmgr-1"]
    fresh = scratch / "blockmgr-2"
    for folder in (*old, fresh):
        folder.mkdir(parents=True)
    assert check_leftovers(cache, scratch).status == "ok"
    for folder in old:
        make_older(folder, 2 * DAY_S)
    finding = check_leftovers(cache, scratch)
    assert finding.status == "warning"
    assert finding.fix == f"rm -r {old[0]} {old[1]}"
    assert not (tmp_path / "cache" / "spark").exists()


@contextmanager
def orphan(folder: Path, command: str) -> Iterator[psutil.Process]:
    """A shell that plays Spark's driver; its own parent starts it and ends at once."""
    driver = folder / "driver"
    driver.write_text("#!/bin/sh\nsleep 60\n")
    driver.chmod(0o755)
    started = subprocess.run(
        ["sh", "-c", f"{driver} {command} >/dev/null 2>&1 & echo $!"],
        capture_output=True,
        text=True,
        check=True,
    )
    found = psutil.Process(int(started.stdout))
    try:
        yield found
    finally:
        for process in (*found.children(), found):
            process.kill()


SUBMIT = "org.apache.spark.deploy.SparkSubmit"


@pytest.mark.parametrize(
    ("command", "is_told"),
    [
        ("pyspark-shell", True),
        (f"--class {MAIN_CLASS} --properties-file {{cache}}/spark/server.conf", True),
        (f"--class {MAIN_CLASS} --properties-file /somewhere/of/another.conf", False),
    ],
    ids=["session", "our server", "a server of somebody else"],
)
def test_a_jvm_whose_python_is_gone(tmp_path: Path, command: str, is_told: bool) -> None:
    with orphan(tmp_path, f"{SUBMIT} {command.format(cache=tmp_path)}") as process:
        finding = check_leftovers(CacheSettings(dir=tmp_path), tmp_path)
        assert (f"kill {process.pid}" in finding.fix) == is_told


KEEPER = """
import os, sys
from pathlib import Path
from neurolake_dagster.service import Service
service = Service("Spark server", Path(sys.argv[1]))
service.launch(["sleep", "60"], environment=os.environ, facts=lambda pid: {"port": 1},
               is_ready=lambda: True, timeout_s=5)
print(service.pid())
"""


def test_the_record_of_a_warm_server_that_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = [sys.executable, "-c", KEEPER, str(tmp_path / "spark")]
    started = subprocess.run(script, capture_output=True, text=True, check=True)
    keeper = psutil.Process(int(started.stdout))
    cache = CacheSettings(dir=tmp_path)
    try:
        assert check_leftovers(cache, tmp_path).status == "ok"
    finally:
        keeper.kill()
    psutil.wait_procs([keeper], timeout=10)
    finding = check_leftovers(cache, tmp_path)
    assert finding.fix == "neurolake spark stop"
    monkeypatch.setenv("NEUROLAKE_CACHE__DIR", str(tmp_path))
    neurolake = Path(sys.executable).parent / "neurolake"
    subprocess.run([neurolake, "spark", "stop"], check=True, capture_output=True)
    assert check_leftovers(cache, tmp_path).status == "ok"


def leave_stage(storage: Storage, table: str) -> Path:
    """What a write leaves in a staging folder that was killed before it could clean up."""
    Table(storage, table, "ncf").stage()
    key = f"{table}/_staging/{'0' * 32}/part-1.ncf"
    storage.put(key, b"half of a file")
    return Path(storage.uri(key))


def test_files_of_writes_that_were_killed(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    table = Table(storage, "ncf/rows", "ncf")
    table.write(ROWS)
    files = [leave_stage(storage, "ncf/rows"), leave_stage(storage, "ncf/first")]
    assert check_stages(storage).status == "ok"
    for file in files:
        make_older(file, RETENTION.total_seconds() + DAY_S)
    first = check_stages(storage)
    assert (first.status, first.fix) == (
        "warning",
        f"delete {tmp_path}/ncf/first/_staging: no table has come of it",
    )
    files[1].unlink()
    finding = check_stages(storage)
    assert finding.found == f"1 files in 1 folders, first {tmp_path}/ncf/rows/_staging"
    assert finding.fix == "neurolake table vacuum ncf/rows --delete"
    vacuum(table)
    assert check_stages(storage).status == "ok"
    assert table.read().num_rows == 3
