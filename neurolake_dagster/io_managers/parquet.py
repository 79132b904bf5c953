"""Assets as Parquet: plain folders for everyone, committed atomically for us."""

from typing import Any

from neurolake_dagster.errors import PartitionError
from neurolake_dagster.io_managers.base import ReadPlan, WritePlan, Written
from neurolake_dagster.io_managers.proof import prove_files
from neurolake_dagster.io_managers.spark_rows import (
    NUMBER_COLUMN,
    STRAY,
    column_types,
    narrowed,
    with_key_numbers,
)
from neurolake_dagster.io_managers.table import TableIOManager
from neurolake_dagster.tables import Stage, Staged, Table
from neurolake_dagster.tables.formats import file_format
from neurolake_dagster.tables.snapshot import TableFormat


class ParquetIOManager(TableIOManager):
    """Keeps each asset as Parquet files below ``<root>/<asset key>``.

    Partitions lie in ``partition_key=<key>`` folders. DuckDB, Spark and pyarrow read the
    folder as it lies; former versions are not kept.
    """

    @property
    def _format(self) -> TableFormat:
        return "parquet"

    def _write_spark(self, plan: WritePlan, frame: Any) -> Written:
        if plan.mode == "merge":
            return self._write_arrow(plan, frame.toArrow())
        table = self._table(plan.path)
        done = table.done_before(plan.mode, plan.transaction)
        if done is not None:
            return self._written(plan, table, None, done)
        before = table.log.try_snapshot()
        with table.stage() as stage:
            staged = self._stage_spark(plan, stage, frame)
            if plan.scope is not None:
                folder = table.folder
                prove_files(plan.scope, staged.files, staged.schema, folder, file_format("parquet"))
            commit = table.commit(
                staged.files,
                schema=staged.schema,
                partitions=[] if plan.scope is None else [key.place for key in plan.scope.keys],
                mode=plan.mode,
                properties=plan.properties,
                transaction=plan.transaction,
            )
        return self._written(plan, table, before, commit)

    def _stage_spark(self, plan: WritePlan, stage: Stage, frame: Any) -> Staged:
        """Have Spark write the part files: one job, several partitions at once."""
        if plan.scope is None:
            _write_parquet(frame.write, stage.spark_uri)
            return stage.collect()
        plan.scope.require_columns(column_types(frame, tuple(frame.columns)), plan.where)
        if len(plan.scope.keys) == 1:
            _write_parquet(frame.write, stage.spark_uri)
            return stage.collect(partition=plan.scope.keys[0].place)
        numbered = with_key_numbers(frame, plan.scope)
        _write_parquet(numbered.write.partitionBy(NUMBER_COLUMN), stage.spark_uri)
        if stage.has_files(f"{NUMBER_COLUMN}={STRAY}"):
            raise PartitionError(
                f"{plan.where}: some rows belong to none of the run's partitions; "
                "nothing was changed"
            )
        folders = {key.place: f"{NUMBER_COLUMN}={i}" for i, key in enumerate(plan.scope.keys)}
        return stage.collect_partitions(folders)

    def _read_spark(self, plan: ReadPlan, session: Any) -> Any:
        table = self._table(plan.path)
        snapshot = table.snapshot(plan.version)
        files = snapshot.files_of(self._places(plan, snapshot))
        return narrowed(_read_parquet(table, session, [file.path for file in files]), plan)


def _write_parquet(writer: Any, uri: str) -> None:
    writer.option("compression", "zstd").mode("append").parquet(uri)


def _read_parquet(table: Table, session: Any, paths: list[str]) -> Any:
    if not paths:
        from neurolake_dagster.spark.types import spark_schema

        return session.createDataFrame([], spark_schema(table.snapshot().schema))
    return session.read.parquet(*[table.folder.spark_uri(path) for path in paths])
