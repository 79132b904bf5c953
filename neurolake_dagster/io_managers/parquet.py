"""Assets as Parquet: plain folders for everyone, committed atomically for us."""

import re
from collections.abc import Sequence
from typing import Any

from neurolake_dagster.errors import PartitionError
from neurolake_dagster.io_managers.plans import ReadPlan, WritePlan
from neurolake_dagster.io_managers.proof import prove_files
from neurolake_dagster.io_managers.spark_rows import (
    NUMBER_COLUMN,
    STRAY,
    told_of_types,
    with_key_numbers,
)
from neurolake_dagster.io_managers.table import TableIOManager
from neurolake_dagster.tables import DataFile, Snapshot, Stage, Staged, Table
from neurolake_dagster.tables.scope import Scope
from neurolake_dagster.tables.snapshot import TableFormat

# What Spark reads as a pattern; the storage's root may have it in a name.
_GLOB = re.compile(r"[*?\[\]{}\\]")


class ParquetIOManager(TableIOManager):
    """Keeps each asset as Parquet files below ``<root>/<asset key>``.

    Partitions lie in ``partition_key=<key>`` folders. DuckDB, Spark and pyarrow read the
    folder as it lies; former versions are not kept.
    """

    @property
    def _format(self) -> TableFormat:
        return "parquet"

    def _stage_spark(self, plan: WritePlan, table: Table, stage: Stage, frame: Any) -> Staged:
        self._require_reach(frame.sparkSession)
        with told_of_types(plan.where):
            if plan.scope is None:
                _write_parquet(frame.write, stage.spark_uri)
                return stage.collect()
            staged = _stage_partitions(plan.where, plan.scope, stage, frame)
        prove_files(plan.scope, staged.files, staged.schema, table.folder, table.files_format)
        return staged

    def _spark_frame(
        self,
        session: Any,
        table: Table,
        snapshot: Snapshot,
        files: Sequence[DataFile] | None,
        plan: ReadPlan,  # noqa: ARG002 - Spark itself pushes into Parquet what is asked of it
    ) -> Any:
        chosen = snapshot.files if files is None else files
        paths = (table.folder.spark_uri(file.path) for file in chosen)
        return session.read.parquet(*[_GLOB.sub(r"\\\g<0>", path) for path in paths])


def _stage_partitions(where: str, scope: Scope, stage: Stage, frame: Any) -> Staged:
    """Have Spark write the part files of several partitions in one job."""
    if len(scope.keys) == 1:
        _write_parquet(frame.write, stage.spark_uri)
        return stage.collect(partition=scope.keys[0].place)
    numbered = with_key_numbers(frame, scope)
    _write_parquet(numbered.write.partitionBy(NUMBER_COLUMN), stage.spark_uri)
    if stage.has_files(f"{NUMBER_COLUMN}={STRAY}"):
        raise PartitionError(
            f"{where}: some rows belong to none of the run's partitions; nothing was changed"
        )
    folders = {key.place: f"{NUMBER_COLUMN}={i}" for i, key in enumerate(scope.keys)}
    return stage.collect_partitions(folders)


def _write_parquet(writer: Any, uri: str) -> None:
    writer.option("compression", "zstd").mode("append").parquet(uri)
