"""The one `Definitions`: wiring only.

Every value comes from the environment (see `.env.example`); nothing is started here.
"""

import dagster as dg

from neurolake_dagster.assets import asset_checks, assets
from neurolake_dagster.automation import (
    convert_flights,
    convert_flights_daily,
    every_morning,
    new_source_file,
    prove_conversions,
)
from neurolake_dagster.io_managers import DeltaIOManager, NCFIOManager, ParquetIOManager
from neurolake_dagster.resources import (
    SourceResource,
    SparkResource,
    StorageResource,
    step_processes,
)

storage = StorageResource()
spark = SparkResource()

defs = dg.Definitions(
    assets=assets,
    asset_checks=asset_checks,
    jobs=[convert_flights, convert_flights_daily, prove_conversions],
    schedules=[every_morning],
    sensors=[new_source_file],
    resources={
        "storage": storage,
        "spark": spark,
        "sources": SourceResource(),
        "ncf_io_manager": NCFIOManager(storage=storage, spark=spark),
        "parquet_io_manager": ParquetIOManager(storage=storage, spark=spark),
        "delta_io_manager": DeltaIOManager(storage=storage, spark=spark),
    },
    # A process for each step where they share a server's JVM, else they would start one each.
    executor=step_processes if spark.settings().remote else dg.in_process_executor,
)
