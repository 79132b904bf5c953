"""Row-level changes of a table: delete by predicate, merge by key.

Owns which files a change rewrites. Of files that can hold matching rows the columns that tell
are read, and only those that do are replaced, in bounded memory; counts are exact.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from neurolake_dagster.errors import PartitionError, TableError
from neurolake_dagster.ncf.arrow import holds_type
from neurolake_dagster.ncf.pruning import check_filter, mentioned_columns
from neurolake_dagster.tables.change import Change, Commit
from neurolake_dagster.tables.commit import (
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
from neurolake_dagster.tables.reading import read_files, scan_files
from neurolake_dagster.tables.schemas import fit_batch, fit_table
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
    with table.open_parts(snapshot.schema) as parts:
        files = [
            file
            for file in matching_files(snapshot, snapshot.files, expression)
            if _has_rows(table, snapshot, file, expression)
        ]
        if not files:
            return Commit.nothing(snapshot)
        for file in files:
            kept = (rows.filter(stays) for rows in _rows_of(table, snapshot, file, parts.schema))
            _write_anew(file, ({file.partition: rows} for rows in kept), parts)
        parts.close()
        before, after = (sum(file.row_count for file in some) for some in (files, parts.files))
        change = Change(
            operation="delete",
            files=tuple(parts.files),
            schema=snapshot.table_schema,
            replaced=None,
            removed=tuple(file.path for file in files),
            reads=(),
            where=expression,
            info=checked_properties(properties, table.uri),
            metrics={"rows_deleted": before - after, "rows_copied": after},
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
    if schema_mode is not None:
        check_option("schema_mode", schema_mode, Literal["strict", "merge"], table.uri)
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
        removed, found = _merge_files(table, base, merge, work.places, parts)
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
            found=found,
            reads=work.places,
            info=work.info,
            sets=work.sets,
            transaction=work.transaction,
            metrics=merge.metrics(),
        )
        if parts.is_empty and not removed:
            return Commit.nothing(base).with_metrics(change.metrics)
        return table.commit_parts(change, base, parts)


def _merge_files(
    table: Table, base: Snapshot, merge: Merge, places: Sequence[Partition], parts: PartFiles
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Write anew the files that a merge changes.

    Of the others the keys alone are read, and rows where updates change nothing.

    Returns
    -------
    The paths of those files, and of all that have rows which the merge found.
    """
    removed, found = [], []
    for file in merge.candidates(base, places):
        known = len(merge.seen)
        match = merge.match(_keys_of(table, base, file, merge.key_schema))
        if len(merge.seen) > known:
            found.append(file.path)
        if match is None:
            continue

        def merged(file: DataFile = file, match: pa.Array = match) -> Iterator[_Merged]:
            return _merged(merge, match, file.partition, _rows_of(table, base, file, parts.schema))

        if any(not _is_same(one.stay, one.rows) for one in merged()):
            removed.append(file.path)
            _write_anew(file, (one.after for one in merged()), parts)
    return tuple(removed), tuple(found)


class _Merged(NamedTuple):
    """Some rows of a file; after the merge by partition, and those that stay in theirs."""

    rows: pa.Table
    after: Mapping[Partition, pa.Table]
    stay: pa.Table


def _merged(
    merge: Merge, match: pa.Array, place: Partition, batches: Iterable[pa.Table]
) -> Iterator[_Merged]:
    at = 0
    for rows in batches:
        after = merge.apply(rows, match.slice(at, rows.num_rows), place)
        yield _Merged(rows, after, after.get(place, rows.slice(0, 0)))
        at += rows.num_rows


def _keys_of(table: Table, base: Snapshot, file: DataFile, schema: pa.Schema) -> pa.Table:
    """A file's rows in a schema; of columns that the table lacks only nulls."""
    names = base.schema.names
    columns = [name for name in schema.names if name in names] or names[:1]
    with table.still(base):
        rows = read_files(table.folder, table.files_format, base, [file], columns, None)
    return fit_table(rows, schema)


def _has_rows(table: Table, snapshot: Snapshot, file: DataFile, where: pc.Expression) -> bool:
    """Whether a file has rows for which a predicate is true; its columns alone are read."""
    names = snapshot.schema.names
    columns = mentioned_columns(where, names)[:1] or names[:1]
    with table.still(snapshot):
        rows = scan_files(table.folder, table.files_format, snapshot, [file], columns, where)
        return any(batch.num_rows for batch in rows)


def _rows_of(
    table: Table, snapshot: Snapshot, file: DataFile, schema: pa.Schema
) -> Iterator[pa.Table]:
    """Stream a file's rows in the schema that they are to be written in."""
    with table.still(snapshot):
        for batch in scan_files(table.folder, table.files_format, snapshot, [file], None, None):
            yield pa.Table.from_batches([fit_batch(batch, schema)])


def _write_anew(
    file: DataFile, changed: Iterable[Mapping[Partition, pa.Table]], parts: PartFiles
) -> None:
    """Write a file's rows after a change, by partition; its own gets a file in any case."""
    for by_place in changed:
        for place, rows in by_place.items():
            for batch in rows.to_batches():
                parts.write(place, batch)
    if file.partition:
        parts.ensure(file.partition)


def _is_same(after: pa.Table, before: pa.Table) -> bool:
    """Whether rows are the same bit for bit; floats within others are not looked at.

    Arrow compares by value: NaN is not NaN, and 0.0 is -0.0.
    """
    floats = [field for field in before.schema if holds_type(field.type, pa.types.is_floating)]
    is_plain = all(pa.types.is_floating(field.type) for field in floats)
    if after is before:
        return True
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
