"""Tables: a folder of part files and a log of numbered snapshots, committed atomically.

Owns what a version is and how it comes about, for the file formats NCF and Parquet. Delta
keeps its own log; its Arrow side is `neurolake_dagster.tables.delta`.
"""

from neurolake_dagster.tables.commit import Commit
from neurolake_dagster.tables.partitions import Partition, partition_folder
from neurolake_dagster.tables.parts import PartFiles
from neurolake_dagster.tables.snapshot import DataFile, Snapshot
from neurolake_dagster.tables.stage import Stage, Staged
from neurolake_dagster.tables.table import Table

__all__ = [
    "Commit",
    "DataFile",
    "PartFiles",
    "Partition",
    "Snapshot",
    "Stage",
    "Staged",
    "Table",
    "partition_folder",
]
