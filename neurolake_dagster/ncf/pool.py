"""The one thread pool of the process. Owns the number of threads."""

import os
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

# As a container limits it, not as the machine counts it.
THREADS = max(1, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1)


@lru_cache
def shared_pool(process: int) -> ThreadPoolExecutor:  # noqa: ARG001
    """Return the pool of this process; a forked child gets its own."""
    return ThreadPoolExecutor(THREADS, thread_name_prefix="ncf")


def pool() -> ThreadPoolExecutor:
    """Return the shared pool. Creating one per read would cost half a millisecond."""
    return shared_pool(os.getpid())
