"""Statistics of a table's columns, from its log alone: no part file is opened."""

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

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


def statistics_of_actions(actions: pa.Table, field: pa.Field) -> ColumnStatistics:
    """One column's statistics from the flattened ``add`` actions of a Delta table."""

    def known(kind: str) -> pa.ChunkedArray | None:
        name = f"{kind}.{field.name}"
        return actions[name] if name in actions.column_names else None

    nulls = known("null_count")
    extremes: list[object] = []
    for kind, of in (("min", pc.min), ("max", pc.max)):
        bounds = known(kind)
        # A file without a bound may hold any value, unless all of its rows are null.
        if bounds is None or _unknown(bounds, nulls, actions["num_records"]):
            extremes.append(None)
        else:
            extremes.append(of(bounds).as_py())
    return ColumnStatistics(
        name=field.name,
        type=field.type,
        minimum=extremes[0],
        maximum=extremes[1],
        null_count=None if nulls is None or nulls.null_count else pc.sum(nulls).as_py(),
    )


def _unknown(
    bounds: pa.ChunkedArray, nulls: pa.ChunkedArray | None, records: pa.ChunkedArray
) -> bool:
    if not bounds.null_count:
        return False
    if nulls is None:
        return True
    is_empty = pc.fill_null(pc.equal(nulls, records), False)
    return bool(pc.any(pc.and_(pc.is_null(bounds), pc.invert(is_empty))).as_py())


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
    if not pa.types.is_temporal(type_):
        return bound
    found = decode_bound(bound, type_)
    return None if found is None else found.as_py()
