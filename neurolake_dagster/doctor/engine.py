"""Checks of what Spark needs: Java, wheels and jars that fit each other, the workers' Python."""

import importlib.metadata
import re
import shutil
import subprocess
import sys
from pathlib import Path

from neurolake_dagster.doctor.finding import Finding, judge, skip
from neurolake_dagster.errors import JarsNotFoundError, JavaNotFoundError
from neurolake_dagster.settings import CacheSettings, SparkSettings
from neurolake_dagster.spark import find_jars, require_java
from neurolake_dagster.spark.conf import workers_python
from neurolake_dagster.spark.jars import installed_set
from neurolake_dagster.spark.java import HOW, OLDEST

# Spark's launcher asks for it by --add-modules: a Java without it does not start.
VECTOR_MODULE = "jdk.incubator.vector"
PROBE_TIMEOUT_S = 60
# By their versions the jars are chosen.
WHEELS = ("pyspark", "delta-spark")
JARS = "run `neurolake jars`"
LOCK = "install what requirements.lock names: `make setup`"


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
    lacking = [name for name in WHEELS if not _is_installed(name)]
    if lacking:
        return [judge("jars", False, f"not installed: {', '.join(lacking)}", expected, LOCK)]
    try:
        wanted = installed_set()
    except JarsNotFoundError as error:
        return [judge("jars", False, str(error), expected, LOCK)]
    given = settings.jars
    try:
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


def _is_installed(distribution: str) -> bool:
    try:
        importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


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
    command = workers_python(settings)
    if not settings.is_here or command is None:
        return skip("workers", "they run elsewhere: ship this package to them", expected)
    fix = "unset NEUROLAKE_SPARK__PYTHON and PYSPARK_PYTHON, or point them to this Python"
    if shutil.which(command) is None:
        return judge("workers", False, f"{command!r}: no such command", expected, fix)
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


def _run(*command: str) -> "subprocess.CompletedProcess[str]":
    """Run a short command; one that hangs counts as failed."""
    try:
        return subprocess.run(
            command, capture_output=True, text=True, timeout=PROBE_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        reason = f"no answer within {PROBE_TIMEOUT_S} s"
        return subprocess.CompletedProcess(command, 1, stdout="", stderr=reason)
