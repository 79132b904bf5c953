"""Row-level changes of a table: delete by predicate, merge by key.

Owns which files a change rewrites. Only files that can hold matching rows are read, only
those that do are replaced; counts are exact.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from neurolake_dagster.errors import PartitionError, TableError
from neurolake_dagster.ncf.pruning import build_filter, check_filter
from neurolake_dagster.tables.commit import Change, Commit, carry_out
from neurolake_dagster.tables.formats import Filters
from neurolake_dagster.tables.incoming import Split
from neurolake_dagster.tables.partitions import Partition, PartitionLike, as_partitions
from neurolake_dagster.tables.parts import PartFiles
from neurolake_dagster.tables.reading import read_files
from neurolake_dagster.tables.schemas import check_fit, fit_batch
from neurolake_dagster.tables.skipping import matching_files
from neurolake_dagster.tables.snapshot import DataFile, Snapshot
from neurolake_dagster.tables.table import Table

_ROW = "__neurolake_row"

WhenMatched = Literal["update", "delete", "ignore"]
WhenNew = Literal["insert", "ignore"]
WhenGone = Literal["keep", "delete"]


def delete_rows(
    table: Table, where: Filters, *, properties: Mapping[str, str] | None = None
) -> Commit:
    """Delete the rows for which a predicate is true; where it is null they stay.

    Returns
    -------
    The commit; ``metrics`` has ``rows_deleted`` and ``rows_copied``. Nothing is committed
    where no row matches.
    """
    expression = build_filter(where)
    assert expression is not None
    snapshot = table.snapshot()
    check_filter(expression, snapshot.schema)
    stays = ~pc.coalesce(expression, pc.scalar(False))

    def kept(rows: pa.Table) -> pa.Table:
        return rows.filter(stays)

    candidates = matching_files(snapshot, snapshot.files, expression)
    with _parts(table, snapshot) as parts:
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
            info=properties or {},
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
) -> Commit:
    """Merge rows into a table by key: update those it has, insert those it has not.

    Parameters
    ----------
    keys
        Columns that identify a row; unique and not null in `rows`.
    when_gone
        ``delete`` removes the table's rows whose key is not in `rows`.
    split, partitions
        Of a partitioned table: how inserted rows are divided, and the only partitions that
        are touched.

    Returns
    -------
    The commit; ``metrics`` has ``rows_inserted``, ``rows_updated``, ``rows_deleted`` and
    ``rows_copied``.
    """
    base = table.log.try_snapshot()
    check_merge_source(rows, keys, table.uri)
    places = as_partitions(partitions)
    if base is None:
        data = rows if when_new == "insert" else rows.slice(0, 0)
        commit = table.write(data, split=split, partitions=places or None, properties=properties)
        return commit.with_metrics({**_NO_ROWS, "rows_inserted": commit.row_count})
    if transaction is not None and transaction in base.transactions:
        return Commit.of(table.log.entry(base.transactions[transaction]), base)
    check_fit(rows.schema, base.schema, table.uri)
    fitted = [fit_batch(batch, base.schema) for batch in rows.to_batches()]
    merge = _Merge(
        source=pa.Table.from_batches(fitted, base.schema),
        keys=tuple(keys),
        when_matched=when_matched,
        when_gone=when_gone,
    )
    with _parts(table, base) as parts:
        candidates = base.files_of(places or None)
        if when_gone == "keep":
            candidates = tuple(matching_files(base, candidates, merge.key_range()))
        removed, counts = _rewrite(table, base, candidates, merge.apply, parts)
        fresh = merge.unmatched() if when_new == "insert" else merge.source.slice(0, 0)
        _insert(fresh, parts, split, places, table.uri)
        parts.close()
        change = Change(
            operation="merge",
            files=tuple(parts.files),
            schema=base.table_schema,
            replaced=None,
            removed=removed,
            info=properties or {},
            transaction=transaction,
            metrics=merge.metrics(fresh.num_rows, counts),
        )
        if not change.files and not removed:
            return Commit.nothing(base).with_metrics(change.metrics)
        return carry_out(table.folder, table.format, change, base, parts.forget)


_NO_ROWS = {"rows_inserted": 0, "rows_updated": 0, "rows_deleted": 0, "rows_copied": 0}


@dataclass
class _Counts:
    read: int = 0
    written: int = 0


@dataclass
class _Merge:
    """The source of a merge, and what was found of it so far."""

    source: pa.Table
    keys: tuple[str, ...]
    when_matched: WhenMatched
    when_gone: WhenGone
    updated: int = 0
    deleted: int = 0
    seen: list[int] = field(default_factory=list)

    def metrics(self, inserted: int, counts: _Counts) -> dict[str, int]:
        """The exact counts."""
        return {
            "rows_inserted": inserted,
            "rows_updated": self.updated,
            "rows_deleted": self.deleted,
            "rows_copied": counts.written - self.updated,
        }

    def key_range(self) -> pc.Expression | None:
        """What every matching row's keys lie between."""
        if not self.source.num_rows:
            return pc.scalar(False)
        whole = pc.scalar(True)
        for key in self.keys:
            bounds = pc.min_max(self.source[key])
            column = pc.field(key)
            whole = whole & (column >= bounds["min"]) & (column <= bounds["max"])
        return whole

    def apply(self, rows: pa.Table) -> pa.Table:
        """One file's rows after the merge, in their order."""
        match = self._match(rows)
        hit = pc.is_valid(match)
        self.seen += match.drop_null().to_pylist()
        numbers = pa.array(np.arange(rows.num_rows))
        if self.when_matched == "update":
            self.updated += pc.sum(hit).as_py() or 0
            # Updated rows are taken from behind the file's own.
            numbers = pc.if_else(hit, pc.add(pc.fill_null(match, 0), rows.num_rows), numbers)
        gone = pa.array(np.zeros(rows.num_rows, bool))
        if self.when_matched == "delete":
            gone = hit
        if self.when_gone == "delete":
            gone = pc.or_(gone, pc.invert(hit))
        self.deleted += pc.sum(gone).as_py() or 0
        untouched = self.when_matched == "ignore" or not pc.any(hit).as_py()
        if untouched and not pc.any(gone).as_py():
            return rows
        kept = numbers.filter(pc.invert(gone))
        return pa.concat_tables([rows, self.source]).take(kept)

    def unmatched(self) -> pa.Table:
        """The source's rows whose key no file had."""
        seen = pa.array(sorted(self.seen), pa.int64())
        numbers = pa.array(np.arange(self.source.num_rows))
        return self.source.filter(pc.invert(pc.is_in(numbers, value_set=seen)))

    def _match(self, rows: pa.Table) -> pa.Array:
        """For each row the number of the source's row with its key, or null."""
        names = list(self.keys)
        numbers = pa.array(np.arange(self.source.num_rows))
        right = _frame(self.source.select(names).append_column(_ROW, numbers))
        left = _frame(rows.select(names))
        found = left.join(right, on=names, how="left", maintain_order="left", nulls_equal=False)
        return found[_ROW].to_arrow()


