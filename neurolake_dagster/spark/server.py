"""A warm Spark of this machine: a Connect server that several processes share.

Owns its record (a private file with port, token and fingerprint), starting it once and stopping
it. The process that keeps it is `neurolake_dagster.spark.keeper`.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import psutil

from neurolake_dagster.errors import SessionConflictError, SparkError
from neurolake_dagster.settings import CacheSettings, SparkSettings, StorageSettings
from neurolake_dagster.spark.conf import build_conf, jar_conf
from neurolake_dagster.spark.jars import installed_set, session_jars, spark_home
from neurolake_dagster.spark.java import require_java

IDLE_TIMEOUT_S = 1800
START_TIMEOUT_S = 180
STOP_TIMEOUT_S = 30
PROBE_TIMEOUT_S = 3.0
POLL_S = 0.2
CLOCK_TOLERANCE_S = 5
LOG_TAIL_BYTES = 2000


@dataclass(frozen=True, kw_only=True)
class Server:
    """A running server.

    Parameters
    ----------
    pid, started
        Of the keeper's process; the time tells it from a later process of the same number.
    fingerprint
        Of the settings it runs with.
    """

    pid: int
    started: float
    port: int
    fingerprint: str
    log: str
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


def find_server() -> Server | None:
    """The server of this cache folder, if it runs."""
    try:
        record = json.loads(_record_path().read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    server = Server(**record)
    return server if _lives(server.pid, server.started) and answers(server.port) else None


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
    SparkError
        If it does not come up; with the end of its log.
    """
    wanted = fingerprint(settings, storage)
    with _locked():
        server = find_server()
        if server is not None:
            if server.fingerprint != wanted:
                raise SessionConflictError(
                    f"Spark server on port {server.port}: it runs with other settings; "
                    "`neurolake spark stop` it first"
                )
            return server
        return _launch(without_remote(settings), storage, wanted, idle_timeout_s)


def stop_server() -> bool:
    """Stop the server; whether there was one."""
    with _locked():
        try:
            server = Server(**json.loads(_record_path().read_text()))
        except (FileNotFoundError, json.JSONDecodeError):
            return False
        was_alive = _lives(server.pid, server.started)
        if was_alive:
            process = psutil.Process(server.pid)
            family = [process, *process.children(recursive=True)]
            process.send_signal(signal.SIGTERM)
            _gone, alive = psutil.wait_procs(family, timeout=STOP_TIMEOUT_S)
            for one in alive:
                one.kill()
        _record_path().unlink(missing_ok=True)
        return was_alive


def answers(port: int, host: str = "127.0.0.1") -> bool:
    """Whether something listens on a port."""
    try:
        with socket.create_connection((host, port), PROBE_TIMEOUT_S):
            return True
    except OSError:
        return False


def log_path() -> Path:
    """Where the server writes its log."""
    return _folder() / "server.log"


def _folder() -> Path:
    folder = CacheSettings.load().dir.absolute() / "spark"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def _record_path() -> Path:
    return _folder() / "server.json"


@contextlib.contextmanager
def _locked() -> Iterator[None]:
    """Let one process at a time start or stop the server."""
    with (_folder() / "server.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _lives(pid: int, started: float) -> bool:
    try:
        process = psutil.Process(pid)
        # The clock that it is counted from may be set while the process runs.
        same = abs(process.create_time() - started) < CLOCK_TOLERANCE_S
        return same and bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _launch(
    settings: SparkSettings, storage: StorageSettings, wanted: str, idle_timeout_s: int
) -> Server:
    java = require_java()
    port = _free_port()
    token = secrets.token_urlsafe(24)
    conf = build_conf(settings, storage) | jar_conf(session_jars(settings))
    conf |= {
        "spark.connect.grpc.binding.address": "127.0.0.1",
        "spark.connect.grpc.binding.port": str(port),
        "spark.connect.grpc.port.maxRetries": "0",
    }
    properties = _write_private(_folder() / "server.conf", _as_properties(conf))
    environment = os.environ | {
        "JAVA_HOME": str(java.home),
        "SPARK_HOME": str(spark_home()),
        "SPARK_LOCAL_IP": "127.0.0.1",
        "SPARK_CONNECT_AUTHENTICATE_TOKEN": token,
        "PYSPARK_PYTHON": sys.executable,
    }
    command = [
        *(sys.executable, "-m", "neurolake_dagster.spark.keeper"),
        *(str(port), str(idle_timeout_s), settings.master, str(properties)),
    ]
    with log_path().open("wb") as log:
        # A session of its own: it outlives the command, and the terminal's Ctrl-C.
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )
    _wait(process, port)
    server = Server(
        pid=process.pid,
        started=psutil.Process(process.pid).create_time(),
        port=port,
        fingerprint=wanted,
        log=str(log_path()),
        token=token,
    )
    _write_private(_record_path(), json.dumps(asdict(server)))
    # It is meant to outlive us: Popen would warn that nobody waited for it.
    process.returncode = 0
    return server


def _wait(process: "subprocess.Popen[bytes]", port: int) -> None:
    """Wait until the server listens."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while not answers(port):
        if process.poll() is not None or time.monotonic() > deadline:
            process.terminate()
            process.wait(STOP_TIMEOUT_S)
            tail = log_path().read_bytes()[-LOG_TAIL_BYTES:].decode(errors="replace")
            raise SparkError(f"Spark server: it did not come up; the end of its log:\n{tail}")
        time.sleep(POLL_S)


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def _write_private(path: Path, text: str) -> Path:
    """Write a file that only its owner reads."""
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    return path


def _as_properties(conf: dict[str, str]) -> str:
    """A properties file: secrets stay off the command line, which everybody reads."""
    lines = []
    for key, value in conf.items():
        escaped = value.replace("\\", "\\\\").replace("\n", "\\n")
        lines.append(f"{key}={escaped}\n")
    return "".join(lines)
