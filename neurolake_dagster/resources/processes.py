"""Steps in processes of their own that start at once.

Owns the executor for runs whose steps share a warm Spark server: with a Spark session of their
own, each step's process would start a JVM.
"""

import atexit
import functools
import gc
from collections.abc import Mapping
from typing import Any

import dagster as dg

# Imported once, in a process that has no thread, session or channel yet; each step's process is
# forked from it.
PRELOADED = "neurolake_dagster.preload"


@functools.cache
def _end_at_once() -> None:
    """Spare this process a last search for garbage: over a second of each command.

    It runs no asset, only starts the processes that do.
    """
    atexit.register(gc.freeze)


def _preloading(config: Mapping[str, Any]) -> dict[str, Any]:
    _end_at_once()
    return {**config, "start_method": {"forkserver": {"preload_modules": [PRELOADED]}}}


step_processes = dg.multiprocess_executor.configured(
    _preloading,
    name="step_processes",
    config_schema={
        "max_concurrent": dg.Field(
            int, is_required=False, description="Steps at once; unset: one per core."
        )
    },
)