def _rewrite(
    table: Table,
    snapshot: Snapshot,
    candidates: Sequence[DataFile],
    apply: Callable[[pa.Table], pa.Table],
    parts: PartFiles,
) -> tuple[tuple[str, ...], _Counts]:
    """Write anew the files whose rows `apply` changes; it returns the same table otherwise."""
    removed, counts = [], _Counts()
    for file in candidates:
        rows = read_files(table.folder, table.files_format, snapshot, [file], None, None)
        after = apply(rows)
        if after is rows or (after.num_rows == rows.num_rows and after.equals(rows)):
            continue
        removed.append(file.path)
        counts.read += rows.num_rows
        counts.written += after.num_rows
        for batch in after.to_batches():
            parts.write(file.partition, batch)
        if not after.num_rows and file.partition:
            parts.ensure(file.partition)
    return tuple(removed), counts


def _parts(table: Table, snapshot: Snapshot) -> PartFiles:
    return PartFiles(
        table.folder, table.files_format, snapshot.schema, folder=table.staging_folder()
    )


def check_merge_source(rows: pa.Table, keys: Sequence[str], where: str) -> None:
    """Refuse rows whose keys are unknown, null or not unique: which one wins would be chance."""
    unknown = [key for key in keys if key not in rows.column_names]
    if unknown or not keys:
        raise TableError(
            f"{where}: merge keys {list(keys)!r}, expected some of {rows.column_names!r}"
        )
    for key in keys:
        if rows[key].null_count:
            raise TableError(f"{where}: merge key {key!r} is null in {rows[key].null_count} rows")
    distinct = rows.select(list(keys)).group_by(list(keys)).aggregate([]).num_rows
    if distinct != rows.num_rows:
        raise TableError(
            f"{where}: {rows.num_rows - distinct} rows to merge repeat a key {list(keys)!r}; "
            "keep one for each"
        )


def _insert(
    fresh: pa.Table,
    parts: PartFiles,
    split: Split | None,
    places: Sequence[Partition],
    where: str,
) -> None:
    for batch in fresh.to_batches():
        for place, some in [((), batch)] if split is None else split(batch):
            if places and place not in places:
                raise PartitionError(
                    f"{where}: rows to merge belong to partition {dict(place)!r}, which was not "
                    "asked for; nothing was changed"
                )
            parts.write(place, some)


def _frame(rows: pa.Table) -> pl.DataFrame:
    found = pl.from_arrow(rows)
    assert isinstance(found, pl.DataFrame)
    return found
