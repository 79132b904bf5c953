"""Where bytes come from: paths, buffers, file objects, ranged objects. Owns the opening."""

import os
from threading import Lock
from typing import Any, Protocol, runtime_checkable

import pyarrow as pa

# As much as is copied in the time of a few calls.
_WHOLE_BYTES = 1 << 18


@runtime_checkable
class RangedSource(Protocol):
    """Anything that gives byte ranges, from several threads at once."""

    name: str

    def size(self) -> int:
        """Return the bytes in all."""

    def read_at(self, offset: int, length: int) -> Any:
        """Return exactly ``length`` bytes from ``offset`` on, as any buffer."""


class _PathSource:
    """A local file, read by `os.pread`: no shared position, the GIL released.

    A small one is read once, whole: that takes less time than the calls for its parts.
    """

    # A request costs microseconds here, not milliseconds.
    coalesce_bytes = 1 << 14
    # Until it is open: a path that cannot be opened is still collected.
    _file = -1

    def __init__(self, path: str) -> None:
        self.name = path
        self._file = os.open(path, os.O_RDONLY)
        self._size = os.fstat(self._file).st_size
        self._whole: Any = None
        if self._size <= _WHOLE_BYTES:
            self._whole = pa.py_buffer(self._pread(0, self._size))

    def size(self) -> int:
        return self._size

    def read_at(self, offset: int, length: int) -> Any:
        if self._whole is not None:
            return self._whole.slice(offset, length)
        return self._pread(offset, length)

    def _pread(self, offset: int, length: int) -> bytes:
        if self._file < 0:
            raise ValueError(f"{self.name}: closed file, read it before close() or in the block")
        found = os.pread(self._file, length, offset)
        while len(found) < length:
            more = os.pread(self._file, length - len(found), offset + len(found))
            if not more:
                break
            found += more
        return found

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file, self._whole = -1, None

    def __del__(self) -> None:
        self.close()


class _BufferSource:
    """Bytes in memory: ranges are views."""

    coalesce_bytes = 0

    def __init__(self, data: Any) -> None:
        self._data = data if isinstance(data, pa.Buffer) else pa.py_buffer(data)
        self.name = f"<{self._data.size} bytes>"

    def size(self) -> int:
        return int(self._data.size)

    def read_at(self, offset: int, length: int) -> Any:
        return self._data.slice(offset, length)

    def close(self) -> None:
        """Do nothing: the caller owns the bytes."""


class _FileSource:
    """A seekable binary file object; its position is not kept."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self._lock = Lock()
        self.name = str(getattr(file, "name", f"<{type(file).__name__}>"))
        file.seek(0, os.SEEK_END)
        self._size = int(file.tell())

    def size(self) -> int:
        return self._size

    def read_at(self, offset: int, length: int) -> Any:
        with self._lock:
            self._file.seek(offset)
            found = self._file.read(length)
            while len(found) < length:
                more = self._file.read(length - len(found))
                if not more:
                    break
                found += more
        return found

    def close(self) -> None:
        """Do nothing: the caller opened the file."""


def open_source(source: Any) -> Any:
    """Return a ranged source over what the caller gave.

    Raises
    ------
    TypeError
        If it is none of: path, bytes-like, `pyarrow.Buffer`, seekable binary file, ranged object.
    """
    if isinstance(source, (str, os.PathLike)):
        return _PathSource(local_path(source))
    if hasattr(source, "read_at") and hasattr(source, "size") and not _is_arrow_file(source):
        return source
    if isinstance(source, pa.Buffer) or _has_buffer(source):
        return _BufferSource(source)
    if hasattr(source, "read") and hasattr(source, "seek"):
        return _FileSource(source)
    raise TypeError(
        f"source: expected a path, bytes, a binary file or an object with size() and read_at(), "
        f"got {type(source).__name__}"
    )


def local_path(path: Any) -> str:
    """Return a path as text; a URL is refused, for it would name a local file."""
    text = os.fspath(path)
    if isinstance(text, str) and "://" in text:
        raise ValueError(
            f"{text}: expected a local path; open it first, by neurolake_dagster.storage, "
            f"pyarrow.fs or fsspec, and give the file"
        )
    return os.fsdecode(text)


def _has_buffer(source: Any) -> bool:
    """Whether this is bytes in memory: a bytearray, a memoryview, an mmap, an array of numpy's."""
    try:
        memoryview(source)
    except TypeError:
        return False
    return True


def _is_arrow_file(source: Any) -> bool:
    """Whether this is a `pyarrow.NativeFile`, whose ``read_at`` takes its arguments swapped."""
    return isinstance(source, pa.NativeFile)


def close_source(source: Any, given: Any) -> None:
    """Close what `open_source` opened; an object of the caller's stays open."""
    if source is not given and hasattr(source, "close"):
        source.close()
