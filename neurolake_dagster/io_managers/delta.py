"""Assets as Delta tables: Spark DataFrames through delta-spark, Arrow through deltalake.

Owns the replacement of partitions by predicate. A partition of a Delta asset is the rows for
which `partition_expr` falls into the key; rows that do not are refused before the commit.
"""

import random
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import dagster as dg
import pyarrow as pa

from neurolake_dagster.errors import CommitConflictError, PartitionError, TableError
from neurolake_dagster.io_managers.base import LakehouseIOManager
from neurolake_dagster.io_managers.checked_rows import CheckedRows
from neurolake_dagster.io_managers.delta_frames import (
    merge_frame,
    refuse_null_partition,
    write_frame,
)
from neurolake_dagster.io_managers.delta_partitions import (
    facts_by_partition,
    held_digests,
    partition_names,
    present_scope,
    record_written,
    written_names,
)
from neurolake_dagster.io_managers.partitions import in_one
from neurolake_dagster.io_managers.paths import dataset_path
from neurolake_dagster.io_managers.plans import ReadPlan, WritePlan, projected
from neurolake_dagster.io_managers.report import Written
from neurolake_dagster.io_managers.spark_rows import column_types
from neurolake_dagster.tables.changes import check_merge_source
from neurolake_dagster.tables.delta import DeltaDataset
from neurolake_dagster.tables.delta_commit import MARK, DeltaCommit
from neurolake_dagster.tables.delta_failures import check_types
from neurolake_dagster.tables.delta_settings import DeltaSettings
from neurolake_dagster.tables.merging import NO_ROWS
from neurolake_dagster.tables.schemas import plain_schema
from neurolake_dagster.tables.scope import Scope
from neurolake_dagster.tables.sql import quoted_column, spark_sql
from neurolake_dagster.tables.windows import Window

ATTEMPTS = 20
BACKOFF_S = 0.1


class DeltaIOManager(LakehouseIOManager):
    """Keeps each asset as a Delta table at ``<root>/<asset key>``.

    A partitioned asset names its column: ``metadata={"partition_expr": "day"}``.
    """

    def dataset(self, asset_key: dg.AssetKey | Sequence[str]) -> DeltaDataset:
        """The Delta table of an asset; it need not exist yet."""
        return self._dataset(dataset_path(asset_key))

    def delta_uri(self, asset_key: dg.AssetKey | Sequence[str]) -> str:
        """Where an asset's Delta table lies."""
        return self.dataset(asset_key).uri

    def _dataset(self, path: str) -> DeltaDataset:
        return DeltaDataset(self.dataset_storage(), path)

    def _write_arrow(
        self, plan: WritePlan, data: pa.Table | pa.RecordBatchReader | Mapping[str, pa.Table]
    ) -> Written:
        dataset, mark = self._dataset(plan.path), _mark(plan)
        if _is_left(dataset, plan):
            return _written(dataset, plan, mark)
        rows = in_one(data)
        check_types(rows.schema, dataset.uri)
        if plan.mode == "merge":
            # Read before the table is made: that may fail.
            source = rows if isinstance(rows, pa.Table) else rows.read_all()
            _settled(dataset, plan, source.schema)
            return _merge_arrow(dataset, plan, source, mark)
        options = _settled(dataset, plan, rows.schema)
        with tempfile.TemporaryFile() as file:
            is_kept = _may_conflict(dataset, plan, options)
            checked = CheckedRows(rows, plan, file if is_kept else None)

            def write() -> None:
                if not _is_left(dataset, plan):
                    dataset.write(
                        checked.rows(),
                        **options,
                        transaction=plan.transaction,
                        properties={**plan.properties, MARK: mark},
                        partitions=partition_names(plan),
                    )

            _after_others(write, attempts=ATTEMPTS if checked.can_repeat else 1)
        return _written(dataset, plan, mark, checked.counts).of_rows(checked.digests())

    def _written_names(self, plan: WritePlan) -> set[str]:
        dataset = self._dataset(plan.path)
        if not dataset.exists():
            return set()
        asked = ReadPlan(name=plan.where, path=plan.path, scope=plan.scope)
        return written_names(asked, dataset)

    def _is_done(self, plan: WritePlan) -> bool:
        return plan.transaction is not None and self._dataset(plan.path).has_transaction(
            plan.transaction
        )

    def _write_spark(self, plan: WritePlan, frame: Any) -> Written:
        self._require_reach(frame.sparkSession)
        dataset, mark = self._dataset(plan.path), _mark(plan)
        if _is_left(dataset, plan):
            return _written(dataset, plan, mark)
        refuse_null_partition(plan)
        schema = column_types(frame, tuple(frame.columns))
        options = _settled(dataset, plan, schema)

        def write() -> None:
            if plan.mode == "merge":
                merge_frame(dataset, plan, frame, schema, mark)
            elif not _is_left(dataset, plan):
                write_frame(dataset, plan, frame, options, mark)

        _after_others(write)
        written = _written(dataset, plan, mark)
        record_written(dataset, plan, written)
        return written

    def _read_arrow(self, plan: ReadPlan) -> pa.RecordBatchReader:
        dataset = self._dataset(plan.path)
        return dataset.scan(
            plan.columns,
            _scope_sql(plan, dataset),
            plan.version,
            predicate=plan.where,
            filters=plan.narrowed_by,
        )

    def _schema(self, plan: ReadPlan) -> pa.Schema:
        dataset = self._dataset(plan.path)
        if plan.scope is not None:
            present_scope(plan, dataset)
        return projected(_schema_of(dataset, plan.version), plan)

    def _pinned(self, plan: ReadPlan) -> ReadPlan:
        version = self._dataset(plan.path).open_written(plan.version).version()
        return replace(plan, version=version)

    def _read_spark(self, plan: ReadPlan, session: Any) -> Any:
        dataset = self._dataset(plan.path)
        table = dataset.open_written(plan.version)
        where = _where(plan, dataset)
        reader = session.read.format("delta")
        if plan.version is not None:
            reader = reader.option("versionAsOf", table.version())
        frame = reader.load(dataset.spark_uri)
        if where is not None:
            frame = frame.where(spark_sql(where))
        return frame if plan.columns is None else frame.select(*map(quoted_column, plan.columns))


