"""Where bytes go: a path, published when it is complete, or a file object. Strictly forward."""

import os
import tempfile
from pathlib import Path
from typing import Any


class PathSink:
    """A local file that appears under its name only when `publish` is called."""

    def __init__(self, path: str) -> None:
        self.name = path
        target = Path(path)
        handle, self._temporary = tempfile.mkstemp(
            dir=target.parent, prefix=f".{target.name}.", suffix=".tmp"
        )
        self._file = os.fdopen(handle, "wb", buffering=0)

    def write(self, parts: list[Any]) -> None:
        """Write buffers one after the other."""
        for part in parts:
            rest = memoryview(part).cast("B") if len(part) else b""
            while len(rest):
                rest = rest[self._file.write(rest) :]

    def publish(self) -> None:
        """Give the file its name, replacing an older one in one step."""
        umask = os.umask(0)
        os.umask(umask)
        os.fchmod(self._file.fileno(), 0o666 & ~umask)
        self._file.close()
        os.replace(self._temporary, self.name)  # noqa: PTH105

    def discard(self) -> None:
        """Remove what was written; an older file under the name stays."""
        self._file.close()
        Path(self._temporary).unlink(missing_ok=True)


class FileSink:
    """A writable binary file object; the caller opens, closes and publishes it."""

    def __init__(self, file: Any) -> None:
        self.name = str(getattr(file, "name", f"<{type(file).__name__}>"))
        self._file = file

    def write(self, parts: list[Any]) -> None:
        """Write buffers one after the other; the file may take fewer bytes at a time."""
        for part in parts:
            rest = memoryview(part).cast("B") if len(part) else b""
            while len(rest):
                written = self._file.write(rest)
                rest = rest[len(rest) if written is None else written :]

    def publish(self) -> None:
        """Flush where the object can."""
        if hasattr(self._file, "flush"):
            self._file.flush()

    def discard(self) -> None:
        """Leave the object to the caller: it is not a whole NCF file."""


def open_sink(where: Any) -> PathSink | FileSink:
    """Return a sink over a path or a writable binary file object."""
    if isinstance(where, (str, os.PathLike)):
        return PathSink(str(Path(where)))
    if hasattr(where, "write"):
        return FileSink(where)
    raise TypeError(f"where: expected a path or a writable binary file, got {type(where).__name__}")
