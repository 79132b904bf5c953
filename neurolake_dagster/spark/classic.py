"""A Spark of this process: the JVM behind its classic sessions.

Owns starting and stopping it, what it is launched with, and reading what it runs with. Which
session is whose is `neurolake_dagster.spark.session`'s.
"""

import logging
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neurolake_dagster.errors import SparkError
from neurolake_dagster.settings import CacheSettings, SparkSettings
from neurolake_dagster.settings.redaction import is_secret
from neurolake_dagster.spark.conf import jar_conf, launch_environment
from neurolake_dagster.spark.effective import running_value
from neurolake_dagster.spark.jars import session_jars, spark_home
from neurolake_dagster.spark.java import require_java
from neurolake_dagster.spark.shipping import build_archive
from neurolake_dagster.spark.variables import environment

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

JVM_STOP_TIMEOUT_S = 20
logger = logging.getLogger(__name__)
EVENT_LOG_DIR = "/tmp/spark-events"  # noqa: S108  # Spark's own default, which it does not create


def is_classic(session: "SparkSession") -> bool:
    """Whether a session's JVM is this process's own; else it is a Connect server's."""
    return hasattr(session, "_jsc")


def is_stopped(session: "SparkSession") -> bool:
    """Whether a classic session was stopped, by us or by somebody else."""
    return session._sc._jsc is None  # noqa: SLF001  # pyspark has no public way


def activate(session: "SparkSession") -> None:
    """Make a session this thread's own; one of a Connect server needs it not.

    When it writes, and when a format is registered, Spark looks for formats in the thread's
    session only; other threads than the one that started it have none.
    """
    if is_classic(session):
        jvm: Any = session._jvm  # noqa: SLF001  # pyspark has no public way
        jvm.org.apache.spark.sql.classic.SparkSession.setActiveSession(session._jsparkSession)  # noqa: SLF001


def foreign_session() -> "SparkSession | None":
    """The classic session that runs in this process, whoever started it."""
    if "pyspark.sql.session" not in sys.modules:
        return None
    from pyspark.sql import SparkSession

    session: SparkSession | None = SparkSession._instantiatedSession  # noqa: SLF001  # no public way
    return session if session is not None and not is_stopped(session) else None


@contextmanager
def told_of_values() -> Iterator[None]:
    """Translate what Spark says of values that it does not take, without its JVM's trace.

    Raises
    ------
    SparkError
    """
    from py4j.protocol import Py4JJavaError
    from pyspark.errors import PySparkException

    try:
        yield
    except (Py4JJavaError, PySparkException) as exc:
        raise SparkError(
            f"Spark: it takes no session of these settings: {_reason(exc)}; correct what it "
            "names, in extra_configs where it has no option of its own"
        ) from exc


def _reason(exc: Exception) -> str:
    """The first lines of an error and of its causes, without what one repeats of the next."""
    cause: Any = getattr(exc, "java_exception", None) or getattr(exc, "_origin", None)
    if cause is None:
        return str(exc).split("\n")[0]
    told: list[str] = []
    while cause is not None:
        if not told or str(cause.getMessage()).split("\n")[0] not in told[-1]:
            told.append(str(cause.toString()).split("\n")[0])
        cause = cause.getCause()
    return ": ".join(told)


def start(settings: SparkSettings, conf: Mapping[str, str]) -> "SparkSession":
    """Start a session with its own JVM.

    Raises
    ------
    JavaNotFoundError, JarsNotFoundError, SparkError
    """
    java = require_java()
    options = {
        **conf,
        **jar_conf(session_jars(settings), settings),
        "spark.master": settings.master,
    }
    if conf.get("spark.eventLog.enabled") == "true":
        _make_folder(conf.get("spark.eventLog.dir", EVENT_LOG_DIR))
    variables = {"JAVA_HOME": str(java.home), "SPARK_HOME": str(_home())}
    variables |= launch_environment(settings)
    with warnings.catch_warnings(), environment(variables):
        # pyspark's launcher leaves the gateway's pipes open on purpose.
        warnings.simplefilter("ignore", ResourceWarning)
        _launch(options)
        with told_of_values():
            session = _opened(options)
    if not settings.is_local:
        # Before anything is registered: what Spark hands to workers names the files of then.
        ship(session)
    return session


