"""Differences between neighbours, once or twice, in wrapping int64 arithmetic.

Nodes: ``[2, first, base, gcd, planes]`` with ``n - 1`` residuals, ``delta = base + gcd * r``;
``[3, first, first_delta, base, planes]`` with ``n - 2`` residuals of the second differences.
An arithmetic sequence is a delta without planes.
"""

import numpy as np

from neurolake_dagster.ncf.checks import INT64_MAX, INT64_MIN, Damage, NDArray, Node, need_int
from neurolake_dagster.ncf.compression import StreamReader, StreamWriter
from neurolake_dagster.ncf.encodings.constant import wrap
from neurolake_dagster.ncf.encodings.frame import add_base, divide_exactly
from neurolake_dagster.ncf.encodings.planes import (
    PlanePlan,
    decode_planes,
    encode_planes,
    word_bytes,
)

CODE = 2
CODE_TWICE = 3


def encode_delta(streams: StreamWriter, values: NDArray, gcd: int, planes: PlanePlan) -> Node:
    """Encode at least one integer by its neighbour's difference."""
    wide = values.astype(np.int64, copy=False)
    deltas = wide[1:] - wide[:-1]
    base = int(deltas.min()) if len(deltas) else 0
    residual = (deltas - np.int64(base)).view(np.uint64)
    maximum = int(residual.max()) if len(deltas) else 0
    words = residual.astype(f"<u{word_bytes(maximum)}", copy=False)
    residual, gcd = divide_exactly(words, gcd) if maximum else (words, 1)
    return [CODE, int(wide[0]), base, gcd, encode_planes(streams, residual, maximum // gcd, planes)]


def encode_delta_twice(streams: StreamWriter, values: NDArray, planes: PlanePlan) -> Node:
    """Encode at least three integers by the differences of their differences."""
    wide = values.astype(np.int64, copy=False)
    deltas = np.diff(wide)
    seconds = np.diff(deltas)
    base = int(seconds.min())
    residual = (seconds - np.int64(base)).view(np.uint64)
    stored = encode_planes(streams, residual, int(residual.max()), planes)
    return [CODE_TWICE, int(wide[0]), int(deltas[0]), base, stored]


def decode_delta(streams: StreamReader, node: Node, count: int, out: NDArray) -> None:
    """Decode ``count`` integers, at least one, into ``out``."""
    if count < 1:
        raise Damage("delta: no rows")
    first = wrap(need_int(node[1], INT64_MIN, INT64_MAX, "first value"), out)
    base = wrap(need_int(node[2], INT64_MIN, INT64_MAX, "base"), out)
    gcd = wrap(need_int(node[3], 1, INT64_MAX, "gcd"), out)
    residual = decode_planes(streams, node[4], count - 1)
    add_base(residual, base, gcd, out[1:])
    out[0] = first
    np.add.accumulate(out, out=out)


def decode_delta_twice(streams: StreamReader, node: Node, count: int, out: NDArray) -> None:
    """Decode ``count`` integers, at least two, into ``out``."""
    if count < 2:
        raise Damage("second delta: fewer than two rows")
    first, first_delta, base = (
        wrap(need_int(value, INT64_MIN, INT64_MAX, what), out)
        for value, what in zip(node[1:4], ("first value", "first delta", "base"), strict=True)
    )
    residual = decode_planes(streams, node[4], count - 2)
    add_base(residual, base, 1, out[2:])
    out[1] = first_delta
    np.add.accumulate(out[1:], out=out[1:])
    out[0] = first
    np.add.accumulate(out, out=out)
