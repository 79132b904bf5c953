"""The sample of a chunk and what it says: stratified contiguous runs, sizes, distinct values."""

import numpy as np

from neurolake_dagster.ncf.checks import NDArray
from neurolake_dagster.ncf.compression import Profile, compressed_size
from neurolake_dagster.ncf.encodings.packing import bits_for, encode_packed

RUNS = 8
# One ns per value of decode time is worth this many bytes per value.
BYTES_PER_NS = 0.012
_FEW = 256


def sample_ranges(count: int, length: int = 1024) -> list[tuple[int, int]]:
    """Return (start, length) of the sampled runs: deterministic, all rows when there are few.

    Runs, not single rows: otherwise deltas, runs and repeats stay invisible.
    """
    length = min(length, max(256, count // 128))
    if count <= RUNS * length:
        return [(0, count)]
    step = count // RUNS
    return [(i * step + (i * 7919) % (step - length + 1), length) for i in range(RUNS)]


def sample_runs(values: NDArray, mask: NDArray | None) -> list[NDArray]:
    """Return the sampled runs, nulls filled with a valid neighbour."""
    found = []
    for start, length in sample_ranges(len(values)):
        run = values[start : start + length]
        if mask is not None:
            valid = mask[start : start + length]
            if not valid.any():
                continue
            run = fill_nulls(run, valid)
        found.append(run)
    return found or [values[:0]]


def fill_nulls(values: NDArray, mask: NDArray) -> NDArray:
    """Return a copy whose null slots hold the first valid value."""
    return np.where(mask, values, values[int(np.argmax(mask))])


def estimate_distinct(distinct: int, singletons: int, sampled: int, count: int) -> float:
    """Estimate the distinct values of a chunk: GEE, drifting to linear for mostly singletons."""
    exponent = 0.5 + 0.5 * singletons / sampled
    return distinct - singletons + singletons * float((count / sampled) ** exponent)


def may_repeat(sample: NDArray) -> bool:
    """Whether a look at a few hundred values lets a dictionary seem possible: cheap."""
    few = sample[:: max(1, len(sample) // _FEW)]
    return len(few) < _FEW or 4 * len(np.unique(few)) <= 3 * len(few)


def planes_size(residual: NDArray, maximum: int, profile: Profile) -> tuple[int, frozenset[int]]:
    """Return the bytes that uint64 residuals take as planes, and which planes stay raw."""
    total, raw = 0, set()
    used = (maximum.bit_length() + 7) // 8
    for at in range(used):
        plane = (residual >> np.uint64(8 * at)).astype(np.uint8)
        bits = bits_for(maximum >> (8 * at)) if at == used - 1 else 8
        packed = encode_packed(plane, bits)
        size = compressed_size(packed) if profile.plane_level else packed.nbytes
        if size > profile.raw_share * packed.nbytes:
            raw.add(at)
            size = packed.nbytes
        total += size
    return total, frozenset(raw)
