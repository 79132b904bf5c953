"""The Spark sessions of this process: each started once, by its settings, thread-safe.

Owns which settings share a session, a JVM or a server, and what is told where they cannot. What
the settings mean as Spark keys is `neurolake_dagster.spark.conf`'s.

Settings are what a session is found by: all of them, also where S3 and the format ncf reach it.
On one JVM or server, settings that Spark can change while it runs give a session of their own.
Of those that it cannot,

- our own JVM or warm server refuses other values (`SessionConflictError`);
- a JVM that somebody else started refuses those that were set, in code or environment;
- a Connect server of somebody else runs with its own, and those that were set are named once in
  the log: nobody here could restart it.
"""

import logging
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from neurolake_dagster.errors import SessionConflictError
from neurolake_dagster.settings import SparkSettings, StorageSettings
from neurolake_dagster.settings.checks import same_value
from neurolake_dagster.settings.redaction import shown_remote
from neurolake_dagster.spark import classic, connect
from neurolake_dagster.spark.classic import activate, is_classic
from neurolake_dagster.spark.conf import (
    bucket_options,
    build_conf,
    explicit_keys,
    s3_options,
    static_facts,
)
from neurolake_dagster.spark.server import (
    find_server,
    shortened,
    start_server,
    without_remote,
)
from neurolake_dagster.storage import StorageOptions

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

__all__ = ["activate", "get_session", "running_session", "stop_session"]

# How single buckets are reached, by name.
Buckets = tuple[tuple[str, StorageOptions], ...]
# A server does not tell how many tasks it runs at once.
REMOTE_TASKS = 8
EXTENSIONS, CATALOG = "spark.sql.extensions", "spark.sql.catalog.spark_catalog"
logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where sessions run.

    Parameters
    ----------
    remote
        The Connect server's address; None is a JVM of this process.
    is_ours
        Whether this package started what runs there, with the same settings.
    """

    remote: str | None = field(default=None, repr=False)
    is_ours: bool = True


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What a session is to be.

    Parameters
    ----------
    conf
        Spark's keys and what else a running Spark cannot change.
    ncf
        How the format reaches S3, and single buckets of it, and whether it takes filters; None
        where it is off.
    """

    settings: SparkSettings
    storage: StorageSettings
    place: Place
    conf: dict[str, str]
    ncf: tuple[StorageOptions, Buckets, bool] | None

    @property
    def key(self) -> tuple[frozenset[tuple[str, str]], object]:
        """What makes two sessions of one place the same."""
        return frozenset(self.conf.items()), self.ncf


@dataclass(kw_only=True)
class Engine:
    """A running Spark and the sessions that it has here.

    Parameters
    ----------
    root
        Its first session.
    running
        The values that it was started with, where that was us.
    """

    place: Place
    root: "SparkSession"
    running: dict[str, str | None]
    sessions: dict[object, "SparkSession"] = field(default_factory=dict)
    told: set[str] = field(default_factory=set)


_lock = threading.RLock()
_engines: dict[str | None, Engine] = {}


def get_session(
    settings: SparkSettings, storage: StorageSettings, *, force_recreate: bool = False
) -> "SparkSession":
    """Return the session of these settings; started at the first call, shared after.

    Parameters
    ----------
    settings, storage
        What the session is to be; `storage` lends its S3 settings where Spark's are not set.
    force_recreate
        Stop this process's sessions and their JVM first, whatever they were started with, also
        those of somebody else.

    Raises
    ------
    SessionConflictError
        If a Spark runs that cannot take these settings any more; it names them.
    JavaNotFoundError, JarsNotFoundError, SparkError
    """
    with _lock:
        if force_recreate:
            stop_session()
        session = _find_or_open(settings, storage)
    activate(session)
    return session


def stop_session() -> None:
    """Stop this process's sessions and their JVM, if there are any.

    The JVM has to go too: it keeps its memory settings and every key it was started with.
    """
    with _lock:
        _forget_stopped()
        for remote in list(_engines):
            _drop(remote)
        connect.stop_foreign()
        connect.leave()
        theirs = classic.foreign_session()
        if theirs is not None:
            theirs.stop()
        classic.stop_jvm()


def running_session() -> "SparkSession | None":
    """A session that runs, also where another thread or somebody else started it."""
    with _lock:
        _forget_stopped()
        roots = (engine.root for engine in _engines.values())
        return next(roots, classic.foreign_session())


def _find_or_open(settings: SparkSettings, storage: StorageSettings) -> "SparkSession":
    """The session of these settings; hold the lock."""
    _forget_stopped()
    wanted = _wanted(settings, storage)
    _forget_ended(wanted)
    engine = _engines.get(wanted.place.remote)
    if engine is None:
        _refuse_mixture(wanted.place)
        engine, session = _begin(wanted)
    elif wanted.key in engine.sessions:
        return engine.sessions[wanted.key]
    else:
        session = _share(engine, wanted)
    if wanted.ncf is not None:
        _register_ncf(session, *wanted.ncf)
    _engines[wanted.place.remote] = engine
    engine.sessions[wanted.key] = session
    return session


