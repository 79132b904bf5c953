"""Writing NCF from Spark: tasks write part files into a stage, the driver commits them.

Owns nothing that stays: a failed, speculative or aborted task's files lie in the stage, which no
reader looks at and which goes with the commit.
"""

import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql.datasource import DataSourceArrowWriter, WriterCommitMessage

from neurolake_dagster.errors import PartitionError, TableError
from neurolake_dagster.spark.locations import is_plain_folder
from neurolake_dagster.spark.types import match_names
from neurolake_dagster.tables import DataFile, PartFiles, Partition, Stage, Table
from neurolake_dagster.tables.formats import file_format
from neurolake_dagster.tables.parts import STAGING_FOLDER
from neurolake_dagster.tables.schemas import fit_batch
from neurolake_dagster.tables.table import Mode

# Hive's own name for a partition of nulls; readers of such folders know it.
NULL_PARTITION = "__HIVE_DEFAULT_PARTITION__"


@dataclass
class WrittenFiles(WriterCommitMessage):
    """What one task wrote."""

    files: tuple[DataFile, ...]


class NCFTableWriter(DataSourceArrowWriter):
    """Writes one DataFrame as one version of a table.

    Parameters
    ----------
    mode
        ``append``, ``overwrite``, ``error`` (refuse an existing table) or ``ignore`` it.
    partition_by
        Columns, in any case, whose values divide the rows into partitions; they stay in the
        files.
    is_dynamic
        Overwrite only the partitions that get rows; other modes do not ask.
    """

    def __init__(
        self,
        *,
        table: Table,
        schema: pa.Schema,
        mode: Mode,
        partition_by: tuple[str, ...],
        is_dynamic: bool,
    ) -> None:
        if not schema.names:
            raise TableError(
                f"{table.uri}: the rows have no columns, which a file cannot count; expected at "
                "least one"
            )
        places = match_names(partition_by, schema.names, table.uri)
        unknown = [name for name, held in zip(partition_by, places, strict=True) if held is None]
        if unknown:
            raise PartitionError(
                f"{table.uri}: partitionBy names no columns {unknown!r}; expected some of "
                f"{schema.names!r}"
            )
        self.table = table
        self.schema = schema
        self.mode = mode
        self.partition_by = tuple(name for name in places if name is not None)
        self.is_dynamic = is_dynamic and bool(partition_by) and mode == "overwrite"
        self.stage_path = f"{STAGING_FOLDER}/{uuid.uuid4().hex}"
        # Told before a task runs: the driver makes the writer first.
        is_plain = is_plain_folder(table.storage, table.path)
        self.skips = mode == "ignore" and (is_plain or table.exists())
        if is_plain and not self.skips:
            raise TableError(
                f"{table.uri}: exists already, as a folder of NCF files and not as a table; "
                "a table there would hide them: write to another folder"
            )
        table.done_before(mode, None)
        if not self.skips:
            self._stage.open_for_tasks()

    def write(self, iterator: Iterator[pa.RecordBatch]) -> WriterCommitMessage:
        """Write the rows of one task; on failure its files are deleted.

        So are those of a task that ends when the write is over: Spark does not wait for the
        other tasks when one fails, nor for the slower attempt of a task.
        """
        if self.skips:
            return WrittenFiles(files=())
        parts = PartFiles(
            self.table.folder, file_format("ncf"), self.schema, folder=self.stage_path
        )
        with parts:
            for batch in iterator:
                fitted = fit_batch(_with_decimals(batch, self.schema), self.schema)
                for place, rows in self._divide(fitted):
                    parts.write(place, rows)
            parts.close()
            if not self._stage.is_open():
                raise TableError(f"{self.table.uri}: the write ended before this task did")
        return WrittenFiles(files=tuple(parts.files))

    def commit(self, messages: list[WriterCommitMessage | None]) -> None:
        """Make the files of all tasks the table's, at once."""
        try:
            if not self.skips:
                self._commit(_files_of(messages))
        finally:
            self._stage.discard()

    def abort(self, messages: list[WriterCommitMessage | None]) -> None:
        """Delete whatever tasks have left."""
        del messages
        self._stage.discard()

    @property
    def _stage(self) -> Stage:
        return Stage(self.table.folder, self.stage_path, file_format("ncf"))

    def _commit(self, files: Sequence[DataFile]) -> None:
        places = list(dict.fromkeys(file.partition for file in files)) if self.is_dynamic else []
        if self.is_dynamic and not places:
            return
        self.table.commit(files, schema=self.schema, partitions=places, mode=self.mode)

    def _divide(self, batch: pa.RecordBatch) -> Iterator[tuple[Partition, pa.RecordBatch]]:
        """Divide a batch by the values of the partition columns."""
        if not self.partition_by:
            yield (), batch
            return
        texts = [_texts(batch.column(name)) for name in self.partition_by]
        names = [str(index) for index in range(len(texts))]
        keys = pa.table([*texts, np.arange(batch.num_rows)], [*names, "rows"])
        groups = keys.group_by(names, use_threads=False).aggregate([("rows", "list")])
        for place, rows in zip(groups.select(names).to_pylist(), groups["rows_list"], strict=True):
            found = tuple(zip(self.partition_by, place.values(), strict=True))
            yield found, batch.take(rows.values)


def _with_decimals(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """The batch with decimals where `jvm/BatchWriters.java` sent their whole numbers."""
    columns = [
        _decimals(column, field.type)
        if pa.types.is_decimal(field.type) and column.type == pa.int64()
        else column
        for column, field in zip(batch.columns, schema, strict=True)
    ]
    return pa.RecordBatch.from_arrays(columns, names=batch.schema.names)


def _decimals(column: pa.Array, kind: pa.DataType) -> pa.Array:
    """The decimals of unscaled values: words of 128 bits, of which these are the lower half."""
    validity, values = column.buffers()
    low = np.frombuffer(values, np.int64, len(column), column.offset * 8)
    words = np.empty((len(column), 2), np.int64)
    words[:, 0] = low
    np.right_shift(low, 63, out=words[:, 1])
    if column.offset:
        validity = None if validity is None else column.is_valid().buffers()[1]
    return pa.Array.from_buffers(kind, len(column), [validity, pa.py_buffer(words)])


def _texts(column: pa.Array) -> pa.Array:
    if pa.types.is_nested(column.type) or pa.types.is_binary(column.type):
        raise PartitionError(
            f"partitionBy: a column of type {column.type} has no text for a folder"
        )
    texts = column.cast(pa.string())
    if pc.any(pc.equal(texts, "")).as_py():
        raise PartitionError("partitionBy: an empty text cannot name a partition")
    if pc.any(pc.equal(texts, NULL_PARTITION)).as_py():
        raise PartitionError(
            f"partitionBy: the text {NULL_PARTITION!r} names the partition of nulls; expected "
            "another text, or null"
        )
    return pc.fill_null(texts, NULL_PARTITION)


def _files_of(messages: Sequence[WriterCommitMessage | None]) -> list[DataFile]:
    files: list[DataFile] = []
    for message in messages:
        if not isinstance(message, WrittenFiles):
            raise TableError("a task of the write reported no files; nothing was committed")
        files += message.files
    return files
