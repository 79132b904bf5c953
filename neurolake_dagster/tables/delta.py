"""Delta tables for Arrow data, through `deltalake` (no JVM).

Owns the Arrow side of Delta: streaming reads, atomic writes, the snapshot's facts. Spark
DataFrames go through delta-spark in `neurolake_dagster.io_managers.delta`.
"""

import dataclasses
import functools
import math
import operator
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import (
    CommitProperties,
    DeltaTable,
    Transaction,
    WriterProperties,
    write_deltalake,
)
from deltalake.exceptions import (
    CommitFailedError,
    DeltaError,
    DeltaProtocolError,
    SchemaMismatchError as DeltaSchemaMismatchError,
    TableNotFoundError as DeltaTableNotFoundError,
)

from neurolake_dagster.errors import (
    CommitConflictError,
    NeuroLakeError,
    SchemaMismatchError,
    TableError,
    TableNotFoundError,
)
from neurolake_dagster.ncf.pruning import mentioned_columns
from neurolake_dagster.storage import Storage, translated
from neurolake_dagster.tables.conditions import Joined, Predicate
from neurolake_dagster.tables.delta_commit import DeltaCommit, find_commit
from neurolake_dagster.tables.delta_settings import DeltaSettings
from neurolake_dagster.tables.merging import WhenGone, WhenMatched, WhenNew
from neurolake_dagster.tables.statistics import ColumnStatistics, statistics_of_actions

