"""Delta tables for Arrow data, through `deltalake` (no JVM).

Owns the Arrow side of Delta: streaming reads, atomic writes, the snapshot's facts. Spark
DataFrames go through delta-spark in `neurolake_dagster.io_managers.delta`.
"""

import functools
import math
import operator
import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import (
    CommitProperties,
    DeltaTable,
    Transaction,
    WriterProperties,
    write_deltalake,
)
from deltalake.exceptions import DeltaError
from deltalake.table import TableMerger

from neurolake_dagster.errors import CommitConflictError, TableError, TableNotFoundError
from neurolake_dagster.ncf.pruning import mentioned_columns
from neurolake_dagster.storage import Storage
from neurolake_dagster.tables.conditions import Predicate
from neurolake_dagster.tables.delta_commit import (
    MARK,
    DeltaCommit,
    committed_at,
    find_commit,
    is_only_made,
    transactions_since,
)
from neurolake_dagster.tables.delta_failures import check_types, translated
from neurolake_dagster.tables.delta_partitions import (
    REPLACED,
    commit_nothing,
    new_transactions,
    next_replacement,
    record_partitions,
)
from neurolake_dagster.tables.delta_rows import (
    delta_schema,
    divided,
    fit_delta,
    give_rows,
    select,
    typing_mode,
)
from neurolake_dagster.tables.delta_settings import DeltaSettings
from neurolake_dagster.tables.delta_snapshot import DeltaSnapshot, snapshot_of
from neurolake_dagster.tables.log import DELTA_LOG_FOLDER, check_place
from neurolake_dagster.tables.merging import WhenGone, WhenMatched, WhenNew
from neurolake_dagster.tables.snapshot import no_such_table
from neurolake_dagster.tables.sql import quoted_column

ZSTD_LEVEL = 3
# More than it takes to make a table: one for it, and one for each of its constraints.
MAKING_COMMITS = 100
# What deltalake reads otherwise than it is written, or falls over: `%20` as a space.
_MISREAD = re.compile(r"%[0-9A-Fa-f]{2}")
_MISREAD_LOCALLY = re.compile(rf"{_MISREAD.pattern}|[\[\]^|\\]")


