"""Assets as snapshot tables: what the IO managers for NCF and Parquet share.

Owns the way from a plan to one commit of a `Table`, and from a snapshot to rows.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import dagster as dg
import pyarrow as pa

from neurolake_dagster.errors import PartitionError, TableError
from neurolake_dagster.io_managers.base import LakehouseIOManager
from neurolake_dagster.io_managers.crons import are_same_windows
from neurolake_dagster.io_managers.partitions import in_one
from neurolake_dagster.io_managers.paths import dataset_path
from neurolake_dagster.io_managers.plans import ReadPlan, WritePlan, projected
from neurolake_dagster.io_managers.report import Written
from neurolake_dagster.io_managers.row_digest import files_digest
from neurolake_dagster.io_managers.spark_rows import (
    as_schema,
    check_scope,
    collected,
    column_types,
    empty_frame,
    narrowed,
)
from neurolake_dagster.tables import (
    Commit,
    DataFile,
    Partition,
    Snapshot,
    Stage,
    Staged,
    Table,
    merge_rows,
)
from neurolake_dagster.tables.layout import check_layout
from neurolake_dagster.tables.scope import Scope
from neurolake_dagster.tables.snapshot import TableFormat
from neurolake_dagster.tables.statistics import column_statistics

# The table's property that tells the windows of its partitions: equal keys may mean other ones.
WINDOWS = "neurolake.partition_windows"


class TableIOManager(LakehouseIOManager):
    """Assets as snapshot tables of part files, one folder per partition key."""

    @property
    @abstractmethod
    def _format(self) -> TableFormat:
        """The format of the part files."""

    def table(self, asset_key: dg.AssetKey | Sequence[str]) -> Table:
        """The table of an asset; it need not exist yet."""
        return self._table(dataset_path(asset_key))

    def _table(self, path: str) -> Table:
        return Table(self.dataset_storage(), path, self._format)

    def _write_arrow(
        self, plan: WritePlan, data: pa.Table | pa.RecordBatchReader | Mapping[str, pa.Table]
    ) -> Written:
        table = self._table(plan.path)
        _refuse_delta_settings(plan)
        before = table.log.try_snapshot()
        _check_keys(plan.where, plan.scope, plan.windows, before)
        if plan.mode == "merge":
            return self._merge(plan, table, before, data)
        options: dict[str, Any] = {
            "mode": plan.mode,
            "properties": plan.properties,
            "transaction": plan.transaction,
            "schema_mode": plan.schema_mode,
            "table_properties": _properties(plan),
        }
        if plan.scope is None:
            assert not isinstance(data, Mapping)
            return self._written(plan, table, before, table.write(data, **options))
        if isinstance(data, Mapping):
            commit = table.write(_by_place(plan, data), **options)
        else:
            plan.scope.require_columns(data.schema, plan.where)
            places = [key.place for key in plan.scope.keys]
            commit = table.write(data, split=plan.scope.divide, partitions=places, **options)
        return self._written(plan, table, before, commit)

    def _written_names(self, plan: WritePlan) -> set[str]:
        assert plan.scope is not None
        snapshot = self._table(plan.path).log.try_snapshot()
        written = set() if snapshot is None else set(snapshot.partitions)
        return {key.name for key in plan.scope.keys if key.place in written}

    def _is_done(self, plan: WritePlan) -> bool:
        snapshot = self._table(plan.path).log.try_snapshot()
        return snapshot is not None and snapshot.version_of(plan.transaction) is not None

    def _write_spark(self, plan: WritePlan, frame: Any) -> Written:
        table = self._table(plan.path)
        _refuse_delta_settings(plan)
        before = table.log.try_snapshot()
        _check_keys(plan.where, plan.scope, plan.windows, before)
        if plan.mode == "merge":
            return self._merge(plan, table, before, collected(frame, table, plan.where))
        done = table.done_before(plan.mode, plan.transaction)
        if done is not None:
            return self._written(plan, table, before, done)
        check_scope(frame, plan.scope, plan.where)
        if plan.schema_mode == "merge":
            frame = _widened(frame, table, plan)
        with table.stage() as stage:
            staged = self._stage_spark(plan, table, stage, frame)
            commit = table.commit(
                staged.files,
                schema=staged.schema,
                partitions=[] if plan.scope is None else [key.place for key in plan.scope.keys],
                mode=plan.mode,
                properties=plan.properties,
                transaction=plan.transaction,
                schema_mode=plan.schema_mode,
                table_properties=_properties(plan),
            )
        return self._written(plan, table, before, commit)

    @abstractmethod
    def _stage_spark(self, plan: WritePlan, table: Table, stage: Stage, frame: Any) -> Staged:
        """Have Spark write the frame's part files, each proven to be of its partition."""

    def _read_spark(self, plan: ReadPlan, session: Any) -> Any:
        table, snapshot = self._table(plan.path), self._snapshot(plan)
        places = self._places(plan, snapshot)
        files = snapshot.files_of(places)
        if not files:
            return narrowed(empty_frame(session, snapshot.schema), plan)
        chosen = files if len(files) < len(snapshot.files) else None
        return narrowed(self._spark_frame(session, table, snapshot, chosen, plan), plan)

    @abstractmethod
    def _spark_frame(
        self,
        session: Any,
        table: Table,
        snapshot: Snapshot,
        files: Sequence[DataFile] | None,
        plan: ReadPlan,
    ) -> Any:
        """Some files of a version, or all for None, as a DataFrame."""

    def _read_arrow(self, plan: ReadPlan) -> pa.RecordBatchReader:
        table, snapshot = self._table(plan.path), self._snapshot(plan)
        filters = _both(plan.where and plan.where.expression(snapshot.schema), plan.narrowed_by)
        places = self._places(plan, snapshot)
        if plan.is_streamed:
            return table.scan(plan.columns, filters, places, version=snapshot)
        # Parquet keeps no former files: what a commit takes away meanwhile is read again.
        pinned = self._format == "ncf" or plan.version is not None
        version = snapshot if pinned else None
        # In one piece, a file is decoded by all threads.
        return table.read(plan.columns, filters, places, version=version).to_reader()

    def _schema(self, plan: ReadPlan) -> pa.Schema:
        snapshot = self._snapshot(plan)
        self._places(plan, snapshot)
        return projected(snapshot.schema, plan)

    def _pinned(self, plan: ReadPlan) -> ReadPlan:
        if self._format == "parquet":  # keeps no former files
            return plan
        snapshot = self._snapshot(plan)
        return replace(plan, version=snapshot.version, held=snapshot)

    def _snapshot(self, plan: ReadPlan) -> Snapshot:
        found: Snapshot = plan.held or self._table(plan.path).snapshot(plan.version)
        return found

    def _merge(
        self,
        plan: WritePlan,
        table: Table,
        before: Snapshot | None,
        data: pa.Table | pa.RecordBatchReader | Mapping[str, pa.Table],
    ) -> Written:
        assert plan.merge is not None
        data = in_one(data)
        if plan.scope is not None:
            plan.scope.require_columns(data.schema, plan.where)
        rows = data if isinstance(data, pa.Table) else data.read_all()
        commit = merge_rows(
            table,
            rows,
            plan.merge.keys,
            when_matched=plan.merge.when_matched,
            when_new=plan.merge.when_new,
            when_gone=plan.merge.when_gone,
            split=None if plan.scope is None else plan.scope.divide,
            partitions=() if plan.scope is None else [key.place for key in plan.scope.keys],
            properties=plan.properties,
            transaction=plan.transaction,
            schema_mode="merge" if plan.schema_mode == "merge" else None,
            table_properties=_properties(plan),
        )
        written = self._written(plan, table, before, commit)
        if commit.metrics:
            brought = commit.metrics["rows_inserted"] + commit.metrics["rows_updated"]
            written = replace(written, written_rows=brought)
        return replace(written, metrics=commit.metrics)

    def _places(self, plan: ReadPlan, snapshot: Snapshot) -> list[Partition] | None:
        """The partitions to read; None for all."""
        if plan.scope is None:
            return None
        _check_keys(plan.name, plan.scope, plan.windows, snapshot)
        written = set(snapshot.partitions)
        found = plan.present({key.name for key in plan.scope.keys if key.place in written})
        return [key.place for key in found.keys]

    def _written(
        self, plan: WritePlan, table: Table, before: Snapshot | None, commit: Commit
    ) -> Written:
        after = table.snapshot(commit.version)
        files: dict[Partition, list[DataFile]] = {}
        for file in commit.files_added:
            files.setdefault(file.partition, []).append(file)
        keys = () if plan.scope is None else plan.scope.keys
        by_partition: dict[str, tuple[int | None, int | None]] = {
            key.name: (sum(f.row_count for f in found), sum(f.bytes for f in found))
            for key in keys
            for found in [files.get(key.place, [])]
        }
        return Written(
            uri=table.uri,
            version=commit.version,
            schema=after.schema,
            row_count=commit.table_row_count,
            written_rows=commit.row_count,
            bytes=commit.bytes,
            files=len(commit.files_added),
            by_partition=by_partition,
            replaced=_replaced(plan, before, commit),
            statistics=column_statistics(after),
            digests=_digests(plan, after),
        )


