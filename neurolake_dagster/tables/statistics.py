"""Statistics of a table's columns, from its log alone: no part file is opened."""

from dataclasses import dataclass

import pyarrow as pa

from neurolake_dagster.tables.bounds import decode_bound, merge_bounds
from neurolake_dagster.tables.snapshot import ColumnBounds, DataFile, Snapshot


@dataclass(frozen=True, kw_only=True)
class ColumnStatistics:
    """What the log knows of one column.

    Parameters
    ----------
    minimum, maximum
        Bounds of all values: exact, but that of long texts NCF keeps a shorter text beyond
        them. None where not known: some file lacks them, or all values are null. NaN is in
        neither.
    null_count
        None where some file does not tell it.
    """

    name: str
    type: pa.DataType
    minimum: object
    maximum: object
    null_count: int | None


def column_statistics(snapshot: Snapshot) -> tuple[ColumnStatistics, ...]:
    """Minimum, maximum and nulls of every column over all live files."""
    ids = snapshot.table_schema.field_ids
    return tuple(
        _column(snapshot, field, number) for field, number in zip(snapshot.schema, ids, strict=True)
    )


def _column(snapshot: Snapshot, field: pa.Field, number: int) -> ColumnStatistics:
    held = [(file, _bounds(snapshot, file, field, number)) for file in snapshot.files]
    filled = [bounds for file, bounds in held if bounds.null_count != file.row_count]
    whole = merge_bounds(filled)
    nulls = [bounds.null_count for _, bounds in held]
    return ColumnStatistics(
        name=field.name,
        type=field.type,
        minimum=_value(whole.minimum, field.type),
        maximum=_value(whole.maximum, field.type),
        null_count=None if None in nulls else sum(count for count in nulls if count is not None),
    )


def _bounds(snapshot: Snapshot, file: DataFile, field: pa.Field, number: int) -> ColumnBounds:
    """One file's bounds of a column, which an older schema may know by another name."""
    written = snapshot.schemas[file.schema_id]
    names = dict(zip(written.field_ids, written.schema.names, strict=True))
    if number not in names or not file.row_count:
        return ColumnBounds(null_count=file.row_count)
    found = file.bounds.get(names[number], ColumnBounds())
    if written.schema.field(names[number]).type.equals(field.type):
        return found
    return ColumnBounds(null_count=found.null_count)


def _value(bound: bool | int | float | str | None, type_: pa.DataType) -> object:
    found = decode_bound(bound, type_)
    return None if found is None else found.as_py()
