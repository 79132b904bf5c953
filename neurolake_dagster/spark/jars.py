"""The jars that Spark needs for Delta and S3, resolved once and then used offline.

Owns the exact set for the installed pyspark, delta-spark and Hadoop, and the folder it lies
in. Spark's own Ivy resolves it; what Spark ships already is excluded, and of the AWS SDK only
the modules that S3A uses are named instead of its 686 MB bundle.
"""

import dataclasses
import importlib.metadata
import importlib.util
import json
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from neurolake_dagster.errors import JarsNotFoundError
from neurolake_dagster.settings import CacheSettings, SparkSettings
from neurolake_dagster.spark.java import require_java

MANIFEST = "jars.json"
RESOLVE_TIMEOUT_S = 300
# The AWS SDK that each Hadoop was built against.
AWS_SDK = {"3.5.0": "2.35.4"}
AWS_MODULES = ("s3", "s3-transfer-manager", "sts", "apache-client", "netty-nio-client")
# Transitive dependencies that Spark ships itself, the AWS bundle, and a POM's test scope.
EXCLUDES = (
    "software.amazon.awssdk:bundle",
    "org.apache.hadoop:hadoop-client-api",
    "org.apache.hadoop:hadoop-client-runtime",
    "org.apache.parquet:*",
    "com.github.luben:zstd-jni",
    "org.apache.logging.log4j:*",
    "org.slf4j:*",
    "org.xerial.snappy:*",
    "org.locationtech.jts:*",
    "org.locationtech.jts.io:*",
    "org.roaringbitmap:*",
    "io.airlift:*",
    "com.fasterxml.jackson.core:*",
    "com.fasterxml.jackson.datatype:*",
    "com.google.code.findbugs:*",
    "org.wildfly.openssl:*",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class JarSet:
    """The versions that decide which jars fit together."""

    spark: str
    delta: str
    hadoop: str

    @property
    def coordinates(self) -> list[str]:
        """Maven coordinates of what is wanted; the rest follows from them."""
        minor = ".".join(self.spark.split(".")[:2])
        sdk = AWS_SDK[self.hadoop]
        return [
            f"io.delta:delta-spark_{minor}_2.13:{self.delta}",
            f"org.apache.hadoop:hadoop-aws:{self.hadoop}",
            *(f"software.amazon.awssdk:{module}:{sdk}" for module in AWS_MODULES),
        ]

    def folder(self, cache: Path) -> Path:
        """Where this set lies below the cache folder."""
        name = f"spark-{self.spark}-delta-{self.delta}-hadoop-{self.hadoop}"
        return cache.absolute() / "jars" / name


def spark_home() -> Path:
    """The folder of the installed pyspark, with its jars; pyspark is not imported."""
    spec = importlib.util.find_spec("pyspark")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


def installed_set() -> JarSet:
    """The set that fits the installed wheels.

    Raises
    ------
    JarsNotFoundError
        If pyspark brings a Hadoop that we know no AWS SDK for.
    """
    names = [path.name for path in (spark_home() / "jars").glob("hadoop-client-api-*.jar")]
    versions = [match[1] for name in names if (match := re.fullmatch(r".*-([\d.]+)\.jar", name))]
    hadoop = versions[0] if versions else "unknown"
    if hadoop not in AWS_SDK:
        raise JarsNotFoundError(
            f"jars: pyspark brings Hadoop {hadoop}; expected one of {sorted(AWS_SDK)}; "
            "install the pyspark of requirements.lock"
        )
    return JarSet(
        spark=importlib.metadata.version("pyspark"),
        delta=importlib.metadata.version("delta-spark"),
        hadoop=hadoop,
    )


def find_jars(cache: Path) -> list[Path]:
    """The resolved jars, checked against their manifest.

    Raises
    ------
    JarsNotFoundError
        If they were never resolved, or one is missing or was cut short.
    """
    folder = installed_set().folder(cache)
    manifest = folder / MANIFEST
    if not manifest.is_file():
        raise JarsNotFoundError(
            f"{folder}: the jars of Spark are not there; run `neurolake jars` once, with network"
        )
    sizes: dict[str, int] = json.loads(manifest.read_text())
    wrong = [name for name, size in sizes.items() if _size(folder / name) != size]
    if wrong:
        raise JarsNotFoundError(
            f"{folder}: {len(wrong)} of {len(sizes)} jars are missing or damaged, first "
            f"{wrong[0]!r}; delete the folder and run `neurolake jars`"
        )
    return [folder / name for name in sizes]


def session_jars(settings: SparkSettings) -> list[Path]:
    """The jars that a session needs: given ones, or the resolved for Delta and S3.

    Raises
    ------
    JarsNotFoundError
    """
    if settings.jars is not None:
        return [Path(jar) for jar in settings.jars]
    if settings.delta_enabled or settings.s3_enabled:
        return find_jars(CacheSettings.load().dir)
    return []


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else -1


def resolve_jars(cache: Path) -> list[Path]:
    """Bring the jars into the cache folder, where they are not there yet.

    Raises
    ------
    JavaNotFoundError
        If there is no Java to run Ivy with.
    JarsNotFoundError
        If a jar does not exist, or there is no network; the message holds Ivy's reason.
    """
    wanted = installed_set()
    folder = wanted.folder(cache)
    if (folder / MANIFEST).is_file():
        return find_jars(cache)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="resolving-", dir=folder.parent) as scratch:
        jars = Path(scratch) / "jars"
        _run_ivy(wanted, Path(scratch))
        sizes = {path.name: path.stat().st_size for path in sorted(jars.glob("*.jar"))}
        (jars / MANIFEST).write_text(json.dumps(sizes, indent=1))
        # A folder without a manifest is a left-over of an older try.
        shutil.rmtree(folder, ignore_errors=True)
        jars.rename(folder)
    return find_jars(cache)