def _digests(plan: WritePlan, held: Snapshot) -> dict[str, tuple[str, ...]]:
    """Of each partition asked for: the schema, and the bytes of its files in whatever order."""
    if plan.asked is None:
        return {"": (files_digest(held.schema, map(_content, held.files)),)}
    files: dict[Partition, list[str]] = {key.place: [] for key in plan.asked.keys}
    for file in held.files:
        if file.partition in files:
            files[file.partition].append(_content(file))
    return {key.name: (files_digest(held.schema, files[key.place]),) for key in plan.asked.keys}


def _content(file: DataFile) -> str:
    """What stands for a file's rows: where its bytes were not seen, its name, which comes once."""
    return file.digest or file.path


def _both(where: Any, also: Any) -> Any:
    return where if also is None else also if where is None else where & also


def _refuse_delta_settings(plan: WritePlan) -> None:
    """Refuse what only Delta tables have, instead of leaving it out."""
    asked = {
        "partition_columns": plan.partition_columns,
        "constraints": plan.constraints,
    }
    found = [name for name, value in asked.items() if value]
    if found:
        raise TableError(f"{plan.where}: {', '.join(found)}: only Delta tables have that")


def _properties(plan: WritePlan) -> Mapping[str, str]:
    """What the table is to keep with it."""
    windows = {WINDOWS: plan.windows} if plan.windows else {}
    return {**plan.table_properties, **windows}