def _opened(options: Mapping[str, str]) -> "SparkSession":
    """The first session of the JVM that was launched; none is left where it takes no value."""
    from pyspark.sql import SparkSession

    builder = SparkSession.builder
    for key, value in options.items():
        builder = builder.config(key, value)
    session = builder.getOrCreate()
    try:
        # Spark looks at its SQL keys when the first is asked for.
        session.conf.get("spark.app.id")
    except Exception:
        session.stop()
        raise
    return session


def ship(session: "SparkSession") -> None:
    """Send this package to the executors, which may not have it."""
    archive = build_archive(CacheSettings.load().dir.absolute() / "spark")
    session.sparkContext.addPyFile(str(archive))


def values(session: "SparkSession", keys: list[str]) -> dict[str, str | None]:
    """What a session's Spark runs with, its own defaults included; None where it knows no value."""
    jvm: Any = session._jvm  # noqa: SLF001  # pyspark has no public way
    entries = jvm.org.apache.spark.internal.config.ConfigEntry
    found: dict[str, str | None] = {}
    for key in keys:
        value = running_value(session, key)
        entry = entries.findEntry(key) if value is None else None
        default = None if entry is None else entry.defaultValueString()
        found[key] = default if value is None and default != "<undefined>" else value
    return found


def stop_jvm() -> None:
    """End the JVM that pyspark launched; the next session launches its own."""
    from pyspark import SparkContext

    gateway = SparkContext._gateway  # noqa: SLF001  # pyspark has no public way
    if gateway is None:
        return
    gateway.shutdown()
    process: subprocess.Popen[bytes] | None = getattr(gateway, "proc", None)
    if process is not None:
        if process.stdin is not None:
            # The JVM waits for this end of its input.
            process.stdin.close()
        process.wait(JVM_STOP_TIMEOUT_S)
    SparkContext._gateway = SparkContext._jvm = None  # noqa: SLF001


def _home() -> Path:
    """The Spark to launch: that of SPARK_HOME where it is of pyspark's version, else pyspark's."""
    named, version = os.environ.get("SPARK_HOME"), metadata.version("pyspark")
    if named is None:
        return spark_home()
    if any(Path(named, "jars").glob(f"spark-core_*-{version}*.jar")):
        return Path(named)
    logger.warning("SPARK_HOME %s holds no Spark %s; taking pyspark's own", named, version)
    return spark_home()


def _launch(options: Mapping[str, str]) -> None:
    """Start the JVM; secrets stay off its command line, which everybody on the machine reads.

    Raises
    ------
    SparkError
        If it ends at once; why, it has told on this process's standard error.
    """
    from pyspark import SparkConf, SparkContext
    from pyspark.errors import PySparkRuntimeError

    public = SparkConf(loadDefaults=False)
    for key, value in options.items():
        if not is_secret(key, value):
            public.set(key, value)
    try:
        SparkContext._ensure_initialized(conf=public)  # noqa: SLF001  # pyspark has no public way
    except PySparkRuntimeError as exc:
        if exc.getCondition() != "JAVA_GATEWAY_EXITED":
            raise
        heap = options.get("spark.driver.memory")
        raise SparkError(
            f"Spark: its JVM ended at its start, the reason stands above this error. It was given "
            f"driver_memory {heap}, and what JAVA_TOOL_OPTIONS and PYSPARK_SUBMIT_ARGS say, which "
            "must end in pyspark-shell; correct what the reason names"
        ) from exc


def _make_folder(place: str) -> None:
    """Make a local folder that Spark expects; one on another file system is its owner's."""
    path = place.removeprefix("file://").removeprefix("file:")
    if "://" not in path:
        Path(path).mkdir(parents=True, exist_ok=True)
