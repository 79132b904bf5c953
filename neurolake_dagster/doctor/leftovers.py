"""Checks of what interrupted work left behind: folders, JVMs, records, files of broken writes."""

import os
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import psutil

from neurolake_dagster.doctor.finding import Finding, advise
from neurolake_dagster.settings import CacheSettings
from neurolake_dagster.spark.keeper import MAIN_CLASS
from neurolake_dagster.spark.server import server_service
from neurolake_dagster.storage import Storage
from neurolake_dagster.tables import RETENTION
from neurolake_dagster.tables.log import LOG_FOLDERS
from neurolake_dagster.tables.parts import STAGING_FOLDER

OLD_S = 24 * 3600
# Folders of a storage that are looked into: a preflight must not list a whole lake.
MOST_FOLDERS = 500


def check_leftovers(cache: CacheSettings, scratch: Path | None = None) -> Finding:
    """Half-resolved jars, Spark's scratch, JVMs and the warm server's record without an owner."""
    scratch = Path(tempfile.gettempdir()) if scratch is None else scratch
    old = [*_old(cache.dir / "jars", "resolving-*"), *_old(scratch, "spark-????????-*")]
    old += _old(scratch, "blockmgr-*")
    lone = _lone_jvms(cache)
    notes = [f"{len(old)} old folders, first {old[0]}"] if old else []
    fixes = [f"rm -r {' '.join(str(path) for path in old[:3])}"] if old else []
    if lone:
        notes.append(f"Spark JVMs whose Python is gone: {', '.join(map(str, lone))}")
        fixes.append(f"kill {' '.join(map(str, lone))}")
    if (record := _stale_record(cache)) is not None:
        notes.append(f"{record} of a warm server that is gone")
        fixes.append("neurolake spark stop")
    return advise("leftovers", not notes, "; ".join(notes) or "none", "none", "; ".join(fixes))


def check_stages(storage: Storage) -> Finding:
    """Files of writes that never ended, in tables' staging folders, past a vacuum's retention."""
    hours = RETENTION.total_seconds() / 3600
    expected = f"no staged files older than {hours:.0f} hours"
    stages, tables = _stages(storage)
    found = {stage: files for stage in stages if (files := _old_files(storage, stage))}
    if not found:
        return advise("staged files", True, f"none in {len(stages)} staging folders", expected, "")
    first = next(iter(found))
    folder = first.rpartition("/")[0]
    # A write that was the first one has left no table to vacuum.
    fix = f"neurolake table vacuum {folder} --delete"
    if folder not in tables:
        fix = f"delete {storage.uri(first)}: no table has come of it"
    note = f"{sum(found.values())} files in {len(found)} folders, first {storage.uri(first)}"
    return advise("staged files", False, note, expected, fix)


def _old(folder: Path, pattern: str) -> list[Path]:
    """Entries of a folder that nothing has touched for a day."""
    limit = time.time() - OLD_S
    return sorted(path for path in folder.glob(pattern) if path.stat().st_mtime < limit)


def _stale_record(cache: CacheSettings) -> Path | None:
    """The record of a warm server whose process has ended without taking it away."""
    if not (cache.dir / "spark").is_dir():
        return None
    service = server_service(cache)
    return service.record_path if service.record_path.exists() and service.pid() is None else None


def _stages(storage: Storage) -> tuple[list[str], set[str]]:
    """The staging folders below a root, and the folders that hold a log."""
    stages, tables = [], set()
    for looked, (folder, path) in enumerate(_walk(storage)):
        name = path.rpartition("/")[2]
        if name == STAGING_FOLDER:
            stages.append(path)
        elif name in LOG_FOLDERS:
            tables.add(folder)
        if looked >= MOST_FOLDERS:
            break
    return stages, tables


def _walk(storage: Storage) -> Iterator[tuple[str, str]]:
    """Folders and those directly in them, breadth first; not into a table's own."""
    waiting = [""]
    while waiting:
        folder = waiting.pop(0)
        for path in storage.folders(folder):
            yield folder, path
            name = path.rpartition("/")[2]
            if not name.startswith(("_", ".")) and "=" not in name:
                waiting.append(path)


def _old_files(storage: Storage, stage: str) -> int:
    """How many files of a staging folder a vacuum would take; those of killed writers too."""
    limit = datetime.now(UTC) - RETENTION
    whole = storage.child(stage)
    return sum(entry.modified <= limit for entry in (*whole.list(), *whole.unfinished()))


def _lone_jvms(cache: CacheSettings) -> list[int]:
    """Spark drivers of this user that were started by a Python that has ended.

    Of Connect servers only ours: others are meant to run by themselves.
    """
    mine, ours = os.getuid(), str(cache.dir.absolute() / "spark" / "server.conf")
    found = []
    for process in psutil.process_iter(["pid", "uids", "cmdline"]):
        facts = process.info
        command = facts["cmdline"] or []
        is_shell = "pyspark-shell" in command
        is_server = MAIN_CLASS in command and ours in command
        is_driver = "org.apache.spark.deploy.SparkSubmit" in command and (is_shell or is_server)
        is_mine = facts["uids"] is not None and facts["uids"].real == mine
        if is_driver and is_mine and not _has_python_parent(process):
            found.append(int(facts["pid"]))
    return found


def _has_python_parent(process: psutil.Process) -> bool:
    """Whether a Python still waits for it; an orphan's parent is an init or a session's reaper."""
    try:
        parent = process.parent()
        return parent is not None and "python" in parent.exe()
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        # Somebody else's process became its parent: it is not one of ours.
        return False
