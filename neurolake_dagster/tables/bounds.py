"""Minimum, maximum and null count of a file's columns, as the log keeps them.

Owns the JSON form of a bound: numbers, booleans and short texts as they are, temporal values
as their integer in the column's own unit. What has no such form is left out, never cut. Owns too
what bounds promise of the rows.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from neurolake_dagster.ncf import FileMetadata
from neurolake_dagster.tables.snapshot import ColumnBounds

TEXT_LIMIT = 64
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Bound = bool | int | float | str


def encode_bound(value: object, type_: pa.DataType) -> Bound | None:
    """The JSON form of a Python value of a column; None if it has none."""
    if value is None:
        return None
    if pa.types.is_temporal(type_):
        return _since_epoch(value, type_)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        return value if len(value) <= TEXT_LIMIT else None
    return value if isinstance(value, (bool, int)) else None


def decode_bound(bound: Bound | None, type_: pa.DataType) -> pa.Scalar | None:
    """A bound of the log as a value of the column; None if it has none."""
    if bound is None or _is_cut(type_):
        return None
    if not pa.types.is_temporal(type_):
        return pa.scalar(bound, type_)
    assert isinstance(bound, int)
    data = bound.to_bytes(type_.bit_width // 8, "little", signed=True)
    return pa.Array.from_buffers(type_, 1, [None, pa.py_buffer(data)])[0]


def bounds_of_parquet(metadata: pq.FileMetaData, schema: pa.Schema) -> dict[str, ColumnBounds]:
    """The statistics of a Parquet file's flat columns, over all row groups."""
    places = flat_columns(metadata)
    groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
    found = {}
    for field in schema:
        if field.name in places:
            index = places[field.name]
            statistics = [group.column(index).statistics for group in groups]
            found[field.name] = merge_bounds(
                _bounds_of_chunk(one, field.type, group.num_rows)
                for one, group in zip(statistics, groups, strict=True)
            )
    return found


def flat_columns(metadata: pq.FileMetaData) -> dict[str, int]:
    """The numbers of a Parquet file's flat columns; `a.b` may also be the `b` of a struct `a`."""
    columns = [metadata.schema.column(i) for i in range(metadata.num_columns)]
    return {column.name: i for i, column in enumerate(columns) if column.name == column.path}


def bounds_of_row_group(
    group: pq.RowGroupMetaData, places: Mapping[str, int], schema: pa.Schema
) -> dict[str, ColumnBounds]:
    """The statistics of those of a row group's flat columns that have any."""
    found = {
        field.name: _bounds_of_chunk(
            group.column(places[field.name]).statistics, field.type, group.num_rows
        )
        for field in schema
        if field.name in places
    }
    return {name: bounds for name, bounds in found.items() if bounds is not None}


def bounds_of_ncf(metadata: FileMetadata) -> dict[str, ColumnBounds]:
    """The statistics of an NCF file's columns, over all row groups."""
    found = {}
    for index, field in enumerate(metadata.schema):
        chunks = [group.columns[index].statistics for group in metadata.row_groups]
        found[field.name] = merge_bounds(
            ColumnBounds(
                minimum=encode_bound(chunk.min, field.type),
                maximum=encode_bound(chunk.max, field.type),
                null_count=chunk.null_count,
            )
            for chunk in chunks
        )
    return found


def merge_bounds(parts: Iterable[ColumnBounds | None]) -> ColumnBounds:
    """The bounds of several parts together; unknown where one of them does not know."""
    known = list(parts)
    whole = [part for part in known if part is not None]
    if not whole or len(whole) < len(known):
        return ColumnBounds()
    nulls = [part.null_count for part in whole]
    return ColumnBounds(
        minimum=_extreme(min, [part.minimum for part in whole]),
        maximum=_extreme(max, [part.maximum for part in whole]),
        null_count=None if None in nulls else sum(n for n in nulls if n is not None),
    )


def promise_of(
    bounds: Mapping[str, ColumnBounds], row_count: int, fields: Sequence[pa.Field]
) -> pc.Expression:
    """What holds for every row; floats promise nothing, for NaN lies outside of bounds."""
    whole = pc.scalar(True)
    for field in fields:
        known = bounds.get(field.name)
        if known is not None and not pa.types.is_floating(field.type):
            whole = whole & _column_promise(field, known, row_count)
    return whole


def _column_promise(field: pa.Field, bounds: ColumnBounds, row_count: int) -> pc.Expression:
    column = pc.field(field.name)
    if bounds.null_count is not None and bounds.null_count == row_count:
        return column.is_null()
    low = decode_bound(bounds.minimum, field.type)
    high = decode_bound(bounds.maximum, field.type)
    if low is None or high is None:
        return pc.scalar(True)
    promise = (column >= low) & (column <= high)
    return promise if bounds.null_count == 0 else promise | column.is_null()


def _since_epoch(value: object, type_: pa.DataType) -> int | None:
    """The integer that a temporal value is stored as.

    The common types by arithmetic: `pyarrow.scalar` imports pandas, 0.7 s for every step.
    """
    if _is_cut(type_):
        return None
    if type(value) is date and pa.types.is_date32(type_):
        return value.toordinal() - EPOCH.toordinal()
    if type(value) is datetime and pa.types.is_timestamp(type_) and type_.unit == "us":
        moment = value if value.tzinfo else value.replace(tzinfo=UTC)
        return (moment - EPOCH) // timedelta(microseconds=1)
    try:
        found = pa.scalar(value, type_).value
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError):
        return None
    return found if isinstance(found, int) else None


def _is_cut(type_: pa.DataType) -> bool:
    """Whether Python's values of a type are less exact: `datetime.time` has no nanoseconds."""
    return bool(pa.types.is_time64(type_) and type_.unit == "ns")


def _bounds_of_chunk(
    statistics: pq.Statistics | None, type_: pa.DataType, row_count: int
) -> ColumnBounds | None:
    if statistics is None:
        return ColumnBounds(null_count=0) if row_count == 0 else None
    nulls = statistics.null_count if statistics.has_null_count else None
    if not statistics.has_min_max:
        return ColumnBounds(null_count=nulls)
    try:
        low, high = statistics.min, statistics.max
    except (OverflowError, ValueError):  # a time that Python's types do not reach
        return ColumnBounds(null_count=nulls)
    return ColumnBounds(
        minimum=encode_bound(low, type_), maximum=encode_bound(high, type_), null_count=nulls
    )


def _extreme(pick: Any, values: list[Bound | None]) -> Bound | None:
    if None in values:
        return None
    found: Bound = pick(values)
    return found
