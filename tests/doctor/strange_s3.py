"""An S3 server with one fault of choice, for what a sound server cannot show."""

import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from hashlib import md5
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal, cast
from urllib.parse import parse_qs, urlsplit
from xml.etree import ElementTree

Fault = Literal[
    "none",
    "ignores conditions",
    "garbles",
    "lists nothing",
    "keeps",
    "slow clock",
    "fast clock",
    "loses an answer",
    "refuses writes",
    "refuses deletion",
    "another region",
    "expired token",
]
# Status and code of what is refused.
REFUSALS: dict[Fault, tuple[int, str]] = {
    "another region": (301, "PermanentRedirect"),
    "expired token": (400, "ExpiredToken"),
}
CLOCKS = {"slow clock": timedelta(hours=-1), "fast clock": timedelta(seconds=60)}


class _Server(ThreadingHTTPServer):
    fault: Fault
    objects: dict[str, tuple[bytes, datetime]]
    conditional_puts: int


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def _server(self) -> _Server:
        return cast(_Server, self.server)

    def _answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def do_PUT(self) -> None:
        body, objects, fault = self._body(), self._server.objects, self._server.fault
        if fault == "refuses writes":
            self._refuse(403, "AccessDenied")
            return
        asks = "If-None-Match" in self.headers and fault != "ignores conditions"
        if asks and urlsplit(self.path).path in objects:
            self._answer(412)
            return
        when = datetime.now(UTC) + CLOCKS.get(fault, timedelta())
        objects[urlsplit(self.path).path] = (body, when)
        self._server.conditional_puts += asks
        if fault == "loses an answer" and asks and self._server.conditional_puts == 2:
            self._refuse(500, "InternalError")
            return
        self._answer(200, ETag=_tag(body))

    def _refuse(self, status: int, code: str) -> None:
        self._answer(status, f"<Error><Code>{code}</Code></Error>".encode())

    def do_GET(self) -> None:
        if self._server.fault in REFUSALS:
            self._refuse(*REFUSALS[self._server.fault])
            return
        url = urlsplit(self.path)
        if "list-type" in parse_qs(url.query):
            asked = parse_qs(url.query)
            prefix, after = (asked.get(name, [""])[0] for name in ("prefix", "start-after"))
            self._list(url.path.strip("/"), prefix, after)
            return
        found = self._server.objects.get(url.path)
        if found is None:
            self._answer(404)
            return
        body, when = found
        if self._server.fault == "garbles":
            body = b"?" * len(body)
        facts = {"ETag": _tag(body), "Last_Modified": format_datetime(when, usegmt=True)}
        asked = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
        if asked is None:
            self._answer(200, body, **facts)
            return
        end = len(body) - 1
        first = int(asked[1]) if asked[1] else len(body) - int(asked[2])
        last = min(int(asked[2]), end) if asked[1] and asked[2] else end
        facts["Content_Range"] = f"bytes {first}-{last}/{len(body)}"
        self._answer(206, body[first : last + 1], **facts)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_POST(self) -> None:
        """Delete several objects."""
        root = ElementTree.fromstring(self._body())
        keys = [one.text or "" for one in root.iter() if one.tag.endswith("Key")]
        if self._server.fault == "refuses deletion":
            self._answer(200, f"<DeleteResult>{''.join(map(_kept, keys))}</DeleteResult>".encode())
            return
        if self._server.fault != "keeps":
            for key in keys:
                self._server.objects.pop(f"{urlsplit(self.path).path.rstrip('/')}/{key}", None)
        gone = "".join(f"<Deleted><Key>{key}</Key></Deleted>" for key in keys)
        self._answer(200, f"<DeleteResult>{gone}</DeleteResult>".encode())

    def _list(self, bucket: str, prefix: str, after: str) -> None:
        rows = ""
        for path, (body, when) in sorted(self._server.objects.items()):
            key = path.removeprefix(f"/{bucket}/")
            if key.startswith(prefix) and key > after and self._server.fault != "lists nothing":
                rows += (
                    f"<Contents><Key>{key}</Key><Size>{len(body)}</Size><ETag>{_tag(body)}</ETag>"
                    f"<LastModified>{when:%Y-%m-%dT%H:%M:%S.000Z}</LastModified></Contents>"
                )
        page = f"<ListBucketResult><IsTruncated>false</IsTruncated>{rows}</ListBucketResult>"
        self._answer(200, page.encode())

    def log_message(self, *args: object) -> None:
        """Nothing: the tests' output is theirs."""


@contextmanager
def strange_s3(fault: Fault) -> Iterator[str]:
    """Serve on loopback; gives the endpoint."""
    with _Server(("127.0.0.1", 0), _Handler) as server:
        server.fault, server.objects, server.conditional_puts = fault, {}, 0
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@contextmanager
def strange_s3_process(fault: Fault) -> Iterator[str]:
    """The same in another process: deltalake holds Python's lock while it waits for an answer."""
    command = [sys.executable, "-m", "tests.doctor.strange_s3", fault]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.kill()


def _kept(key: str) -> str:
    return f"<Error><Key>{key}</Key><Code>AccessDenied</Code><Message>No</Message></Error>"


def _tag(body: bytes) -> str:
    return f'"{md5(body, usedforsecurity=False).hexdigest()}"'


if __name__ == "__main__":
    with strange_s3(cast(Fault, sys.argv[1])) as served:
        print(served, flush=True)
        threading.Event().wait()
