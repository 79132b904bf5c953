"""Checks of what Spark listens on, and of the server that sessions are to use."""

import errno
import socket

from neurolake_dagster.doctor.engine import needs_jvm
from neurolake_dagster.doctor.finding import Finding, advise, judge, skip
from neurolake_dagster.settings import SparkSettings, StorageSettings
from neurolake_dagster.settings.checks import REMOTES, address_of
from neurolake_dagster.spark.conf import build_conf, launch_environment
from neurolake_dagster.spark.server import answers, find_server, server_service, shortened

# Ports that may be fixed; Spark picks the others itself.
PORTS = {
    "spark.ui.port": "its UI",
    "spark.driver.port": "its executors",
    "spark.blockManager.port": "its blocks",
    "spark.driver.blockManager.port": "the driver's blocks",
}
# Spark tries so many ports after the first.
RETRIES = "16"
LAST_PORT = 65_535


def check_ports(settings: SparkSettings, storage: StorageSettings) -> Finding:
    """That Spark can listen on this machine's address, on each port that is named to it."""
    expected = "an address of this machine, and a free port for each that is named"
    if not needs_jvm(settings):
        return skip("ports", "not needed: Spark runs elsewhere", expected)
    conf = build_conf(settings, storage)
    host = launch_environment(settings).get("SPARK_LOCAL_IP", "")
    if not _is_ours(host):
        found = f"SPARK_LOCAL_IP={host}: not an address of this machine"
        return judge("ports", False, found, expected, "unset SPARK_LOCAL_IP")
    held, wrong = [], []
    for key, use in PORTS.items():
        first = int(conf.get(key, "0"))
        if not first or (key == "spark.ui.port" and conf["spark.ui.enabled"] != "true"):
            continue
        last = min(first + int(conf.get("spark.port.maxRetries", RETRIES)), LAST_PORT)
        port = next((one for one in range(first, last + 1) if _is_free(host, one)), None)
        if port is None:
            wrong.append(f"{key}: none free from {first} to {last}")
        else:
            held.append(f"{port} for {use}")
    fix = "set another NEUROLAKE_SPARK__UI_PORT, or NEUROLAKE_SPARK__UI_ENABLED=false"
    if wrong and not wrong[0].startswith("spark.ui"):
        fix = "set another port, or none, in NEUROLAKE_SPARK__EXTRA_CONFIGS"
    return judge("ports", not wrong, "; ".join(wrong or held) or "none named", expected, fix)


def check_server(settings: SparkSettings, storage: StorageSettings) -> Finding:
    """That the server which sessions are to use answers, with these settings."""
    expected = "the server that NEUROLAKE_SPARK__REMOTE names, with these settings"
    remote = settings.remote
    if remote is None:
        return skip("spark server", "not needed: sessions start a Spark of their own", expected)
    if remote not in REMOTES:
        host, port = address_of(remote)
        is_up = answers(port, host)
        found = f"{'a server' if is_up else 'nothing'} answers on {host}:{port}"
        fix = "start it, or set NEUROLAKE_SPARK__REMOTE to auto, start or a server that runs"
        return judge("spark server", is_up, found, expected, fix)
    server, pid = find_server(), server_service().pid()
    if server is None and pid is not None:
        found = f"process {pid} runs, and does not answer"
        fix = "neurolake spark stop, then neurolake spark start"
        return judge("spark server", False, found, expected, fix)
    if server is None:
        found = "none runs" + ("; the first session starts it" if remote == "start" else "")
        fix = "neurolake spark start; else each process starts a Spark of its own"
        return advise("spark server", remote == "start", found, expected, fix)
    other = server.differences(settings, storage)
    found = f"127.0.0.1:{server.port}, process {pid}"
    found += f", other values of {shortened(other)}" if other else ""
    make = judge if remote == "start" else advise
    fix = "neurolake spark stop, then neurolake spark start; or set them alike"
    return make("spark server", not other, found, expected, fix)


def _is_ours(host: str) -> bool:
    """Whether an address is this machine's; an empty one is any of them."""
    with socket.socket() as probe:
        try:
            probe.bind((host, 0))
        except OSError as error:
            return error.errno not in (errno.EADDRNOTAVAIL, None)
    return True


def _is_free(host: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True
