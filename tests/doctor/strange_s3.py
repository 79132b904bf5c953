"""An S3 server with one fault of choice, for what a sound server cannot show."""

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
    "none", "ignores conditions", "garbles", "lists nothing", "keeps", "slow clock", "fast clock"
]
CLOCKS = {"slow clock": timedelta(hours=-1), "fast clock": timedelta(seconds=60)}


class _Server(ThreadingHTTPServer):
    fault: Fault
    objects: dict[str, tuple[bytes, datetime]]


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
        asks = "If-None-Match" in self.headers and fault != "ignores conditions"
        if asks and urlsplit(self.path).path in objects:
            self._answer(412)
            return
        when = datetime.now(UTC) + CLOCKS.get(fault, timedelta())
        objects[urlsplit(self.path).path] = (body, when)
        self._answer(200, ETag=_tag(body))

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        if "list-type" in parse_qs(url.query):
            self._list(url.path.strip("/"), parse_qs(url.query).get("prefix", [""])[0])
            return
        found = self._server.objects.get(url.path)
        if found is None:
            self._answer(404)
            return
        body, when = found
        if self._server.fault == "garbles":
            body = b"?" * len(body)
        self._answer(200, body, ETag=_tag(body), Last_Modified=format_datetime(when, usegmt=True))

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_POST(self) -> None:
        """Delete several objects."""
        root = ElementTree.fromstring(self._body())
        keys = [one.text or "" for one in root.iter() if one.tag.endswith("Key")]
        if self._server.fault != "keeps":
            for key in keys:
                self._server.objects.pop(f"{urlsplit(self.path).path.rstrip('/')}/{key}", None)
        gone = "".join(f"<Deleted><Key>{key}</Key></Deleted>" for key in keys)
        self._answer(200, f"<DeleteResult>{gone}</DeleteResult>".encode())

    def _list(self, bucket: str, prefix: str) -> None:
        rows = ""
        for path, (body, when) in sorted(self._server.objects.items()):
            key = path.removeprefix(f"/{bucket}/")
            if key.startswith(prefix) and self._server.fault != "lists nothing":
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
        server.fault, server.objects = fault, {}
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def _tag(body: bytes) -> str:
    return f'"{md5(body, usedforsecurity=False).hexdigest()}"'
