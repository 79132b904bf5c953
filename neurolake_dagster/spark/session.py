"""The Spark session of this process: started once, by settings, thread-safe.

Owns starting, sharing and stopping. What the settings mean as Spark keys is
`neurolake_dagster.spark.conf`'s.
"""

import atexit
import logging
import os
import subprocess
import sys
import threading
import urllib.parse
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neurolake_dagster.errors import SessionConflictError, SparkError
from neurolake_dagster.settings import CacheSettings, SparkSettings, StorageSettings
from neurolake_dagster.settings.redaction import is_secret
from neurolake_dagster.spark.client import import_client
from neurolake_dagster.spark.conf import build_conf, is_local, jar_conf, s3_options
from neurolake_dagster.spark.jars import session_jars
from neurolake_dagster.spark.java import require_java
from neurolake_dagster.spark.server import (
    answers,
    find_server,
    shortened,
    start_server,
    without_remote,
)
from neurolake_dagster.spark.shipping import build_archive

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

# A server does not tell how many tasks it runs at once.
REMOTE_TASKS = 8
JVM_STOP_TIMEOUT_S = 20
CONNECT_PORT = 15002
EVENT_LOG_DIR = "/tmp/spark-events"  # noqa: S108  # Spark's own default, which it does not create

# All sessions of a JVM share its formats, and the reader of ncf was made for this.
FIXED = ("spark.sql.python.filterPushdown.enabled",)

_lock = threading.RLock()
# Of the running session: what it was started with and where, and those that share its JVM.
_started: dict[str, str] = {}
_endpoints: list[str] = []
_shared: dict[frozenset[tuple[str, str]], "SparkSession"] = {}


def get_session(
    settings: SparkSettings, storage: StorageSettings, *, force_recreate: bool = False
) -> "SparkSession":
    """Return the session of these settings; started at the first call, shared after.

    Other settings that Spark can change while it runs give a session of their own on the same
    JVM, so that none sees the other's.

    Parameters
    ----------
    settings, storage
        What the session is to be; `storage` lends its S3 settings where Spark's are not set.
    force_recreate
        Stop a running session and its JVM first, whatever they were started with.

    Raises
    ------
    SessionConflictError
        If a JVM runs that cannot take these settings any more; it names them.
    JavaNotFoundError, JarsNotFoundError
    """
    with _lock:
        if force_recreate:
            stop_session()
        session = _find_or_open(settings, storage)
    activate(session)
    return session


def activate(session: "SparkSession") -> None:
    """Make a session this thread's own.

    When it writes, Spark looks for formats in the thread's session only; other threads than the
    one that started it have none.
    """
    if _is_classic(session):
        jvm: Any = session._jvm  # noqa: SLF001  # pyspark has no public way
        jvm.org.apache.spark.sql.classic.SparkSession.setActiveSession(session._jsparkSession)  # noqa: SLF001


def _find_or_open(settings: SparkSettings, storage: StorageSettings) -> "SparkSession":
    """The session of these settings; hold the lock."""
    remote = _resolve_remote(settings, storage)
    if remote != settings.remote:
        settings = without_remote(settings)
    conf = build_conf(settings, storage)
    running = running_session()
    if running is not None and not _started:
        # Somebody else started it: their choice, taken as it is.
        return running
    key = frozenset(conf.items())
    if key in _shared:
        return _shared[key]
    if running is None:
        # A JVM that outlived its session keeps that session's keys.
        _stop_jvm()
        session = _connect(remote) if remote else _start(settings, conf)
        _started.update(conf)
        _endpoints.extend([remote] if remote else [])
    else:
        session = _share(running, conf)
    is_first = running is None
    # A JVM's sessions share its formats, a server's do not.
    if settings.neurolake_ncf_enabled and (is_first or not _is_classic(session)):
        _register_ncf(session, settings, storage)
    _shared[key] = session
    return session


def stop_session() -> None:
    """Stop this process's sessions and their JVM, if there are any.

    The JVM has to go too: it keeps its memory settings and every key it was started with.
    """
    with _lock:
        session = running_session()
        for one in {id(one): one for one in (session, *_shared.values())}.values():
            if one is not None:
                one.stop()
        _forget()
        _stop_jvm()


def running_session() -> "SparkSession | None":
    """The running session, also where another thread or somebody else started it."""
    from pyspark.sql import SparkSession

    session: SparkSession | None = next(
        iter(_shared.values()),
        SparkSession._instantiatedSession,  # noqa: SLF001  # no public way
    )
    if session is not None and (not _is_classic(session) or _runs(session)):
        return session
    _forget()
    return None


def _forget() -> None:
    _started.clear()
    _endpoints.clear()
    _shared.clear()


def _is_classic(session: "SparkSession") -> bool:
    """Whether its JVM is this process's own; else it is a Connect server's."""
    return hasattr(session, "_jsc")


