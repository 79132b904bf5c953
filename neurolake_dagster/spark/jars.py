"""The jars that Spark needs for Delta and S3, resolved once and then used offline.

Owns the exact set for the installed pyspark, delta-spark and Hadoop, and the folder it lies
in. Spark's own Ivy resolves it; what Spark ships already is excluded, and of the AWS SDK only
the modules that S3A uses are named instead of its 686 MB bundle.
"""

import dataclasses
import fcntl
import importlib.metadata
import importlib.util
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from xml.sax.saxutils import escape

from neurolake_dagster.errors import JarsNotFoundError
from neurolake_dagster.settings import CacheSettings, SparkSettings
from neurolake_dagster.spark.java import require_java
from neurolake_dagster.spark.jvm import delta_log_jar, format_jar

MANIFEST = "jars.json"
LOCK = "jars.lock"
# With Maven's name, or Ivy's, which has the organisation before it.
DELTA_STORAGE = re.compile(r"(?:^|_)delta-storage-[\d.]+\.jar$")
NO_NETWORK = r"Host [\w.-]+ not found|Server access error at url https?://"
RESOLVE_TIMEOUT_S = 300
# Nothing but the mirror: Ivy's own defaults would ask Maven Central.
IVY_SETTINGS = """<ivysettings>
  <settings defaultResolver="mirror"/>
  <resolvers><ibiblio name="mirror" m2compatible="true" root="{root}"/></resolvers>
</ivysettings>
"""
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
    return check_folder(installed_set().folder(cache))


def check_folder(folder: Path) -> list[Path]:
    """The jars of one folder, checked against its manifest.

    Raises
    ------
    JarsNotFoundError
    """
    manifest = folder / MANIFEST
    if not manifest.is_file():
        raise JarsNotFoundError(
            f"{folder}: the jars of Spark are not there; run `neurolake jars` once, with network"
        )
    sizes = _read_sizes(manifest)
    wrong = [name for name, size in sizes.items() if _size(folder / name) != size]
    if wrong:
        raise JarsNotFoundError(
            f"{folder}: {len(wrong)} of {len(sizes)} jars are missing or damaged, first "
            f"{wrong[0]!r}; delete the folder and run `neurolake jars`"
        )
    return [folder / name for name in sizes]


def _read_sizes(manifest: Path) -> dict[str, int]:
    try:
        sizes = json.loads(manifest.read_text())
    except ValueError:
        sizes = None
    if not isinstance(sizes, dict):
        raise JarsNotFoundError(
            f"{manifest}: damaged, expected the sizes of the jars as a JSON object; delete the "
            "folder and run `neurolake jars`"
        )
    return sizes


def session_jars(settings: SparkSettings) -> list[Path]:
    """The jars that a session needs: given ones, or the resolved for Delta and S3; and our own.

    Raises
    ------
    JavaNotFoundError, JarsNotFoundError
    """
    cache = CacheSettings.load().dir
    jars = []
    if settings.jars is not None:
        jars = [Path(jar) for jar in settings.jars]
    elif settings.delta_enabled or settings.s3_enabled:
        jars = find_jars(cache)
    own = [format_jar(cache)] if settings.neurolake_ncf_enabled else []
    if settings.delta_enabled and settings.s3_enabled:
        own += log_jars(cache, jars)
    return [*jars, *own]


def log_jars(cache: Path, jars: Sequence[Path]) -> list[Path]:
    """The jar of Delta's log on S3; none where Delta is not among the jars.

    Raises
    ------
    JavaNotFoundError, JarsNotFoundError
    """
    return [delta_log_jar(cache, jar) for jar in jars if DELTA_STORAGE.search(jar.name)]


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else -1


