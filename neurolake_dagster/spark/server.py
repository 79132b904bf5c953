"""A warm Spark of this machine: a Connect server that several processes share.

Owns its settings, port, token and fingerprint. The process that keeps it is
`neurolake_dagster.spark.keeper`.
"""

import hashlib
import json
import os
import secrets
import socket
import sys
from dataclasses import asdict, dataclass, field

from neurolake_dagster.errors import SessionConflictError
from neurolake_dagster.service import Service, free_ports, write_private
from neurolake_dagster.settings import CacheSettings, SparkSettings, StorageSettings
from neurolake_dagster.spark.conf import build_conf, jar_conf
from neurolake_dagster.spark.jars import installed_set, session_jars, spark_home
from neurolake_dagster.spark.java import require_java

IDLE_TIMEOUT_S = 1800
START_TIMEOUT_S = 180
PROBE_TIMEOUT_S = 3.0


@dataclass(frozen=True, kw_only=True)
class Server:
    """A running server.

    Parameters
    ----------
    fingerprint
        Of the settings it runs with.
    """

    port: int
    fingerprint: str
    token: str = field(repr=False)

    @property
    def url(self) -> str:
        """The address for clients, with the token: not to be shown."""
        # By name: with 127.0.0.1 the client insists on TLS.
        return f"sc://localhost:{self.port}/;token={self.token};use_ssl=false"


def fingerprint(settings: SparkSettings, storage: StorageSettings) -> str:
    """What makes two servers the same: every key they are started with but the name."""
    conf = build_conf(without_remote(settings), storage)
    conf.pop("spark.app.name", None)
    versions = installed_set()
    text = json.dumps([settings.master, sorted(conf.items()), asdict(versions)])
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def without_remote(settings: SparkSettings) -> SparkSettings:
    """The settings of the Spark behind the server."""
    return settings.model_copy(update={"remote": None})


def server_service() -> Service:
    """The service of this cache folder: its process and its log."""
    return Service("Spark server", CacheSettings.load().dir / "spark")


def find_server() -> Server | None:
    """The server of this cache folder, if it runs."""
    facts = server_service().find()
    server = None if facts is None else Server(**facts)
    return server if server is not None and answers(server.port) else None


def start_server(
    settings: SparkSettings, storage: StorageSettings, *, idle_timeout_s: int = IDLE_TIMEOUT_S
) -> Server:
    """Start the server, or return the one that runs; two starts at once give one server.

    Parameters
    ----------
    idle_timeout_s
        The server ends itself after so many seconds without a client.

    Raises
    ------
    SessionConflictError
        If a server runs with other settings.
    NeuroLakeError
        If it does not come up; with the end of its log.
    """
    wanted = fingerprint(settings, storage)
    service = server_service()
    with service.locked():
        server = find_server()
        if server is not None:
            if server.fingerprint != wanted:
                raise SessionConflictError(
                    f"Spark server on port {server.port}: it runs with other settings; "
                    "`neurolake spark stop` it first"
                )
            return server
        server = Server(port=free_ports(1)[0], fingerprint=wanted, token=secrets.token_urlsafe(24))
        _launch(service, server, without_remote(settings), storage, idle_timeout_s)
        return server


def stop_server() -> bool:
    """Stop the server; whether there was one."""
    return server_service().stop()


def answers(port: int, host: str = "127.0.0.1") -> bool:
    """Whether something listens on a port."""
    try:
        with socket.create_connection((host, port), PROBE_TIMEOUT_S):
            return True
    except OSError:
        return False


def _launch(
    service: Service,
    server: Server,
    settings: SparkSettings,
    storage: StorageSettings,
    idle_timeout_s: int,
) -> None:
    java = require_java()
    conf = build_conf(settings, storage) | jar_conf(session_jars(settings))
    conf |= {
        "spark.connect.grpc.binding.address": "127.0.0.1",
        "spark.connect.grpc.binding.port": str(server.port),
        "spark.connect.grpc.port.maxRetries": "0",
    }
    properties = write_private(service.folder / "server.conf", _as_properties(conf))
    service.launch(
        [
            *(sys.executable, "-m", "neurolake_dagster.spark.keeper"),
            *(str(server.port), str(idle_timeout_s), settings.master, str(properties)),
        ],
        environment=os.environ
        | {
            "JAVA_HOME": str(java.home),
            "SPARK_HOME": str(spark_home()),
            "SPARK_LOCAL_IP": "127.0.0.1",
            "SPARK_CONNECT_AUTHENTICATE_TOKEN": server.token,
            "PYSPARK_PYTHON": sys.executable,
        },
        facts=asdict(server),
        is_ready=lambda: answers(server.port),
        timeout_s=START_TIMEOUT_S,
    )


def _as_properties(conf: dict[str, str]) -> str:
    """A properties file: secrets stay off the command line, which everybody reads."""
    lines = []
    for key, value in conf.items():
        escaped = value.replace("\\", "\\\\").replace("\n", "\\n")
        lines.append(f"{key}={escaped}\n")
    return "".join(lines)
