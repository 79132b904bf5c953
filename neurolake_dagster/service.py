"""Background processes of this machine that outlive the command that starts them.

Owns a service's folder: the lock that makes two starts give one process, the private record of
what runs, and the log. What the process is, and when it is ready, its owner says.
"""

import contextlib
import fcntl
import json
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from neurolake_dagster.errors import NeuroLakeError

STOP_TIMEOUT_S = 30
POLL_S = 0.2
CLOCK_TOLERANCE_S = 5
LOG_TAIL_BYTES = 2000


class Service:
    """One background process and its folder.

    Parameters
    ----------
    name
        For people.
    folder
        Of its lock, record and log; made private to its owner.
    """

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.folder = folder.absolute()
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.log_path = self.folder / "service.log"
        self.record_path = self.folder / "service.json"

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Let one process at a time start or stop the service."""
        with (self.folder / "service.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def find(self) -> dict[str, Any] | None:
        """What was recorded of the running process; None if none runs, or it is not ready."""
        found = self._recorded()
        return found["facts"] if found and _lives(found["pid"], found["started"]) else None

    def pid(self) -> int | None:
        """The number of the running process, be it ready or not."""
        found = self._recorded()
        return found["pid"] if found and _lives(found["pid"], found["started"]) else None

    def launch(
        self,
        command: Sequence[str],
        *,
        environment: Mapping[str, str],
        facts: Callable[[int], Mapping[str, Any]],
        is_ready: Callable[[], bool],
        timeout_s: float,
    ) -> None:
        """Start the process and wait until it is ready; hold the lock meanwhile.

        One that runs without being ready is ended first: whoever started it was killed, or it
        hangs.

        Parameters
        ----------
        facts
            Given the number of the process, once it is ready: JSON values that `find` gives back;
            kept in a file that only its owner reads.

        Raises
        ------
        NeuroLakeError
            If it ends, or is not ready in time; with the end of its log. It is ended then, as by
            whatever else is raised before it is ready.
        """
        self._end_unready()
        with self.log_path.open("wb") as log:
            # A session of its own: it outlives the command, and the terminal's Ctrl-C.
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                env=dict(environment),
                start_new_session=True,
            )
        try:
            # Recorded at once: `stop` ends it also where this process is killed meanwhile.
            self._record(process.pid, None)
            self._await(process, is_ready, timeout_s)
            self._record(process.pid, dict(facts(process.pid)))
        except BaseException:  # Ctrl-C too
            _end(process.pid, STOP_TIMEOUT_S)
            process.wait()
            self.record_path.unlink(missing_ok=True)
            raise
        # It is meant to outlive us: Popen would warn that nobody waited for it.
        process.returncode = 0

    def _await(
        self, process: "subprocess.Popen[bytes]", is_ready: Callable[[], bool], timeout_s: float
    ) -> None:
        deadline = time.monotonic() + timeout_s
        while not is_ready():
            if process.poll() is not None or time.monotonic() > deadline:
                tail = self.log_path.read_bytes()[-LOG_TAIL_BYTES:].decode(errors="replace")
                raise NeuroLakeError(f"{self.name}: did not come up; the end of its log:\n{tail}")
            time.sleep(POLL_S)

    def stop(self, grace_s: float = STOP_TIMEOUT_S) -> bool:
        """Stop the process; whether there was one.

        Parameters
        ----------
        grace_s
            Seconds that it has to end by itself.
        """
        with self.locked():
            pid = self.pid()
            if pid is not None:
                _end(pid, grace_s)
            self.record_path.unlink(missing_ok=True)
            return pid is not None

    def _end_unready(self) -> None:
        pid = self.pid()
        if pid is not None:
            _end(pid, STOP_TIMEOUT_S)

    def _record(self, pid: int, facts: dict[str, Any] | None) -> None:
        started = psutil.Process(pid).create_time()
        record = {"pid": pid, "started": started, "facts": facts}
        write_private(self.record_path, json.dumps(record))

    def _recorded(self) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = json.loads(self.record_path.read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            return None
        return found


def free_ports(count: int) -> list[int]:
    """Ports of loopback that are free together at this moment."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for held in sockets:
            held.bind(("127.0.0.1", 0))
        return [held.getsockname()[1] for held in sockets]


def write_private(path: Path, text: str) -> Path:
    """Write a file that only its owner reads."""
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    return path


def _lives(pid: int, started: float) -> bool:
    """Whether a process lives, and is not a later one of the same number."""
    try:
        process = psutil.Process(pid)
        # The clock that it is counted from may be set while the process runs.
        same = abs(process.create_time() - started) < CLOCK_TOLERANCE_S
        return same and bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _end(pid: int, grace_s: float) -> None:
    """End a process and its children, the hard way if they do not listen."""
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        family = [process, *process.children(recursive=True)]
        process.terminate()
        _gone, alive = psutil.wait_procs(family, timeout=grace_s)
        for one in alive:
            one.kill()
        psutil.wait_procs(alive, timeout=STOP_TIMEOUT_S)
