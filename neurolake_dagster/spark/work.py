"""What Spark did for a piece of work: stages, tasks, shuffle, spill, rows and bytes.

Owns asking Spark's own status store, which every application keeps, with the UI or without. No
job is run for it.
"""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

LISTENERS_TIMEOUT_MS = 10_000
# Field of ours -> method of Spark's StageData, summed over stages.
SUMS = {
    "tasks": "numTasks",
    "failed_tasks": "numFailedTasks",
    "shuffle_read_bytes": "shuffleReadBytes",
    "shuffle_write_bytes": "shuffleWriteBytes",
    "spilled_bytes": "diskBytesSpilled",
    "input_rows": "inputRecords",
    "input_bytes": "inputBytes",
    "output_rows": "outputRecords",
    "output_bytes": "outputBytes",
}


@dataclass(frozen=True, kw_only=True)
class SparkWork:
    """What Spark did; sizes in bytes. Counts are those of tasks that finished.

    Parameters
    ----------
    ui_url
        None where the UI is off.
    counts
        ``jobs``, ``stages`` and the fields of `SUMS`; empty over Spark Connect, which does not
        tell them.
    """

    application_id: str
    version: str
    ui_url: str | None
    counts: dict[str, int]


class Measured:
    """Filled when its block ends."""

    work: SparkWork | None = None


@contextmanager
def measured(session: "SparkSession") -> Iterator[Measured]:
    """Measure the jobs that this thread starts inside the block."""
    found = Measured()
    if not hasattr(session, "_jsc"):
        yield found
        found.work = SparkWork(
            application_id=session.conf.get("spark.app.id", "") or "",
            version=session.version,
            ui_url=None,
            counts={},
        )
        return
    context = session.sparkContext
    tag = f"neurolake-{uuid.uuid4().hex}"
    context.addJobTag(tag)
    try:
        yield found
    finally:
        context.removeJobTag(tag)
    found.work = SparkWork(
        application_id=context.applicationId,
        version=session.version,
        ui_url=context.uiWebUrl,
        counts=_counts(context, tag),
    )


def _counts(context: Any, tag: str) -> dict[str, int]:
    """Sum up the stages of the tagged jobs; a stage that was skipped did nothing."""
    scala = context._jsc.sc()  # noqa: SLF001  # pyspark shows no status store
    # The last task's numbers arrive after its job is done.
    scala.listenerBus().waitUntilEmpty(LISTENERS_TIMEOUT_MS)
    store = scala.statusStore()
    jobs = [job for job in _items(store.jobsList(None)) if job.jobTags().contains(tag)]
    numbers = {number for job in jobs for number in _items(job.stageIds())}
    stages = [store.lastStageAttempt(number) for number in sorted(numbers)]
    ran = [stage for stage in stages if stage.status().toString() != "SKIPPED"]
    sums = {name: sum(int(getattr(one, method)()) for one in ran) for name, method in SUMS.items()}
    return {"jobs": len(jobs), "stages": len(ran), **sums}


def _items(sequence: Any) -> list[Any]:
    """A Scala sequence as a list."""
    return [sequence.apply(index) for index in range(sequence.size())]