class DeltaDataset:
    """One Delta table at `path` of a storage.

    Parameters
    ----------
    storage
        Where the table lies; its credentials are handed to `deltalake`.
    path
        The table's key in the storage, for example ``delta/flights``.
    """

    def __init__(self, storage: Storage, path: str) -> None:
        self.storage = storage
        self.path = path

    @property
    def uri(self) -> str:
        """The table's address as users see it: a local path or ``s3://bucket/key``."""
        return self.storage.uri(self.path)

    @property
    def spark_uri(self) -> str:
        """The table's address as Spark takes it."""
        return self.storage.spark_uri(self.path)

    def exists(self) -> bool:
        """Whether a Delta log lies there."""
        with translated(self.uri):
            return DeltaTable.is_deltatable(self._address, self.storage.deltalake_options())

    def is_written(self) -> bool:
        """Whether rows, or none, were ever committed there: a table may only have been made."""
        return self.exists() and not self._is_only_made(self.open())

    def _is_only_made(self, table: DeltaTable) -> bool:
        # Looked at of young tables only, whose files are soon counted.
        if table.version() > MAKING_COMMITS or table.get_add_actions().num_rows:
            return False
        return is_only_made(self._log, table.version())

    def note_written(self) -> None:
        """Let the table count as written though there was nothing to commit."""
        with translated(self.uri):
            table = self.open()
            if self._is_only_made(table):
                commit_nothing(table)

    def open_written(self, version: int | datetime | None = None) -> DeltaTable:
        """As `open`, but a table that was only made is none.

        Raises
        ------
        TableNotFoundError
        """
        table = self.open(version)
        if self._is_only_made(table):
            raise TableNotFoundError(f"{self.uri}: the table was made, but nothing was written")
        return table

    def open(self, version: int | datetime | None = None) -> DeltaTable:
        """Open the table, at its newest version, that one, or the one of that moment.

        Raises
        ------
        TableNotFoundError
            If there is no Delta log, or no such version.
        """
        number = version if isinstance(version, int) else None
        if number is not None and number < 0:
            raise no_such_table(self.uri, number)
        with translated(self.uri):
            options = self.storage.deltalake_options()
            try:
                table = DeltaTable(self._address, version=number, storage_options=options)
            except DeltaError as exc:
                if number is not None and number > self.open().version():
                    raise no_such_table(self.uri, number) from exc
                raise
            if isinstance(version, datetime):
                self._go_back(table, version)
            return table

    def _go_back(self, table: DeltaTable, moment: datetime) -> None:
        """Load the version of a moment; one without a zone is UTC."""
        aware = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
        table.load_as_version(aware)
        # The engine gives the first version for every moment before it.
        first = committed_at(self._log, 0) if table.version() == 0 else None
        if first is not None and aware < first:
            raise TableNotFoundError(
                f"{self.uri}: no version at {aware:%F %T %Z}, the first one is of {first:%F %T} UTC"
            )

    def check_place(self) -> None:
        """Refuse to begin a Delta table where one of another format lies."""
        check_place(self.storage.child(self.path), DELTA_LOG_FOLDER, self.uri)

    @property
    def _address(self) -> str:
        """The table's address as deltalake takes it: a path, or an encoded URL."""
        uri, is_local = self.uri, self.storage.is_local
        found = (_MISREAD_LOCALLY if is_local else _MISREAD).search(uri)
        if found is not None:
            raise TableError(
                f"{uri}: deltalake finds no table below a name with {found[0]!r}; give the root "
                "another name, or the asset the format parquet or ncf"
            )
        return uri if is_local else quote(uri, safe=":/")

    @property
    def _log(self) -> Storage:
        return self.storage.child(f"{self.path}/{DELTA_LOG_FOLDER}")

    def snapshot(self, version: int | datetime | None = None) -> DeltaSnapshot:
        """Read one version's facts from the log; no data file is opened."""
        return snapshot_of(self.open(version))

    def settle(
        self, settings: DeltaSettings, schema: pa.Schema, default_columns: list[str]
    ) -> None:
        """Bring the table to its settings; one that does not exist is made, without rows.

        Parameters
        ----------
        default_columns
            What a new table is partitioned by where the settings do not say it.
        """
        exists = self.exists()
        with translated(self.uri):
            if exists:
                table = self.open()
            else:
                options = self.storage.deltalake_options()
                rows = delta_schema(schema)
                table = settings.create(self._address, rows, default_columns, options)
            settings.apply(table, self.uri)

    def commit(self, mark: str) -> DeltaCommit | None:
        """The commit of a write that was given this mark, or did this transaction.

        Others may have committed since. None where the log holds it no more.
        """
        newest = self.open().version()
        return find_commit(self._log, newest, mark)

    def scan(
        self,
        columns: Sequence[str] | None = None,
        where: str | None = None,
        version: int | datetime | None = None,
        *,
        predicate: Predicate | None = None,
        filters: pc.Expression | None = None,
    ) -> pa.RecordBatchReader:
        """Stream the rows; their order is not guaranteed.

        Parameters
        ----------
        columns
            Names to read; None reads all.
        where
            A SQL predicate, evaluated exactly; files are skipped by their statistics.
        version
            Read that version instead of the newest.
        predicate, filters
            What must hold beside `where`; by the filters no file is skipped.
        """
        table = self.open_written(version)
        schema = _schema_of(table)
        if predicate is not None:
            pushed, rest = divided(predicate, schema)
            where = " AND ".join(f"({one})" for one in (where, *pushed) if one) or None
            left = [one for one in (filters, *rest) if one is not None]
            filters = functools.reduce(operator.and_, left) if left else None
        asked = list(schema.names if columns is None else columns)
        unknown = [name for name in asked if name not in schema.names]
        if unknown:
            raise TableError(f"{self.uri}: no columns {unknown!r}; the table has {schema.names!r}")
        also = [] if filters is None else mentioned_columns(filters, schema.names)
        used = list(dict.fromkeys([*asked, *also])) or schema.names[:1]
        with translated(self.uri):
            rows = select(table, used, where)
        if filters is None and used == asked:
            return rows
        kept = (batch if filters is None else batch.filter(filters) for batch in rows)
        return pa.RecordBatchReader.from_batches(
            pa.schema([rows.schema.field(name) for name in asked]),
            (batch.select(asked) for batch in kept),
        )

    def write(
        self,
        data: pa.Table | pa.RecordBatchReader,
        *,
        mode: str = "overwrite",
        where: str | None = None,
        partition_by: Sequence[str] = (),
        schema_mode: str | None = None,
        properties: dict[str, str] | None = None,
        transaction: str | None = None,
        partitions: Sequence[str] = (),
    ) -> None:
        """Write rows in one commit; a failure leaves the former version as it was.

        Parameters
        ----------
        data
            Rows, streamed.
        mode
            ``overwrite``, ``append``, ``error`` or ``ignore``.
        where
            With ``overwrite``: replace only the rows that match this SQL predicate. A row of
            `data` outside of it is refused before anything is committed.
        partition_by
            Partition columns of a new table.
        schema_mode
            None (the schema must match), ``merge`` or ``overwrite``.
        properties
            Kept with the commit (``commitInfo``), for example the run's id.
        transaction
            Names this piece of work: if a commit carries it already, nothing is written.
        partitions
            Names that count as written from now on, with or without rows; alone where the whole
            table is overwritten.

        Raises
        ------
        SchemaMismatchError, CommitConflictError, TableError
        """
        check_types(data.schema, self.uri)
        table = self.open() if self.exists() else None
        if transaction is not None and _carries(table, transaction):
            return
        held = None if table is None else _schema_of(table)
        if held is None:
            self.check_place()
        properties = _marked(properties)
        replaces = table is not None and mode == "overwrite" and where is None
        carried = _carried(table, properties, transaction, partitions, replaces=replaces)
        options: dict[str, Any] = {
            "mode": mode,
            "partition_by": list(partition_by) or None,
            "schema_mode": schema_mode or typing_mode(held, data.schema),
            "storage_options": self.storage.deltalake_options(),
            "writer_properties": WriterProperties(compression="ZSTD", compression_level=ZSTD_LEVEL),
            "commit_properties": carried,
            "predicate": where,
        }
        kept = None if schema_mode == "overwrite" else held
        data = fit_delta(data, kept, self.uri, adds_columns=schema_mode == "merge")
        with self._committing(table, properties):
            give_rows(data, lambda rows: write_deltalake(self._address, rows, **options))

    def merge(
        self,
        data: pa.Table,
        keys: Sequence[str],
        *,
        when_matched: WhenMatched = "update",
        when_new: WhenNew = "insert",
        when_gone: WhenGone = "keep",
        where: str | None = None,
        adds_columns: bool = False,
        properties: dict[str, str] | None = None,
        transaction: str | None = None,
        partitions: Sequence[str] = (),
    ) -> None:
        """Bring rows together with those of the same keys; the commit has the exact counts.

        Parameters
        ----------
        where
            Only rows of the table, called ``target``, for which this SQL predicate holds are
            touched.
        adds_columns
            Columns of `data` that the table lacks are added to it; of those that `data` lacks,
            updated rows keep their values. Else both are refused.

        Raises
        ------
        SchemaMismatchError
        """
        check_types(data.schema, self.uri)
        table = self.open()
        if transaction is not None and _carries(table, transaction):
            return
        data = fit_delta(data, _schema_of(table), self.uri, adds_columns=adds_columns)
        properties = _marked(properties)
        condition = merge_condition(keys, where)
        carried = _carried(table, properties, transaction, partitions)

        def execute(rows: pa.RecordBatchReader) -> None:
            merge = table.merge(
                rows,
                predicate=condition,
                source_alias="source",
                target_alias="target",
                merge_schema=adds_columns,
                commit_properties=carried,
            )
            _with_clauses(merge, when_matched, when_new, when_gone, where).execute()

        with self._committing(table, properties):
            before = table.version()
            give_rows(data, execute)
            if table.version() == before:  # nothing was to be done, and nothing committed
                record_partitions(table, partitions)

    @contextmanager
    def _committing(
        self, table: DeltaTable | None, properties: Mapping[str, str]
    ) -> Iterator[None]:
        """Translate what goes wrong; a commit that came first may be this very one.

        The answer to a first try was lost then, and the second found what the first had put.
        """
        base = -1 if table is None else table.version()
        try:
            with translated(self.uri):
                yield
        except CommitConflictError:
            newest = self.open().version()
            if find_commit(self._log, newest, properties[MARK], after=base) is None:
                raise

    def history(self, limit: int | None = None) -> list[dict[str, Any]]:
        """The commits, newest first: version, time, operation and files, as their log tells."""
        with translated(self.uri):
            entries = self.open().history(limit)
        return [
            {
                "version": entry["version"],
                "at": datetime.fromtimestamp(entry["timestamp"] / 1000, UTC).isoformat(
                    " ", "seconds"
                ),
                "operation": entry.get("operation", ""),
                "by": entry.get("engineInfo", entry.get("clientVersion", "")),
            }
            for entry in entries
        ]

    def optimize(self, sort_by: Sequence[str] = ()) -> tuple[int, int, int]:
        """Rewrite small files into few, by columns in Z-order if any are named.

        Returns
        -------
        tuple of int
            Files removed, files added, and the version.
        """
        with translated(self.uri):
            table = self.open()
            done = table.optimize.z_order(sort_by) if sort_by else table.optimize.compact()
            return done["numFilesRemoved"], done["numFilesAdded"], table.version()

    def vacuum(self, retention: timedelta, *, dry_run: bool = False) -> tuple[str, ...]:
        """Delete the files that no version of the last `retention` needs; their paths."""
        with translated(self.uri):
            hours = math.ceil(retention / timedelta(hours=1))
            return tuple(
                self.open().vacuum(hours, dry_run=dry_run, enforce_retention_duration=False)
            )

    def restore(self, version: int) -> int:
        """Make a former version the newest again, as a new commit, whose number is returned.

        What was done since counts as not done.
        """
        with translated(self.uri):
            table, former = self.open(), self.open(version)
            done = {
                name: former.transaction_version(name) or 0
                for name in transactions_since(self._log, version, table.version())
            }
            marks = [
                Transaction(name, number)
                for name, number in done.items()
                if number != table.transaction_version(name)
            ]
            table.restore(version, commit_properties=CommitProperties(app_transactions=marks))
            table.update_incremental()
            return table.version()

    def record_partitions(self, names: Sequence[str]) -> None:
        """Let partitions count as written that another engine wrote."""
        with translated(self.uri):
            record_partitions(self.open(), names)

    def next_replacement(self) -> tuple[str, int]:
        """The transaction that a write of another engine carries which replaces the whole table.

        A second write with the same one is none, or conflicts.
        """
        return REPLACED, next_replacement(self.open())

    def has_transaction(self, transaction: str) -> bool:
        """Whether a commit carries this name already."""
        return self.exists() and _carries(self.open(), transaction)


