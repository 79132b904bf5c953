"""Row-level changes of a table: delete by predicate, merge by key.

Owns which files a change rewrites. Only files that can hold matching rows are read, only
those that do are replaced; counts are exact.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from neurolake_dagster.errors import PartitionError, TableError
from neurolake_dagster.ncf.arrow import holds_type
from neurolake_dagster.ncf.pruning import check_filter
from neurolake_dagster.tables.commit import (
    Change,
    Commit,
    carry_out,
    check_option,
    checked_properties,
    commit_of,
)
from neurolake_dagster.tables.formats import Filters
from neurolake_dagster.tables.incoming import Split
from neurolake_dagster.tables.layout import check_layout
from neurolake_dagster.tables.merging import (
    NO_ROWS,
    Homes,
    Merge,
    WhenGone,
    WhenMatched,
    WhenNew,
    can_match,
    count_keys,
)
from neurolake_dagster.tables.partitions import Partition, PartitionLike, as_partitions
from neurolake_dagster.tables.parts import PartFiles
from neurolake_dagster.tables.predicate import as_filter
from neurolake_dagster.tables.reading import read_files
from neurolake_dagster.tables.schemas import fit_table
from neurolake_dagster.tables.skipping import matching_files
from neurolake_dagster.tables.snapshot import DataFile, Snapshot, TableSchema
from neurolake_dagster.tables.table import Table

_BITS = {16: pa.int16(), 32: pa.int32(), 64: pa.int64()}


def delete_rows(
    table: Table, where: Filters, *, properties: Mapping[str, str] | None = None
) -> Commit:
    """Delete the rows for which a predicate is true; where it is null they stay.

    Parameters
    ----------
    where
        A text as ``"day < '2013-01-02'"``, or as in `pyarrow.parquet.read_table`.

    Returns
    -------
    The commit; ``metrics`` has ``rows_deleted`` and ``rows_copied``. Nothing is committed
    where no row matches.
    """
    snapshot = table.snapshot()
    expression = as_filter(where, snapshot.schema)
    if expression is None:
        raise TableError(
            f"{table.uri}: no predicate, expected which rows to delete; overwrite the table to "
            "delete all of them"
        )
    check_filter(expression, snapshot.schema)
    stays = ~pc.coalesce(expression, pc.scalar(False))

    def kept(rows: pa.Table, place: Partition) -> Mapping[Partition, pa.Table]:
        left = rows.filter(stays)
        return {place: rows if left.num_rows == rows.num_rows else left}

    candidates = matching_files(snapshot, snapshot.files, expression)
    with table.open_parts(snapshot.schema) as parts:
        removed, counts = _rewrite(table, snapshot, candidates, kept, parts)
        if not removed:
            return Commit.nothing(snapshot)
        parts.close()
        metrics = {
            "rows_deleted": counts.read - counts.written,
            "rows_copied": counts.written,
        }
        change = Change(
            operation="delete",
            files=tuple(parts.files),
            schema=snapshot.table_schema,
            replaced=None,
            removed=removed,
            info=checked_properties(properties, table.uri),
            metrics=metrics,
        )
        return carry_out(table.folder, table.format, change, snapshot, parts.forget)


def merge_rows(
    table: Table,
    rows: pa.Table,
    keys: Sequence[str],
    *,
    when_matched: WhenMatched = "update",
    when_new: WhenNew = "insert",
    when_gone: WhenGone = "keep",
    split: Split | None = None,
    partitions: Sequence[PartitionLike] = (),
    properties: Mapping[str, str] | None = None,
    transaction: str | None = None,
    schema_mode: Literal["strict", "merge"] | None = None,
    table_properties: Mapping[str, str] | None = None,
) -> Commit:
    """Merge rows into a table by key: update those it has, insert those it has not.

    Parameters
    ----------
    keys
        Columns that identify a row; unique and not null in `rows`.
    when_gone
        ``delete`` removes the table's rows whose key is not in `rows`.
    split, partitions
        Of a partitioned table: how rows are divided, and the only partitions that are touched.
        Updated rows go to their own partition; without `split` they stay where they are.
    schema_mode
        ``merge`` adds columns that the table lacks; of those that the rows lack, updated rows
        keep their values, and inserted ones have nulls. Else both are refused.

    Returns
    -------
    The commit; ``metrics`` has ``rows_inserted``, ``rows_updated``, ``rows_deleted`` and
    ``rows_copied``.

    Raises
    ------
    PartitionError
        If a row belongs to another partition, whether it would be written or not.
    CommitConflictError
        If rows came to these partitions meanwhile: they might have the same keys.
    """
    _check_clauses(when_matched, when_new, when_gone, table.uri)
    keys = tuple(dict.fromkeys(keys))
    check_merge_source(rows, keys, table.uri)
    info, sets = (checked_properties(one, table.uri) for one in (properties, table_properties))
    work = _Work(split, tuple(as_partitions(partitions)), info, transaction, sets)
    base = table.log.try_snapshot()
    if base is None:
        return _first_merge(table, rows, when_new, work)
    if done := commit_of(table.log, base, transaction):
        return done
    if when_new == "insert" and (work.places or split is None):
        check_layout(base.partitions, work.places or [()], table.uri)
    schema = table.schema_for(base, rows.schema, schema_mode)
    _check_key_types(schema.schema, keys, table.uri)
    source, homes = _divided(fit_table(rows, schema.schema), work, table.uri)
    lacking = tuple(name for name in schema.schema.names if name not in rows.column_names)
    merge = Merge(source, keys, when_matched, when_new, when_gone, homes, lacking)
    return _carry_out_merge(table, base, schema, merge, work)


def _check_clauses(when_matched: object, when_new: object, when_gone: object, where: str) -> None:
    check_option("when_matched", when_matched, WhenMatched, where)
    check_option("when_new", when_new, WhenNew, where)
    check_option("when_gone", when_gone, WhenGone, where)


@dataclass(frozen=True)
class _Work:
    """Where a merge's rows go, and what its commit carries."""

    split: Split | None
    places: tuple[Partition, ...]
    info: Mapping[str, str]
    transaction: str | None
    sets: Mapping[str, str]


