"""What has to be Java: a part of the format ``ncf``, and Delta's log on S3; and their jars.

Owns when a jar is built and where it lies. The sources beside this file are compiled by
Janino, a compiler that Spark ships for its own use: no JDK is needed, and no jar is kept in the
repository.
"""

import hashlib
import importlib.metadata
import os
import subprocess
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from neurolake_dagster.errors import JarsNotFoundError
from neurolake_dagster.spark.java import require_java

SERVICE = "META-INF/services/org.apache.spark.sql.sources.DataSourceRegister"
PROVIDER = "neurolake.spark.NCFSource"
DELTA_LOG = "neurolake.spark.delta.S3Log"
DELTA_LOG_JAR = "delta-log"
SOURCES = Path(__file__).parent
JVM_STOP_TIMEOUT_S = 30
# Zip knows no earlier day; the same day always, so that the same sources are the same jar.
DAY = (1980, 1, 1, 0, 0, 0)


def format_jar(cache: Path) -> Path:
    """The jar for the installed pyspark; compiled where it is not in the cache yet (3 s).

    Raises
    ------
    JavaNotFoundError
    JarsNotFoundError
        If this pyspark has other classes than the sources are written for.
    """
    services = {SERVICE: f"{PROVIDER}\n"}
    return _built(cache, "ncf-spark", sorted(SOURCES.glob("*.java")), services=services)


def delta_log_jar(cache: Path, delta_storage: Path) -> Path:
    """The jar of Delta's log on S3, for a jar of delta-storage; built as that of the format.

    Raises
    ------
    JavaNotFoundError
    JarsNotFoundError
        If that jar has other classes than the source is written for.
    """
    return _built(cache, DELTA_LOG_JAR, sorted(SOURCES.glob("delta/*.java")), needs=delta_storage)


def _built(
    cache: Path,
    name: str,
    sources: list[Path],
    *,
    needs: Path | None = None,
    services: Mapping[str, str] | None = None,
) -> Path:
    parts = [path.read_bytes() for path in sources] + (
        [] if needs is None else [needs.name.encode()]
    )
    digest = hashlib.sha256(b"".join(parts)).hexdigest()[:12]
    spark = importlib.metadata.version("pyspark")
    jar = cache.absolute() / "jars" / f"{name}-{spark}-{digest}.jar"
    if not jar.is_file():
        jar.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="compiling-", dir=jar.parent) as scratch:
            _compile(sources, Path(scratch), needs)
            _pack(Path(scratch), Path(scratch, jar.name), services or {}).replace(jar)
    return jar


def _compile(sources: list[Path], target: Path, needs: Path | None = None) -> None:
    """Write the class files of some sources, from a JVM of Spark's that ends with it."""
    from py4j.protocol import Py4JJavaError
    from pyspark import SparkConf
    from pyspark.java_gateway import launch_gateway

    os.environ["JAVA_HOME"] = str(require_java().home)
    os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    conf = SparkConf(loadDefaults=False)
    if needs is not None:
        conf.set("spark.driver.extraClassPath", str(needs))
    gateway: Any = launch_gateway(conf, popen_kwargs=quiet)  # type: ignore[no-untyped-call]
    try:
        java, janino = gateway.jvm.java, gateway.jvm.org.codehaus.janino
        loader = java.lang.Thread.currentThread().getContextClassLoader()
        compiler = janino.Compiler()
        compiler.setIClassLoader(janino.ClassLoaderIClassLoader(loader))
        compiler.setSourceVersion(8)
        compiler.setTargetVersion(8)
        compiler.setDestinationDirectory(java.io.File(str(target)), False)
        files = gateway.new_array(java.io.File, len(sources))
        for index, path in enumerate(sources):
            files[index] = java.io.File(str(path))
        compiler.compile(files)
    except Py4JJavaError as exc:
        reason = str(exc.java_exception.getMessage()).splitlines()[0]
        raise JarsNotFoundError(
            f"jars: {sources[0].stem} does not compile against pyspark "
            f"{importlib.metadata.version('pyspark')}{'' if needs is None else f' and {needs}'}: "
            f"{reason}; install the versions of requirements.lock"
        ) from exc
    finally:
        gateway.shutdown()
        gateway.proc.stdin.close()  # the JVM waits for this end of its input
        gateway.proc.wait(JVM_STOP_TIMEOUT_S)


def _pack(classes: Path, jar: Path, services: Mapping[str, str]) -> Path:
    """Write class files as a jar, with the files by which Java finds what they offer."""
    with zipfile.ZipFile(jar, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(classes.rglob("*.class")):
            name = str(path.relative_to(classes))
            archive.writestr(zipfile.ZipInfo(name, DAY), path.read_bytes())
        for name, content in services.items():
            archive.writestr(zipfile.ZipInfo(name, DAY), content)
    return jar
