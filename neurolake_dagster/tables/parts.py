"""Part files in the making: rows go to one open file per partition, rolled when large.

Owns the files that no commit names yet: on failure they are deleted again.
"""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import pyarrow as pa

from neurolake_dagster.errors import NeuroLakeError, TableError
from neurolake_dagster.ncf.arrow import memory_size
from neurolake_dagster.storage import Storage, StorageWriter
from neurolake_dagster.tables.formats import FileFormat, PartWriter
from neurolake_dagster.tables.partitions import Partition, partition_folder
from neurolake_dagster.tables.snapshot import DataFile

STAGING_FOLDER = "_staging"
TARGET_FILE_BYTES = 1 << 30
# What one file may hold back, as rows of a row group and as parts on their way; and all of them.
FILE_HOLDS_BYTES = (256 + 32) << 20
OPEN_BYTES = 512 << 20


@dataclass
class _Open:
    key: str
    sink: StorageWriter
    writer: PartWriter
    taken_bytes: int = 0

    @property
    def held_bytes(self) -> int:
        """How much of its rows may be in memory, at most."""
        return min(self.taken_bytes, FILE_HOLDS_BYTES)


class PartFiles:
    """The part files of one write.

    Leaving the block by an exception deletes them all.

    Parameters
    ----------
    storage
        Rooted at the table's folder.
    folder
        Where they go below it; empty for their final place.
    open_bytes
        Beyond this in memory, the file that holds most is ended: many partitions at once get
        smaller files instead of a row group each.
    """

    def __init__(
        self,
        storage: Storage,
        file_format: FileFormat,
        schema: pa.Schema,
        *,
        folder: str = "",
        target_file_bytes: int = TARGET_FILE_BYTES,
        open_bytes: int = OPEN_BYTES,
    ) -> None:
        self.files: list[DataFile] = []
        self.schema = schema
        self._storage = storage
        self._format = file_format
        self._folder = folder
        self.target_file_bytes = target_file_bytes
        self._open: dict[Partition, _Open] = {}
        self._begun: set[Partition] = set()
        self._open_bytes = open_bytes
        self._held_bytes = 0

    @property
    def is_empty(self) -> bool:
        """Whether no file was begun."""
        return not self._begun

    def write(self, partition: Partition, batch: pa.RecordBatch) -> None:
        """Append rows to a partition."""
        current = self._open.get(partition) or self._begin(partition)
        before = current.held_bytes
        with self._told():
            current.writer.write(batch)
        current.taken_bytes += sum(map(memory_size, batch.columns))
        self._held_bytes += current.held_bytes - before
        if current.sink.tell() >= self.target_file_bytes:
            self.finish(partition)
        while self._held_bytes > self._open_bytes and len(self._open) > 1:
            self._finish(max(self._open, key=lambda place: self._open[place].held_bytes))

    def finish(self, partition: Partition) -> None:
        """End the open file of a partition, if there is one: its next rows begin another."""
        if partition in self._open:
            self._finish(partition)

    def ensure(self, partition: Partition) -> None:
        """Give a partition without rows an empty file: written and empty is not missing."""
        if partition not in self._begun:
            self._begin(partition)

    def close(self) -> None:
        """Finish all files."""
        for partition in list(self._open):
            self._finish(partition)

    def discard(self) -> None:
        """Delete all files, finished or not."""
        for current in self._open.values():
            current.writer.abandon()
            current.sink.abort()
        self._open.clear()
        self._storage.delete(file.path for file in self.files)
        if self._folder:
            self._storage.remove_empty_folders(self._folder)
        self.files.clear()

    def forget(self) -> None:
        """Leave the finished files to whoever names them now."""
        self.files.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None:
            self.discard()

    def _begin(self, partition: Partition) -> _Open:
        key = part_key(partition, self._format.suffix, self._folder)
        sink = self._storage.open_output(key)
        try:
            with self._told():
                writer = self._format.open_writer(sink, self.schema)
        except BaseException:
            sink.abort()
            raise
        current = _Open(key, sink, writer)
        self._open[partition] = current
        self._begun.add(partition)
        return current

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Translate what a format's own writer refuses; what has a number is of the system."""
        try:
            yield
        except (NotImplementedError, OSError, TypeError, ValueError) as exc:
            if isinstance(exc, NeuroLakeError) or getattr(exc, "errno", None) is not None:
                raise
            raise TableError(
                f"{self._storage.root}: a {self._format.suffix} file cannot hold these rows; cast "
                "them first"
            ).quoting(exc) from exc

    def _finish(self, partition: Partition) -> None:
        current = self._open[partition]
        self._held_bytes -= current.held_bytes
        with self._told():
            facts = current.writer.close()
        size = current.sink.tell()
        current.sink.close()
        del self._open[partition]
        self.files.append(
            DataFile(
                path=current.key,
                bytes=size,
                row_count=facts.row_count,
                partition=partition,
                bounds=facts.bounds,
                digest=current.sink.digest(),
            )
        )


def part_key(partition: Partition, suffix: str, folder: str = "") -> str:
    """A new part file's key below the table, never used before."""
    name = f"part-{uuid.uuid4().hex}.{suffix}"
    return "/".join(part for part in (folder, partition_folder(partition), name) if part)
