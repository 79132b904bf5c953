"""Open objects: ranged reads and forward-only writes."""

import io
from types import TracebackType
from typing import Self

import obstore
import xxhash
from obstore.store import LocalStore
from typing_extensions import Buffer

from neurolake_dagster.errors import StorageError
from neurolake_dagster.storage.failures import translated
from neurolake_dagster.storage.options import ObjectStore

# A part is held until it is full: on disk it only has to be worth a write, on S3 a request.
LOCAL_PART_BYTES = 1 << 20
S3_PART_BYTES = 8 << 20
PARTS_IN_FLIGHT = 4
# Up to this size an object is read whole: its time is that of the request, not of the bytes.
SMALL_BYTES = 256 << 10


class RangedFile:
    """One stored object, read by byte ranges. Owns no connection; needs no closing.

    Parameters
    ----------
    store, key
        Where the object lies; it need not exist before the first read.
    name
        Its address in messages.
    """

    def __init__(self, store: ObjectStore, key: str, name: str) -> None:
        self.name = name
        self._store = store
        self._key = key
        self._size: int | None = None
        self._whole: memoryview | None = None

    def size(self) -> int:
        """Size in bytes; asked once."""
        if self._size is None:
            with translated(self.name):
                self._size = int(obstore.head(self._store, self._key)["size"])
        return self._size

    def read_at(self, offset: int, length: int) -> memoryview:
        """Read `length` bytes from `offset`; fewer only where the object ends."""
        length = min(length, self.size() - offset)
        if length <= 0:
            return memoryview(b"")
        if self.size() <= SMALL_BYTES:
            return self._small()[offset : offset + length]
        with translated(self.name):
            found = obstore.get_range(self._store, self._key, start=offset, length=length)
        return memoryview(found)

    def _small(self) -> memoryview:
        """The whole object, read once: a footer and some columns cost a request each."""
        if self._whole is None:
            with translated(self.name):
                found = obstore.get_range(self._store, self._key, start=0, length=self.size())
            self._whole = memoryview(found)
        return self._whole

    def as_file(self) -> io.BufferedReader:
        """A seekable binary file on the same object, for readers that want one."""
        return io.BufferedReader(_RawRange(self), buffer_size=64 << 10)


class _RawRange(io.RawIOBase):
    """The file protocol on a :class:`RangedFile`."""

    def __init__(self, source: RangedFile) -> None:
        super().__init__()
        self._source = source
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = (0, self._position, self._source.size() if whence == io.SEEK_END else 0)[whence]
        if base + offset < 0:
            raise ValueError(f"{self._source.name}: seek to byte {base + offset}, before its start")
        self._position = base + offset
        return self._position

    def readinto(self, buffer: Buffer) -> int:
        view = memoryview(buffer).cast("B")
        found = self._source.read_at(self._position, len(view))
        view[: len(found)] = found
        self._position += len(found)
        return len(found)


class StorageWriter:
    """A forward-only writer with bounded memory; multipart on S3.

    The object appears whole at :meth:`close`. Leaving a ``with`` block by an exception,
    :meth:`abort`, or dropping the writer publish nothing.
    """

    def __init__(self, store: ObjectStore, key: str, name: str) -> None:
        self.name = name
        self.closed = False
        self._position = 0
        self._digest = xxhash.xxh3_64()
        part_bytes = LOCAL_PART_BYTES if isinstance(store, LocalStore) else S3_PART_BYTES
        with translated(name):
            self._writer = obstore.open_writer(
                store, key, buffer_size=part_bytes, max_concurrency=PARTS_IN_FLIGHT
            )

    def writable(self) -> bool:
        """Whether bytes can be written: always."""
        return True

    def tell(self) -> int:
        """Bytes written so far."""
        return self._position

    def write(self, data: Buffer) -> int:
        """Append bytes; blocks while too many parts are in flight."""
        view = memoryview(data)
        with translated(self.name):
            self._writer.write(view)
        self._digest.update(view)
        self._position += view.nbytes
        return view.nbytes

    def digest(self) -> str:
        """The xxh3 of the bytes written so far, in hexadecimal."""
        return self._digest.hexdigest()

    def flush(self) -> None:
        """Nothing to do: only ``close`` publishes."""

    def close(self) -> None:
        """Publish the object; a second call does nothing."""
        if self.closed:
            return
        self.closed = True
        with translated(self.name):
            self._writer.close()

    def abort(self) -> None:
        """Drop everything written; a second call, or one after ``close``, does nothing."""
        if self.closed:
            return
        self.closed = True
        reason = StorageError(f"{self.name}: the write was given up")
        with translated(self.name):
            self._writer.__exit__(StorageError, reason, None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()
