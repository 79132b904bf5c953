"""The seam to the file formats: how one part file is written, read and described.

Owns a `FileFormat` for each format a table can have. Knows nothing of logs or partitions.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs
import pyarrow.parquet as pq

from neurolake_dagster import ncf
from neurolake_dagster.errors import (
    StorageError,
    StorageNotFoundError,
    TableError,
)
from neurolake_dagster.ncf.pruning import build_filter
from neurolake_dagster.storage import Storage, StorageWriter
from neurolake_dagster.tables.bounds import bounds_of_ncf, bounds_of_parquet
from neurolake_dagster.tables.row_groups import must_be_tested, tested_batches
from neurolake_dagster.tables.snapshot import ColumnBounds, TableFormat

if TYPE_CHECKING:
    import pyarrow.dataset as ds

ROW_GROUP_ROWS = 1 << 20
ROW_GROUP_BYTES = 256 << 20
BATCH_ROWS = 1 << 17
# Parquet's pages end by the pieces they are written in: these, whatever batches the rows come in.
PIECE_ROWS = 1 << 14

# A text of `tables.predicate`, or pyarrow's own forms: an expression, a list of (column, operator,
# value), or a list of those.
Filters: TypeAlias = pc.Expression | str | Sequence[Any]


@dataclass(frozen=True, kw_only=True)
class FileFacts:
    """What a finished part file says of itself."""

    row_count: int
    schema: pa.Schema
    bounds: dict[str, ColumnBounds] = field(default_factory=dict)


class PartWriter(Protocol):
    """Writes one part file; the caller owns and closes the sink."""

    def write(self, batch: pa.RecordBatch) -> None:
        """Take rows; at most one row group is held back."""

    def close(self) -> FileFacts:
        """Write what is held back and the footer."""

    def abandon(self) -> None:
        """Let go of the sink, which is about to be aborted."""


class FileFormat(Protocol):
    """One format of part files."""

    suffix: str

    def open_writer(self, sink: StorageWriter, schema: pa.Schema) -> PartWriter:
        """Begin a part file."""

    def scan(
        self, storage: Storage, key: str, columns: Sequence[str], filters: Filters | None
    ) -> Iterator[pa.RecordBatch]:
        """Stream some columns of the rows that match, in order."""

    def read(
        self, storage: Storage, key: str, columns: Sequence[str], filters: Filters | None
    ) -> pa.Table:
        """Like `scan`, in one piece and with all threads."""

    def describe(self, storage: Storage, key: str) -> FileFacts:
        """Read the footer."""


class ParquetFormat:
    """Parquet through pyarrow, zstd compressed."""

    suffix = "parquet"

    def open_writer(self, sink: StorageWriter, schema: pa.Schema) -> PartWriter:
        """Begin a Parquet file."""
        return _ParquetWriter(sink, schema)

    def scan(
        self, storage: Storage, key: str, columns: Sequence[str], filters: Filters | None
    ) -> Iterator[pa.RecordBatch]:
        """Stream some columns of the rows that match; row groups are skipped by statistics.

        Without a filter one row group is held at a time: a dataset's scanner reads ahead.
        """
        expression = build_filter(filters)
        with _told(storage, key):
            if expression is None:
                yield from _all_batches(storage, key, columns)
                return
            found = _fragment(storage, key)
            if must_be_tested(expression, found.physical_schema):
                yield from tested_batches(found, columns, expression)
            else:
                scanner = found.scanner(columns=list(columns), filter=expression, batch_readahead=1)
                yield from scanner.to_batches()

    def read(
        self, storage: Storage, key: str, columns: Sequence[str], filters: Filters | None
    ) -> pa.Table:
        """Read some columns of the rows that match."""
        expression = build_filter(filters)
        with _told(storage, key):
            found = _fragment(storage, key)
            scanner = found.scanner(columns=list(columns), filter=expression)
            if expression is None or not must_be_tested(expression, found.physical_schema):
                return scanner.to_table()
            batches = tested_batches(found, columns, expression)
            return pa.Table.from_batches(batches, scanner.projected_schema)

    def describe(self, storage: Storage, key: str) -> FileFacts:
        """Read the footer."""
        source = storage.open_input(key).as_file()
        with _told(storage, key), source, pq.ParquetFile(source) as opened:
            return _facts_of(opened.metadata, opened.schema_arrow)


def _all_batches(storage: Storage, key: str, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    path = storage.local_path(key)
    source = str(path) if path is not None else storage.open_input(key).as_file()
    # Of a remote file, a row group's bytes are asked for at once.
    with pq.ParquetFile(source, pre_buffer=path is None) as file:
        for group in range(file.num_row_groups):
            yield from file.iter_batches(BATCH_ROWS, [group], list(columns))


def _without_null_values(column: pa.Array) -> pa.Array:
    """A dictionary without null among its values, which Parquet does not write."""
    if not pa.types.is_dictionary(column.type) or not column.dictionary.null_count:
        return column
    return column.dictionary_decode().dictionary_encode().cast(column.type)


def _joined(batches: list[pa.RecordBatch]) -> list[pa.RecordBatch]:
    """The batches as one, where one array can hold each column."""
    if len(batches) < 2 or not batches[0].num_columns:
        return batches
    try:
        return [pa.concat_batches(batches)]
    except pa.ArrowException:  # more text than its offsets count, or more values than its indices
        return batches


class _ParquetWriter:
    def __init__(self, sink: StorageWriter, schema: pa.Schema) -> None:
        unread = [field.name for field in schema if _is_of_no_size(field.type)]
        if unread:
            raise TableError(
                f"columns {unread!r}: lists of the fixed size 0 could not be read back"
            )
        self._schema = schema
        self._footers: list[pq.FileMetaData] = []
        self._writer = pq.ParquetWriter(
            pa.PythonFile(sink, mode="w"),
            schema,
            compression="zstd",
            metadata_collector=self._footers,
        )
        self._held: list[pa.RecordBatch] = []
        self._held_rows = 0
        self._held_bytes = 0
        self._piece: list[pa.RecordBatch] = []
        self._piece_rows = 0

    def write(self, batch: pa.RecordBatch) -> None:
        columns = [_without_null_values(column) for column in batch.columns]
        if batch.num_rows and not columns:
            raise TableError(
                f"{batch.num_rows} rows without columns: Parquet does not keep how many there are; "
                "give them a column"
            )
        batch = pa.RecordBatch.from_arrays(columns, schema=batch.schema) if columns else batch
        while batch.num_rows:
            head = batch.slice(0, PIECE_ROWS - self._piece_rows)
            self._piece.append(head)
            self._piece_rows += head.num_rows
            self._held_bytes += head.nbytes
            batch = batch.slice(head.num_rows)
            if self._piece_rows == PIECE_ROWS:
                self._hold_piece()
            if self._held_rows >= ROW_GROUP_ROWS or self._held_bytes >= ROW_GROUP_BYTES:
                self._write_held()

    def _hold_piece(self) -> None:
        self._held += _joined(self._piece)
        self._held_rows += self._piece_rows
        self._piece, self._piece_rows = [], 0

    def close(self) -> FileFacts:
        self._write_held()
        self._writer.close()
        return _facts_of(self._footers[0], self._schema)

    def abandon(self) -> None:
        self._held, self._piece = [], []
        # Unclosed, pyarrow's writer would write its footer when it is collected. Into a sink that
        # failed that fails too: with pyarrow's errors, ours or, closed before, a RuntimeError.
        with suppress(OSError, RuntimeError, pa.ArrowException):
            self._writer.close()

    def _write_held(self) -> None:
        self._hold_piece()
        if self._held_rows:
            held = pa.Table.from_batches(self._held, self._schema)
            self._writer.write_table(held, row_group_size=ROW_GROUP_ROWS)
        self._held, self._held_rows, self._held_bytes = [], 0, 0


def _is_of_no_size(type_: pa.DataType) -> bool:
    if pa.types.is_fixed_size_list(type_) and not type_.list_size:
        return True
    return any(_is_of_no_size(type_.field(index).type) for index in range(type_.num_fields))


class NCFFormat:
    """NCF v2 through `neurolake_dagster.ncf`."""

    suffix = "ncf"

    def open_writer(self, sink: StorageWriter, schema: pa.Schema) -> PartWriter:
        """Begin an NCF file."""
        return _NCFWriter(sink, schema)

    def scan(
        self, storage: Storage, key: str, columns: Sequence[str], filters: Filters | None
    ) -> Iterator[pa.RecordBatch]:
        """Stream some columns of the rows that match; pages are skipped by statistics."""
        with _told(storage, key), ncf.NCFFile(_ncf_source(storage, key)) as file:
            _require_columns(file, columns, storage.uri(key))
            yield from file.iter_batches(columns=list(columns), filters=build_filter(filters))

    def read(
        self, storage: Storage, key: str, columns: Sequence[str], filters: Filters | None
    ) -> pa.Table:
        """Read some columns of the rows that match."""
        with _told(storage, key), ncf.NCFFile(_ncf_source(storage, key)) as file:
            _require_columns(file, columns, storage.uri(key))
            return file.read(list(columns), build_filter(filters))

    def describe(self, storage: Storage, key: str) -> FileFacts:
        """Read the footer."""
        with _told(storage, key), ncf.NCFFile(_ncf_source(storage, key)) as file:
            return _facts_of_ncf(file.metadata)


def _require_columns(file: ncf.NCFFile, columns: Sequence[str], where: str) -> None:
    lacking = [name for name in columns if name not in file.schema.names]
    if lacking:
        raise TableError(
            f"{where}: changed since its commit: no columns {lacking!r}, it has "
            f"{file.schema.names!r}; write it again"
        )


class _NCFWriter:
    def __init__(self, sink: StorageWriter, schema: pa.Schema) -> None:
        self._writer = ncf.NCFWriter(sink, schema)

    def write(self, batch: pa.RecordBatch) -> None:
        self._writer.write_batch(batch)

    def close(self) -> FileFacts:
        self._writer.close()
        return _facts_of_ncf(self._writer.metadata)

    def abandon(self) -> None:
        self._writer.abort()


def file_format(name: TableFormat) -> FileFormat:
    """The implementation of a table's file format."""
    return _FORMATS[name]


