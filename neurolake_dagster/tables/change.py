"""A change of a table, as it is asked for, and the commit that it became, as it is told."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

import pyarrow.compute as pc

from neurolake_dagster.tables.entry import Entry
from neurolake_dagster.tables.partitions import Partition
from neurolake_dagster.tables.snapshot import DataFile, Snapshot, TableSchema


@dataclass(frozen=True, kw_only=True)
class Change:
    """What a write wants to become true.

    Parameters
    ----------
    replaced
        Partitions whose files go; empty: all files go; None: none but `removed`.
    removed
        Single files that go, read from the base: any change to them is a conflict.
    found
        Single files with rows that it found and leaves: that one of them goes is a conflict.
    reads, where
        Partitions (empty: all) and the condition (None: any) of the rows that it looked for: such
        rows that came since are a conflict, or of a delete that it comes before. None: it looked
        for none.
    is_overtaken
        Whether such rows came since.
    transactions
        As of an entry.
    properties
        All that the table is to have; None leaves them. `sets` are set beside those there are.
    restores
        It makes this former version the newest. The files were the table's before: they have
        their schema, and are not to be deleted where it fails.
    """

    operation: str
    files: tuple[DataFile, ...]
    schema: TableSchema
    replaced: tuple[Partition, ...] | None
    removed: tuple[str, ...] = ()
    found: tuple[str, ...] = ()
    reads: tuple[Partition, ...] | None = None
    where: pc.Expression | None = None
    is_overtaken: bool = False
    info: Mapping[str, str] = field(default_factory=dict)
    transaction: str | None = None
    transactions: Mapping[str, int | None] = field(default_factory=dict)
    properties: Mapping[str, str] | None = None
    sets: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, int] = field(default_factory=dict)
    restores: Snapshot | None = None


@dataclass(frozen=True, kw_only=True)
class Commit:
    """What a write did.

    Parameters
    ----------
    row_count, bytes
        Of the files added.
    table_row_count, table_bytes
        Of the whole table after it.
    """

    version: int
    timestamp: datetime
    operation: str
    row_count: int
    bytes: int
    files_added: tuple[DataFile, ...]
    files_removed: tuple[str, ...]
    table_row_count: int
    table_bytes: int
    metrics: Mapping[str, int] = field(default_factory=dict)

    @staticmethod
    def of(entry: Entry, state: Snapshot) -> "Commit":
        """What an entry of the log did; the totals are those of `state`."""
        return Commit(
            version=entry.version,
            timestamp=entry.timestamp,
            operation=entry.operation,
            row_count=sum(file.row_count for file in entry.added),
            bytes=sum(file.bytes for file in entry.added),
            files_added=entry.added,
            files_removed=entry.removed,
            table_row_count=state.row_count,
            table_bytes=state.bytes,
            metrics=entry.metrics,
        )

    def with_metrics(self, metrics: Mapping[str, int]) -> "Commit":
        """The same with other metrics."""
        return replace(self, metrics=metrics)

    @staticmethod
    def nothing(state: Snapshot) -> "Commit":
        """A write that had nothing to do."""
        return Commit(
            version=state.version,
            timestamp=state.timestamp,
            operation="none",
            row_count=0,
            bytes=0,
            files_added=(),
            files_removed=(),
            table_row_count=state.row_count,
            table_bytes=state.bytes,
        )
