"""What both chains compute: 500,000 orders, cleaned, summed up by day, and the best days."""

from pyspark.sql import DataFrame, SparkSession, functions as sf

ROWS = 500_000


def make_orders(spark: SparkSession) -> DataFrame:
    number = sf.col("id")
    return spark.range(ROWS).select(
        number.alias("order"),
        (number % 9973).alias("customer"),
        sf.date_add(sf.lit("2024-01-01"), (number % 365).cast("int")).alias("day"),
        ((number * 7919) % 100_000 / 100).alias("total"),
    )


def clean(orders: DataFrame) -> DataFrame:
    return orders.where("total > 1").dropDuplicates(["order"])


def sum_up(orders: DataFrame) -> DataFrame:
    return orders.groupBy("day").agg(
        sf.sum("total").alias("total"), sf.countDistinct("customer").alias("customers")
    )


def best(days: DataFrame) -> DataFrame:
    return days.orderBy(sf.desc("total")).limit(10)
