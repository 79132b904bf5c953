"""Plans for integers: frame, words, delta, second delta, runs or a dictionary."""

import math

import numpy as np

from neurolake_dagster.ncf.checks import NDArray
from neurolake_dagster.ncf.compression import Profile, compressed_size
from neurolake_dagster.ncf.encodings.integers import FRAME, IntPlan
from neurolake_dagster.ncf.encodings.planes import PlanePlan
from neurolake_dagster.ncf.planning.sample import (
    BYTES_PER_NS,
    estimate_distinct,
    may_repeat,
    planes_size,
    sample_runs,
)

Candidate = tuple[float, IntPlan]
# ns per value that each way to decode costs, measured.
_FRAME_NS, _WORDS_NS, _DELTA_NS, _DELTA2_NS, _DICTIONARY_NS, _RUNS_NS = 1.2, 1.5, 2.0, 3.5, 2.2, 0.6
_MIN_ROWS_PER_RUN = 2.5
# Repeats of whole words need room to show.
_MIN_WORDS = 2048
MAX_NUMBER_DICTIONARY = 65536


def plan_integers(
    values: NDArray, mask: NDArray | None, profile: Profile, *, dictionary: bool = False
) -> IntPlan:
    """Choose the encoding of a chunk of integers (uint64 viewed as int64).

    Parameters
    ----------
    dictionary
        Whether the caller can store a table of values beside the chunk.
    """
    runs = [run.astype(np.int64, copy=False) for run in sample_runs(values, mask)]
    return choose_integers(runs, len(values), profile, dictionary=dictionary)[1]


def choose_integers(
    runs: list[NDArray],
    count: int,
    profile: Profile,
    *,
    dictionary: bool = False,
    within_runs: bool = False,
) -> Candidate:
    """Return cost in bytes of the sample and plan of the cheapest way to encode it.

    Parameters
    ----------
    runs
        The sampled runs, int64.
    count
        Rows of the chunk.
    within_runs
        Whether these are the values or lengths of runs already.
    """
    if not runs:
        return 0.0, FRAME
    sample = runs[0] if len(runs) == 1 else np.concatenate(runs)
    if len(sample) == 0:
        return 0.0, FRAME
    residual, maximum = _residual(sample)
    if maximum == 0:
        return 0.0, FRAME
    residual, maximum, gcd = _reduce(residual, maximum)
    candidates = _frame_candidates(residual, maximum, gcd, profile)
    if len(sample) > 16:
        changes = int(np.count_nonzero(sample[1:] != sample[:-1]))
        if not within_runs and len(sample) >= _MIN_ROWS_PER_RUN * (changes + 1):
            candidates += _run_candidates(runs, len(sample), count, profile)
        if maximum > 3:
            candidates += _delta_candidates(runs, len(sample), candidates[0][0], profile)
        if dictionary and maximum > 255 and may_repeat(sample):
            candidates += _dictionary_candidates(sample, maximum, count, profile)
    return min(candidates, key=lambda candidate: candidate[0])


def _residual(values: NDArray) -> tuple[NDArray, int]:
    low = values.min()
    residual = (values - low).view(np.uint64)
    return residual, int(residual.max())


def _reduce(residual: NDArray, maximum: int) -> tuple[NDArray, int, int]:
    """Divide by the greatest common divisor of the residuals, where it is worth a look."""
    if not 255 < maximum < 1 << 63:
        return residual, maximum, 1
    gcd = int(np.gcd.reduce(residual[:4096].view(np.int64)))
    if gcd < 2 or (residual % np.uint64(gcd)).any():
        return residual, maximum, 1
    return residual // np.uint64(gcd), maximum // gcd, gcd


def _frame_candidates(
    residual: NDArray, maximum: int, gcd: int, profile: Profile
) -> list[Candidate]:
    price = BYTES_PER_NS * len(residual)
    size, raw = planes_size(residual, maximum, profile)
    plan = IntPlan(gcd=gcd, planes=PlanePlan(raw=raw))
    found: list[Candidate] = [(size + price * _FRAME_NS, plan)]
    if 8 < maximum.bit_length() <= 32 and profile.text_level > 1 and len(residual) > _MIN_WORDS:
        words = residual.astype("<u2" if maximum < 1 << 16 else "<u4")
        size = compressed_size(words, profile.text_level)
        plan = IntPlan(gcd=gcd, planes=PlanePlan(words=True))
        found.append((size * 1.03 + price * _WORDS_NS, plan))
    return found


def _run_candidates(
    runs: list[NDArray], sampled: int, count: int, profile: Profile
) -> list[Candidate]:
    """Try runs of equal values, their values and lengths planned as integers of their own."""
    starts = [np.flatnonzero(run[1:] != run[:-1]) + 1 for run in runs]
    run_count = sum(len(found) for found in starts) + len(runs)
    firsts = [
        run[np.concatenate([[0], found])]
        for run, found in zip(runs, starts, strict=True)
        if len(run)
    ]
    lengths = [np.diff(found) for found in starts if len(found) > 1]
    scaled = max(count * run_count // sampled, 1)
    values_size, values = choose_integers(firsts, scaled, profile, within_runs=True)
    lengths_size, lengths_plan = choose_integers(lengths, scaled, profile, within_runs=True)
    plan = IntPlan(kind="runs", values=values, lengths=lengths_plan)
    return [(values_size + lengths_size + BYTES_PER_NS * sampled * _RUNS_NS, plan)]


def _delta_candidates(
    runs: list[NDArray], sampled: int, to_beat: float, profile: Profile
) -> list[Candidate]:
    price = BYTES_PER_NS * sampled
    residual, maximum = _residual(np.concatenate([np.diff(run) for run in runs]))
    residual, maximum, gcd = _reduce(residual, maximum)
    size, raw = planes_size(residual, maximum, profile)
    plan = IntPlan(kind="delta", gcd=gcd, planes=PlanePlan(raw=raw))
    found: list[Candidate] = [(size * 1.02 + price * _DELTA_NS, plan)]
    # Where one difference does not help, a second one does not either.
    if maximum > 15 and found[0][0] < to_beat:
        residual, maximum = _residual(np.concatenate([np.diff(run, 2) for run in runs]))
        size, raw = planes_size(residual, maximum, profile)
        plan = IntPlan(kind="delta2", planes=PlanePlan(raw=raw))
        found.append((size * 1.05 + price * _DELTA2_NS, plan))
    return found


def _dictionary_candidates(
    sample: NDArray, maximum: int, count: int, profile: Profile
) -> list[Candidate]:
    distinct, counts = np.unique(sample, return_counts=True)
    singletons = int(np.count_nonzero(counts == 1))
    expected = estimate_distinct(len(distinct), singletons, len(sample), count)
    if expected >= min(count / 8, MAX_NUMBER_DICTIONARY):
        return []
    codes = np.searchsorted(distinct, sample).astype(np.uint64)
    size, _ = planes_size(codes, max(len(distinct) - 1, 1), profile)
    table = expected * math.ceil(maximum.bit_length() / 8) * len(sample) / count
    # 1.08: finding the codes costs three times the other encoders' time.
    price = BYTES_PER_NS * len(sample) * _DICTIONARY_NS
    return [(size * 1.08 + price + table, IntPlan(kind="dictionary"))]
