"""Plans for floats: decimals, bits as planes, words or a dictionary."""

from collections.abc import Iterator

import numpy as np

from neurolake_dagster.ncf.checks import NDArray
from neurolake_dagster.ncf.compression import Profile, compressed_size
from neurolake_dagster.ncf.encodings.decimals import POWERS, scale
from neurolake_dagster.ncf.encodings.floats import FloatPlan
from neurolake_dagster.ncf.encodings.integers import IntPlan
from neurolake_dagster.ncf.encodings.planes import PlanePlan
from neurolake_dagster.ncf.planning.integers import MAX_NUMBER_DICTIONARY, choose_integers
from neurolake_dagster.ncf.planning.sample import (
    Sample,
    codes_size,
    estimate_distinct,
    may_repeat,
    planes_size,
    sample_runs,
)

Candidate = tuple[float, FloatPlan]
_MAX_EXPONENTS = {4: 8, 8: 16}
_MAX_EXCEPTIONS = 0.03
_PROBE = 64
# Prices, measures and rates rarely have more decimals.
_FEW_EXPONENTS = 4
# Below this share of the raw bytes the bits themselves, dearest to try, have no chance.
_GOOD_SHARE = 0.4


def plan_floats(
    values: NDArray, mask: NDArray | None, profile: Profile, *, dictionary: bool = False
) -> FloatPlan:
    """Choose the encoding of a chunk of float32 or float64 values."""
    runs = sample_runs(values, mask)
    sample = runs.values
    if len(sample) == 0:
        return FloatPlan()
    bits = sample.view(f"<u{sample.dtype.itemsize}")
    candidates = _decimal_candidates(runs, profile)
    candidates += _run_candidates(bits)
    if dictionary and may_repeat(bits):
        candidates += _dictionary_candidates(bits, len(values), profile)
    if not candidates or min(cost for cost, _ in candidates) > _GOOD_SHARE * sample.nbytes:
        candidates += _bits_candidates(bits, profile)
    return min(candidates, key=lambda candidate: candidate[0])[1]


def _bits_candidates(bits: NDArray, profile: Profile) -> list[Candidate]:
    width = bits.dtype.itemsize
    size, raw = planes_size(bits.astype(np.uint64), (1 << (8 * width)) - 1, profile)
    plan = FloatPlan(integers=IntPlan(planes=PlanePlan(raw=raw)))
    found: list[Candidate] = [(size * 1.02, plan)]
    if profile.text_level:
        words = compressed_size(np.ascontiguousarray(bits), profile.text_level)
        found.append((float(words), FloatPlan(kind="words")))
    return found


def _run_candidates(bits: NDArray) -> list[Candidate]:
    run_count = int(np.count_nonzero(bits[1:] != bits[:-1])) + 1
    if len(bits) < 4 * run_count:
        return []
    plan = FloatPlan(integers=IntPlan(kind="runs"))
    return [(run_count * (bits.dtype.itemsize + 1) * 0.9, plan)]


def _decimal_candidates(runs: Sample, profile: Profile) -> list[Candidate]:
    """Try the smallest exponent at which 97 % of the finite sample is decimal."""
    sample = runs.values
    width = sample.dtype.itemsize
    infinite = int(np.count_nonzero(~np.isfinite(sample)))
    few = sample[:: max(1, len(sample) // _PROBE)]
    for exponent in _likely_exponents(few, _MAX_EXPONENTS[width]):
        integers, exact = scale(sample, exponent)
        wrong = len(sample) - int(np.count_nonzero(exact)) - infinite
        if wrong > _MAX_EXCEPTIONS * len(sample):
            continue
        if not exact.any():
            return []
        size, plan = choose_integers(runs.keep(integers, exact), len(sample), profile)
        cost = size + wrong * (width + 2) + infinite * 0.5
        return [(cost, FloatPlan(kind="decimals", exponent=exponent, integers=plan))]
    return []


def _likely_exponents(values: NDArray, count: int) -> Iterator[int]:
    """Yield the exponents at which most values are decimal; lenient, the sample decides."""
    finite = values[np.isfinite(values)].astype(np.float64)[:, None]
    allowed = max(2, 2 * _MAX_EXCEPTIONS * len(values))
    for start, stop in ((0, _FEW_EXPONENTS), (_FEW_EXPONENTS, count)):
        powers = POWERS[start:stop]
        with np.errstate(over="ignore"):
            scaled = np.rint(finite * powers)
        back = (scaled / powers).astype(values.dtype)
        missed = np.count_nonzero(back != finite, axis=0)
        yield from (start + int(at) for at in np.flatnonzero(missed <= allowed))


def _dictionary_candidates(bits: NDArray, count: int, profile: Profile) -> list[Candidate]:
    distinct, counts = np.unique(bits, return_counts=True)
    if len(distinct) * 2 >= len(bits):
        return []
    singletons = int(np.count_nonzero(counts == 1))
    expected = estimate_distinct(len(distinct), singletons, len(bits), count)
    if expected >= min(count / 8, MAX_NUMBER_DICTIONARY):
        return []
    size = codes_size(bits, distinct, counts, profile)
    table = expected * bits.dtype.itemsize * len(bits) / count
    return [(size * 1.03 + table, FloatPlan(kind="dictionary"))]
