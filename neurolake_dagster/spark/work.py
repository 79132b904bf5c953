"""What Spark did for a piece of work: jobs, stages, tasks, shuffle, spill, rows and bytes.

Owns telling a thread's jobs from others, by a tag, and asking Spark for them: the status store
of this process's JVM, with its UI or without; of the warm server the REST API of its UI. No job
is run for it.
"""

import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from neurolake_dagster.errors import SparkError
from neurolake_dagster.spark.server import find_server
from neurolake_dagster.spark.status import StatusAPI

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

LISTENERS_TIMEOUT_MS = 10_000
# Numbers reach the API a moment after their job's end reaches the client.
SETTLE_S, SETTLED_BY_S = 0.05, 5.0
# Field of ours -> field of Spark's StageData, summed over stages.
SUMS = {
    "tasks": "numTasks",
    "failed_tasks": "numFailedTasks",
    "shuffle_read_bytes": "shuffleReadBytes",
    "shuffle_write_bytes": "shuffleWriteBytes",
    "spilled_memory_bytes": "memoryBytesSpilled",
    "spilled_disk_bytes": "diskBytesSpilled",
    "input_rows": "inputRecords",
    "input_bytes": "inputBytes",
    "output_rows": "outputRecords",
    "output_bytes": "outputBytes",
}
UNKNOWN_SERVER = "Spark runs behind a Connect endpoint of somebody else, whose UI is not known here"
UI_OFF = "the warm server runs without a UI; NEUROLAKE_SPARK__UI_ENABLED=true gives it one"
STOPPED = "the session was stopped before it could be asked"
FORGOTTEN = (
    "Spark keeps numbers of its last jobs and stages only; spark.ui.retainedJobs and "
    "spark.ui.retainedStages in extra_configs let it keep more"
)


@dataclass(frozen=True, kw_only=True)
class SparkWork:
    """What Spark did; sizes in bytes. Counts are those of tasks that finished.

    Parameters
    ----------
    ui_url
        None where the UI is off or not known.
    counts
        ``jobs``, ``stages`` and the fields of `SUMS`. What was spilled is told as its size in
        memory and its size on disk. ``input_bytes`` of NCF are those of the chunks that tasks
        read, before pages are left out; of a file below 8 MiB those of the file.
    missing
        Why there are no counts; empty where there are.
    """

    application_id: str
    version: str
    ui_url: str | None = None
    counts: Mapping[str, int] = field(default_factory=dict)
    missing: str = ""


class Watch:
    """Watches the jobs that this thread starts with some sessions, until it is closed.

    Sessions of one JVM or server are told together; those of another Spark are not.
    """

    def __init__(self) -> None:
        self._tag = _new_tag()
        self._sessions: list[SparkSession] = []
        self._work = SparkWork(application_id="", version="")

    def add(self, session: "SparkSession") -> None:
        """Watch a session too."""
        if any(one is session for one in self._sessions):
            return
        if not self._sessions:
            # Asked now: a session that is stopped meanwhile tells nothing any more.
            application = session.conf.get("spark.app.id", "") or ""
            self._work = SparkWork(application_id=application, version=session.version)
        self._sessions.append(session)
        _set_tag(session, self._tag)

    def tell(self) -> SparkWork | None:
        """What the jobs did since it began, or since this was last asked, and watch on.

        None if no session was watched.
        """
        if not self._sessions:
            return None
        tag = self._tag
        self.close()
        self._tag = _new_tag()
        for session in self._sessions:
            _set_tag(session, self._tag)
        first = self._sessions[0]
        if not _is_classic(first):
            return _told_by_server(self._work, tag, first.client.token)
        if _is_stopped(first):
            return replace(self._work, missing=STOPPED)
        told = replace(self._work, ui_url=first.sparkContext.uiWebUrl)
        try:
            return replace(told, counts=_counts_of_jvm(first.sparkContext, tag))
        except SparkError as error:
            return replace(told, missing=str(error))

    def close(self) -> None:
        """Watch no longer."""
        for session in self._sessions:
            _set_tag(session, self._tag, is_on=False)


class Measured:
    """Filled when its block ends."""

    work: SparkWork | None = None


@contextmanager
def measured(session: "SparkSession") -> Iterator[Measured]:
    """Measure the jobs that this thread starts inside the block."""
    found, watch = Measured(), Watch()
    watch.add(session)
    try:
        yield found
    finally:
        found.work = watch.tell()
        watch.close()


def _new_tag() -> str:
    return f"neurolake-{uuid.uuid4().hex}"


def _set_tag(session: "SparkSession", tag: str, *, is_on: bool = True) -> None:
    """Tag the jobs that this thread starts with a session, or no longer."""
    if not _is_classic(session):
        (session.addTag if is_on else session.removeTag)(tag)
    elif not _is_stopped(session):
        context = session.sparkContext
        (context.addJobTag if is_on else context.removeJobTag)(tag)


