"""Memory of a decode: the budget of one request and per-thread temporaries. Owns nothing else."""

import threading
from threading import Lock

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from neurolake_dagster.ncf.checks import Damage, NDArray

_local = threading.local()
# Larger temporaries are not kept: a thread would hold them for ever.
_MAX_KEPT_BYTES = 4 << 20
_LARGE_REQUEST_BYTES = 256 << 20


def scratch(count: int, dtype: npt.DTypeLike) -> NDArray:
    """Return an uninitialised temporary of this thread.

    It is valid until the same thread asks for the same dtype again: fresh pages cost ten times
    what recycled ones do.
    """
    kind = np.dtype(dtype)
    if count * kind.itemsize > _MAX_KEPT_BYTES:
        return np.empty(count, kind)
    kept: dict[str, NDArray] = _local.__dict__.setdefault("kept", {})
    array = kept.get(kind.str)
    if array is None or len(array) < count:
        array = kept[kind.str] = np.empty(max(count, 1 << 12), kind)
    return array[:count]


class Budget:
    """Bytes that decoding one request may still allocate. Thread-safe.

    Parameters
    ----------
    limit
        In bytes. Outputs are debited before they are allocated; temporaries are bounded by
        the rows of one page and not counted.
    expected
        Bytes that the request will take in all, as far as known.

    Attributes
    ----------
    pool
        Arrow's default pool, or for a large request the C library's: it hands freed memory out
        again where the other returns it to the kernel, and fresh pages are what such a read
        pays most for.
    """

    def __init__(self, limit: int, expected: int = 0) -> None:
        large = expected >= _LARGE_REQUEST_BYTES
        self.pool = pa.system_memory_pool() if large else pa.default_memory_pool()
        self._limit = limit
        self._left = limit
        self._lock = Lock()

    def debit(self, size: int) -> None:
        """Take ``size`` bytes off, or refuse."""
        with self._lock:
            self._left -= size
            left = self._left
        if left < 0:
            raise Damage(
                f"decoding needs more than {self._limit} bytes; if the file is trusted, "
                f"raise decode_limit_bytes"
            )

    def empty(self, count: int, dtype: npt.DTypeLike) -> NDArray:
        """Debit and return an uninitialised array of ``count`` items."""
        kind = np.dtype(dtype)
        self.debit(count * kind.itemsize)
        return np.empty(count, kind)
