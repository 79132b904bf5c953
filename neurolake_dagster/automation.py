"""Jobs, the schedule and the sensor that start the conversions.

Owns what runs when; the assets own what is done.
"""

import json
import time
from pathlib import Path

import dagster as dg

from neurolake_dagster.assets import asset_checks
from neurolake_dagster.assets.daily import flights_daily
from neurolake_dagster.assets.nycflights import TABLES, source_directory
from neurolake_dagster.resources import SourceResource

# A file younger than this may still be being copied into the folder.
SETTLED_S = 5.0

convert_flights = dg.define_asset_job(
    "convert_flights",
    selection=dg.AssetSelection.groups("sources", "conversions", "analytics"),
    description="All flights, end to end: CSV -> Parquet -> NCF -> Delta -> Parquet, each step "
    "proven equal, and the delays on Spark.",
)

convert_flights_daily = dg.define_asset_job(
    "convert_flights_daily",
    selection=dg.AssetSelection.assets(flights_daily),
    description="Flights by day: `dg launch --job convert_flights_daily --partition 2013-01-01`.",
)

prove_conversions = dg.define_asset_job(
    "prove_conversions",
    selection=dg.AssetSelection.checks_for_assets(
        *(check.asset_key for proof in asset_checks for check in proof.check_specs)
    ),
    description="The proofs of all conversions again, on the tables as they are; moves no rows.",
)

every_morning = dg.ScheduleDefinition(
    name="every_morning",
    job=convert_flights,
    cron_schedule="0 6 * * *",
    execution_timezone="UTC",
    description="Converts all flights at 06:00 UTC. Off until switched on.",
)


def source_files(directory: Path) -> dict[str, str]:
    """The source files in a folder: name -> size and modification time.

    Files that changed within the last `SETTLED_S` seconds are left out.
    """
    found = {}
    names = [f"{table.name}{suffix}" for table in TABLES for suffix in (".csv", ".csv.zip")]
    for path in (directory / name for name in sorted(names)):
        if path.is_file():
            status = path.stat()
            if time.time() - status.st_mtime >= SETTLED_S:
                found[path.name] = f"{status.st_size}-{status.st_mtime_ns}"
    return found


@dg.sensor(
    job=convert_flights,
    minimum_interval_seconds=30,
    description="Starts `convert_flights` when a source file arrives or changes in the folder "
    "`NEUROLAKE_SOURCES__DIR`. Off until switched on.",
)
def new_source_file(
    context: dg.SensorEvaluationContext, sources: SourceResource
) -> dg.SensorResult | dg.SkipReason:
    """Compare the folder with the cursor; ask for one run for all that is new."""
    directory = source_directory(sources.path)
    cursor = json.loads(context.cursor) if context.cursor else {}
    known: dict[str, str] = cursor.get("files", {})
    files = source_files(directory)
    new = sorted(name for name, state in files.items() if known.get(name) != state)
    if not new:
        return dg.SkipReason(f"no new source file in {directory}")
    # Dagster drops a key that it knows, but a file that is put back is news again.
    count: int = cursor.get("requests", 0)
    run_key = ",".join([str(count), *(f"{name}:{files[name]}" for name in new)])
    request = dg.RunRequest(run_key=run_key, tags={"neurolake/source_files": ",".join(new)})
    done = {"requests": count + 1, "files": known | files}
    return dg.SensorResult(run_requests=[request], cursor=json.dumps(done))