def _run_ivy(wanted: JarSet, scratch: Path) -> None:
    """Let spark-submit resolve the packages for a script that does nothing."""
    script = scratch / "nothing.py"
    script.write_text("")
    command = [
        str(spark_home() / "bin" / "spark-submit"),
        *("--conf", f"spark.jars.ivy={scratch}"),
        *("--packages", ",".join(wanted.coordinates)),
        *("--exclude-packages", ",".join(EXCLUDES)),
        str(script),
    ]
    java = require_java()
    environment = os.environ | {
        "SPARK_HOME": str(spark_home()),
        "SPARK_LOCAL_IP": "127.0.0.1",
        "JAVA_HOME": str(java.home),
    }
    try:
        result = subprocess.run(
            command,
            env=environment,
            capture_output=True,
            text=True,
            timeout=RESOLVE_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as exc:
        raise JarsNotFoundError(
            f"jars: not resolved within {RESOLVE_TIMEOUT_S} s; is there a network?"
        ) from exc
    if result.returncode:
        raise JarsNotFoundError(_reason(wanted, result.stdout + result.stderr))


def _reason(wanted: JarSet, log: str) -> str:
    """Ivy's pages of log as one sentence with the fix."""
    missing = sorted(set(re.findall(r":: ([\w.#;-]+): not found", log)))
    broken = sorted(set(re.findall(r":: (?:\^ )?([\w.#;!()-]+\.jar)", log)))
    if "download failed" in log or (broken and not missing):
        what = broken[0] if broken else "a jar"
        return (
            f"jars: {what} could not be downloaded though its POM is known: a half-filled "
            "local Maven repository does that; delete that artifact's folder below "
            "~/.m2/repository and run `neurolake jars` again"
        )
    if missing:
        return (
            f"jars: not found: {', '.join(missing)}; expected delta-spark {wanted.delta} for "
            f"Spark {wanted.spark}; either there is no network, or that wheel has no jar: "
            "install the versions of requirements.lock"
        )
    return f"jars: Ivy failed: {log.strip()[-400:]}"
