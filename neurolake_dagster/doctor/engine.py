"""Checks of what Spark needs: Java, jars that fit the wheels, the workers' Python, memory."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import psutil

from neurolake_dagster.doctor.finding import Finding, advise, judge, skip
from neurolake_dagster.errors import JarsNotFoundError, JavaNotFoundError
from neurolake_dagster.settings import CacheSettings, SparkSettings, StorageSettings
from neurolake_dagster.spark import find_jars, require_java
from neurolake_dagster.spark.conf import build_conf, is_local
from neurolake_dagster.spark.jars import installed_set
from neurolake_dagster.spark.java import HOW, OLDEST

# Spark's launcher asks for it by --add-modules: a Java without it does not start.
VECTOR_MODULE = "jdk.incubator.vector"
PROBE_TIMEOUT_S = 60
JARS = "run `neurolake jars`"
GIB = 1 << 30
UNITS = {"k": 1 << 10, "m": 1 << 20, "g": GIB, "t": 1 << 40, "p": 1 << 50}


def needs_jvm(settings: SparkSettings) -> bool:
    """Whether sessions start a JVM of this machine; else they use a server elsewhere."""
    return settings.remote is None or not settings.remote.startswith("sc://")


def check_java(settings: SparkSettings) -> list[Finding]:
    """Its version, and the module that Spark starts it with."""
    expected, module = f"Java {OLDEST} or newer", f"module {VECTOR_MODULE}"
    if not needs_jvm(settings):
        reason = "not needed: Spark runs elsewhere"
        return [skip("java", reason, expected), skip("java vector", reason, module)]
    try:
        java = require_java()
    except JavaNotFoundError as error:
        found = str(error).removeprefix("Java: ").split(";")[0]
        return [
            judge("java", False, found, expected, HOW),
            skip("java vector", "no Java to ask", module),
        ]
    result = _run(str(java.home / "bin" / "java"), "--list-modules")
    has_module = VECTOR_MODULE in result.stdout
    return [
        judge("java", True, f"Java {java.major} in {java.home}", expected, ""),
        judge(
            "java vector",
            has_module,
            "there" if has_module else f"not among the modules of {java.home}",
            module,
            "install a Java with all its modules, not one cut down by jlink; Spark stops with "
            "'Module jdk.incubator.vector not found' otherwise",
        ),
    ]


def check_jars(settings: SparkSettings, cache: CacheSettings) -> list[Finding]:
    """That the jars are there, and those of Delta and Hadoop are of the wheels' versions."""
    expected = "the resolved set for the installed wheels"
    if not needs_jvm(settings) or not (settings.delta_enabled or settings.s3_enabled):
        return [skip("jars", "not needed with these settings", expected)]
    try:
        wanted = installed_set()
        given = settings.jars
        jars = find_jars(cache.dir) if given is None else [Path(jar) for jar in given]
    except JarsNotFoundError as error:
        return [judge("jars", False, str(error), expected, JARS)]
    missing = [jar for jar in jars if not jar.is_file()]
    if missing:
        fix = "fix NEUROLAKE_SPARK__JARS, or unset it and " + JARS
        return [judge("jars", False, f"no such file: {missing[0]}", expected, fix)]
    size = sum(jar.stat().st_size for jar in jars) / 1e6
    findings = [judge("jars", True, f"{len(jars)} files, {size:.1f} MB", expected, "")]
    if settings.delta_enabled:
        findings.append(_check_jar("delta jar", r"delta-spark_[\d._]+", jars, wanted.delta))
    if settings.s3_enabled:
        findings.append(_check_jar("hadoop jar", "hadoop-aws", jars, wanted.hadoop))
    return findings


def _check_jar(check: str, name: str, jars: list[Path], version: str) -> Finding:
    # Ivy puts the organisation before the name; jars given by hand may lack it.
    pattern = rf"(?:[\w.]+_)?{name}-[\d.]+\.jar"
    found = [jar.name for jar in jars if re.fullmatch(pattern, jar.name)]
    fits = len(found) == 1 and found[0].endswith(f"-{version}.jar")
    return judge(
        check,
        fits,
        ", ".join(found) or "none",
        f"one of version {version}, as the installed wheel's",
        f"install the wheels of requirements.lock and {JARS}: Spark fails with missing methods "
        "or 'unresolved dependency' where the two differ",
    )


def check_workers(settings: SparkSettings) -> Finding:
    """That the Python which Spark's workers run has this package and is of our version."""
    expected = f"Python {sys.version_info.major}.{sys.version_info.minor} with this package"
    if not is_local(settings):
        return skip("workers", "they run elsewhere: ship this package to them", expected)
    command = os.environ.get("PYSPARK_PYTHON", sys.executable)
    fix = "unset PYSPARK_PYTHON, or point it to this environment's Python"
    if shutil.which(command) is None:
        found = f"PYSPARK_PYTHON={command!r}: no such command"
        return judge("workers", False, found, expected, fix)
    script = (
        "import sys, neurolake_dagster.ncf, pyspark.sql.datasource; "
        "print('%d.%d' % sys.version_info[:2])"
    )
    result = _run(command, "-c", script)
    if result.returncode:
        reason = (result.stderr.strip().splitlines() or ["it fails without a word"])[-1]
        return judge("workers", False, f"{command}: {reason}", expected, fix)
    version = result.stdout.strip()
    fits = version == f"{sys.version_info.major}.{sys.version_info.minor}"
    return judge("workers", fits, f"Python {version} ({command})", expected, fix)


def check_memory(settings: SparkSettings, storage: StorageSettings) -> Finding:
    """The driver's memory against the machine's."""
    total, free = psutil.virtual_memory().total, psutil.virtual_memory().available
    machine = f"{total / GIB:.1f} GiB in all, {free / GIB:.1f} GiB free"
    expected = "driver memory that fits this machine"
    if not needs_jvm(settings):
        return skip("memory", "not needed: Spark runs elsewhere", expected)
    asked = build_conf(settings, storage)["spark.driver.memory"]
    size = _bytes(asked)
    found = f"driver {asked} of {machine}"
    fix = "lower NEUROLAKE_SPARK__DRIVER_MEMORY"
    if size > total:
        return judge("memory", False, found, expected, fix)
    return advise("memory", size <= free, found, expected, f"{fix}, or end other programs")


def _run(*command: str) -> "subprocess.CompletedProcess[str]":
    """Run a short command; one that hangs counts as failed."""
    try:
        return subprocess.run(
            command, capture_output=True, text=True, timeout=PROBE_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        reason = f"no answer within {PROBE_TIMEOUT_S} s"
        return subprocess.CompletedProcess(command, 1, stdout="", stderr=reason)


def _bytes(size: str) -> int:
    """A size word in bytes; Spark takes a bare number of memory as MiB."""
    number, unit = re.fullmatch(r"(\d+)([a-z]?)b?", size.lower()).groups()  # type: ignore[union-attr]
    return int(number) * (1 if unit == "b" else UNITS[unit or "m"])
