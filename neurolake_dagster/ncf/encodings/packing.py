"""Planes of 1, 2 or 4 bits per value packed into bytes, first value in the lowest bits."""

import numpy as np

from neurolake_dagster.ncf.checks import NDArray

_ZERO = np.zeros(3, np.uint8)


def bits_for(maximum: int) -> int:
    """Return the bits (1, 2, 4 or 8) that hold values up to ``maximum`` (at most 255)."""
    if maximum < 2:
        return 1
    if maximum < 4:
        return 2
    return 4 if maximum < 16 else 8


def packed_bytes(count: int, bits: int) -> int:
    """Return the bytes that ``count`` values of ``bits`` bits fill."""
    return (count * bits + 7) // 8


def encode_packed(values: NDArray, bits: int) -> NDArray:
    """Pack uint8 values, each below ``2 ** bits``; 8 bits are returned as they are."""
    if bits == 8:
        return values
    if bits == 1:
        return np.packbits(values, bitorder="little")
    per_byte = 8 // bits
    spare = -len(values) % per_byte
    padded = np.concatenate([values, _ZERO[:spare]]) if spare else np.ascontiguousarray(values)
    if bits == 4:
        pairs: NDArray = padded.view("<u2")
        halves: NDArray = (pairs | (pairs >> 4)).astype(np.uint8)
        return halves
    quads: NDArray = padded.view("<u4")
    quarters: NDArray = (quads | (quads >> 6) | (quads >> 12) | (quads >> 18)).astype(np.uint8)
    return quarters


def decode_packed(packed: NDArray, bits: int, count: int) -> NDArray:
    """Unpack ``count`` values to uint8, shape ``(count,)``."""
    if bits == 8:
        return packed[:count]
    if bits == 1:
        return np.unpackbits(packed, count=count, bitorder="little")
    if bits == 4:
        pairs = packed.astype("<u2")
        pairs |= pairs << 4
        pairs &= np.uint16(0x0F0F)
        return pairs.view(np.uint8)[:count]
    quads = packed.astype("<u4")
    quads |= quads << 12
    quads &= np.uint32(0x000F000F)
    quads |= quads << 6
    quads &= np.uint32(0x03030303)
    return quads.view(np.uint8)[:count]
