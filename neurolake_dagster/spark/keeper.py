"""The process that keeps the warm Spark server: starts its JVM, ends it when nobody uses it.

Run by `neurolake_dagster.spark.server`, never by hand; its output is the server's log.
"""

import ctypes
import signal
import subprocess
import sys
import time
from types import FrameType

import psutil

from neurolake_dagster.spark.jars import spark_home

POLL_S = 1.0
STOP_TIMEOUT_S = 20
PR_SET_PDEATHSIG = 1
MAIN_CLASS = "org.apache.spark.sql.connect.service.SparkConnectServer"


def main(
    port: int, idle_timeout_s: int, master: str, properties: str, folder: str, *conf: str
) -> int:
    """Keep the server until it is idle for long, ends by itself, or we are told to stop.

    Parameters
    ----------
    conf
        Further keys, each as ``key=value``.
    """
    server = subprocess.Popen(
        [
            str(spark_home() / "bin" / "spark-submit"),
            *("--class", MAIN_CLASS, "--master", master, "--properties-file", properties),
            *(part for one in conf for part in ("--conf", one)),
            "spark-internal",
        ],
        stdin=subprocess.DEVNULL,
        # Spark takes relative paths from here.
        cwd=folder,
        preexec_fn=_end_with_keeper,
    )

    def stop(_number: int, _frame: FrameType | None) -> None:
        server.terminate()

    signal.signal(signal.SIGTERM, stop)
    used = time.monotonic()
    while server.poll() is None:
        time.sleep(POLL_S)
        now = time.monotonic()
        if not _is_idle(server.pid, port):
            used = now
        elif now - used > idle_timeout_s:
            sys.stdout.write(f"idle for {idle_timeout_s} s: stopping\n")
            server.terminate()
            break
    try:
        return server.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        server.kill()
        return server.wait()


def _end_with_keeper() -> None:
    """Let Linux end this process, the server to be, when its keeper is killed."""
    # Whatever started the keeper may have left it ignored or blocked.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _is_idle(pid: int, port: int) -> bool:
    """Whether the server listens, and nobody is connected to it."""
    try:
        connections = psutil.Process(pid).net_connections("tcp")
    except psutil.NoSuchProcess:
        return False
    states = {one.status for one in connections if one.laddr and one.laddr.port == port}
    return psutil.CONN_LISTEN in states and psutil.CONN_ESTABLISHED not in states


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:]))
