"""Flights by day: the daily-partitioned asset.

Owns the partitions and the asset. One run takes one day or, as a single run, a range of days.
"""

import warnings

import dagster as dg
import polars as pl

from neurolake_dagster.assets.analytics import FLIGHTS
from neurolake_dagster.assets.conversions import OWNERS
from neurolake_dagster.assets.lineage import ColumnLineage, identity_lineage
from neurolake_dagster.assets.nycflights import TABLES
from neurolake_dagster.io_managers.metadata import lineage_metadata

# Single-run ranges are in beta since 2023; saying so at every command helps nobody.
warnings.filterwarnings("ignore", message="Parameter `backfill_policy`", category=dg.BetaWarning)

(_SOURCE,) = (table for table in TABLES if table.name == "flights")
DESCRIPTIONS = {**_SOURCE.column_descriptions, "flight_date": "Day of departure, local"}
LINEAGE: ColumnLineage = {
    **identity_lineage(_SOURCE.schema.names, FLIGHTS),
    "flight_date": [(FLIGHTS, "year"), (FLIGHTS, "month"), (FLIGHTS, "day")],
}

days_of_2013 = dg.DailyPartitionsDefinition(start_date="2013-01-01", end_date="2014-01-01")


@dg.asset(
    key=["ncf", "flights_daily"],
    ins={"flights": dg.AssetIn(key=FLIGHTS)},
    partitions_def=days_of_2013,
    backfill_policy=dg.BackfillPolicy.single_run(),
    io_manager_key="ncf_io_manager",
    kinds={"polars", "ncf"},
    group_name="daily",
    owners=OWNERS,
    metadata={
        "partition_expr": "flight_date",
        "column_descriptions": DESCRIPTIONS,
        **lineage_metadata(LINEAGE),
    },
)
def flights_daily(context: dg.AssetExecutionContext, flights: pl.DataFrame) -> pl.DataFrame:
    """**Flights by day** of departure, one partition per day of 2013."""
    window = context.partition_time_window
    flight_date = pl.date("year", "month", "day").alias("flight_date")
    in_window = pl.col("flight_date").is_between(
        window.start.date(), window.end.date(), closed="left"
    )
    return flights.with_columns(flight_date).filter(in_window)
