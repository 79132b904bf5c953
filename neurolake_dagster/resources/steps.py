"""What Spark does for the step that runs: from its first use of a session to its output.

Owns which step a session is used by. Counting is `neurolake_dagster.spark.work`'s.
"""

import threading
from typing import TYPE_CHECKING

import dagster as dg

from neurolake_dagster.spark import SparkWork, Watch

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


class _Watched(threading.local):
    """The step of this thread that was last watched."""

    step: str | None = None
    watch: Watch | None = None


_watched = _Watched()


def watch_step(session: "SparkSession") -> None:
    """Count what this thread does with a session for the step that runs, if one does."""
    step = _running_step()
    if step is None:
        return
    if _watched.watch is None or step != _watched.step:
        if _watched.watch is not None:
            _watched.watch.close()
        _watched.step, _watched.watch = step, Watch()
    _watched.watch.add(session)


def work_of_step() -> SparkWork | None:
    """What Spark did for the step that runs, since it began or since this was last asked.

    None if the step has not used Spark.
    """
    if _watched.watch is None or _running_step() != _watched.step:
        return None
    return _watched.watch.tell()


def _running_step() -> str | None:
    try:
        context = dg.OpExecutionContext.get()
    except dg.DagsterInvariantViolationError:
        return None
    return f"{context.run_id}/{context.op_handle}/{context.retry_number}"
