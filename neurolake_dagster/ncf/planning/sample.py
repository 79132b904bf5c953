"""The sample of a chunk and what it says: stratified contiguous runs, sizes, distinct values."""

from dataclasses import dataclass

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


@dataclass(frozen=True)
class Sample:
    """Sampled rows, run after run.

    Parameters
    ----------
    values
        All runs, one after the other.
    joints
        Where each run but the first begins: neighbours across it are none.
    """

    values: NDArray
    joints: NDArray

    def differences(self, order: int) -> NDArray:
        """Return the differences of neighbours, or of those again; none across a joint."""
        found = np.diff(self.values)
        if order == 2:
            found = np.diff(found)
        if not len(self.joints):
            return found
        kept = np.ones(len(found), bool)
        for back in range(1, order + 1):
            kept[self.joints[(self.joints >= back) & (self.joints - back < len(kept))] - back] = (
                False
            )
        return found[kept]

    def keep(self, values: NDArray, mask: NDArray) -> "Sample":
        """Return those of other ``values``, as many as these, that ``mask`` keeps."""
        if mask.all():
            return Sample(values, self.joints)
        before = np.cumsum(mask)
        return Sample(values[mask], before[self.joints - 1])


NO_JOINTS = np.zeros(0, np.int64)


def sample_runs(values: NDArray, mask: NDArray | None) -> Sample:
    """Return the sampled runs, nulls filled with a valid value as the encoder does."""
    ranges = sample_ranges(len(values))
    if len(ranges) == 1:
        return Sample(values if mask is None else fill_nulls(values, mask), NO_JOINTS)
    length = ranges[0][1]
    found = np.concatenate([values[at : at + length] for at, _ in ranges])
    if mask is not None:
        valid = np.concatenate([mask[at : at + length] for at, _ in ranges])
        if not valid.any():
            return Sample(found[:0], NO_JOINTS)
        found = fill_nulls(found, valid)
    return Sample(found, np.arange(length, len(found), length))


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