def _after_others(write: Callable[[], None], attempts: int = ATTEMPTS) -> None:
    """Write again where another commit came first: Delta refuses also what has no row in common.

    Raises
    ------
    CommitConflictError
        If another came first each time.
    """
    for attempt in range(1, attempts + 1):
        try:
            write()
            break
        except CommitConflictError:
            if attempt == attempts:
                raise
            time.sleep(random.uniform(0, BACKOFF_S * attempt))  # noqa: S311


def _may_conflict(dataset: DeltaDataset, plan: WritePlan, options: Mapping[str, Any]) -> bool:
    """Whether Delta may take writes of other partitions for ones of these."""
    if plan.scope is None:
        return False
    columns = options.get("partition_by")
    if columns is None:
        columns = dataset.open().metadata().partition_columns
    return not set(plan.scope.columns) <= set(columns)


def _schema_of(dataset: DeltaDataset, version: int | datetime | None) -> pa.Schema:
    return plain_schema(pa.schema(dataset.open(version).schema().to_arrow()))


def _is_left(dataset: DeltaDataset, plan: WritePlan) -> bool:
    """Whether the mode leaves the table that is there.

    Raises
    ------
    TableError
        If it refuses it, and this piece of work has not made it.
    """
    if plan.mode not in ("error", "ignore") or not dataset.is_written():
        return False
    is_done = plan.transaction is not None and dataset.has_transaction(plan.transaction)
    if plan.mode == "error" and not is_done:
        raise TableError(f"{dataset.uri}: exists already, mode 'error' refuses it")
    return True


def _settled(dataset: DeltaDataset, plan: WritePlan, schema: pa.Schema) -> dict[str, Any]:
    """Bring the table to the plan's settings; what is left for the write of the rows to ask."""
    if plan.scope is not None:
        _require_columns(plan, schema)
    options: dict[str, Any] = {"mode": plan.mode, "schema_mode": _schema_mode(plan)}
    if plan.mode == "overwrite" and plan.scope is not None:
        options["where"] = plan.scope.predicate(_typed(dataset, schema))
    exists = dataset.exists()
    if not exists:
        dataset.check_place()  # Spark asks nobody
    default = [] if plan.scope is None else _physical(plan.scope, schema)
    settings = DeltaSettings(
        partition_columns=plan.partition_columns,
        properties=plan.table_properties,
        constraints=plan.constraints,
    )
    if exists or plan.mode == "merge" or settings.are_for_tables_only:
        if not exists or settings != DeltaSettings():
            dataset.settle(settings, schema, default)
        if options["schema_mode"] == "overwrite":
            # Spark would take a table that is replaced with its schema for one without partitions.
            options["partition_by"] = dataset.open().metadata().partition_columns
        # A table that was only made is no reason to refuse or leave it; one that others wrote
        # meanwhile is a conflict.
        return options | ({"mode": "overwrite"} if plan.mode in ("error", "ignore") else {})
    columns = default if plan.partition_columns is None else list(plan.partition_columns)
    return options | {"partition_by": columns}


def _typed(dataset: DeltaDataset, schema: pa.Schema) -> pa.Schema:
    """The schema of rows, columns without any value of the types that they have in the table."""
    if not any(map(pa.types.is_null, schema.types)) or not dataset.exists():
        return schema
    held = _schema_of(dataset, None)
    return pa.schema(
        held.field(one.name) if pa.types.is_null(one.type) and one.name in held.names else one
        for one in schema
    )


