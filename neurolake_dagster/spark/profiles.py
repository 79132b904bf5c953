"""Profiles: what options are that nobody set, by where Spark runs.

Owns the values. ``cluster`` is the settings' own defaults, so it has none here.
"""

import os

import psutil

from neurolake_dagster.settings import SparkSettings
from neurolake_dagster.settings.spark import REMOTES

GIB = 1 << 30
# Executors of 4 cores, up to 50 of them: 200 cores, and 2.5 shuffle partitions a core.
PRODUCTION: dict[str, object] = {
    "executor_memory": "16g",
    "executor_memory_overhead": "2g",
    "driver_memory": "8g",
    "driver_memory_overhead": "1g",
    "driver_cores": 4,
    "driver_max_result_size": "4g",
    "dynamic_allocation_min_executors": 2,
    "dynamic_allocation_initial_executors": 10,
    "dynamic_allocation_max_executors": 50,
    "shuffle_partitions": 500,
    "s3_ssl_enabled": True,
    "event_log_enabled": True,
}


def profile_values(settings: SparkSettings) -> dict[str, object]:
    """The values of the settings' profile, by option; they hold where an option is not set."""
    name = settings.profile
    if name is None:
        # A warm server is a Spark of this machine.
        local = settings.remote in (None, *REMOTES) and settings.master.startswith("local")
        name = "local" if local else "cluster"
    if name == "production":
        return PRODUCTION
    return _local_values(settings.master) if name == "local" else {}


def _local_values(master: str) -> dict[str, object]:
    """What fits this machine.

    A quarter of the memory (1 to 4 GiB) and one shuffle partition per core. Spark's default of
    200 partitions makes small local jobs 2 to 10 times slower.
    """
    memory = psutil.virtual_memory().total // 4
    heap = min(max(memory, GIB), 4 * GIB) // (1 << 20)
    return {
        "driver_memory": f"{heap}m",
        "driver_max_result_size": "1g",
        "shuffle_partitions": max(2, _local_cores(master)),
        "dynamic_allocation_enabled": False,
        "speculation_enabled": False,
        "sql_autoBroadcastJoinThreshold": "32mb",
    }


def _local_cores(master: str) -> int:
    """Threads of a local master: ``local[4]`` is 4, ``local[*]`` is every core."""
    inner = master.removeprefix("local").strip("[]").split(",")[0]
    if inner == "*":
        return os.cpu_count() or 1
    return int(inner) if inner.isdigit() else 1
