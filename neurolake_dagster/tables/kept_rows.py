"""Rows of a reader, kept on disk while they go by: they can be given again.

Memory holds one batch at a time.
"""

from collections.abc import Iterator
from typing import BinaryIO

import pyarrow as pa

_COMPRESSED = pa.ipc.IpcWriteOptions(compression="lz4")


class KeptRows:
    """The rows of a reader, any number of times.

    Parameters
    ----------
    rows
        Read once, by the first who asks.
    file
        Where they are kept; empty, and closed by its owner.
    """

    def __init__(self, rows: pa.RecordBatchReader, file: BinaryIO) -> None:
        self._source: pa.RecordBatchReader | None = rows
        self._schema = rows.schema
        self._file = file

    def reader(self) -> pa.RecordBatchReader:
        """All rows; of a source that failed midway, only its failure can be told again."""
        if self._source is None:
            self._file.seek(0)
            return pa.ipc.open_stream(self._file)
        batches = self._noting(self._source)
        return pa.RecordBatchReader.from_batches(self._schema, batches)

    def _noting(self, source: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
        with pa.ipc.new_stream(self._file, self._schema, options=_COMPRESSED) as kept:
            for batch in source:
                kept.write_batch(batch)
                yield batch
        self._source = None
