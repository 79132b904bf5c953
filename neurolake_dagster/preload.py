"""What a process imports that step processes are forked from; named to Dagster's executor.

Owns the imports that are made late elsewhere. None of them starts a thread that does not
survive a fork, a session or a channel; polars does, so the assets' own module is not among them.
"""

import gc
import importlib
from contextlib import suppress

# Nothing of this is ever garbage: looking for some takes a fifth of the time.
gc.disable()

# By name: Dagster has no public way to these, and a name that it drops costs time, nothing else.
NAMES = (
    "dagster._cli",
    "dagster._core.storage.base_storage",
    "dagster._core.storage.sqlite_storage",
    "dagster._core.storage.migration.utils",
    "upath.implementations.local",
    "watchdog.observers.polling",
    "grpc._channel",
    "pyspark.sql.functions",
    "neurolake_dagster.io_managers",
    "neurolake_dagster.spark.datasource",
)

for _name in NAMES:
    with suppress(ImportError):
        importlib.import_module(_name)

from neurolake_dagster.spark.client import import_client  # noqa: E402

import_client()
# Neither the steps nor the end of the process look at it again.
gc.freeze()
gc.enable()