def _check_keys(where: str, scope: Scope | None, windows: str, snapshot: Snapshot | None) -> None:
    """Refuse keys of other dimensions or windows of time than those that the table's rows lie in.

    Raises
    ------
    PartitionError
    """
    if snapshot is None or scope is None:
        return
    check_layout(snapshot.partitions, [key.place for key in scope.keys], where)
    held = snapshot.properties.get(WINDOWS, windows)
    if windows and not are_same_windows(held, windows):
        raise PartitionError(
            f"{where}: the table's partitions are the windows {held!r}, but asked for are "
            f"{windows!r}, in which its rows would be missed or doubled; delete the table's folder "
            "and materialize the asset again, or give it another key"
        )


def _widened(frame: Any, table: Table, plan: WritePlan) -> Any:
    """The frame with all columns that the table will have; those it lacks are null."""
    schema = column_types(frame, tuple(frame.columns))
    whole = plan.mode == "overwrite" and plan.scope is None
    return as_schema(frame, table.schema_after(schema, whole=whole, schema_mode="merge"))


def _by_place(plan: WritePlan, data: Mapping[str, pa.Table]) -> dict[Partition, pa.Table]:
    assert plan.scope is not None
    return {key.place: data[key.name] for key in plan.scope.keys}


def _replaced(plan: WritePlan, before: Snapshot | None, commit: Commit) -> str:
    """What the write took away, in words; empty where there was nothing."""
    if before is None or not commit.files_removed:
        return ""
    gone = set(commit.files_removed)
    files = [file for file in before.files if file.path in gone]
    rows, size = sum(file.row_count for file in files), sum(file.bytes for file in files)
    what = f"{rows:,} rows, {size:,} bytes of version {before.version}"
    if plan.mode == "merge" or (plan.scope is None and len(files) < len(before.files)):
        return f"replaced {len(files)} of {len(before.files)} files, {what}"
    what = f"{len(files)} files, {what}"
    if plan.scope is None:
        return f"replaced the whole table: {what}"
    partitions = len({file.partition for file in files})
    return f"replaced {partitions} of {len(before.partitions)} partitions: {what}"
