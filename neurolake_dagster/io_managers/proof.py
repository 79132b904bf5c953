"""The proof that staged files hold only rows of the partition they are meant for.

Owns the order of it: a file's minimum and maximum where they settle the matter, its column
else. Nothing runs on Spark.
"""

from collections.abc import Sequence

import pyarrow as pa

from neurolake_dagster.errors import PartitionError
from neurolake_dagster.storage import Storage
from neurolake_dagster.tables import DataFile
from neurolake_dagster.tables.bounds import decode_bound
from neurolake_dagster.tables.formats import FileFormat
from neurolake_dagster.tables.scope import Scope


def prove_files(
    scope: Scope, files: Sequence[DataFile], schema: pa.Schema, folder: Storage, fmt: FileFormat
) -> None:
    """Check that every row of each file belongs to the key whose place the file has.

    Raises
    ------
    PartitionError
        If a row does not.
    """
    if not scope.columns:
        return
    scopes = {one.keys[0].place: one for one in scope.single()}
    for file in files:
        one = scopes[file.partition]
        if file.row_count and not _settled(one, file, schema):
            for batch in fmt.scan(folder, file.path, scope.columns, None):
                one.check(batch)


def _settled(scope: Scope, file: DataFile, schema: pa.Schema) -> bool:
    """Whether the statistics alone prove it; a key's rows lie between its smallest and largest."""
    columns = []
    for name in scope.columns:
        bounds = file.bounds.get(name)
        if bounds is None or bounds.null_count != 0 or bounds.minimum is None:
            return False
        if bounds.maximum is None:
            return False
        type_ = schema.field(name).type
        extremes = [decode_bound(bound, type_) for bound in (bounds.minimum, bounds.maximum)]
        columns.append(pa.array(extremes, type_))
    rows = pa.RecordBatch.from_arrays(columns, names=list(scope.columns))
    try:
        scope.check(rows)
    except PartitionError:
        return False
    return True
