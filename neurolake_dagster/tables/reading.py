"""Reading the live files of a snapshot as one stream or one table.

Owns the projection: names are checked once, and files written with an older schema are
fitted to the current one.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pyarrow as pa

from neurolake_dagster.errors import StorageNotFoundError, TableError, TableNotFoundError
from neurolake_dagster.ncf.batches import rowless_table
from neurolake_dagster.ncf.pruning import build_filter
from neurolake_dagster.storage import Storage
from neurolake_dagster.tables.commit import KEEP_FILES, keeps_former_files
from neurolake_dagster.tables.formats import FileFormat, Filters
from neurolake_dagster.tables.predicate import as_filter
from neurolake_dagster.tables.schemas import cast_column, fit_batch, fit_table
from neurolake_dagster.tables.skipping import matching_files
from neurolake_dagster.tables.snapshot import DataFile, Snapshot


def read_files(
    folder: Storage,
    file_format: FileFormat,
    snapshot: Snapshot,
    files: Sequence[DataFile],
    columns: Sequence[str] | None,
    filters: Filters | None,
) -> pa.Table:
    """Read files into one table, in their order."""
    schema = _projected(snapshot, columns, folder.root)
    filters = as_filter(filters, snapshot.schema)
    tables = []
    for file in _worth_reading(snapshot, files, filters):
        if file.schema_id == snapshot.table_schema.id:
            found = file_format.read(folder, file.path, schema.names, filters)
            with _fitting(found.schema, schema, folder.uri(file.path)):
                tables.append(fit_table(found, schema))
        else:
            batches = _scan_one(folder, file_format, snapshot, file, schema, filters)
            tables.append(pa.Table.from_batches(batches, schema))
    if not schema.names:  # Arrow joins tables without columns to one without rows.
        return rowless_table(sum(table.num_rows for table in tables), schema)
    return pa.concat_tables(tables) if tables else pa.Table.from_batches([], schema)


def scan_files(
    folder: Storage,
    file_format: FileFormat,
    snapshot: Snapshot,
    files: Sequence[DataFile],
    columns: Sequence[str] | None,
    filters: Filters | None,
) -> pa.RecordBatchReader:
    """Stream files one after the other."""
    schema = _projected(snapshot, columns, folder.root)
    expression = as_filter(filters, snapshot.schema)

    def batches() -> Iterator[pa.RecordBatch]:
        for file in _worth_reading(snapshot, files, expression):
            yield from _scan_one(folder, file_format, snapshot, file, schema, expression)

    return pa.RecordBatchReader.from_batches(schema, batches())


def files_gone(
    cause: StorageNotFoundError, read: Snapshot, newest: Snapshot, where: str
) -> StorageNotFoundError | TableNotFoundError:
    """Why a version's files are not there: only of the newest one that is strange."""
    if read.version == newest.version:
        return cause
    return TableNotFoundError(
        f"{where}: files of version {read.version} are gone; {reason_gone(read, newest)}"
    )


def reason_gone(former: Snapshot, newest: Snapshot) -> str:
    """Why files of a former version are not there."""
    if all(keeps_former_files(one.format, one.properties) for one in (former, newest)):
        return "a vacuum took them"
    return f"{former.format} keeps no former versions unless {KEEP_FILES} is set to 'true'"


def _worth_reading(
    snapshot: Snapshot, files: Sequence[DataFile], filters: Filters | None
) -> Sequence[DataFile]:
    """The files that may pass a filter; a single one is asked itself, which takes no longer."""
    return files if len(files) < 2 else matching_files(snapshot, files, filters)


def _scan_one(
    folder: Storage,
    file_format: FileFormat,
    snapshot: Snapshot,
    file: DataFile,
    schema: pa.Schema,
    filters: Filters | None,
) -> Iterator[pa.RecordBatch]:
    if file.schema_id == snapshot.table_schema.id:
        for batch in file_format.scan(folder, file.path, schema.names, filters):
            with _fitting(batch.schema, schema, folder.uri(file.path)):
                fitted = fit_batch(batch, schema)
            yield fitted
        return
    yield from _scan_older(folder, file_format, snapshot, file, schema, filters)


@contextmanager
def _fitting(own: pa.Schema, schema: pa.Schema, where: str) -> Iterator[None]:
    """Tell which columns of a file are not those of the log."""
    try:
        yield
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as exc:
        other = [
            f"column {field.name!r} is {own.field(field.name).type}, expected {field.type}"
            for field in schema
            if field.name in own.names and own.field(field.name).type != field.type
        ]
        raise TableError(
            f"{where}: changed since its commit: {'; '.join(other)}: {exc}; write it again"
        ) from exc


def _scan_older(
    folder: Storage,
    file_format: FileFormat,
    snapshot: Snapshot,
    file: DataFile,
    schema: pa.Schema,
    filters: Filters | None,
) -> Iterator[pa.RecordBatch]:
    """Read a file of an older schema: columns by id, null where it has none, widened.

    The filter knows the current names and types only, so it is applied after.
    """
    current, older = snapshot.table_schema, snapshot.schemas[file.schema_id]
    old_names = dict(zip(older.field_ids, older.schema.names, strict=True))
    ids = dict(zip(current.schema.names, current.field_ids, strict=True))
    places = {name: old_names.get(ids[name]) for name in current.schema.names}
    wanted = [old for old in places.values() if old is not None]
    expression = build_filter(filters)
    for batch in file_format.scan(folder, file.path, wanted, None):
        columns = [
            pa.nulls(batch.num_rows, field.type)
            if (old := places[field.name]) is None
            else cast_column(batch.column(old), field.type)
            for field in current.schema
        ]
        whole = pa.RecordBatch.from_arrays(columns, schema=current.schema)
        kept = whole if expression is None else whole.filter(expression)
        yield kept.select(schema.names)


def _projected(snapshot: Snapshot, columns: Sequence[str] | None, where: str) -> pa.Schema:
    schema = snapshot.schema
    if columns is None:
        return schema
    unknown = [name for name in columns if name not in schema.names]
    if unknown:
        raise TableError(f"{where}: no columns {unknown!r}; the table has {schema.names!r}")
    twice = sorted({name for name in columns if columns.count(name) > 1})
    if twice:
        raise TableError(f"{where}: columns {twice!r} are asked for twice")
    return pa.schema([schema.field(name) for name in columns], schema.metadata)
