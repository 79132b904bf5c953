"""Analytics on Spark DataFrames: delays by carrier, origin and month.

Owns the query and its assets. Inputs and outputs are Spark DataFrames that the IO managers
read from NCF and write to Delta and Parquet.
"""

import dagster as dg
from pyspark.sql import DataFrame, functions as sf

from neurolake_dagster.assets.conversions import OWNERS
from neurolake_dagster.assets.lineage import ColumnLineage, identity_lineage
from neurolake_dagster.io_managers.metadata import lineage_metadata

FLIGHTS = dg.AssetKey(["ncf", "flights"])
AIRLINES = dg.AssetKey(["ncf", "airlines"])
WEATHER = dg.AssetKey(["ncf", "weather"])
DELAYS = dg.AssetKey(["delta", "delays"])
DELAYS_EXPORT = dg.AssetKey(["parquet", "delays"])
LATE_MINUTES = 15

DESCRIPTIONS = {
    "carrier": "Two-letter carrier code",
    "airline": "Full name of the carrier",
    "origin": "Departure airport",
    "month": "Month of departure, 1 to 12",
    "flights": "Scheduled flights",
    "cancelled": "Flights that never departed",
    "mean_dep_delay": "Mean departure delay in minutes",
    "mean_arr_delay": "Mean arrival delay in minutes",
    "late_share": f"Share of departed flights over {LATE_MINUTES} minutes late, 0 to 1",
    "mean_wind_speed": "Mean wind speed at departure in miles per hour",
    "mean_visib": "Mean visibility at departure in miles",
}

LINEAGE: ColumnLineage = {
    "carrier": [(FLIGHTS, "carrier")],
    "airline": [(AIRLINES, "name"), (AIRLINES, "carrier"), (FLIGHTS, "carrier")],
    "origin": [(FLIGHTS, "origin")],
    "month": [(FLIGHTS, "month")],
    "flights": [(FLIGHTS, "flight")],
    "cancelled": [(FLIGHTS, "dep_time")],
    "mean_dep_delay": [(FLIGHTS, "dep_delay")],
    "mean_arr_delay": [(FLIGHTS, "arr_delay")],
    "late_share": [(FLIGHTS, "dep_delay")],
    "mean_wind_speed": [(WEATHER, "wind_speed"), (WEATHER, "origin"), (WEATHER, "time_hour")],
    "mean_visib": [(WEATHER, "visib"), (WEATHER, "origin"), (WEATHER, "time_hour")],
}


def delays_by_carrier(flights: DataFrame, airlines: DataFrame, weather: DataFrame) -> DataFrame:
    """Aggregate flights to one row per carrier, origin and month.

    Airlines and weather are joined from the left: a flight without either still counts.
    """
    conditions = weather.select("origin", "time_hour", "wind_speed", "visib")
    names = airlines.select("carrier", sf.col("name").alias("airline"))
    is_late = (sf.col("dep_delay") > LATE_MINUTES).cast("double")
    return (
        flights.join(conditions, ["origin", "time_hour"], "left")
        .join(sf.broadcast(names), "carrier", "left")
        .groupBy("carrier", "airline", "origin", "month")
        .agg(
            sf.count("flight").alias("flights"),
            sf.count_if(sf.col("dep_time").isNull()).alias("cancelled"),
            sf.round(sf.avg("dep_delay"), 2).alias("mean_dep_delay"),
            sf.round(sf.avg("arr_delay"), 2).alias("mean_arr_delay"),
            sf.round(sf.avg(is_late), 4).alias("late_share"),
            sf.round(sf.avg("wind_speed"), 2).alias("mean_wind_speed"),
            sf.round(sf.avg("visib"), 2).alias("mean_visib"),
        )
    )


@dg.asset(
    key=DELAYS,
    ins={
        "flights": dg.AssetIn(key=FLIGHTS),
        "airlines": dg.AssetIn(key=AIRLINES),
        "weather": dg.AssetIn(key=WEATHER),
    },
    io_manager_key="delta_io_manager",
    kinds={"pyspark", "deltalake"},
    group_name="analytics",
    owners=OWNERS,
    metadata={"column_descriptions": DESCRIPTIONS, **lineage_metadata(LINEAGE)},
)
def delays(flights: DataFrame, airlines: DataFrame, weather: DataFrame) -> DataFrame:
    """**Delays by carrier, origin and month**, with the weather at departure.

    | column | meaning |
    |---|---|
    | `late_share` | departed over 15 minutes late |
    | `cancelled` | never departed |
    """
    return delays_by_carrier(flights, airlines, weather)


@dg.asset(
    key=DELAYS_EXPORT,
    ins={"delays": dg.AssetIn(key=DELAYS)},
    io_manager_key="parquet_io_manager",
    kinds={"pyspark", "parquet"},
    group_name="analytics",
    owners=OWNERS,
    metadata={
        "column_descriptions": DESCRIPTIONS,
        **lineage_metadata(identity_lineage(list(LINEAGE), DELAYS)),
    },
)
def delays_export(delays: DataFrame) -> DataFrame:
    """The rows of `delta/delays`, **ordered**, as plain Parquet for tools without Delta."""
    return delays.orderBy("carrier", "origin", "month").coalesce(1)