def _schema_mode(plan: WritePlan) -> str | None:
    """What the engines call it; a whole table is replaced with its schema."""
    if plan.schema_mode is None and plan.mode == "overwrite" and plan.scope is None:
        return "overwrite"
    return None if plan.schema_mode == "strict" else plan.schema_mode


def _merge_arrow(dataset: DeltaDataset, plan: WritePlan, source: pa.Table, mark: str) -> Written:
    assert plan.merge is not None
    merge = plan.merge
    CheckedRows(source, plan)
    check_merge_source(source, merge.keys, dataset.uri)
    typed = _typed(dataset, source.schema)

    def write() -> None:
        dataset.merge(
            source,
            merge.keys,
            when_matched=merge.when_matched,
            when_new=merge.when_new,
            when_gone=merge.when_gone,
            where=None if plan.scope is None else plan.scope.predicate(typed, "target"),
            adds_columns=plan.schema_mode == "merge",
            properties={**plan.properties, MARK: mark},
            transaction=plan.transaction,
            partitions=partition_names(plan),
        )

    _after_others(write)
    return _written(dataset, plan, mark)


def _require_columns(plan: WritePlan, schema: pa.Schema) -> None:
    assert plan.scope is not None
    if not plan.scope.columns:
        raise PartitionError(
            f"{plan.where}: a partitioned Delta asset needs the column that tells its partitions "
            'apart, in the asset\'s metadata: {"partition_expr": "<column>"}'
        )
    plan.scope.require_columns(schema, plan.where)


def _physical(scope: Scope, schema: pa.Schema) -> list[str]:
    """The columns a new table is partitioned by on disk: those with few values a key.

    Writers of different keys then touch different files, and do not conflict.
    """
    found = [
        column
        for column, member in zip(scope.columns, scope.keys[0].members, strict=True)
        if _is_for_folders(schema.field(column).type, is_window=isinstance(member, Window))
    ]
    # A file holds the other columns: there must be one.
    return found if len(found) < len(schema) else []


def _is_for_folders(type_: pa.DataType, *, is_window: bool) -> bool:
    # deltalake 1.6 finds no bytes among a table's partition values.
    is_bytes = pa.types.is_binary(type_) or pa.types.is_large_binary(type_)
    return pa.types.is_date(type_) if is_window else not is_bytes


def _where(plan: ReadPlan, dataset: DeltaDataset) -> str | None:
    """The rows of the asked partitions that the input's own predicate keeps."""
    tests = [_scope_sql(plan, dataset)]
    if plan.where is not None:
        tests.append(plan.where.sql(_schema_of(dataset, plan.version)))
    return " AND ".join(f"({test})" for test in tests if test) or None


def _scope_sql(plan: ReadPlan, dataset: DeltaDataset) -> str | None:
    """The rows of the asked partitions."""
    if plan.scope is None:
        return None
    return present_scope(plan, dataset).predicate(_schema_of(dataset, plan.version))


def _mark(plan: WritePlan) -> str:
    """What tells this write's commit from those of others that race with it."""
    return plan.transaction or uuid.uuid4().hex


def _written(
    dataset: DeltaDataset, plan: WritePlan, mark: str, counts: Mapping[str, int] | None = None
) -> Written:
    """What the write's commit says of itself; no Spark job runs.

    Parameters
    ----------
    counts
        Rows by partition, where they were seen on their way.
    """
    commit = dataset.commit(mark)
    if commit is None:  # nothing was to be done, or the log was cleaned up since
        dataset.note_written()
        newest = dataset.open().version()
        merged = NO_ROWS if plan.mode == "merge" else {}
        commit = DeltaCommit(
            version=newest, written_rows=0, added={}, removed={}, merged_rows=merged
        )
    snapshot = dataset.snapshot(commit.version)
    replaced = ""
    if commit.removed:
        before = snapshot.file_count - len(commit.added) + len(commit.removed)
        size = sum(commit.removed.values())
        replaced = f"replaced {len(commit.removed)} of {before} files, {size:,} bytes"
    facts = facts_by_partition(dataset, plan, commit, snapshot.files, counts)
    return Written(
        uri=dataset.uri,
        version=snapshot.version,
        schema=snapshot.schema,
        row_count=snapshot.row_count,
        written_rows=commit.written_rows if plan.scope is not None else snapshot.row_count,
        bytes=sum(commit.added.values()),
        files=len(commit.added),
        replaced=replaced,
        by_partition=facts.by_key,
        are_bytes_shares=facts.are_bytes_shares,
        metrics=commit.merged_rows,
        digests={key: (digest,) for key, digest in held_digests(plan, snapshot).items()},
        statistics=snapshot.statistics,
    )
