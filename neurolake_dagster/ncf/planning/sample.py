"""The sample of a chunk and what it says: stratified contiguous runs, sizes, distinct values.

A call of the codec costs 20 us before it has seen a byte. So the planes of a small sample, that
of a chunk of at most 65,536 rows, are not compressed: their entropy and their changes, two passes
of numpy, say nearly the same. Only a plane that seems to be noise is tried, for the repeats of
longer words that neither can see.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from neurolake_dagster.ncf.checks import NDArray
from neurolake_dagster.ncf.compression import Profile, compressed_size
from neurolake_dagster.ncf.encodings.packing import bits_for, encode_packed, packed_bytes

RUNS = 8
# One ns per value of decode time is worth this many bytes per value.
BYTES_PER_NS = 0.012
_FEW = 256
# Samples up to this many values are weighed, larger ones compressed.
_MAX_WEIGHED = 4096
# What a change of value costs at most, in bytes: a literal and a match.
_CHANGE_BYTES = 3
# x * log2(x) / 8 of a count x.
_LOGS = np.arange(_MAX_WEIGHED + 1) * np.log2(np.maximum(np.arange(_MAX_WEIGHED + 1), 1)) / 8


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
    run_rows
        The length of each run where all are equally long, else 0.
    """

    values: NDArray
    joints: NDArray
    run_rows: int = 0

    def differences(self, order: int) -> NDArray:
        """Return the differences of neighbours, or of those again; none across a joint."""
        if self.run_rows > order:
            runs = self.values.reshape(-1, self.run_rows)
            for _ in range(order):
                runs = runs[:, 1:] - runs[:, :-1]
            return runs.ravel()
        found = np.diff(self.values, order)
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
            return Sample(values, self.joints, self.run_rows)
        kept, joints = values[mask], np.cumsum(mask)[self.joints - 1]
        # Nothing begins behind the last row, where the last runs are gone whole.
        return Sample(kept, joints[joints < len(kept)])


NO_JOINTS = np.zeros(0, np.int64)


def sample_runs(values: NDArray, mask: NDArray | None) -> Sample:
    """Return the sampled runs, nulls filled with a valid value as the encoder does."""
    ranges = sample_ranges(len(values))
    if len(ranges) == 1:
        return Sample(values if mask is None else fill_nulls(values, mask), NO_JOINTS)
    places = _places(len(values))
    found = values[places]
    if mask is not None:
        valid = mask[places]
        if not valid.any():
            return Sample(found[:0], NO_JOINTS)
        found = fill_nulls(found, valid)
    length = ranges[0][1]
    return Sample(found, np.arange(length, len(found), length), length)


@lru_cache(maxsize=8)
def _places(count: int) -> NDArray:
    """Return the row numbers of all sampled runs."""
    return np.concatenate([np.arange(at, at + rows) for at, rows in sample_ranges(count)])


def fill_nulls(values: NDArray, mask: NDArray) -> NDArray:
    """Return a copy whose null slots hold the first valid value."""
    return np.where(mask, values, values[int(np.argmax(mask))])


def estimate_distinct(distinct: int, singletons: int, sampled: int, count: int) -> float:
    """Estimate the distinct values of a chunk: GEE, drifting to linear for mostly singletons."""
    exponent = 0.5 + 0.5 * singletons / sampled
    return distinct - singletons + singletons * float((count / sampled) ** exponent)


def may_repeat(sample: NDArray) -> bool:
    """Whether a look at a few hundred values lets a dictionary seem possible: cheap."""
    few = np.sort(sample[:: max(1, len(sample) // _FEW)])
    distinct = int(np.count_nonzero(few[1:] != few[:-1])) + 1
    return len(few) < _FEW or 4 * distinct <= 3 * len(few)


def has_few(values: NDArray) -> bool:
    """Whether a look at some values lets 2 to 256 distinct ones in all seem likely: cheap."""
    few = np.sort(values[:: max(1, len(values) // _FEW)])
    distinct = int(np.count_nonzero(few[1:] != few[:-1])) + 1
    return 1 < distinct <= _FEW // 2


def planes_size(residual: NDArray, maximum: int, profile: Profile) -> tuple[int, frozenset[int]]:
    """Return the bytes that uint64 residuals take as planes, and which planes stay raw."""
    total, raw = 0, set()
    used = (maximum.bit_length() + 7) // 8
    lanes = residual.view(np.uint8).reshape(-1, 8)
    for at in range(used):
        plane = np.ascontiguousarray(lanes[:, at])
        bits = bits_for(maximum >> (8 * at)) if at == used - 1 else 8
        full = packed_bytes(len(plane), bits)
        size = _plane_size(plane, bits, profile)
        if size > profile.raw_share * full:
            raw.add(at)
            size = full
        total += size
    return total, frozenset(raw)


def _plane_size(plane: NDArray, bits: int, profile: Profile) -> int:
    full = packed_bytes(len(plane), bits)
    if not profile.plane_level:
        return full
    if len(plane) <= _MAX_WEIGHED:
        changes = int(np.count_nonzero(plane[1:] != plane[:-1]))
        size = weigh(np.bincount(plane), len(plane), changes)
        if size <= profile.raw_share * full:
            return size
    return compressed_size(encode_packed(plane, bits))


def weigh(counts: NDArray, sampled: int, changes: int) -> int:
    """Estimate the bytes of at most 4,096 codes, without compressing them.

    Parameters
    ----------
    counts
        How often each code occurs, ``sampled`` in all.
    changes
        How many differ from the one before.
    """
    entropy = float(_LOGS[sampled] - _LOGS[counts].sum())
    return int(min(entropy, _CHANGE_BYTES * changes)) + 1


def codes_size(sample: NDArray, distinct: NDArray, counts: NDArray, profile: Profile) -> int:
    """Return the bytes of a sample as codes into its ascending ``distinct`` values."""
    if profile.plane_level and len(sample) <= _MAX_WEIGHED and len(distinct) <= _FEW:
        return weigh(counts, len(sample), int(np.count_nonzero(sample[1:] != sample[:-1])))
    codes = np.searchsorted(distinct, sample).astype(np.uint64)
    return planes_size(codes, max(len(distinct) - 1, 1), profile)[0]
