"""A warm Spark of this machine: a Connect server that several processes share.

Owns its settings, port, token and fingerprint. The process that keeps it is
`neurolake_dagster.spark.keeper`.
"""

import hashlib
import os
import secrets
import socket
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import psutil

from neurolake_dagster.errors import SessionConflictError, SparkError
from neurolake_dagster.service import Service, free_ports, write_private
from neurolake_dagster.settings import CacheSettings, SparkSettings, StorageSettings
from neurolake_dagster.settings.redaction import is_secret
from neurolake_dagster.spark.conf import (
    WORKERS,
    build_conf,
    jar_conf,
    launch_environment,
    static_facts,
)
from neurolake_dagster.spark.jars import installed_set, session_jars, spark_home
from neurolake_dagster.spark.java import require_java
from neurolake_dagster.spark.status import StatusAPI
from neurolake_dagster.spark.variables import OVERRULED

IDLE_TIMEOUT_S = 1800
START_TIMEOUT_S = 180
PROBE_TIMEOUT_S = 3.0
NAMES_SHOWN = 6
# Spark tries so many ports for its UI after the first, one after the other.
UI_RETRIES = "16"


@dataclass(frozen=True, kw_only=True)
class Server:
    """A running server.

    Parameters
    ----------
    keys
        Of every key that it was started with, a digest of the value.
    ui_url
        None where it has no UI.
    application_id
        Empty where nobody could be asked for it.
    folder
        Where relative paths begin: the working directory of whoever started it.
    """

    port: int
    token: str = field(repr=False)
    keys: dict[str, str] = field(repr=False)
    ui_url: str | None = None
    application_id: str = ""
    folder: str = ""

    @property
    def url(self) -> str:
        """The address for clients, with the token: not to be shown."""
        # By name: with 127.0.0.1 the client insists on TLS.
        return f"sc://localhost:{self.port}/;token={self.token};use_ssl=false"

    def differences(self, settings: SparkSettings, storage: StorageSettings) -> list[str]:
        """The keys whose values are others than a server of these settings would have."""
        wanted = fingerprint(settings, storage, self.token)
        names = wanted.keys() | self.keys.keys()
        return sorted(name for name in names if wanted.get(name) != self.keys.get(name))


def fingerprint(settings: SparkSettings, storage: StorageSettings, token: str) -> dict[str, str]:
    """What makes two servers the same: every key they are started with but the name.

    Values are digests, made with the server's token: some values are secrets.
    """
    settings = without_remote(settings)
    conf = static_facts(settings) | build_conf(settings, storage)
    conf.pop("spark.app.name", None)
    # The workers' sockets follow the umask of the process, not its settings.
    for name in WORKERS.keys() - settings.extra_configs.keys():
        conf.pop(name, None)
    versions = {f"version of {name}": value for name, value in asdict(installed_set()).items()}
    values = conf | versions
    return {name: _digest(value, token) for name, value in values.items()}


def _digest(value: str, token: str) -> str:
    return hashlib.blake2b(value.encode(), key=token.encode(), digest_size=8).hexdigest()


def without_remote(settings: SparkSettings) -> SparkSettings:
    """The settings of the Spark behind the server."""
    return settings.model_copy(update={"remote": None})


def server_service(cache: CacheSettings | None = None) -> Service:
    """The service of a cache folder: its process and its log; None is the environment's folder."""
    return Service("Spark server", (cache or CacheSettings.load()).dir / "spark")