ZSTD_LEVEL = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class DeltaSnapshot:
    """What one version of a Delta table holds, from its log alone.

    `row_count` is None where a file of the table was written without statistics.
    """

    version: int
    schema: pa.Schema
    row_count: int | None
    bytes: int
    file_count: int
    partition_columns: tuple[str, ...]
    statistics: tuple[ColumnStatistics, ...]
    properties: Mapping[str, str]


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
        with _translated(self.uri):
            return DeltaTable.is_deltatable(self.uri, self.storage.deltalake_options())

    def open(self, version: int | datetime | None = None) -> DeltaTable:
        """Open the table, at its newest version, that one, or the one of that moment.

        Raises
        ------
        TableNotFoundError
            If there is no Delta log, or no such version.
        """
        with _translated(self.uri):
            number = version if isinstance(version, int) else None
            options = self.storage.deltalake_options()
            table = DeltaTable(self.uri, version=number, storage_options=options)
            if isinstance(version, datetime):
                table.load_as_version(version)
            return table

    def snapshot(self, version: int | datetime | None = None) -> DeltaSnapshot:
        """Read one version's facts from the log; no data file is opened."""
        table = self.open(version)
        actions = pa.table(table.get_add_actions(flatten=True))
        records = actions["num_records"]
        schema, metadata = pa.schema(table.schema().to_arrow()), table.metadata()
        return DeltaSnapshot(
            version=table.version(),
            schema=schema,
            statistics=tuple(statistics_of_actions(actions, field) for field in schema),
            row_count=None if records.null_count else sum(records.to_pylist()),
            bytes=sum(actions["size_bytes"].to_pylist()),
            file_count=actions.num_rows,
            partition_columns=tuple(metadata.partition_columns),
            properties=dict(metadata.configuration),
        )

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
        with _translated(self.uri):
            if exists:
                settings.apply(self.open(), self.uri)
            else:
                options = self.storage.deltalake_options()
                settings.create(self.uri, schema, default_columns, options)

    def commit(self, mark: str) -> DeltaCommit | None:
        """The commit of a write that was given this mark, or did this transaction.

        Others may have committed since. None where the log holds it no more.
        """
        newest = self.open().version()
        return find_commit(self.storage.child(f"{self.path}/_delta_log"), newest, mark)

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
        table = self.open(version)
        schema = pa.schema(table.schema().to_arrow())
        if predicate is not None:
            pushed, rest = _divided(predicate, schema)
            where = " AND ".join(f"({one})" for one in (where, *pushed) if one) or None
            left = [one for one in (filters, *rest) if one is not None]
            filters = functools.reduce(operator.and_, left) if left else None
        asked = list(schema.names if columns is None else columns)
        also = [] if filters is None else mentioned_columns(filters, schema.names)
        used = list(dict.fromkeys([*asked, *also]))
        with _translated(self.uri):
            stream = table.scan(columns=used, predicate=where)
        rows = _with_plain_strings(pa.RecordBatchReader.from_stream(stream))
        if filters is None:
            return rows
        kept = (batch.filter(filters).select(asked) for batch in rows)
        return pa.RecordBatchReader.from_batches(
            pa.schema([rows.schema.field(name) for name in asked]), kept
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

        Raises
        ------
        SchemaMismatchError, CommitConflictError, TableError
        """
        _check_types(data.schema, self.uri)
        if transaction is not None and self.has_transaction(transaction):
            return
        marks = None if transaction is None else [Transaction(transaction, 1)]
        options: dict[str, Any] = {
            "mode": mode,
            "partition_by": list(partition_by) or None,
            "schema_mode": schema_mode,
            "storage_options": self.storage.deltalake_options(),
            "writer_properties": WriterProperties(compression="ZSTD", compression_level=ZSTD_LEVEL),
            "commit_properties": CommitProperties(
                custom_metadata=properties or {}, app_transactions=marks
            ),
        }
        if where is not None:
            options["predicate"] = where
        noted = _Noted(data)
        with _translated(self.uri):
            try:
                write_deltalake(self.uri, noted.reader(), **options)
            except DeltaError as exc:
                # The engine wraps what the rows' own source raised in its text.
                if noted.failure is not None:
                    raise noted.failure from exc
                raise

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
    ) -> None:
        """Bring rows together with those of the same keys; the commit has the exact counts.

        Parameters
        ----------
        where
            Only rows of the table, called ``target``, for which this SQL predicate holds are
            touched.
        adds_columns
            Columns of `data` that the table lacks are added to it.
        """
        _check_types(data.schema, self.uri)
        if transaction is not None and self.has_transaction(transaction):
            return
        marks = None if transaction is None else [Transaction(transaction, 1)]
        with _translated(self.uri):
            merge = self.open().merge(
                data,
                predicate=merge_condition(keys, where),
                source_alias="source",
                target_alias="target",
                merge_schema=adds_columns,
                commit_properties=CommitProperties(
                    custom_metadata=properties or {}, app_transactions=marks
                ),
            )
            if when_matched == "update":
                merge = merge.when_matched_update_all()
            elif when_matched == "delete":
                merge = merge.when_matched_delete()
            if when_new == "insert":
                merge = merge.when_not_matched_insert_all()
            if when_gone == "delete":
                merge = merge.when_not_matched_by_source_delete(where)
            merge.execute()

    def history(self, limit: int | None = None) -> list[dict[str, Any]]:
        """The commits, newest first: version, time, operation and files, as their log tells."""
        with _translated(self.uri):
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
        with _translated(self.uri):
            table = self.open()
            done = table.optimize.z_order(sort_by) if sort_by else table.optimize.compact()
            return done["numFilesRemoved"], done["numFilesAdded"], table.version()

    def vacuum(self, retention: timedelta, *, dry_run: bool = False) -> tuple[str, ...]:
        """Delete the files that no version of the last `retention` needs; their paths."""
        with _translated(self.uri):
            hours = math.ceil(retention / timedelta(hours=1))
            return tuple(
                self.open().vacuum(hours, dry_run=dry_run, enforce_retention_duration=False)
            )

    def restore(self, version: int) -> int:
        """Make a former version the newest again, as a new commit, whose number is returned."""
        with _translated(self.uri):
            table = self.open()
            table.restore(version)
            table.update_incremental()
            return table.version()

    def has_transaction(self, transaction: str) -> bool:
        """Whether a commit carries this name already."""
        return self.exists() and self.open().transaction_version(transaction) is not None


def _divided(predicate: Predicate, schema: pa.Schema) -> tuple[list[str], list[pc.Expression]]:
    """What the engine is to test, and what is tested after it: all that looks at floats.

    Where a file's bounds of a column are equal, deltalake 1.6 gives that value for every row,
    also for those with NaN, which no bounds tell of.
    """
    floats = {field.name for field in schema if pa.types.is_floating(field.type)}
    parts: tuple[Predicate, ...] = (predicate,)
    if isinstance(predicate, Joined) and predicate.operator == "AND":
        parts = predicate.parts
    pushed, rest = [], []
    for part in parts:
        if floats.intersection(part.columns()):
            rest.append(part.expression(schema))
        else:
            pushed.append(part.sql(schema))
    return pushed, rest


def merge_condition(keys: Sequence[str], where: str | None) -> str:
    """The condition under which a row of the target is one of the source."""
    tests = [f"target.`{key}` = source.`{key}`" for key in keys]
    return " AND ".join([*tests, *([f"({where})"] if where else [])])


class _Noted:
    """Rows on their way into the engine, and what their source raised."""

    def __init__(self, data: pa.Table | pa.RecordBatchReader) -> None:
        self.failure: Exception | None = None
        self._data = data.to_reader() if isinstance(data, pa.Table) else data

    def reader(self) -> pa.RecordBatchReader:
        return pa.RecordBatchReader.from_batches(self._data.schema, self._batches())

    def _batches(self) -> Iterator[pa.RecordBatch]:
        try:
            yield from self._data
        finally:
            found = sys.exc_info()[1]
            if isinstance(found, Exception):
                self.failure = found


def _with_plain_strings(reader: pa.RecordBatchReader) -> pa.RecordBatchReader:
    """Cast the engine's string and binary views, which few consumers take, to plain ones."""
    plain = {pa.string_view(): pa.string(), pa.binary_view(): pa.binary()}
    fields = [field.with_type(plain.get(field.type, field.type)) for field in reader.schema]
    return reader.cast(pa.schema(fields, reader.schema.metadata))


@contextmanager
def _translated(uri: str) -> Iterator[None]:
    """Turn deltalake's errors into ours, once."""
    try:
        yield
    except NeuroLakeError:
        raise
    except OSError:
        with translated(uri):
            raise
    except DeltaTableNotFoundError as exc:
        raise TableNotFoundError(f"{uri}: no Delta table or no such version: {exc}") from exc
    except DeltaSchemaMismatchError as exc:
        raise SchemaMismatchError(f"{uri}: the rows do not fit the table's schema: {exc}") from exc
    except CommitFailedError as exc:
        raise CommitConflictError(f"{uri}: another commit came first: {exc}") from exc
    except (DeltaError, DeltaProtocolError) as exc:
        raise TableError(f"{uri}: {exc}") from exc


def _check_types(schema: pa.Schema, uri: str) -> None:
    """Refuse types that Delta lacks: deltalake raises a bare `Exception` for them."""
    lacking = [f"{field.name!r} is {field.type}" for field in schema if _is_lacking(field.type)]
    if lacking:
        raise TableError(
            f"{uri}: Delta has no such types: columns {', '.join(lacking)}; cast them first"
        )


def _is_lacking(type_: pa.DataType) -> bool:
    if pa.types.is_dictionary(type_):
        return _is_lacking(type_.value_type)
    if pa.types.is_nested(type_) and not pa.types.is_union(type_):
        return any(_is_lacking(type_.field(index).type) for index in range(type_.num_fields))
    if pa.types.is_decimal(type_):
        return bool(type_.bit_width > 128 or type_.scale < 0)
    return any(is_one(type_) for is_one in _LACKING)


_LACKING = (
    pa.types.is_duration,
    pa.types.is_time,
    pa.types.is_interval,
    pa.types.is_float16,
    pa.types.is_union,
    pa.types.is_run_end_encoded,
)