def _wanted(settings: SparkSettings, storage: StorageSettings) -> Wanted:
    place = _find_place(settings, storage)
    if place.remote != settings.remote:
        settings = without_remote(settings)
    buckets = tuple(sorted(bucket_options(settings, storage).items()))
    ncf = (s3_options(settings, storage), buckets, settings.neurolake_pushdown_enabled)
    return Wanted(
        settings=settings,
        storage=storage,
        place=place,
        conf=static_facts(settings) | build_conf(settings, storage),
        ncf=ncf if settings.neurolake_ncf_enabled else None,
    )


def _find_place(settings: SparkSettings, storage: StorageSettings) -> Place:
    """Where a session of these settings runs; ``auto`` and ``start`` stay where others run."""
    if settings.remote is None:
        return Place()
    if settings.remote not in ("auto", "start"):
        in_use = _engines.get(settings.remote)
        return in_use.place if in_use else Place(remote=settings.remote, is_ours=False)
    if None in _engines or classic.foreign_session() is not None:
        return Place()
    server = start_server(settings, storage) if settings.remote == "start" else find_server()
    other = [] if server is None else server.differences(settings, storage)
    if server is not None and (not other or server.url in _engines):
        return Place(remote=server.url)
    notice = (
        "no warm Spark server runs; `neurolake spark start` starts one"
        if server is None
        else f"the warm Spark server runs with other values of {shortened(other)}; set them alike, "
        "or `neurolake spark stop` it and start it with these settings"
    )
    logger.warning("%s. Starting a session of this process", notice)
    return Place()


def _begin(wanted: Wanted) -> tuple[Engine, "SparkSession"]:
    """Start or join the Spark of a place."""
    remote = wanted.place.remote
    if remote is not None:
        session = _open_remote(wanted)
        engine = Engine(place=wanted.place, root=session, running={})
        if wanted.place.is_ours:
            # It was found by the same settings.
            engine.running.update(wanted.conf)
        _adapt(engine, session, wanted)
        return engine, session
    theirs = classic.foreign_session()
    if theirs is not None:
        if not str(theirs.sparkContext.master).startswith("local"):
            classic.ship(theirs)
        engine = Engine(place=Place(is_ours=False), root=theirs, running={})
        return engine, _share(engine, wanted)
    # A JVM that outlived its session keeps that session's keys.
    classic.stop_jvm()
    session = classic.start(wanted.settings, wanted.conf)
    return Engine(place=wanted.place, root=session, running=dict(wanted.conf)), session


def _share(engine: Engine, wanted: Wanted) -> "SparkSession":
    """A further session with other settings on a running Spark; refused where it takes them not."""
    is_remote = engine.place.remote is not None
    session = _open_remote(wanted) if is_remote else engine.root.newSession()
    _adapt(engine, session, wanted)
    return session


def _open_remote(wanted: Wanted) -> "SparkSession":
    assert wanted.place.remote is not None
    session = connect.open_session(wanted.place.remote, is_local=wanted.place.is_ours)
    server = None if wanted.place.is_ours else find_server()
    has_package = wanted.place.is_ours and wanted.settings.is_local
    if (
        wanted.ncf is not None
        and not has_package
        and (server is None or server.url != wanted.place.remote)
    ):
        connect.ship(session)
    return session


def _adapt(engine: Engine, session: "SparkSession", wanted: Wanted) -> None:
    """Give a session its values; say which of them its Spark cannot take."""
    running = engine.running
    if not engine.place.is_ours:
        running = _values(session, list(wanted.conf))
    other = [
        key
        for key in wanted.conf.keys() | running.keys()
        if not same_value(wanted.conf.get(key), running.get(key))
    ]
    changeable = _modifiable(session, other) if other else set()
    if EXTENSIONS in set(other) - changeable and not _has_extensions(wanted, running):
        # Spark lets it be set, and then no query finds the class.
        changeable.discard(CATALOG)
    _tell_fixed(engine, wanted, sorted(set(other) - changeable))
    for key in changeable - wanted.conf.keys():
        session.conf.unset(key)
    found = {key: wanted.conf[key] for key in changeable & wanted.conf.keys()}
    with classic.told_of_values():
        if is_classic(session):
            for key, value in found.items():
                session.conf.set(key, value)
        elif found:
            connect.set_values(session, found)


def _has_extensions(wanted: Wanted, running: Mapping[str, str | None]) -> bool:
    """Whether a Spark was started with the wanted extensions, among others."""
    there = (running.get(EXTENSIONS) or "").split(",")
    return set(wanted.conf.get(EXTENSIONS, "").split(",")) <= {*there}


