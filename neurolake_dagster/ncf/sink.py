"""Where bytes go: a path, published when it is complete, or a file object. Strictly forward."""

import os
import secrets
from contextlib import ExitStack
from pathlib import Path
from typing import Any

# Small chunks are written together; large ones pass the buffer by.
_BUFFER_BYTES = 1 << 18


class PathSink:
    """A local file that appears under its name only when `publish` is called."""

    def __init__(self, path: str) -> None:
        self.name = path
        target = Path(path)
        # Not `tempfile`: its files are private, these get the rights any new file gets.
        self._temporary = target.with_name(f".{target.name}.{secrets.token_hex(8)}.tmp")
        self._file = self._temporary.open("xb", buffering=_BUFFER_BYTES)

    def write(self, parts: list[Any]) -> None:
        """Write buffers one after the other."""
        self._file.writelines(parts)

    def publish(self) -> None:
        """Give the file its name, replacing an older one in one step."""
        with ExitStack() as failed:
            failed.callback(self.discard)
            self._file.close()
            self._temporary.replace(self.name)
            failed.pop_all()

    def discard(self) -> None:
        """Remove what was written; an older file under the name stays."""
        try:
            self._file.close()
        except OSError:
            # A full disk fails again on what the buffer still holds; the descriptor is closed.
            pass
        finally:
            self._temporary.unlink(missing_ok=True)


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
