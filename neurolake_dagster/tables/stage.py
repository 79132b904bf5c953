"""A staging folder: somebody else (Spark, a converter) writes part files into it.

Owns the folder until its files are committed or discarded. Readers of the table, and plain
readers of the folder, do not look there.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import pyarrow as pa

from neurolake_dagster.errors import TableError
from neurolake_dagster.storage import Storage
from neurolake_dagster.tables.formats import FileFacts, FileFormat
from neurolake_dagster.tables.partitions import Partition, PartitionLike, as_partition
from neurolake_dagster.tables.parts import PartFiles
from neurolake_dagster.tables.snapshot import DataFile

FOOTERS_AT_ONCE = 8
# Lies in a stage for as long as tasks may bring files.
OPEN_MARK = "_open"


@dataclass(frozen=True, kw_only=True)
class Staged:
    """Files found in a stage, and the schema that all of them have."""

    files: tuple[DataFile, ...]
    schema: pa.Schema


class Stage:
    """A staging folder of one table; leaving the block deletes what was not committed.

    Parameters
    ----------
    folder
        The table's storage.
    path
        The stage below it.
    """

    def __init__(self, folder: Storage, path: str, file_format: FileFormat) -> None:
        self.path = path
        self._folder = folder
        self._format = file_format

    @property
    def uri(self) -> str:
        """The address people see."""
        return self._folder.uri(self.path)

    @property
    def spark_uri(self) -> str:
        """The address Spark takes."""
        return self._folder.spark_uri(self.path)

    def collect(self, subfolder: str = "", partition: PartitionLike | None = None) -> Staged:
        """The part files in the stage, described from their footers.

        Parameters
        ----------
        subfolder
            Only those below this folder of the stage.
        partition
            That all of them belong to.
        """
        place: Partition = () if partition is None else as_partition(partition)
        below = f"{self.path}/{subfolder}" if subfolder else self.path
        found = [
            entry
            for entry in self._folder.list(below)
            if entry.key.endswith(f".{self._format.suffix}")
        ]
        found.sort(key=lambda entry: entry.key)
        with ThreadPoolExecutor(FOOTERS_AT_ONCE) as pool:
            facts = list(pool.map(self._describe, (entry.key for entry in found)))
        files = tuple(
            DataFile(
                path=entry.key,
                bytes=entry.bytes,
                row_count=fact.row_count,
                partition=place,
                bounds=fact.bounds,
            )
            for entry, fact in zip(found, facts, strict=True)
        )
        return Staged(files=files, schema=self._one_schema(facts))

    def collect_partitions(self, folders: Mapping[Partition, str]) -> Staged:
        """The part files of several partitions, each in its own folder of the stage.

        A partition whose folder is empty or missing gets an empty file.
        """
        found = {
            place: self.collect(sub, place) for place, sub in folders.items() if self.has_files(sub)
        }
        if not found:
            raise TableError(f"{self.uri}: no {self._format.suffix} file was written here")
        schema = next(iter(found.values())).schema
        files = [file for staged in found.values() for file in staged.files]
        empty = self.write_empty([place for place in folders if place not in found], schema)
        return Staged(files=(*files, *empty), schema=schema)

    def write_empty(self, places: Sequence[Partition], schema: pa.Schema) -> tuple[DataFile, ...]:
        """An empty part file for each partition: written without rows is not missing."""
        parts = PartFiles(self._folder, self._format, schema, folder=self.path)
        for place in places:
            parts.ensure(place)
        parts.close()
        return tuple(parts.files)

    def has_files(self, subfolder: str) -> bool:
        """Whether part files lie in a folder of the stage."""
        found = self._folder.list(f"{self.path}/{subfolder}")
        return any(entry.key.endswith(f".{self._format.suffix}") for entry in found)

    def open_for_tasks(self) -> None:
        """Let tasks of other processes bring files, until the stage is discarded."""
        self._folder.put(f"{self.path}/{OPEN_MARK}", b"")

    def is_open(self) -> bool:
        """Whether files may still be brought.

        Ask it after publishing a file: whoever discards the stage takes the mark away before
        looking for files, so either that one finds the file or its writer finds no mark.
        """
        return self._folder.exists(f"{self.path}/{OPEN_MARK}")

    def discard(self) -> None:
        """Delete everything that still lies in the stage."""
        self._folder.delete([f"{self.path}/{OPEN_MARK}"])
        self._folder.delete([entry.key for entry in self._folder.list(self.path)])
        self._folder.remove_empty_folders(self.path)

    def _describe(self, key: str) -> FileFacts:
        return self._format.describe(self._folder, key)

    def _one_schema(self, facts: list[FileFacts]) -> pa.Schema:
        if not facts:
            raise TableError(f"{self.uri}: no {self._format.suffix} file was written here")
        for fact in facts[1:]:
            if not fact.schema.equals(facts[0].schema):
                raise TableError(f"{self.uri}: the part files have different schemas")
        return facts[0].schema

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.discard()