def _tell_fixed(engine: Engine, wanted: Wanted, names: list[str]) -> None:
    """Refuse or report the values that a running Spark has otherwise than wanted."""
    if not engine.place.is_ours:
        # What nobody asked for is the other's choice.
        explicit = explicit_keys(wanted.settings, wanted.storage)
        names = [name for name in names if name in explicit]
    if not names:
        return
    if engine.place.remote is None or engine.place.is_ours:
        raise SessionConflictError(
            f"Spark: {_described(engine.place)} runs with other values of {', '.join(names)}, "
            "which it cannot change any more; use the same settings everywhere, or "
            f"force_recreate=True to restart it{_advice(names)}"
        )
    untold = [name for name in names if name not in engine.told]
    engine.told.update(untold)
    if untold:
        logger.warning(
            "%s runs with other values of %s, which a client cannot change",
            _described(engine.place),
            ", ".join(untold),
        )


def _advice(names: list[str]) -> str:
    is_s3 = any("fs.s3a" in name for name in names)
    return ". For S3, give the resource the storage: SparkResource(storage=...)" if is_s3 else ""


def _described(place: Place) -> str:
    if place.remote is not None:
        return f"the Spark Connect server {shown_remote(place.remote)}"
    return "a JVM of this process" if place.is_ours else "a JVM that somebody else started here"


def _values(session: "SparkSession", keys: list[str]) -> dict[str, str | None]:
    return classic.values(session, keys) if is_classic(session) else connect.values(session, keys)


def _modifiable(session: "SparkSession", keys: list[str]) -> set[str]:
    if not is_classic(session):
        return connect.modifiable(session, keys)
    return {key for key in keys if session.conf.isModifiable(key)}


def _sessions(engine: Engine) -> list["SparkSession"]:
    """An engine's sessions, each once."""
    return list({id(one): one for one in (engine.root, *engine.sessions.values())}.values())


def _forget_stopped() -> None:
    """Drop what was stopped by somebody else."""
    for remote, engine in list(_engines.items()):
        if remote is None:
            if classic.is_stopped(engine.root):
                del _engines[remote]
            continue
        engine.sessions = {k: one for k, one in engine.sessions.items() if not one.is_stopped}  # type: ignore[attr-defined]
        if not engine.sessions:
            del _engines[remote]
        elif engine.root.is_stopped:  # type: ignore[attr-defined]
            engine.root = next(iter(engine.sessions.values()))


def _forget_ended(wanted: Wanted) -> None:
    """Drop the wanted session where its Connect server has ended it."""
    remote = wanted.place.remote
    session = _engines[remote].sessions.get(wanted.key) if remote in _engines else None
    if remote is not None and session is not None and connect.has_ended(session, remote):
        connect.close(session, remote)
        _forget_stopped()


def _refuse_mixture(place: Place) -> None:
    """Keep a process to classic sessions or to Connect ones: pyspark cannot have both."""
    if place.remote is not None:
        has_other = None in _engines or classic.foreign_session() is not None
        other = "one with a JVM of its own"
    else:
        for remote in list(_engines):
            # A warm server ends by itself when it is idle.
            if not connect.is_up(str(remote)):
                _drop(remote)
        if not _engines and connect.foreign_session() is None:
            connect.leave()
        has_other = connect.is_used()
        other = ", ".join(shown_remote(str(remote)) for remote in _engines) or "one of Connect"
    if has_other:
        raise SessionConflictError(
            f"Spark: this process has another kind of session, {other}, and pyspark takes only "
            "one kind; use the same remote everywhere, or force_recreate=True to stop it"
        )


def _drop(remote: str | None) -> None:
    """Stop all sessions of an engine."""
    for session in _sessions(_engines.pop(remote)):
        if remote is None:
            session.stop()
        else:
            connect.close(session, remote)


def _register_ncf(
    session: "SparkSession", options: StorageOptions, buckets: Buckets, pushdown: bool
) -> None:
    """Offer the format ``ncf`` with this session's settings: Spark keeps formats by session."""
    from neurolake_dagster.spark.datasource import configured, register

    has_tasks = is_classic(session)
    parallelism = session.sparkContext.defaultParallelism if has_tasks else REMOTE_TASKS
    activate(session)
    source = configured(
        options,
        parallelism=parallelism,
        pushdown=pushdown,
        folder=_folder_of(session),
        buckets=dict(buckets),
    )
    register(session, source)


def _folder_of(session: "SparkSession") -> str | None:
    """Where a session's relative paths begin, as `configured` takes it."""
    if is_classic(session):
        return ""
    server = find_server()
    token: str | None = session.client.token
    return server.folder if server is not None and server.token == token else None
