"""Writing part files in another process or on another machine: a picklable task.

Owns what travels: the task out, the files' records back. Takes and gives Arrow batches, as
Spark's `mapInArrow` wants it, and knows nothing of Spark.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa

from neurolake_dagster.errors import NeuroLakeError
from neurolake_dagster.storage import Storage
from neurolake_dagster.tables.formats import file_format
from neurolake_dagster.tables.parts import PartFiles
from neurolake_dagster.tables.schemas import fit_batch
from neurolake_dagster.tables.scope import Scope
from neurolake_dagster.tables.snapshot import DataFile, TableFormat

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
    schema
        The files'; the batches have its columns in its order, whatever they are called.
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
        try:
            files = self._write(batches)
        except NeuroLakeError as exc:
            # Spark logs the whole traceback, whatever becomes of the error.
            raise exc.without_quotes() from None
        records = [json.dumps(file.encode()) for file in files]
        yield pa.RecordBatch.from_pydict({RECORD_COLUMN: records}, schema=RECORD_SCHEMA)

    def _write(self, batches: Iterator[pa.RecordBatch]) -> list[DataFile]:
        parts = PartFiles(self.folder, file_format(self.format), self.schema, folder=self.stage)
        with parts:
            for batch in batches:
                fitted = fit_batch(batch.rename_columns(self.schema.names), self.schema)
                for place, rows in (
                    [((), fitted)] if self.scope is None else self.scope.divide(fitted)
                ):
                    parts.write(place, rows)
            parts.close()
        return parts.files


def read_records(records: Iterator[str]) -> list[DataFile]:
    """The files that tasks report."""
    return [DataFile.decode(json.loads(record)) for record in records]
