"""What a version of a Delta table holds, by its log."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import pyarrow as pa
from deltalake import DeltaTable

from neurolake_dagster.tables.statistics import ColumnStatistics, statistics_of_actions


@dataclass(frozen=True, kw_only=True)
class DeltaSnapshot:
    """What one version of a Delta table holds, from its log alone.

    `row_count` is None where a file of the table was written without statistics.

    Parameters
    ----------
    files
        Its add actions, flat: columns ``path``, ``size_bytes``, ``num_records`` and
        ``partition.<name>``.
    hides_rows
        Whether deletion vectors may hide rows of files, which their paths do not tell.
    """

    version: int
    schema: pa.Schema
    row_count: int | None
    bytes: int
    file_count: int
    partition_columns: tuple[str, ...]
    statistics: tuple[ColumnStatistics, ...]
    properties: Mapping[str, str]
    files: pa.Table = field(repr=False)
    hides_rows: bool


def snapshot_of(table: DeltaTable) -> DeltaSnapshot:
    """The facts of the version that is open; no data file is read."""
    actions = pa.table(table.get_add_actions(flatten=True))
    records = actions["num_records"]
    schema, metadata = pa.schema(table.schema().to_arrow()), table.metadata()
    return DeltaSnapshot(
        version=table.version(),
        schema=schema,
        statistics=tuple(statistics_of_actions(actions, field) for field in schema),
        row_count=None if records.null_count else sum(records.to_pylist()),
        bytes=sum(actions["size_bytes"].to_pylist()),
        file_count=actions.num_rows,
        partition_columns=tuple(metadata.partition_columns),
        properties=dict(metadata.configuration),
        files=actions,
        hides_rows="deletionVectors" in (table.protocol().reader_features or ()),
    )
