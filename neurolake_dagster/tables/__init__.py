"""Tables: a folder of part files and a log of numbered snapshots, committed atomically.

Owns what a version is and how it comes about, for the file formats NCF and Parquet. Delta
keeps its own log; its Arrow side is `neurolake_dagster.tables.delta`.
"""

from neurolake_dagster.tables.change import Commit
from neurolake_dagster.tables.changes import delete_rows, merge_rows
from neurolake_dagster.tables.evolution import evolve_schema, set_properties
from neurolake_dagster.tables.maintenance import (
    RETENTION,
    VacuumReport,
    optimize,
    restore,
    vacuum,
)
from neurolake_dagster.tables.partitions import Partition, partition_folder
from neurolake_dagster.tables.parts import PartFiles
from neurolake_dagster.tables.search import FoundTable, find_table, search_tables
from neurolake_dagster.tables.snapshot import DataFile, Snapshot
from neurolake_dagster.tables.stage import Stage, Staged
from neurolake_dagster.tables.statistics import ColumnStatistics, column_statistics
from neurolake_dagster.tables.table import Table

__all__ = [
    "RETENTION",
    "ColumnStatistics",
    "Commit",
    "DataFile",
    "FoundTable",
    "PartFiles",
    "Partition",
    "Snapshot",
    "Stage",
    "Staged",
    "Table",
    "VacuumReport",
    "column_statistics",
    "delete_rows",
    "evolve_schema",
    "find_table",
    "merge_rows",
    "optimize",
    "partition_folder",
    "restore",
    "search_tables",
    "set_properties",
    "vacuum",
]
