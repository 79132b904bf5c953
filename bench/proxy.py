"""A proxy on loopback that counts what an S3 client asks of its server.

Passes bytes on unchanged (the signature covers the proxy's own address, which the server
takes from the request) and notes the first line of each request. It is a process of its own:
deltalake holds Python's lock while it waits for an answer.
"""

import json
import re
import socket
import subprocess
import sys
import threading
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

REQUEST = re.compile(rb"(GET|HEAD|PUT|POST|DELETE) (\S+) HTTP/1\.1\r\n")
CHUNK_BYTES = 1 << 16


@dataclass(frozen=True, kw_only=True)
class Counted:
    """Method and path of each request, and the bytes of all answers."""

    requests: list[tuple[str, str]]
    bytes_read: int


class CountingProxy:
    """A running proxy.

    Parameters
    ----------
    process
        Answers each line on its input with what it counted since the last one.
    """

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        self.endpoint = self._line()

    def take(self) -> Counted:
        """What went through since the last call."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        found = json.loads(self._line())
        return Counted(
            requests=[(method, path) for method, path in found["requests"]],
            bytes_read=found["bytes_read"],
        )

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


@contextmanager
def counting_proxy(server: str) -> Iterator[CountingProxy]:
    """A proxy to a server, ``http://host:port``, for the time of the block."""
    command = [sys.executable, "-m", "bench.proxy", server]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield CountingProxy(process)
        finally:
            process.kill()


class _Relay:
    def __init__(self, server: str) -> None:
        parts = urllib.parse.urlsplit(server)
        self._target = (parts.hostname, parts.port)
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.requests: list[tuple[str, str]] = []
        self.bytes_read = 0

    def serve(self) -> None:
        while True:
            client, _ = self.listener.accept()
            server = socket.create_connection(self._target)
            for action in (self._ask, self._answer):
                threading.Thread(target=action, args=(client, server), daemon=True).start()

    def _ask(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while asked := client.recv(CHUNK_BYTES):
                for method, target in REQUEST.findall(asked):
                    path = urllib.parse.urlsplit(target.decode()).path
                    self.requests.append((method.decode(), path))
                server.sendall(asked)
        with suppress(OSError):
            server.shutdown(socket.SHUT_WR)

    def _answer(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while answered := server.recv(CHUNK_BYTES):
                self.bytes_read += len(answered)
                client.sendall(answered)
        for end in (client, server):
            end.close()


def main() -> None:
    relay = _Relay(sys.argv[1])
    print(f"http://127.0.0.1:{relay.listener.getsockname()[1]}", flush=True)
    threading.Thread(target=relay.serve, daemon=True).start()
    for _ in sys.stdin:
        found = {"requests": relay.requests, "bytes_read": relay.bytes_read}
        relay.requests, relay.bytes_read = [], 0
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
