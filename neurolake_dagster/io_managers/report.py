"""What a write did, and how Dagster is told.

Owns the metadata of a materialization and of each partition of a single run. All of it comes
from commits and footers.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import dagster as dg
import pyarrow as pa

from neurolake_dagster.io_managers.data_version import settle_data_version
from neurolake_dagster.io_managers.metadata import (
    digest_metadata,
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
    digests
        Of each partition asked for, by key, and under "" of an asset without any: what stands for
        the rows that it holds now, the best first.
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
    digests: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    spark: SparkWork | None = None
    is_by_spark: bool = False
    statistics: Sequence[ColumnStatistics] = ()

    def of_rows(self, digests: Mapping[str, str]) -> "Written":
        """The same, partitions replaced by rows with these digests, which tell them best."""
        known = {key: (found, *self.digests[key]) for key, found in digests.items()}
        return replace(self, digests={**self.digests, **known})

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
    if len(written.digests) == 1:
        found |= digest_metadata(next(iter(written.digests.values())))
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
    settle_data_version(context, written.digests)


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
    """Record rows and bytes of each partition of a single run on its own materialization.

    But for what the run itself tells of the partition under the same names. The step's own
    `add_asset_metadata` lists all partitions of the run, and copies what is known of them, for
    each.
    """
    if not context.has_asset_key:
        return
    step, asset_key = context.step_context, context.asset_key
    known = step._metadata_accumulator  # noqa: SLF001
    more: dict[Any, Mapping[str, Any]] = {}
    for key, (count, size) in written.by_partition.items():
        told = step.get_asset_metadata(asset_key, key) or {}
        numbers = zip(PER_PARTITION, (count, size), strict=True)
        found: dict[str, Any] = {
            name: one for name, one in numbers if one is not None and name not in told
        }
        found |= {**told, **digest_metadata(written.digests[key])}
        one = known.empty().with_additional_asset_metadata(asset_key, key, found)
        more |= one.per_output_metadata
    together = {**known.per_output_metadata, **more}
    step._metadata_accumulator = type(known)(per_output_metadata=together)  # noqa: SLF001
