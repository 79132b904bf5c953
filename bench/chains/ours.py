"""The chain with this package: the same steps, on the warm server where one runs."""

import dagster as dg
from pyspark.sql import DataFrame

from bench.chains.steps import best, clean, make_orders, sum_up
from neurolake_dagster.io_managers import ParquetIOManager
from neurolake_dagster.resources import SparkResource, StorageResource, step_processes


@dg.asset
def orders(spark: SparkResource) -> DataFrame:
    return make_orders(spark.spark_session)


@dg.asset
def valid(orders: DataFrame) -> DataFrame:
    return clean(orders)


@dg.asset
def days(valid: DataFrame) -> DataFrame:
    return sum_up(valid)


@dg.asset
def best_days(days: DataFrame) -> DataFrame:
    return best(days)


spark = SparkResource(remote="auto")
assets = [orders, valid, days, best_days]
defs = dg.Definitions(
    assets=assets,
    executor=step_processes,
    jobs=[
        dg.define_asset_job("chain"),
        dg.define_asset_job("in_process", executor_def=dg.in_process_executor),
    ],
    resources={
        "spark": spark,
        "io_manager": ParquetIOManager(storage=StorageResource(), spark=spark),
    },
)