def _divided(rows: pa.Table, work: _Work, where: str) -> tuple[pa.Table, Homes | None]:
    """The rows, those of a partition together, and their partitions; refuses any not asked for."""
    if work.split is None:
        return rows, None
    pieces = [piece for batch in rows.to_batches() for piece in work.split(batch)]
    for place, _ in pieces:
        _check_place(place, work, where)
    homes = Homes.of((place, some.num_rows) for place, some in pieces)
    return pa.Table.from_batches([some for _, some in pieces], rows.schema), homes


def _check_place(place: Partition, work: _Work, where: str) -> None:
    if work.places and place not in work.places:
        raise PartitionError(
            f"{where}: rows to merge belong to partition {dict(place)!r}, which was not asked "
            "for; nothing was changed"
        )


def _first_merge(table: Table, rows: pa.Table, when_new: WhenNew, work: _Work) -> Commit:
    """All rows are new."""
    if when_new == "ignore":
        rows = _divided(rows, work, table.uri)[0].slice(0, 0)
    commit = table.write(
        rows,
        split=work.split,
        partitions=work.places or None,
        properties=work.info,
        transaction=work.transaction,
        table_properties=work.sets,
    )
    return commit.with_metrics({**NO_ROWS, "rows_inserted": commit.row_count})


def _carry_out_merge(
    table: Table, base: Snapshot, schema: TableSchema, merge: Merge, work: _Work
) -> Commit:
    with table.open_parts(schema.schema) as parts:
        candidates = merge.candidates(base, work.places)
        removed, _ = _rewrite(table, base, candidates, merge.apply, parts)
        for place, rows in merge.fresh().items():
            for batch in rows.to_batches():
                _check_place(place, work, table.uri)
                parts.write(place, batch)
        for place in set(work.places).difference(base.partitions):
            parts.ensure(place)
        change = Change(
            operation="merge",
            files=(),
            schema=schema,
            replaced=None,
            removed=removed,
            reads=work.places,
            info=work.info,
            sets=work.sets,
            transaction=work.transaction,
            metrics=merge.metrics(),
        )
        if parts.is_empty and not removed:
            return Commit.nothing(base).with_metrics(change.metrics)
        return table.commit_parts(change, base, parts)


