"""Plans for integers: frame, words, delta, second delta, runs or a dictionary."""

import math

import numpy as np

from neurolake_dagster.ncf.checks import NDArray
from neurolake_dagster.ncf.compression import Profile, compressed_size
from neurolake_dagster.ncf.encodings.integers import FRAME, IntPlan
from neurolake_dagster.ncf.encodings.planes import PlanePlan
from neurolake_dagster.ncf.planning.sample import (
    BYTES_PER_NS,
    NO_JOINTS,
    Sample,
    codes_size,
    estimate_distinct,
    may_repeat,
    planes_size,
    sample_runs,
)

Candidate = tuple[float, IntPlan]
# ns per value that each way to decode costs, measured.
_FRAME_NS, _WORDS_NS, _DELTA_NS, _DELTA2_NS, _DICTIONARY_NS, _RUNS_NS = 1.2, 1.5, 2.0, 3.5, 2.2, 0.6
_MIN_ROWS_PER_RUN = 2.5
_LONG_RUN_ROWS = 24
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
    if mask is None and len(values) and profile.plans_at_sight(len(values)):
        low, high = int(values.min()), int(values.max())
        if low == high:
            return FRAME
        if high - low < 1 << 8:
            # One plane, whose repeats zstd finds but for a few bytes each.
            runs = int(np.count_nonzero(values[1:] != values[:-1])) + 1
            return IntPlan(kind="runs") if len(values) >= _LONG_RUN_ROWS * runs else FRAME
    found = sample_runs(values, mask)
    sample = Sample(found.values.astype(np.int64, copy=False), found.joints)
    return choose_integers(sample, len(values), profile, dictionary=dictionary)[1]


def choose_integers(
    sample: Sample,
    count: int,
    profile: Profile,
    *,
    dictionary: bool = False,
    within_runs: bool = False,
) -> Candidate:
    """Return cost in bytes of the sample and plan of the cheapest way to encode it.

    Parameters
    ----------
    sample
        int64.
    count
        Rows of the chunk.
    within_runs
        Whether these are the values or lengths of runs already.
    """
    values = sample.values
    if len(values) == 0:
        return 0.0, FRAME
    residual, maximum = _residual(values)
    if maximum == 0:
        return 0.0, FRAME
    residual, maximum, gcd = _reduce(residual, maximum)
    candidates = _frame_candidates(residual, maximum, gcd, profile)
    if len(values) > 16:
        changed = values[1:] != values[:-1]
        changes = int(np.count_nonzero(changed))
        if not within_runs and len(values) >= _MIN_ROWS_PER_RUN * (changes + 1):
            candidates += _run_candidates(sample, changed, count, profile)
        if maximum > 3:
            candidates += _delta_candidates(sample, candidates[0][0], profile)
        if dictionary and maximum > 255 and may_repeat(values):
            candidates += _dictionary_candidates(values, maximum, count, profile)
    return min(candidates, key=lambda candidate: candidate[0])


def _residual(values: NDArray) -> tuple[NDArray, int]:
    low = values.min()
    residual = (values - low).view(np.uint64)
    return residual, int(residual.max())


def _reduce(residual: NDArray, maximum: int) -> tuple[NDArray, int, int]:
    """Divide by the greatest common divisor of the residuals, where it is worth a look."""
    if not 255 < maximum < 1 << 63:
        return residual, maximum, 1
    words = residual.view(np.int64)
    gcd = int(np.gcd.reduce(words[:64]))
    if gcd != 1:
        gcd = int(np.gcd.reduce(words[:4096]))
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
    sample: Sample, changed: NDArray, count: int, profile: Profile
) -> list[Candidate]:
    """Try runs of equal values, their values and lengths planned as integers of their own."""
    joint = np.zeros(len(sample.values), bool)
    joint[sample.joints] = True
    starts = np.flatnonzero(changed | joint[1:]) + 1
    cut = joint[starts]
    # The samples cut their first and last runs short.
    lengths = np.diff(starts)[~(cut[1:] | cut[:-1])]
    firsts = Sample(
        sample.values[np.concatenate([[0], starts])].astype(np.int64), np.flatnonzero(cut) + 1
    )
    sampled = len(sample.values)
    scaled = max(count * len(firsts.values) // sampled, 1)
    values_size, values = choose_integers(firsts, scaled, profile, within_runs=True)
    lengths_size, lengths_plan = choose_integers(
        Sample(lengths, NO_JOINTS), scaled, profile, within_runs=True
    )
    plan = IntPlan(kind="runs", values=values, lengths=lengths_plan)
    return [(values_size + lengths_size + BYTES_PER_NS * sampled * _RUNS_NS, plan)]


def _delta_candidates(sample: Sample, to_beat: float, profile: Profile) -> list[Candidate]:
    price = BYTES_PER_NS * len(sample.values)
    residual, maximum = _residual(sample.differences(1))
    residual, maximum, gcd = _reduce(residual, maximum)
    size, raw = planes_size(residual, maximum, profile)
    plan = IntPlan(kind="delta", gcd=gcd, planes=PlanePlan(raw=raw))
    found: list[Candidate] = [(size * 1.02 + price * _DELTA_NS, plan)]
    # Where one difference does not help, a second one does not either.
    if maximum > 15 and found[0][0] < to_beat:
        residual, maximum = _residual(sample.differences(2))
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
    size = codes_size(sample, distinct, counts, profile)
    table = expected * math.ceil(maximum.bit_length() / 8) * len(sample) / count
    # 1.08: finding the codes costs three times the other encoders' time.
    price = BYTES_PER_NS * len(sample) * _DICTIONARY_NS
    return [(size * 1.08 + price + table, IntPlan(kind="dictionary"))]
