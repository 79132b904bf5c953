"""Checks of the machine: Python, packages, ports, Dagster's home, leftovers."""

import importlib.metadata
import os
import platform
import socket
import sys
import tempfile
import time
from pathlib import Path

import dagster as dg
import psutil
import yaml
from dagster_shared.check import CheckError
from packaging.requirements import Requirement

from neurolake_dagster.doctor.finding import Finding, advise, judge, skip
from neurolake_dagster.settings import CacheSettings, SparkSettings

OLDEST, TOO_NEW = (3, 11), (3, 14)
LOCK = "install what requirements.lock names: `make setup`"
# Spark tries so many ports after the first.
PORT_RETRIES = 16
LAST_PORT = 65_535
OLD_S = 24 * 3600


def check_python(version: tuple[int, int] = sys.version_info[:2]) -> Finding:
    """Its version."""
    fits = OLDEST <= version < TOO_NEW
    found = f"Python {'.'.join(map(str, version))} ({platform.machine()})"
    return judge("python", fits, found, "Python 3.11 to 3.13", "make .venv with one of these")


def check_packages(distribution: str = "neurolake-dagster") -> Finding:
    """That each package that this one requires is installed, in a version that fits."""
    expected = "every requirement installed, in a version that fits"
    try:
        texts = importlib.metadata.requires(distribution) or []
    except importlib.metadata.PackageNotFoundError:
        return advise("packages", False, f"{distribution} is not installed", expected, LOCK)
    wrong = []
    wanted = [one for one in map(Requirement, texts) if not one.marker or one.marker.evaluate()]
    for requirement in wanted:
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            wrong.append(f"{requirement.name}: not installed")
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            wrong.append(f"{requirement.name} {version}: expected {requirement.specifier}")
    found = "; ".join(wrong) or f"{len(wanted)} packages, {_versions()}"
    return judge("packages", not wrong, found, expected, LOCK)


def _versions() -> str:
    names = ("pyspark", "delta-spark", "dagster", "pyarrow")
    return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)


def check_ports(settings: SparkSettings) -> Finding:
    """That Spark finds a port for its UI."""
    expected = f"a free port from {settings.ui_port} on, for Spark's UI"
    if not settings.ui_enabled:
        return skip("ports", "the UI is off", expected)
    last = min(settings.ui_port + PORT_RETRIES, LAST_PORT)
    free = (port for port in range(settings.ui_port, last + 1) if _is_free(port))
    port = next(free, None)
    found = f"{port} is free" if port else f"none free up to {last}"
    return judge(
        "ports", port is not None, found, expected,
        "set another NEUROLAKE_SPARK__UI_PORT, or NEUROLAKE_SPARK__UI_ENABLED=false",
    )  # fmt: skip


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def check_dagster_home() -> Finding:
    """That Dagster has a folder to keep runs in, and can read its configuration."""
    expected = "DAGSTER_HOME, an absolute path of a folder, with a dagster.yaml that loads"
    home = os.environ.get("DAGSTER_HOME", "")
    fix = 'mkdir -p .dagster_home && export DAGSTER_HOME="$PWD/.dagster_home" (`make` does both)'
    if not home:
        found = "DAGSTER_HOME is not set: runs and events are forgotten with the process"
        return advise("dagster home", False, found, expected, fix)
    path = Path(home)
    if not path.is_absolute() or not path.is_dir():
        why = "no such folder" if path.is_absolute() else "not an absolute path"
        return judge("dagster home", False, f"{home!r}: {why}", expected, fix)
    try:
        tempfile.TemporaryFile(dir=path).close()
    except OSError as error:
        found = f"{home!r}: not writable ({error.strerror})"
        return judge("dagster home", False, found, expected, fix)
    try:
        with dg.DagsterInstance.from_config(home) as instance:
            found = f"{home}, {instance.run_storage.__class__.__name__}"
    except (dg.DagsterError, yaml.YAMLError, CheckError) as error:
        reason = str(error).splitlines()
        found = f"{path / 'dagster.yaml'}: {' '.join(line.strip() for line in reason[:2])}"
        return judge("dagster home", False, found, expected, "correct that file")
    return judge("dagster home", True, found, expected, "")


def check_leftovers(cache: CacheSettings, scratch: Path | None = None) -> Finding:
    """What interrupted work left behind: half-resolved jars, Spark's scratch, lone JVMs."""
    scratch = Path(tempfile.gettempdir()) if scratch is None else scratch
    found = [*_old(cache.dir / "jars", "resolving-*"), *_old(scratch, "spark-????????-*")]
    found += _old(scratch, "blockmgr-*")
    lone = _lone_jvms()
    notes = [f"{len(found)} old folders, first {found[0]}"] if found else []
    notes += [f"Spark JVMs whose Python is gone: {', '.join(map(str, lone))}"] if lone else []
    fixes = [f"rm -r {' '.join(str(path) for path in found[:3])}"] if found else []
    fixes += [f"kill {' '.join(map(str, lone))}"] if lone else []
    return advise("leftovers", not notes, "; ".join(notes) or "none", "none", "; ".join(fixes))


def _old(folder: Path, pattern: str) -> list[Path]:
    """Entries of a folder that nothing has touched for a day."""
    limit = time.time() - OLD_S
    return sorted(path for path in folder.glob(pattern) if path.stat().st_mtime < limit)


def _lone_jvms() -> list[int]:
    """Spark drivers of this user that were started by a Python that has ended."""
    mine = os.getuid()
    found = []
    for process in psutil.process_iter(["pid", "uids", "cmdline"]):
        facts = process.info
        command = facts["cmdline"] or []
        is_driver = "org.apache.spark.deploy.SparkSubmit" in command and "pyspark-shell" in command
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
