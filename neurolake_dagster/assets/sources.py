"""The source assets: CSV files become Parquet tables with proper types.

Owns the assets; `neurolake_dagster.assets.nycflights` owns what the tables mean.
"""

import dagster as dg
import pyarrow as pa

from neurolake_dagster.assets.conversions import OWNERS
from neurolake_dagster.assets.nycflights import TABLES, SourceTable, read_source, source_directory
from neurolake_dagster.resources import SourceResource


def build_source(table: SourceTable) -> dg.AssetsDefinition:
    """Build the asset ``["parquet", NAME]`` that reads one source table's CSV file."""

    @dg.asset(
        key=["parquet", table.name],
        io_manager_key="parquet_io_manager",
        kinds={"parquet", "csv"},
        group_name="sources",
        owners=OWNERS,
        description=f"{table.description}\n\nSource: the R package `nycflights13`, as CSV.",
    )
    def source(sources: SourceResource) -> pa.Table:
        return read_source(table, source_directory(sources.path))

    return source


source_assets = [build_source(table) for table in TABLES]
