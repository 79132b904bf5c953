"""Sessions on a Spark Connect server.

Owns opening one, and asking the server in few requests what it runs with and what it lets a
client change. Starting a server of this machine is `neurolake_dagster.spark.server`'s.
"""

import atexit
import os
import sys
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from neurolake_dagster.errors import SparkError
from neurolake_dagster.settings import CacheSettings
from neurolake_dagster.settings.checks import address_of
from neurolake_dagster.spark.client import CLIENT, import_client
from neurolake_dagster.spark.server import answers
from neurolake_dagster.spark.shipping import build_archive
from neurolake_dagster.spark.variables import environment

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

# By it pyspark turns all of a process to Connect.
MODE = "SPARK_CONNECT_MODE_ENABLED"
# Each waits four times as long as the one before: 4 s in all.
LOCAL_RETRIES = 4
# As long as gRPC tries to connect at most.
READY_TIMEOUT_S = 20
# Any key does, to ask whether a session lives.
ANY_KEY = "spark.app.id"


def is_up(remote: str) -> bool:
    """Whether something listens at a Connect address."""
    host, port = address_of(remote)
    return answers(port, host)


def open_session(remote: str, *, is_local: bool = False) -> "SparkSession":
    """A session of its own on a server, whatever sessions there are.

    Parameters
    ----------
    is_local
        Whether the server is this machine's warm one. Once gone it comes back elsewhere: its
        queries fail within seconds then, not within the minutes that a client otherwise waits.

    Raises
    ------
    SparkError
        If nothing answers there, or no Connect server.
    """
    # A client retries an absent server for many minutes.
    if not is_up(remote):
        host, port = address_of(remote)
        raise SparkError(f"Spark Connect: nothing answers on {host}:{port}; is the server up?")
    from pyspark.sql import SparkSession

    import_client()
    with environment({}):
        session = SparkSession.builder.remote(remote).create()
    _await_channel(session, remote)
    if is_local:
        from pyspark.sql.connect.client.retries import DefaultPolicy

        session.client.set_retry_policies([DefaultPolicy(max_retries=LOCAL_RETRIES)])
    # Closed while its threads live: by the interpreter's own end it waits for them, for good.
    atexit.register(close, session, remote)
    return session


def _await_channel(session: "SparkSession", remote: str) -> None:
    """Wait until client and server understand each other: the client would retry for minutes."""
    import grpc  # type: ignore[import-untyped]

    channel: Any = session.client._channel  # noqa: SLF001  # as above
    try:
        grpc.channel_ready_future(channel).result(timeout=READY_TIMEOUT_S)
    except grpc.FutureTimeoutError:
        session.release_session_on_close = False  # type: ignore[attr-defined]
        session.stop()
        host, port = address_of(remote)
        raise SparkError(
            f"Spark Connect: {host}:{port} takes connections, but answers none as a Connect server "
            f"within {READY_TIMEOUT_S} s; is it one? With a token, hosts other than localhost are "
            "reached by TLS only"
        ) from None


def close(session: "SparkSession", remote: str) -> None:
    """Stop a session, also one whose server is gone: a client retries for many minutes to tell it.

    Parameters
    ----------
    remote
        The address of its server.
    """
    if not session.is_stopped:  # type: ignore[attr-defined]
        session.release_session_on_close = is_up(remote)  # type: ignore[attr-defined]
        session.stop()


def has_ended(session: "SparkSession", remote: str) -> bool:
    """Whether a session cannot be used any more: stopped here, or ended by its server.

    A server ends sessions that nobody uses for an hour, and all when it is restarted.
    """
    from pyspark.errors import PySparkException

    if session.is_stopped or not is_up(remote):  # type: ignore[attr-defined]
        return True
    try:
        values(session, [ANY_KEY])
    except PySparkException as exc:
        if "INVALID_HANDLE" not in str(exc):
            raise
        return True
    return False


def is_used() -> bool:
    """Whether this process is one of Connect sessions, be they stopped or not."""
    return MODE in os.environ


def foreign_session() -> "SparkSession | None":
    """The session of this process's default that lives; ours too, until it is stopped."""
    if CLIENT not in sys.modules:
        return None
    from pyspark.sql.connect.session import SparkSession

    session: Any = SparkSession._default_session  # noqa: SLF001  # pyspark has no public way
    return None if session is None or session.is_stopped else session


def stop_foreign() -> None:
    """Stop the session that somebody else opened here, if there is one."""
    session: Any = foreign_session()
    if session is not None:
        close(session, f"sc://{session.client._builder.endpoint}")  # noqa: SLF001  # as above


def leave() -> None:
    """Let this process have classic sessions again, once all its Connect sessions are stopped."""
    os.environ.pop(MODE, None)


def ship(session: "SparkSession") -> None:
    """Send this package along with the session, for the workers of a server without it."""
    archive = build_archive(CacheSettings.load().dir.absolute() / "spark")
    session.addArtifacts(str(archive), pyfile=True)


def values(session: "SparkSession", keys: Iterable[str]) -> dict[str, str | None]:
    """What a session's server runs with; None where it knows no value."""
    from pyspark.sql.connect import proto

    operation = proto.ConfigRequest.GetOption(keys=list(keys))
    return dict(_ask(session, get_option=operation))


def modifiable(session: "SparkSession", keys: Iterable[str]) -> set[str]:
    """Which keys the server lets a session change."""
    from pyspark.sql.connect import proto

    operation = proto.ConfigRequest.IsModifiable(keys=list(keys))
    return {key for key, value in _ask(session, is_modifiable=operation) if value == "true"}


def set_values(session: "SparkSession", conf: Mapping[str, str]) -> None:
    """Set keys of a session."""
    from pyspark.sql.connect import proto

    pairs = [proto.KeyValue(key=key, value=value) for key, value in conf.items()]
    _ask(session, set=proto.ConfigRequest.Set(pairs=pairs))


def _ask(session: "SparkSession", **operation: Any) -> list[tuple[str, str | None]]:
    """One request for many keys; the session's own methods make one for each."""
    from pyspark.sql.connect import proto

    client: Any = session.client
    found: list[tuple[str, str | None]] = client.config(
        proto.ConfigRequest.Operation(**operation)
    ).pairs
    return found
