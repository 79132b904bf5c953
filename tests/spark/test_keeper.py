"""The keeper of the warm server, with a server that is none."""

import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

KEEPER = """
import sys
from pathlib import Path
from neurolake_dagster.spark import keeper
keeper.spark_home = lambda: Path(sys.argv[1])
keeper.main(1, 1000, "local", "none", ".")
"""


def ignore_sigterm() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such signal")
def test_the_server_does_not_outlive_a_killed_keeper(tmp_path: Path) -> None:
    """It stayed, with its memory, and no command found it any more; so it did where the keeper's
    own starter ignored or blocked the signal.
    """
    submit = tmp_path / "bin" / "spark-submit"
    submit.parent.mkdir()
    submit.write_text("#!/bin/sh\necho up\nexec sleep 100\n")
    submit.chmod(0o755)
    with subprocess.Popen(
        [sys.executable, "-c", KEEPER, str(tmp_path)],
        stdout=subprocess.PIPE,
        preexec_fn=ignore_sigterm,
    ) as keeper:
        assert keeper.stdout is not None
        assert keeper.stdout.readline() == b"up\n"
        servers = psutil.Process(keeper.pid).children()
        keeper.kill()
    _gone, left = psutil.wait_procs(servers, timeout=5)
    # An ended orphan stays as a zombie for as long as the system's first process lets it.
    alive = [one for one in left if one.status() != psutil.STATUS_ZOMBIE]
    for one in alive:
        one.kill()
    assert len(servers) == 1
    assert not alive
