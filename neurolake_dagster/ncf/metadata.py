"""What a file says of itself, typed: the public view on the footer. Owns no bytes."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa

from neurolake_dagster.ncf.footer import ColumnEntry, Footer
from neurolake_dagster.ncf.schema import ColumnNotes, column_notes
from neurolake_dagster.ncf.statistics import Bound, Stats, typed_bound


@dataclass(frozen=True)
class ColumnStatistics:
    """Statistics of one chunk in Python values.

    ``min`` and ``max`` are None where the type has no order here, the chunk no valid value, or
    Python none that is equal; they enclose the values, and are exact values of the column only
    if ``exact``. NaN is counted in ``nan_count`` (None for types without NaN) and left out of
    the bounds.
    """

    null_count: int
    nan_count: int | None
    min: Any
    max: Any
    exact: bool


@dataclass(frozen=True)
class ColumnMetadata:
    """One column of one row group; sizes in bytes.

    ``raw_bytes`` is the size of the column's Arrow memory when it was written.
    """

    name: str
    type: Any
    encodings: tuple[str, ...]
    compressed_bytes: int
    raw_bytes: int
    statistics: ColumnStatistics


@dataclass(frozen=True)
class RowGroupMetadata:
    """One row group."""

    num_rows: int
    columns: tuple[ColumnMetadata, ...]

    @property
    def compressed_bytes(self) -> int:
        """Return the stored bytes of all its columns."""
        return sum(column.compressed_bytes for column in self.columns)


@dataclass(frozen=True)
class FileMetadata:
    """A whole file.

    ``notes`` holds per column name what ``ncf.semantic``, ``ncf.pii`` and ``ncf.description``
    say; ``sorting_columns`` are (name, descending, nulls first).
    """

    num_rows: int
    schema: Any
    row_groups: tuple[RowGroupMetadata, ...]
    file_bytes: int
    format_version: str
    created_by: str
    sorting_columns: tuple[tuple[str, bool, bool], ...] = ()
    notes: dict[str, ColumnNotes] = field(default_factory=dict)
    key_value: dict[str, str] = field(default_factory=dict)

    @property
    def num_columns(self) -> int:
        """Return the top-level columns."""
        return len(self.schema)

    @property
    def num_row_groups(self) -> int:
        """Return the row groups."""
        return len(self.row_groups)


def build_metadata(footer: Footer, version: str, file_bytes: int) -> FileMetadata:
    """Return the public view on a footer."""
    groups = tuple(
        RowGroupMetadata(
            group.rows,
            tuple(
                _column(column, entry)
                for column, entry in zip(footer.schema, group.columns, strict=True)
            ),
        )
        for group in footer.row_groups
    )
    return FileMetadata(
        num_rows=footer.rows,
        schema=footer.schema,
        row_groups=groups,
        file_bytes=file_bytes,
        format_version=version,
        created_by=footer.writer,
        sorting_columns=tuple(footer.sorting),
        notes={column.name: column_notes(column) for column in footer.schema},
        key_value=dict(footer.metadata),
    )


def _column(column: Any, entry: ColumnEntry) -> ColumnMetadata:
    return ColumnMetadata(
        name=column.name,
        type=column.type,
        encodings=tuple(entry.encodings),
        compressed_bytes=entry.size,
        raw_bytes=entry.raw_bytes,
        statistics=_typed(entry.stats, column.type),
    )


def _typed(stats: Stats, kind: Any) -> ColumnStatistics:
    return ColumnStatistics(
        null_count=stats.null_count,
        nan_count=stats.nan_count,
        min=_python_value(stats.min, kind),
        max=_python_value(stats.max, kind),
        exact=stats.exact,
    )


def _python_value(bound: Bound, kind: Any) -> Any:
    """Return a bound as Python has it; None where it has not, as for the year 10,000 or 1 ns.

    A time zone that is not known here is a `LookupError`.
    """
    try:
        if pa.types.is_timestamp(kind) and _is_named(kind.tz) and kind.unit != "ns":
            return _moment(typed_bound(bound, pa.timestamp(kind.unit)), kind.tz)
        scalar = typed_bound(bound, kind)
        if scalar is None or (kind == pa.time64("ns") and scalar.value % 1000):
            return None
        return scalar.as_py()
    except (ArithmeticError, LookupError, ValueError, OSError, pa.ArrowException):
        return None


def _is_named(zone: str | None) -> bool:
    """Whether a time zone has a name, not an offset such as ``+01:00``."""
    return zone is not None and not zone.startswith(("+", "-"))


def _moment(scalar: Any, zone: str) -> datetime | None:
    """Return what a scalar of a zoned type gives: only that imports pandas, a second."""
    if scalar is None:
        return None
    moment: datetime = scalar.as_py()
    return moment.replace(tzinfo=UTC).astimezone(ZoneInfo(zone))
