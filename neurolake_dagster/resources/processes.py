"""Steps in processes of their own that start at once.

Owns the executor for runs whose steps share a warm Spark server: with a Spark session of their
own, each step's process would start a JVM.
"""

from collections.abc import Mapping
from typing import Any

import dagster as dg

# Imported once, in a process that has no thread, session or channel yet; each step's process is
# forked from it. By name: Dagster has no public way to these, and a name that it drops costs time,
# nothing else. The assets' own module is not among them: polars does not survive a fork.
PRELOADED = (
    "dagster._cli",
    "dagster._core.storage.base_storage",
    "dagster._core.storage.sqlite_storage",
    "dagster._core.storage.migration.utils",
    "upath.implementations.local",
    "watchdog.observers.polling",
    "grpc._channel",
    "neurolake_dagster.io_managers",
    "neurolake_dagster.spark.preload",
)


def _preloading(config: Mapping[str, Any]) -> dict[str, Any]:
    return {**config, "start_method": {"forkserver": {"preload_modules": list(PRELOADED)}}}


step_processes = dg.multiprocess_executor.configured(
    _preloading,
    name="step_processes",
    config_schema={
        "max_concurrent": dg.Field(
            int, is_required=False, description="Steps at once; unset: one per core."
        )
    },
)
