"""Assets as NCF tables: versioned, smaller than Parquet, read by Spark too."""

from typing import Any

from neurolake_dagster.io_managers.base import ReadPlan, WritePlan, Written
from neurolake_dagster.io_managers.spark_rows import column_types, read_parts, write_parts
from neurolake_dagster.io_managers.table import TableIOManager
from neurolake_dagster.tables.snapshot import TableFormat


class NCFIOManager(TableIOManager):
    """Keeps each asset as an NCF table below ``<root>/<asset key>``, with all its versions."""

    @property
    def _format(self) -> TableFormat:
        return "ncf"

    def _write_spark(self, plan: WritePlan, frame: Any) -> Written:
        if plan.mode == "merge":
            return self._write_arrow(plan, frame.toArrow())
        table = self._table(plan.path)
        done = table.done_before(plan.mode, plan.transaction)
        if done is not None:
            return self._written(plan, table, None, done)
        before = table.log.try_snapshot()
        schema = column_types(frame, tuple(frame.columns))
        if plan.scope is not None:
            plan.scope.require_columns(schema, plan.where)
        with table.stage() as stage:
            staged = write_parts(frame, table, stage, schema, plan.scope)
            commit = table.commit(
                staged.files,
                schema=staged.schema,
                partitions=[] if plan.scope is None else [key.place for key in plan.scope.keys],
                mode=plan.mode,
                properties=plan.properties,
                transaction=plan.transaction,
            )
        return self._written(plan, table, before, commit)

    def _read_spark(self, plan: ReadPlan, session: Any) -> Any:
        table = self._table(plan.path)
        snapshot = table.snapshot(plan.version)
        places = self._places(plan, snapshot)
        files = None if places is None else snapshot.files_of(places)
        return read_parts(session, table, plan, files)