def resolve_jars(
    cache: Path, *, mirror: str | None = None, offline: bool = False, wanted: JarSet | None = None
) -> list[Path]:
    """Bring the jars into the cache folder, where they are not there yet.

    Parameters
    ----------
    mirror
        Where to take them from instead of Maven Central: a folder that this function has
        filled on another machine, or a folder or URL of a Maven repository.
    offline
        Ask no network; without a mirror only tell whether the jars are there.
    wanted
        None is the set that fits the installed wheels.

    Raises
    ------
    JavaNotFoundError
        If there is no Java to run Ivy with.
    JarsNotFoundError
        If a jar does not exist, or there is no network; the message holds Ivy's reason.
    """
    wanted = wanted or installed_set()
    folder = wanted.folder(cache)
    is_remote = mirror is None or "://" in mirror
    if (folder / MANIFEST).is_file() or (offline and is_remote):
        return check_folder(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        # Another process may have brought them meanwhile.
        if not (folder / MANIFEST).is_file():
            _fill(folder, wanted, mirror)
    return check_folder(folder)


def _fill(folder: Path, wanted: JarSet, mirror: str | None) -> None:
    """Bring the jars of a set into its folder; hold the lock."""
    is_remote = mirror is None or "://" in mirror
    with tempfile.TemporaryDirectory(prefix="resolving-", dir=folder.parent) as scratch:
        jars = Path(scratch) / "jars"
        filled = None if mirror is None or is_remote else _filled_folder(Path(mirror), wanted)
        if filled is not None:
            check_folder(filled)
            shutil.copytree(filled, jars)
        else:
            _run_ivy(wanted, Path(scratch), mirror)
            sizes = {path.name: path.stat().st_size for path in sorted(jars.glob("*.jar"))}
            (jars / MANIFEST).write_text(json.dumps(sizes, indent=1))
        # A folder without a manifest is a left-over of an older try.
        shutil.rmtree(folder, ignore_errors=True)
        jars.rename(folder)


def _filled_folder(mirror: Path, wanted: JarSet) -> Path | None:
    """The folder of this set in a mirror that is a cache, or the mirror itself if it is one.

    Raises
    ------
    JarsNotFoundError
        If there is no such mirror.
    """
    if not mirror.is_dir():
        raise JarsNotFoundError(f"{mirror}: no such folder; expected a mirror with jars")
    name = wanted.folder(mirror).name
    places = (mirror, mirror / name, mirror / "jars" / name)
    named = mirror.absolute().name == name
    return next((p for p in places if (p / MANIFEST).is_file() and (named or p != mirror)), None)


def _run_ivy(wanted: JarSet, scratch: Path, mirror: str | None = None) -> None:
    """Let spark-submit resolve the packages for a script that does nothing."""
    script = scratch / "nothing.py"
    script.write_text("")
    settings = []
    if mirror is not None:
        root = mirror if "://" in mirror else Path(mirror).absolute().as_uri()
        (scratch / "ivy.xml").write_text(IVY_SETTINGS.format(root=escape(root, {'"': "&quot;"})))
        settings = ["--conf", f"spark.jars.ivySettings={scratch / 'ivy.xml'}"]
    command = [
        str(spark_home() / "bin" / "spark-submit"),
        *("--conf", f"spark.jars.ivy={scratch}"),
        *settings,
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
        raise JarsNotFoundError(_reason(wanted, result.stdout + result.stderr, mirror))


def _reason(wanted: JarSet, log: str, mirror: str | None) -> str:
    """Ivy's pages of log as one sentence with the fix."""
    missing = sorted(set(re.findall(r":: ([\w.#;-]+): not found", log)))
    broken = re.findall(r":: ([\w.#;!()-]+\.jar)", log)
    if "FAILED DOWNLOADS" in log and broken:
        return (
            f"jars: {broken[0]} could not be downloaded though its POM is known: a half-filled "
            "Maven repository does that; delete that artifact's folder below "
            f"{mirror or '~/.m2/repository'} and run `neurolake jars` again"
        )
    if mirror is not None and missing:
        return (
            f"jars: {mirror} lacks {', '.join(missing)}; fill the mirror, or copy the folder "
            f"{wanted.folder(Path()).name} of a machine where `neurolake jars` has run"
        )
    if re.search(NO_NETWORK, log) or len(missing) >= len(wanted.coordinates):
        return (
            "jars: Maven Central does not answer; run `neurolake jars` where there is a network, "
            "or name a copy by `neurolake jars --mirror FOLDER`"
        )
    if missing:
        return (
            f"jars: not found: {', '.join(missing)}; delta-spark {wanted.delta} has no jar for "
            f"Spark {wanted.spark}, though its wheel exists: install the versions of "
            "requirements.lock"
        )
    return f"jars: Ivy failed: {log.strip()[-400:]}"
