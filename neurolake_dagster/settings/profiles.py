"""Profiles: what options are that nobody set, by where Spark runs.

Owns the values. ``cluster`` is the settings' own defaults, so it has none here.
"""

import os
from collections.abc import Mapping
from typing import Any, Literal

import psutil

Profile = Literal["local", "cluster", "production"]
GIB = 1 << 30
EXECUTORS = (
    "dynamic_allocation_min_executors",
    "dynamic_allocation_initial_executors",
    "dynamic_allocation_max_executors",
)
# The settings' own defaults of these; a test compares them.
CLUSTER = dict(zip(EXECUTORS, (1, 2, 10), strict=True))
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


def unset_values(profile: Profile, master: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """What options are that are not given, where that is not their own default.

    The profile's values; and the fewest and the first executors, which give way to the given
    ones beside them.
    """
    own = {"local": _local_values(master), "production": PRODUCTION}.get(profile, {})
    low, first, high = ({**CLUSTER, **own, **given}[name] for name in EXECUTORS)
    low = low if EXECUTORS[0] in given else min(low, high)
    fitted = {EXECUTORS[0]: low, EXECUTORS[1]: min(max(first, low), high)}
    changed = {n: value for n, value in fitted.items() if n in own or value != CLUSTER[n]}
    found = {**own, **changed}
    return {name: value for name, value in found.items() if name not in given}


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
