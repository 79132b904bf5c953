"""The Spark session of this process: started once, by settings, thread-safe.

Owns starting, sharing and stopping. What the settings mean as Spark keys is
`neurolake_dagster.spark.conf`'s.
"""

import os
import sys
import threading
import warnings
from typing import TYPE_CHECKING

from neurolake_dagster.errors import SessionConflictError
from neurolake_dagster.settings import CacheSettings, SparkSettings, StorageSettings
from neurolake_dagster.spark.conf import build_conf, jar_conf, s3_options
from neurolake_dagster.spark.jars import find_jars
from neurolake_dagster.spark.java import require_java

if TYPE_CHECKING:
    from pathlib import Path

    from pyspark.sql import SparkSession

# A server does not tell how many tasks it runs at once.
REMOTE_TASKS = 8

_lock = threading.RLock()
_started: dict[str, str] = {}


def get_session(
    settings: SparkSettings, storage: StorageSettings, *, force_recreate: bool = False
) -> "SparkSession":
    """Return the one session of this process; started at the first call, shared after.

    Parameters
    ----------
    settings, storage
        What the session is to be; `storage` lends its S3 settings where Spark's are not set.
    force_recreate
        Stop a running session first, whatever it was started with.

    Raises
    ------
    SessionConflictError
        If a session runs that was started with other settings; it names them.
    JavaNotFoundError, JarsNotFoundError
    """
    with _lock:
        from pyspark.sql import SparkSession

        conf = build_conf(settings, storage)
        if force_recreate:
            stop_session()
        active = SparkSession.getActiveSession() or _default_session()
        if active is not None:
            _require_same(conf)
            return active
        session = _connect(settings) if settings.remote else _start(settings, conf)
        _started.clear()
        _started.update(conf)
        if settings.neurolake_ncf_enabled:
            _register_ncf(session, settings, storage)
        return session


def stop_session() -> None:
    """Stop this process's session, if there is one."""
    with _lock:
        session = _default_session()
        if session is not None:
            session.stop()
        _started.clear()


def _default_session() -> "SparkSession | None":
    """The running session, also where another thread started it."""
    from pyspark.sql import SparkSession

    session: SparkSession | None = SparkSession._instantiatedSession  # noqa: SLF001  # no public way
    if session is None or session._sc._jsc is None:  # noqa: SLF001  # a stopped one
        return None
    return session


def _require_same(conf: dict[str, str]) -> None:
    """Refuse to hand out a session that was started with other settings.

    A session that we did not start is somebody else's choice, and is taken as it is.
    """
    if not _started:
        return
    keys = sorted(
        key for key in conf.keys() | _started.keys() if conf.get(key) != _started.get(key)
    )
    if keys:
        raise SessionConflictError(
            f"Spark: a session of this process runs with other values of {', '.join(keys)}; "
            "use the same settings everywhere, or force_recreate=True to restart it"
        )


def _start(settings: SparkSettings, conf: dict[str, str]) -> "SparkSession":
    """Start a classic session with its own JVM."""
    from pyspark.sql import SparkSession

    java = require_java()
    os.environ["JAVA_HOME"] = str(java.home)
    os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    # Workers must be this Python: another one lacks this package and pyarrow.
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    os.environ.setdefault("PYSPARK_DRIVER_PYTHON", sys.executable)
    builder = SparkSession.builder.master(settings.master)
    for key, value in (conf | jar_conf(_jars(settings))).items():
        builder = builder.config(key, value)
    with warnings.catch_warnings():
        # pyspark's launcher leaves the gateway's pipes open on purpose.
        warnings.simplefilter("ignore", ResourceWarning)
        return builder.getOrCreate()


def _jars(settings: SparkSettings) -> "list[Path]":
    """The jars for Delta and S3: given ones, or the resolved."""
    if settings.jars is not None:
        from pathlib import Path

        return [Path(jar) for jar in settings.jars]
    if settings.delta_enabled or settings.s3_enabled:
        return find_jars(CacheSettings.load().dir)
    return []


def _connect(settings: SparkSettings) -> "SparkSession":
    """Open a session on a Spark Connect server."""
    from pyspark.sql import SparkSession

    assert settings.remote is not None
    return SparkSession.builder.remote(settings.remote).getOrCreate()


def _register_ncf(
    session: "SparkSession", settings: SparkSettings, storage: StorageSettings
) -> None:
    """Offer the format ``ncf`` with this session's settings."""
    from neurolake_dagster.spark.datasource import configured

    parallelism = REMOTE_TASKS if settings.remote else session.sparkContext.defaultParallelism
    session.dataSource.register(
        configured(
            s3_options(settings, storage),
            parallelism=parallelism,
            pushdown=settings.neurolake_pushdown_enabled,
        )
    )
