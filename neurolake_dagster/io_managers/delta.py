"""Assets as Delta tables: Spark DataFrames through delta-spark, Arrow through deltalake.

Owns the replacement of partitions by predicate. A partition of a Delta asset is the rows for
which `partition_expr` falls into the key; rows that do not are refused before the commit.
"""

import json
import random
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import dagster as dg
import pyarrow as pa

from neurolake_dagster.errors import (
    CommitConflictError,
    PartitionError,
    SchemaMismatchError,
)
from neurolake_dagster.io_managers.base import LakehouseIOManager
from neurolake_dagster.io_managers.paths import dataset_path
from neurolake_dagster.io_managers.plans import ReadPlan, WritePlan
from neurolake_dagster.io_managers.report import Written
from neurolake_dagster.io_managers.spark_rows import column_types
from neurolake_dagster.tables.changes import check_merge_source
from neurolake_dagster.tables.delta import DeltaDataset
from neurolake_dagster.tables.delta_commit import MARK, DeltaCommit
from neurolake_dagster.tables.scope import Scope, Window

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
        dataset = self._dataset(plan.path)
        rows = _in_one(data, plan)
        exists, mark = dataset.exists(), _mark(plan)
        if plan.mode == "merge" and exists:
            return self._merge(dataset, plan, rows, mark)
        options: dict[str, Any] = {
            "mode": "append" if plan.mode == "merge" else plan.mode,
            "transaction": plan.transaction,
            "properties": {**plan.properties, MARK: mark},
        }
        if plan.scope is not None:
            _require_columns(plan, rows.schema)
            if not exists:
                options["partition_by"] = _physical(plan.scope, rows.schema)
            if plan.mode == "overwrite":
                options["where"] = plan.scope.predicate(rows.schema)
        elif plan.mode == "overwrite":
            options["schema_mode"] = "overwrite"
        checked = _Checked(rows, plan)
        for attempt in range(ATTEMPTS):
            try:
                dataset.write(checked.rows, **options)
                break
            except CommitConflictError:
                if isinstance(rows, pa.RecordBatchReader) or attempt == ATTEMPTS - 1:
                    raise
                time.sleep(random.uniform(0, BACKOFF_S * (attempt + 1)))  # noqa: S311
        return replace(_written(dataset, plan, mark), by_partition=checked.by_partition())

    def _merge(
        self,
        dataset: DeltaDataset,
        plan: WritePlan,
        rows: pa.Table | pa.RecordBatchReader,
        mark: str,
    ) -> Written:
        source = rows if isinstance(rows, pa.Table) else rows.read_all()
        where = None
        if plan.scope is not None:
            _require_columns(plan, source.schema)
            _Checked(source, plan)
            where = plan.scope.predicate(source.schema, "target")
        check_merge_source(source, plan.merge_keys, dataset.uri)
        metrics = dataset.merge(
            source,
            plan.merge_keys,
            where=where,
            properties={**plan.properties, MARK: mark},
            transaction=plan.transaction,
        )
        found = replace(_written(dataset, plan, mark), metrics=metrics)
        if not metrics:
            return found
        return replace(found, written_rows=metrics["rows_inserted"] + metrics["rows_updated"])

    def _write_spark(self, plan: WritePlan, frame: Any) -> Written:
        if plan.mode == "merge":
            return self._write_arrow(plan, frame.toArrow())
        dataset = self._dataset(plan.path)
        exists, mark = dataset.exists(), _mark(plan)
        mode = {"error": "errorifexists"}.get(plan.mode, plan.mode)
        writer = frame.write.format("delta").mode(mode)
        writer = writer.option("userMetadata", json.dumps({**plan.properties, MARK: mark}))
        if plan.transaction is not None:
            writer = writer.option("txnAppId", plan.transaction).option("txnVersion", 1)
        if plan.scope is not None:
            schema = column_types(frame, tuple(frame.columns))
            _require_columns(plan, schema)
            if not exists:
                writer = writer.partitionBy(*_physical(plan.scope, schema))
            if plan.mode == "overwrite":
                writer = writer.option("replaceWhere", plan.scope.predicate(schema))
        elif plan.mode == "overwrite":
            writer = writer.option("overwriteSchema", "true")
        with told_by_spark(plan.where):
            writer.save(dataset.spark_uri)
        return _written(dataset, plan, mark)

    def _read_arrow(self, plan: ReadPlan) -> pa.RecordBatchReader:
        dataset = self._dataset(plan.path)
        return dataset.scan(columns=plan.columns, where=_where(plan, dataset), version=plan.version)

    def _read_spark(self, plan: ReadPlan, session: Any) -> Any:
        dataset = self._dataset(plan.path)
        where = _where(plan, dataset)
        reader = session.read.format("delta")
        if plan.version is not None:
            reader = reader.option("versionAsOf", dataset.snapshot(plan.version).version)
        frame = reader.load(dataset.spark_uri)
        if where is not None:
            frame = frame.where(where)
        return frame if plan.columns is None else frame.select(*plan.columns)

    def _has_partition(self, plan: ReadPlan) -> bool:
        dataset = self._dataset(plan.path)
        if not dataset.exists():
            return False
        return any(batch.num_rows for batch in dataset.scan(where=_where(plan, dataset)))


