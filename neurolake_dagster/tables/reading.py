"""Reading the live files of a snapshot as one stream or one table.

Owns the projection: names are checked once, and files written with an older schema are
fitted to the current one.
"""

from collections.abc import Iterator, Sequence

import pyarrow as pa

from neurolake_dagster.errors import TableError
from neurolake_dagster.ncf.pruning import build_filter
from neurolake_dagster.storage import Storage
from neurolake_dagster.tables.formats import FileFormat, Filters
from neurolake_dagster.tables.predicate import as_filter
from neurolake_dagster.tables.schemas import fit_batch, fit_table
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
    for file in matching_files(snapshot, files, filters):
        if file.schema_id == snapshot.table_schema.id:
            found = file_format.read(folder, file.path, schema.names, filters)
            tables.append(fit_table(found, schema))
        else:
            batches = _scan_one(folder, file_format, snapshot, file, schema, filters)
            tables.append(pa.Table.from_batches(batches, schema))
    return pa.concat_tables(tables) if tables else schema.empty_table()


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
        for file in matching_files(snapshot, files, expression):
            yield from _scan_one(folder, file_format, snapshot, file, schema, expression)

    return pa.RecordBatchReader.from_batches(schema, batches())


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
            yield fit_batch(batch, schema)
        return
    yield from _scan_older(folder, file_format, snapshot, file, schema, filters)


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
            else batch.column(old).cast(field.type)
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
    return pa.schema([schema.field(name) for name in columns], schema.metadata)
