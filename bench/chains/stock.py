"""The chain as one writes it with dagster_pyspark and a UPathIOManager for Parquet."""

import dagster as dg
from dagster_pyspark import PySparkResource
from pyspark.sql import DataFrame
from upath import UPath

from bench.chains.steps import best, clean, make_orders, sum_up


class ParquetManager(dg.ConfigurableIOManager, dg.UPathIOManager):
    extension: str = ".parquet"
    folder: str
    pyspark: dg.ResourceDependency[PySparkResource]

    @property
    def _base_path(self) -> UPath:
        return UPath(self.folder)

    def dump_to_path(self, context: dg.OutputContext, obj: DataFrame, path: UPath) -> None:  # noqa: ARG002
        obj.write.mode("overwrite").parquet(str(path))

    def load_from_path(self, context: dg.InputContext, path: UPath) -> DataFrame:  # noqa: ARG002
        return self.pyspark.spark_session.read.parquet(str(path))


@dg.asset
def orders(pyspark: PySparkResource) -> DataFrame:
    return make_orders(pyspark.spark_session)


@dg.asset
def valid(orders: DataFrame) -> DataFrame:
    return clean(orders)


@dg.asset
def days(valid: DataFrame) -> DataFrame:
    return sum_up(valid)


@dg.asset
def best_days(days: DataFrame) -> DataFrame:
    return best(days)


pyspark = PySparkResource(spark_config={})
assets = [orders, valid, days, best_days]
defs = dg.Definitions(
    assets=assets,
    jobs=[
        dg.define_asset_job("chain"),
        dg.define_asset_job("in_process", executor_def=dg.in_process_executor),
    ],
    resources={
        "pyspark": pyspark,
        "io_manager": ParquetManager(folder=dg.EnvVar("NEUROLAKE_STORAGE__ROOT"), pyspark=pyspark),
    },
)