@contextmanager
def told_by_spark(where: str) -> Iterator[None]:
    """Translate what delta-spark says about rows and schemas."""
    from pyspark.errors import AnalysisException, PySparkException

    try:
        yield
    except PySparkException as exc:
        text = str(exc).splitlines()[0]
        if "REPLACE_WHERE_MISMATCH" in str(exc):
            raise PartitionError(
                f"{where}: rows of none of the asked partitions; nothing was changed ({text})"
            ) from exc
        if isinstance(exc, AnalysisException) and "mismatch" in text:
            raise SchemaMismatchError(f"{where}: the rows do not fit the table: {text}") from exc
        raise


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
        if not isinstance(member, Window) or pa.types.is_date(schema.field(column).type)
    ]
    # A file holds the other columns: there must be one.
    return found if len(found) < len(schema) else []


def _in_one(
    data: pa.Table | pa.RecordBatchReader | Mapping[str, pa.Table], plan: WritePlan
) -> pa.Table | pa.RecordBatchReader:
    """Rows by partition as one table, each value proven to be of its key."""
    if not isinstance(data, Mapping):
        return data
    assert plan.scope is not None
    for one in plan.scope.single():
        for batch in data[one.keys[0].name].to_batches():
            one.check(batch)
    return pa.concat_tables(data.values(), promote_options="permissive")


class _Checked:
    """Rows that are proven to be of the asked partitions, and how many are of each.

    Parameters
    ----------
    rows
        A table is checked at once, a reader while it streams by.
    """

    def __init__(self, rows: pa.Table | pa.RecordBatchReader, plan: WritePlan) -> None:
        self.counts: dict[str, int] = {}
        self.rows = rows
        self._scope = plan.scope
        if plan.scope is None:
            return
        self.counts = {key.name: 0 for key in plan.scope.keys}
        if isinstance(rows, pa.Table):
            for batch in rows.to_batches():
                self._count(batch)
        else:
            self.rows = pa.RecordBatchReader.from_batches(rows.schema, map(self._count, rows))

    def by_partition(self) -> dict[str, tuple[int, int | None]]:
        """Rows of each partition; a Delta file may hold several, so no bytes."""
        return {key: (count, None) for key, count in self.counts.items()}

    def _count(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        assert self._scope is not None
        for key, count in self._scope.check(batch).items():
            self.counts[key] += count
        return batch


def _where(plan: ReadPlan, dataset: DeltaDataset) -> str | None:
    """The rows of the asked partitions that the input's own predicate keeps."""
    tests = []
    if plan.scope is not None:
        schema = dataset.snapshot(plan.version).schema
        if not plan.scope.columns:
            raise PartitionError(
                f"{plan.name}: the asset's metadata has no partition_expr to find its partitions by"
            )
        plan.scope.require_columns(schema, plan.name)
        tests.append(plan.scope.predicate(schema))
    if plan.where is not None:
        tests.append(plan.where.sql())
    return " AND ".join(f"({test})" for test in tests) or None


def _mark(plan: WritePlan) -> str:
    """What tells this write's commit from those of others that race with it."""
    return plan.transaction or uuid.uuid4().hex


def _written(dataset: DeltaDataset, plan: WritePlan, mark: str) -> Written:
    """What the write's commit says of itself; no Spark job and no data file is opened."""
    commit = dataset.commit(mark)
    if commit is None:  # mode "ignore" wrote nothing, or the log was cleaned up since
        newest = dataset.open().version()
        commit = DeltaCommit(version=newest, written_rows=0, added={}, removed={})
    snapshot = dataset.snapshot(commit.version)
    replaced = ""
    if commit.removed:
        before = snapshot.file_count - len(commit.added) + len(commit.removed)
        size = sum(commit.removed.values())
        replaced = f"replaced {len(commit.removed)} of {before} files, {size:,} bytes"
    return Written(
        uri=dataset.uri,
        version=snapshot.version,
        schema=snapshot.schema,
        row_count=snapshot.row_count,
        written_rows=commit.written_rows if plan.scope is not None else snapshot.row_count,
        bytes=sum(commit.added.values()),
        files=len(commit.added),
        replaced=replaced,
    )