@contextmanager
def _told(storage: Storage, key: str) -> Iterator[None]:
    """Translate pyarrow's errors about one file."""
    try:
        yield
    except StorageError:
        raise
    except FileNotFoundError as exc:
        raise StorageNotFoundError(f"{storage.uri(key)}: the part file is gone") from exc
    except (pa.ArrowInvalid, OSError) as exc:
        raise TableError(f"{storage.uri(key)}: not a readable part file: {exc}") from exc


def _ncf_source(storage: Storage, key: str) -> object:
    return storage.local_path(key) or storage.open_input(key)


_FORMATS: dict[TableFormat, FileFormat] = {"ncf": NCFFormat(), "parquet": ParquetFormat()}


def _fragment(storage: Storage, key: str) -> "ds.ParquetFileFragment":
    # Imports pandas with it, a second in all: not for those who only write, or use Spark.
    import pyarrow.dataset as ds

    path = storage.local_path(key)
    if path is not None:
        return ds.ParquetFileFormat().make_fragment(str(path), pyarrow.fs.LocalFileSystem())
    source = pa.PythonFile(storage.open_input(key).as_file(), mode="r")
    return ds.ParquetFileFormat(
        default_fragment_scan_options=ds.ParquetFragmentScanOptions(pre_buffer=True)
    ).make_fragment(source)


def _facts_of_ncf(metadata: ncf.FileMetadata) -> FileFacts:
    return FileFacts(
        row_count=metadata.num_rows, schema=metadata.schema, bounds=bounds_of_ncf(metadata)
    )


def _facts_of(metadata: pq.FileMetaData, schema: pa.Schema) -> FileFacts:
    return FileFacts(
        row_count=metadata.num_rows, schema=schema, bounds=bounds_of_parquet(metadata, schema)
    )