def merge_condition(keys: Sequence[str], where: str | None) -> str:
    """The condition under which a row of the target is one of the source."""
    names = [quoted_column(key) for key in keys]
    tests = [f"target.{name} = source.{name}" for name in names]
    return " AND ".join([*tests, *([f"({where})"] if where else [])])


def _with_clauses(
    merge: TableMerger,
    when_matched: WhenMatched,
    when_new: WhenNew,
    when_gone: WhenGone,
    where: str | None,
) -> TableMerger:
    if when_matched == "update":
        merge = merge.when_matched_update_all()
    elif when_matched == "delete":
        merge = merge.when_matched_delete()
    if when_new == "insert":
        merge = merge.when_not_matched_insert_all()
    if when_gone == "delete":
        merge = merge.when_not_matched_by_source_delete(where)
    return merge


def _marked(properties: Mapping[str, str] | None) -> dict[str, str]:
    """The properties, by which the commit is known again."""
    return {MARK: uuid.uuid4().hex, **(properties or {})}


def _carries(table: DeltaTable | None, transaction: str) -> bool:
    """Whether a commit of the table carries this name; a restore sets what it takes back to 0."""
    return table is not None and (table.transaction_version(transaction) or 0) > 0


def _carried(
    table: DeltaTable | None,
    properties: dict[str, str] | None,
    transaction: str | None,
    partitions: Sequence[str],
    *,
    replaces: bool = False,
) -> CommitProperties:
    """What a commit carries so that its work is known."""
    own = [] if transaction is None else [Transaction(transaction, 1)]
    return CommitProperties(
        custom_metadata=properties or {},
        app_transactions=own + new_transactions(table, partitions, replaces=replaces),
    )


def _schema_of(table: DeltaTable) -> pa.Schema:
    return pa.schema(table.schema().to_arrow())