@dataclass
class _Counts:
    read: int = 0
    written: int = 0


def _rewrite(
    table: Table,
    snapshot: Snapshot,
    candidates: Sequence[DataFile],
    apply: Callable[[pa.Table, Partition], Mapping[Partition, pa.Table]],
    parts: PartFiles,
) -> tuple[tuple[str, ...], _Counts]:
    """Write anew the files whose rows `apply` changes or moves to other partitions."""
    removed, counts = [], _Counts()
    for file in candidates:
        with table.still(snapshot):
            found = read_files(table.folder, table.files_format, snapshot, [file], None, None)
        rows = fit_table(found, parts.schema)
        after = apply(rows, file.partition)
        stay = after.get(file.partition, rows.slice(0, 0))
        if stay is rows or _is_same(stay, rows):
            continue
        removed.append(file.path)
        counts.read += rows.num_rows
        for place, some in after.items():
            counts.written += some.num_rows
            for batch in some.to_batches():
                parts.write(place, batch)
        if not stay.num_rows and file.partition:
            parts.ensure(file.partition)
    return tuple(removed), counts


def _is_same(after: pa.Table, before: pa.Table) -> bool:
    """Whether rows are the same bit for bit; floats within others are not looked at.

    Arrow compares by value: NaN is not NaN, and 0.0 is -0.0.
    """
    floats = [field for field in before.schema if holds_type(field.type, pa.types.is_floating)]
    is_plain = all(pa.types.is_floating(field.type) for field in floats)
    if after.num_rows != before.num_rows or not is_plain:
        return False
    return all(
        _as_bits(after[field.name]).equals(_as_bits(before[field.name])) for field in before.schema
    )


def _as_bits(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column of floats as integers, any other as it is."""
    if not pa.types.is_floating(column.type):
        return column
    bits = _BITS[column.type.bit_width]
    return pa.chunked_array([chunk.view(bits) for chunk in column.chunks], bits)


def check_merge_source(rows: pa.Table, keys: Sequence[str], where: str) -> None:
    """Refuse rows whose keys are unknown, of types that cannot be matched, null or not unique."""
    if not isinstance(rows, pa.Table):
        raise TableError(f"{where}: rows to merge are {type(rows)}, expected a pyarrow.Table")
    unknown = [key for key in keys if key not in rows.column_names]
    if unknown or not keys:
        raise TableError(
            f"{where}: merge keys {list(keys)!r}, expected some of {rows.column_names!r}"
        )
    _check_key_types(rows.schema, keys, where)
    for key in keys:
        if rows[key].null_count:
            raise TableError(f"{where}: merge key {key!r} is null in {rows[key].null_count} rows")
    distinct = count_keys(rows, list(dict.fromkeys(keys)))
    if distinct != rows.num_rows:
        raise TableError(
            f"{where}: {rows.num_rows - distinct} rows to merge repeat a key {list(keys)!r}; "
            "keep one for each"
        )


def _check_key_types(schema: pa.Schema, keys: Sequence[str], where: str) -> None:
    types = {key: schema.field(key).type for key in keys}
    wrong = [f"{key!r} is {type_}" for key, type_ in types.items() if not can_match(type_)]
    if wrong:
        raise TableError(f"{where}: merge key {', '.join(wrong)}, which cannot be matched; cast it")
