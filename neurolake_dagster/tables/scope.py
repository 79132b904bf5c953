"""Partition keys against rows: which row belongs to which key.

Owns the algebra: dividing Arrow batches by key, and the SQL predicate that picks exactly the
asked keys. Knows keys as windows of time or texts, not where they come from.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from neurolake_dagster.errors import PartitionError
from neurolake_dagster.tables.partitions import Partition


@dataclass(frozen=True, kw_only=True)
class Window:
    """Rows whose value lies in ``[start, end)``.

    Bounds have a zone. Python compares two of the same zone by wall time, so in the hour that
    a clock change repeats only their timestamps order them.
    """

    start: datetime
    end: datetime


Member = Window | str


@dataclass(frozen=True, kw_only=True)
class Key:
    """One partition key: its place in a table, and per dimension what its rows look like."""

    name: str
    place: Partition
    members: tuple[Member, ...]


@dataclass(frozen=True, kw_only=True)
class Scope:
    """The partitions that one output writes or one input reads.

    Parameters
    ----------
    columns
        The column of each dimension, by `partition_expr`; empty where it is not given.
    """

    keys: tuple[Key, ...]
    columns: tuple[str, ...]

    def single(self) -> "list[Scope]":
        """One scope for each key."""
        return [Scope(keys=(key,), columns=self.columns) for key in self.keys]

    def divide(self, batch: pa.RecordBatch) -> Iterator[tuple[Partition, pa.RecordBatch]]:
        """Divide a batch by key, in the order of the keys; for `Table.write`.

        Raises
        ------
        PartitionError
            If a row belongs to none of the keys.
        """
        numbers = self._numbers(batch)
        if (numbers < 0).any():
            raise PartitionError(self._stray(batch, numbers))
        order = np.argsort(numbers, kind="stable")
        found, starts = np.unique(numbers[order], return_index=True)
        ends = [*starts[1:], len(order)]
        for number, start, end in zip(found, starts, ends, strict=True):
            rows = batch if len(found) == 1 else batch.take(pa.array(order[start:end]))
            yield self.keys[number].place, rows

    def check(self, batch: pa.RecordBatch) -> dict[str, int]:
        """How many rows belong to each key; `PartitionError` if one belongs to none."""
        numbers = self._numbers(batch)
        if (numbers < 0).any():
            raise PartitionError(self._stray(batch, numbers))
        counts = np.bincount(numbers, minlength=len(self.keys)).tolist()
        return dict(zip((key.name for key in self.keys), counts, strict=True))

    def require_columns(self, schema: pa.Schema, where: str) -> None:
        """Refuse rows that cannot be told apart, before anything is written.

        Raises
        ------
        PartitionError
            If `partition_expr` is missing and needed, or names no column.
        """
        if not self.columns and len(self.keys) > 1:
            raise PartitionError(
                f"{where}: {len(self.keys)} partitions in one run; name the column that tells "
                'them apart in the asset\'s metadata: {"partition_expr": "<column>"}'
            )
        unknown = [name for name in self.columns if name not in schema.names]
        if unknown:
            raise PartitionError(
                f"{where}: partition_expr names {unknown!r}, expected columns of {schema.names!r}"
            )

    def predicate(self, schema: pa.Schema, alias: str = "") -> str:
        """The SQL predicate of exactly these keys; adjoining windows are joined.

        Parameters
        ----------
        alias
            Of the table that the columns are of, in a statement with several.
        """
        if not self.keys:
            return "1 = 0"
        if len(self.columns) == 1:
            members = _joined([key.members[0] for key in self.keys])
            tests = [_sql(self.columns[0], schema, member, alias) for member in members]
        else:
            tests = [
                "("
                + " AND ".join(
                    _sql(column, schema, member, alias)
                    for column, member in zip(self.columns, key.members, strict=True)
                )
                + ")"
                for key in self.keys
            ]
        return " OR ".join(tests)

    def _numbers(self, batch: pa.RecordBatch) -> "np.ndarray[Any, np.dtype[np.int64]]":
        """For each row the index of its key, -1 for none: int64, shape (rows,)."""
        if not self.columns:
            return np.zeros(batch.num_rows, np.int64)
        lookup: dict[tuple[int, ...], int] = {}
        digits = []
        for dimension, column in enumerate(self.columns):
            members = list(dict.fromkeys(key.members[dimension] for key in self.keys))
            digits.append((members, _match(batch.column(column), members)))
        for index, key in enumerate(self.keys):
            place = tuple(
                members.index(member)
                for (members, _), member in zip(digits, key.members, strict=True)
            )
            lookup[place] = index
        if len(digits) == 1:
            return digits[0][1]
        rows = np.stack([found for _, found in digits], axis=1)
        distinct, inverse = np.unique(rows, axis=0, return_inverse=True)
        numbers = np.array([lookup.get(tuple(place), -1) for place in distinct.tolist()], np.int64)
        return numbers[inverse.reshape(-1)]

    def _stray(self, batch: pa.RecordBatch, numbers: "np.ndarray[Any, np.dtype[np.int64]]") -> str:
        first = int(np.flatnonzero(numbers < 0)[0])
        values = {name: batch.column(name)[first].as_py() for name in self.columns}
        names = [key.name for key in self.keys]
        shown = names if len(names) <= 5 else [*names[:3], "...", names[-1]]
        return (
            f"{int((numbers < 0).sum())} rows of a batch, the first with {values!r}, belong to "
            f"none of the asked partitions {shown!r}; nothing was changed"
        )


def _match(values: pa.Array, members: Sequence[Member]) -> "np.ndarray[Any, np.dtype[np.int64]]":
    """For each value the index of its member, -1 for none or null."""
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if not members or isinstance(members[0], str):
        texts = pa.array([str(member) for member in members], pa.string())
        found = pc.index_in(values.cast(pa.string()), value_set=texts)
        return np.asarray(pc.fill_null(found, -1).to_numpy(zero_copy_only=False), np.int64)
    windows = [member for member in members if isinstance(member, Window)]
    if not pa.types.is_temporal(values.type):
        return _match_texts(values, windows)
    return _match_instants(values, windows)


def _match_texts(
    values: pa.Array, windows: Sequence[Window]
) -> "np.ndarray[Any, np.dtype[np.int64]]":
    """ISO texts sort as their times do, so bounds are compared as texts."""
    bounds = [(_text(one.start, one), _text(one.end, one)) for one in windows]

    def member(text: str | None) -> int:
        inside = (i for i, (low, high) in enumerate(bounds) if text and low <= text < high)
        return next(inside, -1)

    distinct = pc.dictionary_encode(values.cast(pa.string()), null_encoding="encode")
    numbers = np.array([member(text) for text in distinct.dictionary.to_pylist()], np.int64)
    return np.asarray(numbers[distinct.indices.to_numpy(zero_copy_only=False)], np.int64)


def _match_instants(
    values: pa.Array, windows: Sequence[Window]
) -> "np.ndarray[Any, np.dtype[np.int64]]":
    order = sorted(range(len(windows)), key=lambda index: windows[index].start.timestamp())
    starts = np.array([_instant(windows[i].start, values.type) for i in order], np.int64)
    ends = np.array([_instant(windows[i].end, values.type) for i in order], np.int64)
    exact = pa.int32() if pa.types.is_date32(values.type) else pa.int64()
    known = np.asarray(values.is_valid().to_numpy(zero_copy_only=False), bool)
    numbers = pc.fill_null(values.cast(exact), 0).to_numpy(zero_copy_only=False).astype(np.int64)
    place = np.searchsorted(starts, numbers, side="right") - 1
    inside = known & (place >= 0)
    inside &= numbers < ends[np.maximum(place, 0)]
    return np.where(inside, np.array(order, np.int64)[np.maximum(place, 0)], -1)


def _instant(moment: datetime, type_: pa.DataType) -> int:
    """A window's bound as the column's own integer: wall time unless the column has a zone."""
    if pa.types.is_timestamp(type_) and type_.tz is not None:
        return int(pa.scalar(moment, type_).value)
    wall = moment.replace(tzinfo=None)
    if pa.types.is_date(type_):
        return int(pa.scalar(wall.date(), type_).value)
    return int(pa.scalar(wall, type_).value)


def _joined(members: Sequence[Member]) -> list[Member]:
    """Windows that adjoin become one: a range of days is one comparison."""
    windows = sorted(
        (m for m in members if isinstance(m, Window)), key=lambda window: window.start.timestamp()
    )
    found: list[Member] = [member for member in members if not isinstance(member, Window)]
    for window in windows:
        last = found[-1] if found else None
        if isinstance(last, Window) and last.end.timestamp() == window.start.timestamp():
            found[-1] = Window(start=last.start, end=window.end)
        else:
            found.append(window)
    return found


def _sql(column: str, schema: pa.Schema, member: Member, alias: str) -> str:
    name = "`" + column.replace("`", "``") + "`"
    if alias:
        name = f"{alias}.{name}"
    type_ = schema.field(column).type
    if isinstance(member, Window):
        low, high = (_literal(bound, member, type_) for bound in (member.start, member.end))
        return f"({name} >= {low} AND {name} < {high})"
    if pa.types.is_integer(type_) or type_ == pa.bool_():
        return f"{name} = {member}"
    quoted = member.replace("'", "''")
    return f"{name} = {_cast(quoted, type_)}"


def _literal(moment: datetime, window: Window, type_: pa.DataType) -> str:
    """A bound as both deltalake's engine and Spark take it.

    Timestamps stay plain texts, which either casts to the column's own unit and zone; a
    typed literal is in nanoseconds for the one, and the other's session zone for the other.
    """
    if pa.types.is_date(type_):
        return _cast(f"{moment:%Y-%m-%d}", type_)
    if pa.types.is_timestamp(type_) and type_.tz is not None:
        return f"'{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}'"
    if pa.types.is_timestamp(type_):
        return f"'{moment:%Y-%m-%dT%H:%M:%S}'"
    return f"'{_text(moment, window)}'"


def _cast(quoted: str, type_: pa.DataType) -> str:
    return f"CAST('{quoted}' AS DATE)" if pa.types.is_date(type_) else f"'{quoted}'"


def _text(moment: datetime, window: Window) -> str:
    """Days as dates, finer windows with the time."""
    whole_days = all(bound.time() == datetime.min.time() for bound in (window.start, window.end))
    return f"{moment:%Y-%m-%d}" if whole_days else f"{moment:%Y-%m-%d %H:%M:%S}"
