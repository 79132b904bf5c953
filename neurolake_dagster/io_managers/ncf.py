"""Assets as NCF tables: versioned, smaller than Parquet, read by Spark too."""

from collections.abc import Sequence
from typing import Any

from neurolake_dagster.io_managers.plans import ReadPlan, WritePlan
from neurolake_dagster.io_managers.spark_rows import read_parts, stored_types, write_parts
from neurolake_dagster.io_managers.table import TableIOManager
from neurolake_dagster.tables import DataFile, Snapshot, Stage, Staged, Table
from neurolake_dagster.tables.snapshot import TableFormat


class NCFIOManager(TableIOManager):
    """Keeps each asset as an NCF table below ``<root>/<asset key>``, with all its versions."""

    @property
    def _format(self) -> TableFormat:
        return "ncf"

    def _stage_spark(self, plan: WritePlan, table: Table, stage: Stage, frame: Any) -> Staged:
        return write_parts(frame, table, stage, stored_types(frame), plan.scope)

    def _spark_frame(
        self,
        session: Any,
        table: Table,
        snapshot: Snapshot,
        files: Sequence[DataFile] | None,
        plan: ReadPlan,
    ) -> Any:
        return read_parts(session, table, snapshot, files, plan)
