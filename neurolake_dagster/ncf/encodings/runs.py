"""Runs of equal values: node ``[4, run_count, lengths, values]``, two integer nodes.

Lengths are at least 1 and add up to the rows.
"""

from typing import NamedTuple

import numpy as np

from neurolake_dagster.ncf.checks import Damage, NDArray, need_int

CODE = 4
# Fewer rows per run than this, and the runs cost more than they save.
MIN_ROWS_PER_RUN = 2


class Runs(NamedTuple):
    """Decoded runs: lengths (int64), where they end (int32), and a value of each."""

    lengths: NDArray
    ends: NDArray
    values: NDArray


def encode_runs(values: NDArray) -> tuple[NDArray, NDArray] | None:
    """Return the lengths and values of the runs; None when there are too many."""
    changed = values[1:] != values[:-1]
    if (int(np.count_nonzero(changed)) + 1) * MIN_ROWS_PER_RUN > len(values):
        return None
    bounds = np.concatenate([[0], np.flatnonzero(changed) + 1, [len(values)]])
    return bounds[1:] - bounds[:-1], values[bounds[:-1]]


def decode_run_count(value: object, count: int) -> int:
    """Return the checked number of runs in ``count`` rows."""
    return need_int(value, 1 if count else 0, count, "run count")


def decode_run_ends(lengths: NDArray, count: int) -> NDArray:
    """Return the run ends, int32, of int64 ``lengths`` that must fill ``count`` rows."""
    if len(lengths) and (int(lengths.min()) < 1 or int(lengths.max()) > count):
        raise Damage(f"runs: a length lies outside 1..{count}")
    ends = np.cumsum(lengths)
    if (int(ends[-1]) if len(ends) else 0) != count:
        raise Damage(f"runs: lengths add up to {int(ends[-1])}, expected {count} rows")
    return ends.astype(np.int32)
