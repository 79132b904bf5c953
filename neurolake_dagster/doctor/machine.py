"""Checks of the machine: Python, packages, memory, Dagster's home."""

import importlib.metadata
import os
import platform
import re
import tempfile
from pathlib import Path

import dagster as dg
import psutil
import yaml
from dagster_shared.check import CheckError
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from neurolake_dagster.doctor.engine import LOCK, needs_jvm
from neurolake_dagster.doctor.finding import Finding, advise, judge, skip
from neurolake_dagster.settings import SparkSettings, StorageSettings
from neurolake_dagster.settings.checks import SIZE, parse_size
from neurolake_dagster.spark.conf import build_conf

OURS = "neurolake-dagster"
GIB = 1 << 30


def check_python(distribution: str = OURS) -> Finding:
    """Its version, against what this package says that it needs."""
    version = platform.python_version()
    try:
        needs = importlib.metadata.metadata(distribution)["Requires-Python"] or ""
    except importlib.metadata.PackageNotFoundError:
        return skip("python", f"Python {version}; {distribution} is not installed", "")
    found = f"Python {version} ({platform.machine()})"
    fits = SpecifierSet(needs).contains(version, prereleases=True)
    return judge("python", fits, found, f"Python {needs}", "make .venv with such a Python")


def check_packages(distribution: str = OURS) -> Finding:
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


def check_memory(settings: SparkSettings, storage: StorageSettings) -> Finding:
    """What the JVMs of a session may take on this machine, against what it has."""
    expected = "memory of driver and executors that fits this machine"
    if not needs_jvm(settings):
        return skip("memory", "not needed: Spark runs elsewhere", expected)
    conf = build_conf(settings, storage)
    executors = _executors_here(settings, conf)
    keys = ["spark.driver.memory", *(["spark.executor.memory"] if executors else [])]
    wrong = [f"{key}={conf[key]}" for key in keys if not SIZE.fullmatch(conf[key])]
    if wrong:
        fix = "correct NEUROLAKE_SPARK__EXTRA_CONFIGS: a size such as 512m or 4g"
        return judge("memory", False, f"no size: {', '.join(wrong)}", expected, fix)
    driver = parse_size(conf[keys[0]], "m")
    size = driver + executors * parse_size(conf[keys[-1]], "m")
    asked = f"driver {conf[keys[0]]}"
    asked += f", {executors} executors of {conf[keys[-1]]}" if executors else ""
    memory = psutil.virtual_memory()
    machine = f"{memory.total / GIB:.1f} GiB in all, {memory.available / GIB:.1f} GiB free"
    found = f"{asked} of {machine}"
    fix = "lower NEUROLAKE_SPARK__DRIVER_MEMORY"
    fix += " or __EXECUTOR_MEMORY and the number of executors" if executors else ""
    if size > memory.total:
        return judge("memory", False, found, expected, fix)
    return advise("memory", size <= memory.available, found, expected, f"{fix}, or end programs")


def _executors_here(settings: SparkSettings, conf: dict[str, str]) -> int:
    """How many executors with JVMs of their own this machine has at the start of a session."""
    cluster = re.match(r"local-cluster\[(\d+)", settings.master)
    if cluster is not None:
        return int(cluster[1])
    if settings.is_local or not settings.is_here:
        return 0
    is_dynamic = conf.get("spark.dynamicAllocation.enabled") == "true"
    key = "spark.dynamicAllocation.initialExecutors" if is_dynamic else "spark.executor.instances"
    return int(conf.get(key, "1"))
