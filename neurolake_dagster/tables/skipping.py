"""Which files of a snapshot can hold rows that pass a filter, by the log's statistics.

Arrow decides whether a filter contradicts what a file's bounds promise, as for the pages of an
NCF file.
"""

from collections.abc import Sequence

import pyarrow.compute as pc

from neurolake_dagster.ncf.pruning import build_filter, mentioned_columns, surviving
from neurolake_dagster.tables.bounds import promise_of
from neurolake_dagster.tables.formats import Filters
from neurolake_dagster.tables.snapshot import DataFile, Snapshot


def matching_files(
    snapshot: Snapshot, files: Sequence[DataFile], filters: Filters | None
) -> Sequence[DataFile]:
    """The files that may hold such rows; those of an older schema always may."""
    if filters is None or not files:
        return files
    expression = build_filter(filters)
    schema = snapshot.schema
    names = mentioned_columns(expression, schema.names)
    current = snapshot.table_schema.id
    promises = [
        promise_of(file.bounds, file.row_count, [schema.field(name) for name in names])
        if file.schema_id == current
        else pc.scalar(True)
        for file in files
    ]
    return [files[index] for index in surviving(expression, schema, promises)]
