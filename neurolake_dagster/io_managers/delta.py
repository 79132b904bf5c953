"""Assets as Delta tables: Spark DataFrames through delta-spark, Arrow through deltalake.

Owns the replacement of partitions by predicate. A partition of a Delta asset is the rows for
which `partition_expr` falls into the key; rows that do not are refused before the commit.
"""

import random
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import dagster as dg
import pyarrow as pa

from neurolake_dagster.errors import (
    CommitConflictError,
    PartitionError,
    SchemaMismatchError,
)
from neurolake_dagster.io_managers.base import LakehouseIOManager, ReadPlan, WritePlan, Written
from neurolake_dagster.io_managers.paths import dataset_path
from neurolake_dagster.io_managers.spark_rows import column_types
from neurolake_dagster.tables.delta import DeltaDataset
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
        before = dataset.paths()
        options: dict[str, Any] = {
            "mode": plan.mode,
            "transaction": plan.transaction,
            "properties": dict(plan.properties),
        }
        if plan.scope is not None:
            _require_columns(plan, rows.schema)
            if not before:
                options["partition_by"] = _physical(plan.scope, rows.schema)
            if plan.mode == "overwrite":
                options["where"] = plan.scope.predicate(rows.schema)
        elif plan.mode == "overwrite":
            options["schema_mode"] = "overwrite"
        for attempt in range(ATTEMPTS):
            try:
                dataset.write(_checked(rows, plan), **options)
                break
            except CommitConflictError:
                if isinstance(rows, pa.RecordBatchReader) or attempt == ATTEMPTS - 1:
                    raise
                time.sleep(random.uniform(0, BACKOFF_S * (attempt + 1)))  # noqa: S311
        return _written(dataset, plan, before)

    def _write_spark(self, plan: WritePlan, frame: Any) -> Written:
        dataset = self._dataset(plan.path)
        before = dataset.paths()
        mode = {"error": "errorifexists"}.get(plan.mode, plan.mode)
        writer = frame.write.format("delta").mode(mode)
        if plan.transaction is not None:
            writer = writer.option("txnAppId", plan.transaction).option("txnVersion", 1)
        if plan.scope is not None:
            schema = column_types(frame, tuple(frame.columns))
            _require_columns(plan, schema)
            if not before:
                writer = writer.partitionBy(*_physical(plan.scope, schema))
            if plan.mode == "overwrite":
                writer = writer.option("replaceWhere", plan.scope.predicate(schema))
        elif plan.mode == "overwrite":
            writer = writer.option("overwriteSchema", "true")
        with told_by_spark(plan.where):
            writer.save(dataset.spark_uri)
        return _written(dataset, plan, before)

    def _read_arrow(self, plan: ReadPlan) -> pa.RecordBatchReader:
        dataset = self._dataset(plan.path)
        return dataset.scan(columns=plan.columns, where=_where(plan, dataset))

    def _read_spark(self, plan: ReadPlan, session: Any) -> Any:
        dataset = self._dataset(plan.path)
        where = _where(plan, dataset)
        frame = session.read.format("delta").load(dataset.spark_uri)
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


def _checked(
    rows: pa.Table | pa.RecordBatchReader, plan: WritePlan
) -> pa.Table | pa.RecordBatchReader:
    """Rows that are proven to be of the asked partitions: at once, or while they stream by."""
    scope = plan.scope
    if scope is None:
        return rows
    if isinstance(rows, pa.Table):
        for batch in rows.to_batches():
            scope.check(batch)
        return rows
    return pa.RecordBatchReader.from_batches(rows.schema, (scope.check(batch) for batch in rows))


def _where(plan: ReadPlan, dataset: DeltaDataset) -> str | None:
    if plan.scope is None:
        return None
    schema = dataset.snapshot().schema
    if not plan.scope.columns:
        raise PartitionError(
            f"{plan.where}: the asset's metadata has no partition_expr to find its partitions by"
        )
    plan.scope.require_columns(schema, plan.where)
    return plan.scope.predicate(schema)


def _written(dataset: DeltaDataset, plan: WritePlan, before: Mapping[str, int]) -> Written:
    """What the newest commit says of itself; no Spark job and no data file is opened."""
    snapshot, files = dataset.snapshot(), dataset.paths()
    added = {path: size for path, size in files.items() if path not in before}
    removed = [path for path in before if path not in files]
    replaced = ""
    if removed:
        size = sum(before[path] for path in removed)
        replaced = f"replaced {len(removed)} of {len(before)} files, {size:,} bytes"
    return Written(
        uri=dataset.uri,
        version=snapshot.version,
        schema=snapshot.schema,
        row_count=snapshot.row_count,
        written_rows=dataset.rows_written() if plan.scope is not None else snapshot.row_count,
        bytes=sum(added.values()),
        files=len(added),
        replaced=replaced,
    )
