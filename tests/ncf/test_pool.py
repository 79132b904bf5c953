"""Work on the caller's thread and the pool's: order, failures, nothing left behind."""

import threading
import time
from functools import partial

import pytest

from neurolake_dagster.ncf.pool import THREADS, pool, run_all


def test_results_come_by_key_in_order() -> None:
    assert list(run_all({i: partial(pow, i, 2) for i in range(50)}).items()) == [
        (i, i * i) for i in range(50)
    ]
    assert run_all({}) == {}


@pytest.mark.skipif(THREADS < 2, reason="one core")
def test_the_caller_and_the_pool_both_work() -> None:
    together = threading.Barrier(2)
    names = run_all({i: lambda: (together.wait(10), threading.current_thread())[1] for i in (1, 2)})
    assert threading.current_thread() in names.values()
    assert len(set(names.values())) == 2


@pytest.mark.parametrize("culprit", ["caller", "other"])
def test_after_a_failure_nothing_begins_or_runs_on(culprit: str) -> None:
    caller = threading.current_thread()
    ended: list[float] = []

    def task() -> None:
        time.sleep(0.01)
        if (threading.current_thread() is caller) == (culprit == "caller" or THREADS == 1):
            raise ValueError("boom")
        time.sleep(0.05)
        ended.append(time.monotonic())

    with pytest.raises(ValueError, match="boom"):
        run_all(dict.fromkeys(range(100), task))
    returned = time.monotonic()
    assert len(ended) < 5
    time.sleep(0.1)
    assert all(moment <= returned for moment in ended)


def test_a_task_may_run_tasks_while_the_pool_is_full() -> None:
    """A reader on a thread of the pool must not wait for a thread of the pool."""
    inner = partial(run_all, {i: partial(pow, i, 2) for i in range(4)})
    jobs = [pool().submit(inner) for _ in range(4 * THREADS)]
    assert all(job.result(timeout=20) == {0: 0, 1: 1, 2: 4, 3: 9} for job in jobs)
