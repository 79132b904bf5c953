"""The part of the format ``ncf`` that has to be Java, and its jar.

Owns when the jar is built and where it lies. The sources beside this file are compiled by
Janino, a compiler that Spark ships for its own use: no JDK is needed, and no jar is kept in the
repository.
"""

import hashlib
import importlib.metadata
import os
import subprocess
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from neurolake_dagster.errors import JarsNotFoundError
from neurolake_dagster.spark.java import require_java

SERVICE = "META-INF/services/org.apache.spark.sql.sources.DataSourceRegister"
PROVIDER = "neurolake.spark.NCFSource"
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
    sources = sorted(Path(__file__).parent.glob("*.java"))
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:12]
    spark = importlib.metadata.version("pyspark")
    jar = cache.absolute() / "jars" / f"ncf-spark-{spark}-{digest}.jar"
    if not jar.is_file():
        jar.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="compiling-", dir=jar.parent) as scratch:
            _compile(sources, Path(scratch))
            _pack(Path(scratch), Path(scratch, jar.name)).replace(jar)
    return jar


def _compile(sources: list[Path], target: Path) -> None:
    """Write the class files of some sources, from a JVM of Spark's that ends with it."""
    from py4j.protocol import Py4JJavaError
    from pyspark import SparkConf
    from pyspark.java_gateway import launch_gateway

    os.environ["JAVA_HOME"] = str(require_java().home)
    os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    gateway: Any = launch_gateway(  # type: ignore[no-untyped-call]
        SparkConf(loadDefaults=False), popen_kwargs=quiet
    )
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
            f"jars: the format ncf does not compile against pyspark "
            f"{importlib.metadata.version('pyspark')}: {reason}; install the pyspark of "
            "requirements.lock"
        ) from exc
    finally:
        gateway.shutdown()
        gateway.proc.stdin.close()  # the JVM waits for this end of its input
        gateway.proc.wait(JVM_STOP_TIMEOUT_S)


def _pack(classes: Path, jar: Path) -> Path:
    """Write class files as a jar in which Spark finds the format by its name."""
    with zipfile.ZipFile(jar, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(classes.rglob("*.class")):
            name = str(path.relative_to(classes))
            archive.writestr(zipfile.ZipInfo(name, DAY), path.read_bytes())
        archive.writestr(zipfile.ZipInfo(SERVICE, DAY), f"{PROVIDER}\n")
    return jar