def _runs(session: "SparkSession") -> bool:
    """Whether a classic session was not stopped, by us or by somebody else."""
    return session._sc._jsc is not None  # noqa: SLF001  # pyspark has no public way


def _share(running: "SparkSession", conf: dict[str, str]) -> "SparkSession":
    """A session with other settings on the same JVM; refused where it cannot take them."""
    other = {name for name in conf.keys() | _started.keys() if conf.get(name) != _started.get(name)}
    fixed = sorted(n for n in other if n in FIXED or not running.conf.isModifiable(n))
    if fixed:
        raise SessionConflictError(
            f"Spark: a JVM of this process runs with other values of {', '.join(fixed)}, which "
            "it cannot change any more; use the same settings everywhere, or "
            "force_recreate=True to restart it"
        )
    session = running.newSession() if _is_classic(running) else _open(_endpoints[0])
    for name in other:
        if name in conf:
            session.conf.set(name, conf[name])
        else:
            session.conf.unset(name)
    return session


def _start(settings: SparkSettings, conf: dict[str, str]) -> "SparkSession":
    """Start a classic session with its own JVM."""
    from pyspark.sql import SparkSession

    java = require_java()
    jars = session_jars(settings)
    os.environ["JAVA_HOME"] = str(java.home)
    os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    # Workers must be this Python: another one lacks this package and pyarrow.
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    os.environ.setdefault("PYSPARK_DRIVER_PYTHON", sys.executable)
    if conf.get("spark.eventLog.enabled") == "true":
        _make_folder(conf.get("spark.eventLog.dir", EVENT_LOG_DIR))
    options = conf | jar_conf(jars) | {"spark.master": settings.master}
    with warnings.catch_warnings():
        # pyspark's launcher leaves the gateway's pipes open on purpose.
        warnings.simplefilter("ignore", ResourceWarning)
        _launch_jvm(options)
        builder = SparkSession.builder
        for key, value in options.items():
            builder = builder.config(key, value)
        session = builder.getOrCreate()
    if not is_local(settings):
        # Before anything is registered: what Spark hands to workers names the files of then.
        archive = build_archive(CacheSettings.load().dir.absolute() / "spark")
        session.sparkContext.addPyFile(str(archive))
    return session


def _launch_jvm(options: dict[str, str]) -> None:
    """Start the JVM; secrets stay off its command line, which everybody on the machine reads."""
    from pyspark import SparkConf, SparkContext

    public = SparkConf(loadDefaults=False)
    for key, value in options.items():
        if not is_secret(key, value):
            public.set(key, value)
    SparkContext._ensure_initialized(conf=public)  # noqa: SLF001  # pyspark has no public way


def _make_folder(place: str) -> None:
    """Make a local folder that Spark expects; one on another file system is its owner's."""
    path = place.removeprefix("file://").removeprefix("file:")
    if "://" not in path:
        Path(path).mkdir(parents=True, exist_ok=True)


def _stop_jvm() -> None:
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


def _resolve_remote(settings: SparkSettings, storage: StorageSettings) -> str | None:
    """The Connect endpoint to use; None for a classic session."""
    if settings.remote not in ("auto", "start"):
        return settings.remote
    if settings.remote == "start":
        return start_server(settings, storage).url
    server = find_server()
    other = [] if server is None else server.differences(settings, storage)
    if server is not None and not other:
        return server.url
    notice = (
        "no warm Spark server runs; `neurolake spark start` starts one"
        if server is None
        else f"the warm Spark server runs with other values of {shortened(other)}; set them alike, "
        "or `neurolake spark stop` it and start it with these settings"
    )
    logging.getLogger(__name__).warning("%s. Starting a session of this process", notice)
    return None


def _connect(remote: str) -> "SparkSession":
    """Open a session on a Spark Connect server."""
    address = urllib.parse.urlsplit(remote)
    host, port = address.hostname or "localhost", address.port or CONNECT_PORT
    # A client retries an absent server for many minutes.
    if not answers(port, host):
        raise SparkError(f"Spark Connect: nothing answers on {host}:{port}; is the server up?")
    return _open(remote)


def _open(remote: str) -> "SparkSession":
    """A session of its own on a server, whatever sessions there are."""
    from pyspark.sql import SparkSession

    import_client()
    session = SparkSession.builder.remote(remote).create()
    # Closed while its threads live: by the interpreter's own end it waits for them, for good.
    atexit.register(session.stop)
    return session


def _register_ncf(
    session: "SparkSession", settings: SparkSettings, storage: StorageSettings
) -> None:
    """Offer the format ``ncf`` with this session's settings."""
    from neurolake_dagster.spark.datasource import configured, register

    parallelism = session.sparkContext.defaultParallelism if _is_classic(session) else REMOTE_TASKS
    source = configured(
        s3_options(settings, storage),
        parallelism=parallelism,
        pushdown=settings.neurolake_pushdown_enabled,
    )
    register(session, source)
