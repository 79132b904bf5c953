"""Frame of reference: ``value = base + gcd * residual``; node ``[1, base, gcd, planes]``.

The arithmetic wraps modulo the width of the values, so every int64 and uint64 range fits.
"""

import numpy as np

from neurolake_dagster.ncf.checks import INT64_MAX, INT64_MIN, NDArray, Node, need_int
from neurolake_dagster.ncf.compression import StreamReader, StreamWriter
from neurolake_dagster.ncf.encodings.constant import encode_constant, wrap
from neurolake_dagster.ncf.encodings.planes import (
    PlanePlan,
    decode_planes,
    encode_planes,
    word_bytes,
)

CODE = 1


def encode_frame(
    streams: StreamWriter, values: NDArray, low: int, high: int, gcd: int, planes: PlanePlan
) -> Node:
    """Encode integers whose exact bounds are ``low`` and ``high``.

    ``gcd`` comes from a sample: it is verified on these values and dropped if it does not hold.
    """
    spread = high - low
    if spread == 0:
        return encode_constant(low)
    if spread < 1 << 32:
        residual = np.empty(len(values), f"<u{word_bytes(spread)}")
        np.subtract(values, values.dtype.type(low), out=residual, casting="unsafe")
    else:
        residual = (values.astype(np.int64, copy=False) - np.int64(low)).view(np.uint64)
    residual, gcd = divide_exactly(residual, gcd)
    return [CODE, low, gcd, encode_planes(streams, residual, spread // gcd, planes)]


def divide_exactly(residual: NDArray, gcd: int) -> tuple[NDArray, int]:
    """Divide unsigned residuals by ``gcd``, or return them with 1 if one does not divide.

    In the narrowest words: those of eight bytes take ten times as long.
    """
    if 1 < gcd <= np.iinfo(residual.dtype).max:
        divisor = residual.dtype.type(gcd)
        quotient = residual // divisor
        if not (quotient * divisor != residual).any():
            return quotient, gcd
    return residual, 1


def read_frame(node: Node) -> tuple[int, int]:
    """Return the checked base and gcd of a node."""
    base = need_int(node[1], INT64_MIN, INT64_MAX, "base")
    return base, need_int(node[2], 1, INT64_MAX, "gcd")


def decode_frame(streams: StreamReader, node: Node, count: int, out: NDArray) -> None:
    """Decode into ``out``, signed integers of any width, possibly strided."""
    base, gcd = read_frame(node)
    residual = decode_planes(streams, node[3], count)
    add_base(residual, wrap(base, out), wrap(gcd, out), out)


def add_base(residual: NDArray | None, base: int, gcd: int, out: NDArray) -> None:
    """Write ``base + gcd * residual`` into ``out``, wrapping."""
    dtype = out.dtype
    if residual is None:
        out[...] = base
    else:
        # Widening in a pass of its own: a mixed addition goes through numpy's small buffers.
        np.copyto(out, residual, casting="unsafe")
        if gcd != 1:
            out *= dtype.type(gcd)
        if base:
            out += dtype.type(base)
