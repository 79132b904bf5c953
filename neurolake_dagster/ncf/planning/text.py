"""Plans for strings and binary: plain, nibbles or a dictionary."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from neurolake_dagster.ncf.arrow import (
    bytes_of,
    distinct_counts,
    sample_rows,
    take_texts,
)
from neurolake_dagster.ncf.checks import NDArray
from neurolake_dagster.ncf.compression import Profile, compressed_size
from neurolake_dagster.ncf.encodings.integers import FRAME, IntPlan
from neurolake_dagster.ncf.encodings.nibbles import MAX_ALPHABET, pack_nibbles
from neurolake_dagster.ncf.planning.integers import plan_integers
from neurolake_dagster.ncf.planning.sample import estimate_distinct, planes_size, sample_ranges

_SAMPLE_RUN = 256
# A higher level must save this share: on noise it only costs time.
_LEVEL_GAIN = 0.96
_MAX_TEMPLATE = 64
_LOOKED_AT = 256
# A dictionary below this share of the characters leaves the other ways no chance.
_GOOD_SHARE = 0.1


@dataclass(frozen=True, kw_only=True)
class TextPlan:
    """How to encode the strings of a chunk.

    Parameters
    ----------
    level
        zstd level of the plain or packed characters, 0 = raw.
    alphabet
        The distinct bytes, ascending, for nibbles.
    constant
        For rows of one length: mask of the bytes that are the same in each row.
    """

    kind: Literal["plain", "nibbles", "dictionary"] = "plain"
    level: int = 0
    lengths: IntPlan = FRAME
    alphabet: bytes = b""
    constant: NDArray | None = None


Candidate = tuple[float, TextPlan]


def has_few_texts(array: Any) -> bool:
    """Whether a look at some rows lets a dictionary seem sure to pay: cheap."""
    places = np.arange(0, len(array), max(1, len(array) // _LOOKED_AT))
    return len(take_texts(array, places).unique()) * 4 <= len(places)


def plan_text(array: Any, profile: Profile, *, dictionary: bool) -> TextPlan:
    """Choose the encoding of a (large) string or binary array."""
    if len(array) == 0:
        return TextPlan(level=profile.text_level)
    sample = sample_rows(array, sample_ranges(len(array), _SAMPLE_RUN))
    offsets, data = bytes_of(sample)
    body = data[int(offsets[0]) : int(offsets[-1])]
    candidates: list[Candidate] = []
    if dictionary:
        candidates += _dictionary_candidates(sample, len(array), len(body), profile)
        if candidates and candidates[0][0] < _GOOD_SHARE * len(body):
            return candidates[0][1]
    lengths = np.diff(offsets).astype(np.int64)
    lengths_size = _lengths_size(lengths, profile)
    lengths_plan = plan_integers(lengths, None, profile)
    level, size = _text_level(body, profile)
    # Two hundredths of the raw bytes: the price of inflating them.
    plain = TextPlan(level=level, lengths=lengths_plan)
    candidates.append((size + lengths_size + 0.02 * len(body), plain))
    fixed = int(lengths[0]) if lengths_size == 0 else 0
    candidates += _nibble_candidates(body, fixed, lengths_size, lengths_plan, profile)
    return min(candidates, key=lambda candidate: candidate[0])[1]


def _lengths_size(lengths: NDArray, profile: Profile) -> int:
    residual = (lengths - lengths.min()).view(np.uint64)
    return planes_size(residual, int(residual.max()), profile)[0]


def _text_level(body: NDArray, profile: Profile) -> tuple[int, int]:
    if profile.text_level == 0:
        return 0, len(body)
    low, high = compressed_size(body, 1), compressed_size(body, profile.text_level)
    if high < _LEVEL_GAIN * low:
        return profile.text_level, high
    return 1, low


def _nibble_candidates(
    body: NDArray, fixed: int, lengths_size: int, lengths: IntPlan, profile: Profile
) -> list[Candidate]:
    """Try two characters per byte, without the constant bytes of fixed-length rows."""
    kept, constant = body, None
    if 2 <= fixed <= _MAX_TEMPLATE and len(body) > _MAX_TEMPLATE * fixed:
        rows = body.reshape(-1, fixed)
        same = (rows == rows[0]).all(axis=0)
        if same.any() and not same.all():
            constant = same
            kept = np.ascontiguousarray(rows[:, ~same]).ravel()
    letters = np.flatnonzero(np.bincount(kept, minlength=256))
    if not 0 < len(letters) <= MAX_ALPHABET:
        return []
    alphabet = letters.astype(np.uint8).tobytes()
    packed = pack_nibbles(kept, alphabet)
    if packed is None:
        return []
    size = compressed_size(packed) if profile.plane_level else packed.nbytes
    level = profile.plane_level if size <= profile.raw_share * packed.nbytes else 0
    plan = TextPlan(
        kind="nibbles", level=level, lengths=lengths, alphabet=alphabet, constant=constant
    )
    return [(min(size, packed.nbytes) * 0.97 + lengths_size, plan)]


def _dictionary_candidates(
    sample: Any, count: int, body_bytes: int, profile: Profile
) -> list[Candidate]:
    codes, counts = distinct_counts(sample)
    distinct, sampled = len(counts), len(sample)
    singletons = int(np.count_nonzero(counts == 1))
    expected = estimate_distinct(distinct, singletons, sampled, count)
    if not (distinct <= 1 or (expected < count / 4 and body_bytes)):
        return []
    size, _ = planes_size(codes.astype(np.uint64), max(distinct - 1, 1), profile)
    table = expected * (body_bytes / sampled + 1) * sampled / count * 0.6
    return [(size + table, TextPlan(kind="dictionary"))]
