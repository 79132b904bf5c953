"""Where bytes go: a path, published when it is complete, or a file object. Strictly forward."""

import os
import secrets
import stat
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

from neurolake_dagster.ncf.source import local_path

# Small chunks are written together; large ones pass the buffer by.
_BUFFER_BYTES = 1 << 18
# A temporary name is longer than the file's, and file systems allow 255 bytes.
_KEPT_NAME = 40


class PathSink:
    """A local file that appears under its name only when `publish` is called.

    A symbolic link stays one, and a file that is replaced leaves its mode to the new one. What
    is no regular file, such as a pipe or a device, is written straight into.

    Attributes
    ----------
    file
        The binary file to write to.
    """

    def __init__(self, path: str) -> None:
        self.name = path
        self._temporary: Path | None = None
        given = Path(path).absolute()
        mode = _mode_of(given)
        if mode is not None and not stat.S_ISREG(mode):
            self.file: IO[bytes] = given.open("wb", buffering=_BUFFER_BYTES)
            return
        self._target = given.resolve() if given.is_symlink() else given
        # Not `tempfile`: its files are private, these get the rights any new file gets.
        name = f".{self._target.name[:_KEPT_NAME]}.{secrets.token_hex(8)}.tmp"
        self._temporary = self._target.with_name(name)
        self.file = self._temporary.open("xb", buffering=_BUFFER_BYTES)
        if mode is not None:
            os.fchmod(self.file.fileno(), stat.S_IMODE(mode))

    def write(self, parts: list[Any]) -> None:
        """Write buffers one after the other."""
        self.file.writelines(parts)

    def publish(self) -> None:
        """Give the file its name, replacing an older one in one step."""
        with ExitStack() as failed:
            failed.callback(self.discard)
            self.file.close()
            if self._temporary is not None:
                self._temporary.replace(self._target)
            failed.pop_all()

    def discard(self) -> None:
        """Remove what was written; an older file under the name stays."""
        try:
            self.file.close()
        except OSError:
            # A full disk fails again on what the buffer still holds; the descriptor is closed.
            pass
        finally:
            if self._temporary is not None:
                self._temporary.unlink(missing_ok=True)


def _mode_of(path: Path) -> int | None:
    try:
        return path.stat().st_mode
    except FileNotFoundError:
        return None


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
                if written == 0:
                    raise OSError(f"{self.name}: takes no more bytes, {len(rest)} are left")
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
        return PathSink(local_path(where))
    if hasattr(where, "write"):
        return FileSink(where)
    raise TypeError(f"where: expected a path or a writable binary file, got {type(where).__name__}")
