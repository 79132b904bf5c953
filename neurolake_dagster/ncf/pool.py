"""The one thread pool of the process. Owns the number of threads."""

import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from functools import lru_cache
from typing import TypeVar

Key = TypeVar("Key")
Result = TypeVar("Result")

# As a container limits it, not as the machine counts it.
THREADS = max(1, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1)


@lru_cache
def shared_pool(process: int) -> ThreadPoolExecutor:  # noqa: ARG001
    """Return the pool of this process; a forked child gets its own."""
    return ThreadPoolExecutor(THREADS, thread_name_prefix="ncf")


def pool() -> ThreadPoolExecutor:
    """Return the shared pool. Creating one per read would cost half a millisecond."""
    return shared_pool(os.getpid())


def run_all(tasks: Mapping[Key, Callable[[], Result]]) -> dict[Key, Result]:
    """Carry out tasks on the caller's thread and the pool's; the results by the tasks' keys.

    The caller takes part: were it to wait, each result would wake it, and each wake costs a
    worker its turn at the interpreter. After a failure no further task begins, and none runs on
    behind the caller's back.
    """
    results: dict[Key, Result] = {}
    left = iter(tasks.items())

    def work() -> None:
        try:
            for key, task in left:
                results[key] = task()
        except BaseException:
            for _ in left:
                pass
            raise

    helpers = [pool().submit(work) for _ in range(min(THREADS, len(tasks)) - 1)]
    try:
        work()
    finally:
        running = [helper for helper in helpers if not helper.cancel()]
        wait(running)
    for helper in running:
        helper.result()
    return {key: results[key] for key in tasks}
