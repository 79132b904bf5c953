"""Dagster resources: where tables lie, how Spark is reached, where sources come from.

The front of the room. Every field that is not set comes from the environment, see
`neurolake_dagster.settings`.
"""

from neurolake_dagster.resources.processes import step_processes
from neurolake_dagster.resources.sources import SourceResource
from neurolake_dagster.resources.spark import SparkResource
from neurolake_dagster.resources.steps import watch_step, work_of_step
from neurolake_dagster.resources.storage import StorageResource

__all__ = [
    "SourceResource",
    "SparkResource",
    "StorageResource",
    "step_processes",
    "watch_step",
    "work_of_step",
]
