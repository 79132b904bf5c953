"""What a write did, and how Dagster is told.

Owns the metadata of a materialization and of each partition of a single run, and the data
version. All of it comes from commits and footers.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import dagster as dg
import pyarrow as pa

from neurolake_dagster.io_managers.metadata import (
    partitions_metadata,
    spark_metadata,
    table_metadata,
)
from neurolake_dagster.io_managers.plans import WritePlan
from neurolake_dagster.resources import work_of_step
from neurolake_dagster.spark import SparkWork
from neurolake_dagster.tables.scope import Scope
from neurolake_dagster.tables.statistics import ColumnStatistics

# Metadata that differs between the partitions of a single run: rows and bytes of each.
PER_PARTITION = ("dagster/partition_row_count", "bytes")
WHOLE_TABLE = "of the whole table, all partitions"
# Of a materialization, as Dagster writes it.
DATA_VERSION_TAG = "dagster/data_version"
SHARED_BYTES = "by rows: files of this run hold rows of several partitions"


@dataclass(frozen=True, kw_only=True)
class Written:
    """What a write did, as its commit and footers tell.

    Parameters
    ----------
    row_count
        Of the whole table; None where the format does not tell.
    written_rows, bytes, files
        Of this write.
    data_version
        The same for the same rows; None where that is not known.
    unchanged_since
        The table's version that the write left as it was; None where it changed rows.
    statistics
        Of the whole table's columns, from the log.
    by_partition
        Rows and bytes of each partition written; None where that is not known without a read of
        all of it, or where files hold several.
    are_bytes_shares
        Whether files hold several partitions, and each got its rows' share of their bytes.
    spark
        What Spark did for it and for its step; None where it was not asked.
    is_by_spark
        Whether Spark wrote the rows.
    """

    uri: str
    version: int
    schema: pa.Schema
    row_count: int | None
    written_rows: int | None
    bytes: int
    files: int
    by_partition: Mapping[str, tuple[int | None, int | None]] = field(default_factory=dict)
    are_bytes_shares: bool = False
    preview: pa.Table | None = None
    replaced: str = ""
    metrics: Mapping[str, int] = field(default_factory=dict)
    data_version: str | None = None
    unchanged_since: int | None = None
    spark: SparkWork | None = None
    is_by_spark: bool = False
    statistics: Sequence[ColumnStatistics] = ()

    def beside(self, asked: Scope, kept: Scope) -> "Written":
        """The same, of all the partitions asked for: those that the mode did not keep got none."""
        found: dict[str, tuple[int | None, int | None]] = {key.name: (0, 0) for key in asked.keys}
        # Of a single partition, what was written is all that there is to tell.
        found |= self.by_partition or {kept.keys[0].name: (self.written_rows, self.bytes)}
        return replace(self, by_partition=found)


def describe_output(
    context: dg.OutputContext, plan: WritePlan, written: Written, seconds: float
) -> None:
    """Tell Dagster what a write did, but for what the run itself tells under the same names."""
    found = _described(plan, written, seconds)
    if len(written.by_partition) > 1:
        found |= partitions_metadata(
            [
                {"partition": key, "rows": count, "bytes": size}
                for key, (count, size) in written.by_partition.items()
            ]
        )
        _describe_partitions(context, written)
        # The whole run's numbers would hide each partition's own.
        found = {key: value for key, value in found.items() if key not in PER_PARTITION}
        if written.are_bytes_shares:
            found["bytes_told"] = dg.MetadataValue.text(SHARED_BYTES)
        if "preview" in found:
            of_run = f"of all {len(written.by_partition):,} partitions of the run"
            found["preview_told"] = dg.MetadataValue.text(of_run)
    told = context.output_metadata
    context.add_output_metadata({key: value for key, value in found.items() if key not in told})
    _set_data_version(context, written)


def _set_data_version(context: dg.OutputContext, written: Written) -> None:
    """Give the output its data version: the asset's own, the rows', or what it was before."""
    if not context.has_asset_key or context.step_context.has_data_version(context.asset_key):
        return
    version = written.data_version
    if version is None and written.unchanged_since is not None:
        version = _told_data_version(context, written.unchanged_since)
    if version is not None:
        context.step_context.set_data_version(context.asset_key, dg.DataVersion(version))


def _told_data_version(context: dg.OutputContext, version: int) -> str | None:
    """The data version of a version of the table; None where Dagster was not told of just that.

    A run that died after its commit told nothing: what it changed must not pass for known. Dagster
    has one data version for all partitions of a run, so theirs must be the same.
    """
    keys = context.asset_partition_keys if context.has_asset_partitions else [None]
    found = set()
    for key in keys:
        asked = dg.AssetRecordsFilter(
            asset_key=context.asset_key, asset_partitions=None if key is None else [key]
        )
        records = context.step_context.instance.fetch_materializations(asked, limit=1).records
        last = records[0].asset_materialization if records else None
        told = None if last is None else last.metadata.get("version")
        if last is None or told is None or told.value != version:
            return None
        found.add((last.tags or {}).get(DATA_VERSION_TAG))
    return found.pop() if len(found) == 1 else None


def _described(plan: WritePlan, written: Written, seconds: float) -> dict[str, Any]:
    """The metadata of one write."""
    found: dict[str, Any] = table_metadata(
        uri=written.uri,
        schema=written.schema,
        row_count=written.row_count,
        partition_row_count=None if plan.scope is None else written.written_rows,
        bytes=written.bytes,
        seconds=seconds,
        files=written.files,
        version=written.version,
        table_name=".".join(plan.path.split("/")),
        preview=written.preview,
        statistics=written.statistics,
        column_descriptions=plan.column_descriptions,
        pii_columns=plan.pii_columns,
    )
    found |= {name: dg.MetadataValue.int(count) for name, count in written.metrics.items()}
    if written.spark is not None:
        found |= spark_metadata(_with_output(written.spark, written))
    if plan.scope is not None and "statistics" in found:
        found["statistics_told"] = dg.MetadataValue.text(WHOLE_TABLE)
    if written.replaced:
        found["replaced"] = dg.MetadataValue.text(written.replaced)
    return found


def _with_output(work: SparkWork, written: Written) -> SparkWork:
    """The work with the rows that our own tasks wrote: Spark counts those of its formats only."""
    if not written.is_by_spark or not work.counts or work.counts["output_rows"]:
        return work
    output = {"output_rows": written.written_rows or 0, "output_bytes": written.bytes}
    return replace(work, counts={**work.counts, **output})


@contextmanager
def report_spark(
    context: dg.AssetExecutionContext, asset_key: dg.AssetKey | None = None
) -> Iterator[None]:
    """Tell on the materialization what Spark does in the block.

    For assets that no IO manager writes, which return None or a `dg.MaterializeResult`. IO
    managers of this package tell it by themselves, whatever the type of the output.

    Parameters
    ----------
    asset_key
        In an asset function of several assets, the one it is done for.
    """
    yield
    work = work_of_step()
    if work is not None:
        context.add_asset_metadata(spark_metadata(work), asset_key)


def _describe_partitions(context: dg.OutputContext, written: Written) -> None:
    """Record rows and bytes of each partition of a single run on its own materialization."""
    if not context.has_asset_key:
        return
    for key, (count, size) in written.by_partition.items():
        told = zip(PER_PARTITION, (count, size), strict=True)
        context.step_context.add_asset_metadata(
            {name: value for name, value in told if value is not None}, context.asset_key, key
        )
