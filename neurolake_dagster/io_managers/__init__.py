"""IO managers: assets to tables and back, for NCF, Parquet and Delta.

The front of the room. All three take and give Spark, Arrow, pandas and polars values, write
partitions in one commit and describe each output under Dagster's own metadata keys.
"""

from neurolake_dagster.io_managers.delta import DeltaIOManager
from neurolake_dagster.io_managers.lake import LakeIOManager
from neurolake_dagster.io_managers.ncf import NCFIOManager
from neurolake_dagster.io_managers.parquet import ParquetIOManager
from neurolake_dagster.io_managers.paths import dataset_path
from neurolake_dagster.io_managers.report import report_spark

__all__ = [
    "DeltaIOManager",
    "LakeIOManager",
    "NCFIOManager",
    "ParquetIOManager",
    "dataset_path",
    "report_spark",
]
