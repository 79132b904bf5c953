"""Writing and reading part files in another process or on another machine: picklable tasks.

Owns what travels: the tasks out, the files' records back. Takes and gives Arrow batches, as
Spark's `mapInArrow` wants it, and knows nothing of Spark.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import pyarrow as pa

from neurolake_dagster.storage import Storage
from neurolake_dagster.tables.formats import file_format
from neurolake_dagster.tables.partitions import Partition
from neurolake_dagster.tables.parts import PartFiles
from neurolake_dagster.tables.reading import scan_files
from neurolake_dagster.tables.schemas import fit_batch
from neurolake_dagster.tables.scope import Scope
from neurolake_dagster.tables.snapshot import DataFile, Snapshot, TableFormat

RECORD_COLUMN = "file"
RECORD_SCHEMA = pa.schema([(RECORD_COLUMN, pa.string())])


@dataclass(frozen=True, kw_only=True)
class WriteParts:
    """Write the batches of one task as part files into a stage.

    Parameters
    ----------
    folder
        The table's storage.
    stage
        The stage's path below it.
    scope
        The partitions that the rows belong to; None for none.
    """

    folder: Storage
    stage: str
    format: TableFormat
    schema: pa.Schema
    scope: Scope | None

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Write all batches; give one row for each file.

        Raises
        ------
        PartitionError
            If a row belongs to none of the partitions.
        """
        parts = PartFiles(self.folder, file_format(self.format), self.schema, folder=self.stage)
        with parts:
            for batch in batches:
                fitted = fit_batch(batch, self.schema)
                for place, rows in (
                    [((), fitted)] if self.scope is None else self.scope.divide(fitted)
                ):
                    parts.write(place, rows)
            parts.close()
        records = [json.dumps(file.encode()) for file in parts.files]
        yield pa.RecordBatch.from_pydict({RECORD_COLUMN: records}, schema=RECORD_SCHEMA)

    def _divide(self, batch: pa.RecordBatch) -> Iterable[tuple[Partition, pa.RecordBatch]]:
        return [((), batch)] if self.scope is None else self.scope.divide(batch)


@dataclass(frozen=True, kw_only=True)
class ReadParts:
    """Read files of a snapshot by their number.

    Parameters
    ----------
    snapshot
        With the files to read only.
    columns
        None reads all.
    """

    folder: Storage
    format: TableFormat
    snapshot: Snapshot
    columns: tuple[str, ...] | None

    @property
    def schema(self) -> pa.Schema:
        """Of the batches given."""
        return scan_files(
            self.folder, file_format(self.format), self.snapshot, (), self.columns, None
        ).schema

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Read the files whose numbers are in the first column."""
        for batch in batches:
            files = [self.snapshot.files[number] for number in batch.column(0).to_pylist()]
            yield from scan_files(
                self.folder, file_format(self.format), self.snapshot, files, self.columns, None
            )


def read_records(records: Iterator[str]) -> list[DataFile]:
    """The files that tasks report."""
    return [DataFile.decode(json.loads(record)) for record in records]
