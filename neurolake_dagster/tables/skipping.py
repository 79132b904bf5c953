"""Which files of a snapshot can hold rows that pass a filter, by the log's statistics.

Owns the promise that a file's bounds make; Arrow decides whether a filter contradicts it, as
for the pages of an NCF file.
"""

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from neurolake_dagster.ncf.pruning import build_filter, mentioned_columns, surviving
from neurolake_dagster.tables.bounds import decode_bound
from neurolake_dagster.tables.formats import Filters
from neurolake_dagster.tables.snapshot import ColumnBounds, DataFile, Snapshot


def matching_files(
    snapshot: Snapshot, files: Sequence[DataFile], filters: Filters | None
) -> Sequence[DataFile]:
    """The files that must be read; those of an older schema always are."""
    if filters is None or len(files) < 2:
        return files
    expression = build_filter(filters)
    schema = snapshot.schema
    names = mentioned_columns(expression, schema.names)
    current = snapshot.table_schema.id
    promises = [
        _promise(file, [schema.field(name) for name in names])
        if file.schema_id == current
        else pc.scalar(True)
        for file in files
    ]
    return [files[index] for index in surviving(expression, schema, promises)]


def _promise(file: DataFile, fields: Sequence[pa.Field]) -> pc.Expression:
    whole = pc.scalar(True)
    for field in fields:
        bounds = file.bounds.get(field.name)
        if bounds is not None and not pa.types.is_floating(field.type):
            whole = whole & _column_promise(field, bounds, file.row_count)
    return whole


def _column_promise(field: pa.Field, bounds: ColumnBounds, row_count: int) -> pc.Expression:
    """What holds for every row; floats promise nothing, for NaN lies outside of bounds."""
    column = pc.field(field.name)
    if bounds.null_count is not None and bounds.null_count == row_count:
        return column.is_null()
    low = decode_bound(bounds.minimum, field.type)
    high = decode_bound(bounds.maximum, field.type)
    if low is None or high is None:
        return pc.scalar(True)
    promise = (column >= low) & (column <= high)
    return promise if bounds.null_count == 0 else promise | column.is_null()