def _is_classic(session: "SparkSession") -> bool:
    return hasattr(session, "_jsc")


def _is_stopped(session: "SparkSession") -> bool:
    return session.sparkContext._jsc is None  # noqa: SLF001  # pyspark has no public way


def _counts_of_jvm(context: Any, tag: str) -> dict[str, int]:
    """The sums of the tagged jobs by the JVM's status store.

    Raises
    ------
    SparkError
        If it does not have all of them, or not in time.
    """
    from py4j.protocol import Py4JJavaError

    scala = context._jsc.sc()  # noqa: SLF001  # pyspark shows no status store
    gateway = context._gateway  # noqa: SLF001  # pyspark has no public way
    try:
        # The last task's numbers arrive after its job is done.
        scala.listenerBus().waitUntilEmpty(LISTENERS_TIMEOUT_MS)
        store = scala.statusStore()
        every = _items(store.jobsList(None))
        jobs = [job for job in every if job.jobTags().contains(tag)]
        _check_kept({job.jobId() for job in every}, {job.jobId() for job in jobs})
        numbers = {number for job in jobs for number in _items(job.stageIds())}
        bare = (
            False,
            gateway.jvm.java.util.ArrayList(),
            False,
            gateway.new_array(gateway.jvm.double, 0),
        )
        attempts = [_items(store.stageData(number, *bare)) for number in sorted(numbers)]
    except Py4JJavaError as exc:
        raise SparkError(str(exc.java_exception.toString())) from exc
    if not all(attempts):
        raise SparkError(FORGOTTEN)
    ran = [[one for one in each if one.status().toString() != "SKIPPED"] for each in attempts]
    return _sums(len(jobs), ran, lambda stage, name: int(getattr(stage, name)()))


def _check_kept(kept: set[int], tagged: set[int]) -> None:
    """Refuse numbers of jobs that may be some only: Spark forgets the first ones first.

    Parameters
    ----------
    kept
        The numbers of all jobs that Spark still knows.
    """
    if tagged and not kept.issuperset(range(max(min(tagged) - 1, 0), max(tagged))):
        raise SparkError(FORGOTTEN)


def _items(sequence: Any) -> list[Any]:
    """A Scala sequence as a list."""
    return [sequence.apply(index) for index in range(sequence.size())]


def _sums(jobs: int, ran: list[list[Any]], value: Callable[[Any, str], int]) -> dict[str, int]:
    """The counts of some jobs.

    Parameters
    ----------
    ran
        Of each stage the attempts: where an executor is lost, Spark does a part again. One that
        was skipped did nothing and has none.
    """
    each = [attempt for attempts in ran for attempt in attempts]
    sums = {name: sum(value(one, spark) for one in each) for name, spark in SUMS.items()}
    return {"jobs": jobs, "stages": sum(map(bool, ran)), **sums}


def _told_by_server(work: SparkWork, tag: str, token: str | None) -> SparkWork:
    """The work as the warm server tells it, if it is the one that the client's token is of."""
    server = find_server()
    if server is None or server.token != token:
        return replace(work, missing=UNKNOWN_SERVER)
    if server.ui_url is None:
        return replace(work, missing=UI_OFF)
    try:
        with StatusAPI(server.ui_url) as api:
            counts = _settled_counts(api, work.application_id, tag)
    except SparkError as error:
        return replace(work, ui_url=server.ui_url, missing=str(error))
    return replace(work, ui_url=server.ui_url, counts=counts)


def _settled_counts(api: StatusAPI, application: str, tag: str) -> dict[str, int]:
    """The sums of the tagged jobs, once all have ended and a second look finds the same."""
    until = time.monotonic() + SETTLED_BY_S
    counts, has_ended = _look(api, application, tag)
    while time.monotonic() < until:
        time.sleep(SETTLE_S)
        before = counts
        counts, has_ended = _look(api, application, tag)
        if has_ended and counts == before:
            break
    return counts


def _look(api: StatusAPI, application: str, tag: str) -> tuple[dict[str, int], bool]:
    """The sums as they are now, and whether all jobs have ended.

    Raises
    ------
    SparkError
        If the UI does not answer, or has not all of them any more.
    """
    # The server's tags hold the client's.
    every = api.get(application, "jobs")
    jobs = [job for job in every if any(tag in one for one in job["jobTags"])]
    _check_kept({job["jobId"] for job in every}, {job["jobId"] for job in jobs})
    numbers = {number for job in jobs for number in job["stageIds"]}
    attempts = [
        api.get(application, f"stages/{number}?details=false") for number in sorted(numbers)
    ]
    ran = [[one for one in each if one["status"] != "SKIPPED"] for each in attempts]
    counts = _sums(len(jobs), ran, lambda stage, name: int(stage[name]))
    return counts, all(job["status"] != "RUNNING" for job in jobs)
