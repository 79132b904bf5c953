"""Decimal floats: ``value = integer / 10 ** exponent``, bit for bit, with exceptions.

Node ``[1, exponent, integers, exceptions]``. ``exceptions`` is nil or
``[count, positions, values]``: ``positions`` is ``[0, integer node]`` (ascending row numbers)
or ``[1, stream]`` (one bit per row); ``values`` is ``[0, bytes of the one value]`` or
``[1, stream]``. Integers lie within +-2**51, where float64 arithmetic on them is exact.
"""

import numpy as np

from neurolake_dagster.ncf.checks import Damage, NDArray, Node, need_bytes, need_int, need_list
from neurolake_dagster.ncf.compression import StreamReader, StreamWriter
from neurolake_dagster.ncf.encodings import frame
from neurolake_dagster.ncf.encodings.integers import (
    DELTA,
    IntPlan,
    decode_integers,
    encode_integers,
    need_integers,
)
from neurolake_dagster.ncf.encodings.packing import decode_packed, packed_bytes
from neurolake_dagster.ncf.encodings.planes import decode_planes
from neurolake_dagster.ncf.memory import scratch

CODE = 1
MAX_EXPONENT = 18
POWERS = 10.0 ** np.arange(MAX_EXPONENT + 1)
LIMIT = 2.0**51
_LIST, _BITMAP = 0, 1
_ONE, _MANY = 0, 1


def scale(values: NDArray, exponent: int) -> tuple[NDArray, NDArray]:
    """Return int64 ``rint(values * 10**exponent)`` and where dividing back is bit-equal."""
    bits = f"<u{values.dtype.itemsize}"
    with np.errstate(all="ignore"):
        scaled = np.multiply(values, POWERS[exponent], dtype=np.float64)
        np.rint(scaled, out=scaled)
        integers = scaled.astype(np.int64)
        # Not so where there is a NaN.
        small = len(scaled) > 0 and scaled.max() < LIMIT and scaled.min() > -LIMIT
        within = None if small else np.abs(scaled) < LIMIT
        # Minus zero becomes zero, as the decoder makes it.
        scaled += 0.0
        scaled /= POWERS[exponent]
        exact: NDArray = scaled.astype(values.dtype, copy=False).view(bits) == values.view(bits)
        if within is not None:
            exact &= within
    return integers, exact


def encode_decimals(
    streams: StreamWriter, values: NDArray, exponent: int, plan: IntPlan
) -> Node | None:
    """Encode float32 or float64 values; None if most of them are not decimals."""
    integers, exact = scale(values, exponent)
    wrong = len(values) - int(np.count_nonzero(exact))
    if wrong == 0:
        return [CODE, exponent, encode_integers(streams, integers, plan), None]
    if wrong > 0.9 * len(values):
        return None
    missed = np.flatnonzero(~exact)
    exceptions = _encode_exceptions(streams, values[missed], missed, len(values))
    integers[missed] = integers[int(np.argmax(exact))]
    return [CODE, exponent, encode_integers(streams, integers, plan), exceptions]


def _encode_exceptions(
    streams: StreamWriter, values: NDArray, positions: NDArray, count: int
) -> Node:
    if len(positions) > count // 8:
        marks = np.zeros(count, bool)
        marks[positions] = True
        where = [_BITMAP, streams.put_plane(np.packbits(marks, bitorder="little"))]
    else:
        where = [_LIST, encode_integers(streams, positions.astype(np.int64), DELTA)]
    bits = values.view(f"<u{values.dtype.itemsize}")
    if (bits == bits[0]).all():
        return [len(positions), where, [_ONE, values[:1].tobytes()]]
    return [len(positions), where, [_MANY, streams.put_plane(values)]]


def decode_decimals(streams: StreamReader, node: Node, count: int, out: NDArray) -> None:
    """Decode ``count`` values into ``out`` (float32 or float64)."""
    exponent = need_int(node[1], 0, MAX_EXPONENT, "decimal exponent")
    wide = out if out.dtype == np.float64 else scratch(count, np.float64)
    integers = need_integers(node[2])
    if integers[0] == frame.CODE:
        # Residuals stay below 2**53 for every file of ours, so float64 adds them exactly.
        base, gcd = frame.read_frame(integers)
        _add_floats(decode_planes(streams, integers[3], count), base, gcd, wide)
    else:
        exact = scratch(count, np.int64)
        decode_integers(streams, integers, count, exact)
        wide[...] = exact
    if exponent:
        np.divide(wide, POWERS[exponent], out=wide)
    if wide is not out:
        with np.errstate(over="ignore"):
            out[...] = wide
    if node[3] is not None:
        _decode_exceptions(streams, node[3], count, out)


def _add_floats(residual: NDArray | None, base: int, gcd: int, out: NDArray) -> None:
    if residual is None:
        out[...] = float(base)
    elif gcd == 1:
        np.add(residual, float(base), out=out, dtype=np.float64)
    else:
        np.multiply(residual, float(gcd), out=out, dtype=np.float64)
        out += float(base)


def _decode_exceptions(streams: StreamReader, node: object, count: int, out: NDArray) -> None:
    fields = need_list(node, 3, "exceptions")
    missed = need_int(fields[0], 1, count, "exception count")
    kind, stored = need_list(fields[2], 2, "exception values")
    width = out.dtype.itemsize
    if kind == _ONE:
        values = np.frombuffer(need_bytes(stored, width, width, "exception"), out.dtype)
    elif kind == _MANY:
        values = streams.read(stored, missed * width).view(out.dtype)
    else:
        raise Damage(f"exception values: unknown kind {kind!r}")
    out[_decode_positions(streams, fields[1], missed, count)] = values


def _decode_positions(streams: StreamReader, node: object, missed: int, count: int) -> NDArray:
    """Return row numbers (int64, ascending) or a mask that marks exactly ``missed`` rows."""
    kind, stored = need_list(node, 2, "exception positions")
    if kind == _BITMAP:
        bits = streams.read(stored, packed_bytes(count, 1))
        marks = decode_packed(bits, 1, count).view(bool)
        if int(np.count_nonzero(marks)) != missed:
            raise Damage(f"exceptions: bitmap does not mark {missed} rows")
        return marks
    if kind != _LIST:
        raise Damage(f"exception positions: unknown kind {kind!r}")
    positions = np.empty(missed, np.int64)
    decode_integers(streams, stored, missed, positions)
    if int(positions[0]) < 0 or int(positions[-1]) >= count or (np.diff(positions) < 1).any():
        raise Damage(f"exceptions: positions do not ascend within {count} rows")
    return positions