def find_server() -> Server | None:
    """The server of this cache folder, if it runs."""
    facts = server_service().find()
    if facts is None or not answers(facts["port"]):
        return None
    # An earlier version of this package recorded no keys: all of them differ.
    return Server(
        port=facts["port"],
        token=facts["token"],
        keys=facts.get("keys", {}),
        ui_url=facts.get("ui_url"),
        application_id=facts.get("application_id", ""),
        folder=facts.get("folder", str(server_service().folder)),
    )


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
    service = server_service()
    with service.locked():
        server = find_server()
        if server is not None:
            other = server.differences(settings, storage)
            if other:
                raise SessionConflictError(
                    f"Spark server on port {server.port}: it runs with other values of "
                    f"{shortened(other)}; `neurolake spark stop` it first"
                )
            return server
        token = secrets.token_urlsafe(24)
        keys = fingerprint(settings, storage, token)
        port = free_ports(1)[0]
        server = Server(port=port, token=token, keys=keys, folder=str(Path.cwd()))
        _launch(service, server, without_remote(settings), storage, idle_timeout_s)
        return server


def stop_server() -> bool:
    """Stop the server; whether there was one."""
    return server_service().stop()


def shortened(names: list[str]) -> str:
    """Names for a message, the first ones where they are many."""
    more = len(names) - NAMES_SHOWN
    return ", ".join(names[:NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")


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
    # The UI asks for no token: others of this machine may look, not end our jobs.
    conf = {"spark.ui.killEnabled": "false", **build_conf(settings, storage)}
    if conf.get("spark.ui.port") == "0":
        # Any port; Spark would tell nobody which.
        conf["spark.ui.port"] = str(next(one for one in free_ports(2) if one != server.port))
    conf |= jar_conf(session_jars(settings), settings) | {
        "spark.connect.grpc.binding.address": "127.0.0.1",
        "spark.connect.grpc.binding.port": str(server.port),
        "spark.connect.grpc.port.maxRetries": "0",
    }
    properties = write_private(service.folder / "server.conf", _as_properties(conf))
    service.launch(
        [
            *(sys.executable, "-m", "neurolake_dagster.spark.keeper"),
            *(str(server.port), str(idle_timeout_s), settings.master, str(properties)),
            *(server.folder, *_blank_ended(conf)),
        ],
        environment={k: value for k, value in os.environ.items() if k not in OVERRULED}
        | {
            "JAVA_HOME": str(java.home),
            "SPARK_HOME": str(spark_home()),
            "SPARK_CONNECT_AUTHENTICATE_TOKEN": server.token,
            **launch_environment(settings),
        },
        facts=lambda pid: asdict(_with_ui(server, _ui_url(pid, conf))),
        is_ready=lambda: answers(server.port),
        timeout_s=START_TIMEOUT_S,
    )


def _with_ui(server: Server, ui_url: str | None) -> Server:
    """The server with what its UI tells, so that the first client does not wait for that."""
    found = replace(server, ui_url=ui_url)
    if ui_url is not None:
        # The server serves without it.
        with suppress(SparkError), StatusAPI(ui_url) as api:
            found = replace(found, application_id=api.get()[0]["id"])
    return found


def _ui_url(pid: int, conf: dict[str, str]) -> str | None:
    """Where the UI of the server is: Spark tells its port in no other way than by listening."""
    if conf.get("spark.ui.enabled") != "true":
        return None
    first = int(conf["spark.ui.port"])
    tried = range(first, first + 1 + int(conf.get("spark.port.maxRetries", UI_RETRIES)))
    family = psutil.Process(pid).children(recursive=True)
    held = {
        one.laddr.port
        for process in family
        for one in process.net_connections("tcp")
        if one.status == psutil.CONN_LISTEN and one.laddr.port in tried
    }
    return f"http://127.0.0.1:{min(held)}" if held else None


def _blank_ended(conf: dict[str, str]) -> list[str]:
    """Values with outer blanks, which Spark would cut of those in a file; no secrets."""
    found = {key: value for key, value in conf.items() if value != value.strip()}
    return [f"{key}={value}" for key, value in found.items() if not is_secret(key, value)]


def _as_properties(conf: dict[str, str]) -> str:
    """A properties file: secrets stay off the command line, which everybody reads."""
    lines = []
    for key, value in conf.items():
        escaped = value.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
        lines.append(f"{key}={escaped}\n")
    return "".join(lines)
