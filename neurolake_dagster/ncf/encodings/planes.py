"""Unsigned residuals as byte planes: byte 0 of every value, then byte 1, and so on.

A plane is ``[byte_offset, width, bits, stream]``: ``width`` bytes (1, 2, 4 or 8) of each value
from ``byte_offset`` on, little-endian. Width 1 may be packed to ``bits`` 1, 2 or 4; wider planes
have 8 bits. Planes lie in ascending order without overlap; bytes without a plane are zero. No
planes at all: every residual is zero.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from neurolake_dagster.ncf.checks import Damage, NDArray, Node, need_int, need_list
from neurolake_dagster.ncf.compression import StreamReader, StreamWriter
from neurolake_dagster.ncf.encodings.packing import (
    bits_for,
    decode_packed,
    encode_packed,
    packed_bytes,
)

_DTYPES: dict[int, np.dtype[Any]] = {
    1: np.dtype("<u1"),
    2: np.dtype("<u2"),
    4: np.dtype("<u4"),
    8: np.dtype("<u8"),
}


@dataclass(frozen=True, kw_only=True)
class PlanePlan:
    """What the sample said of the planes.

    Parameters
    ----------
    raw
        Bytes of the value that zstd does not shrink: stored raw, adjacent ones together.
    words
        Keep whole words and compress them as text: for repeating multi-byte codes.
    """

    raw: frozenset[int] = frozenset()
    words: bool = False


PLAIN_PLANES = PlanePlan()


def word_bytes(maximum: int) -> int:
    """Return the smallest word (1, 2, 4 or 8 bytes) that holds ``maximum``."""
    if maximum < 1 << 16:
        return 1 if maximum < 1 << 8 else 2
    return 4 if maximum < 1 << 32 else 8


def encode_planes(streams: StreamWriter, values: NDArray, maximum: int, plan: PlanePlan) -> Node:
    """Store unsigned ``values``, none above ``maximum``, as planes."""
    if maximum == 0:
        return []
    dtype = _DTYPES[word_bytes(maximum)]
    words = values if values.dtype == dtype else values.astype(dtype)
    used = (int(maximum).bit_length() + 7) // 8
    if plan.words and used > 1:
        return [[0, dtype.itemsize, 8, streams.put_text(words)]]
    planes: Node = []
    at = 0
    # A top byte of few bits is packed: joined to its neighbour it would take all eight.
    full = used if bits_for(maximum >> (8 * (used - 1))) == 8 else used - 1
    while at < used:
        width = _raw_width(plan.raw, at, full)
        shifted = words >> dtype.type(8 * at) if at else words
        if width > 1:
            planes.append([at, width, 8, streams.put(shifted.astype(_DTYPES[width]), 0)])
        else:
            bits = bits_for(maximum >> (8 * at)) if at == used - 1 else 8
            packed = encode_packed(shifted.astype(np.uint8), bits)
            level = 0 if at in plan.raw else streams.profile.plane_level
            planes.append(
                [at, 1, bits, streams.put(packed, level, streams.profile.min_saved_bytes)]
            )
        at += width
    return planes


def _raw_width(raw: frozenset[int], at: int, full: int) -> int:
    """Return how many adjacent raw bytes from ``at`` on, below ``full``, may stay together."""
    for width in (8, 4, 2):
        if at % width == 0 and at + width <= full and all(at + i in raw for i in range(width)):
            return width
    return 1


def decode_planes(streams: StreamReader, planes: object, count: int) -> NDArray | None:
    """Return ``count`` residuals in the narrowest unsigned type; None if all are zero.

    The result may be a read-only view on the page.
    """
    layout = _check_planes(planes)
    if not layout:
        return None
    top = layout[-1][0] + layout[-1][1]
    if len(layout) == 1 and layout[0][0] == 0:
        return _read_plane(streams, layout[0], count)
    if top > 4:
        return _gather_wide(streams, layout, count)
    dtype = _DTYPES[2 if top == 2 else 4]
    out: NDArray | None = None
    for plane in reversed(layout):
        part, offset = _read_plane(streams, plane, count), plane[0]
        if out is None:
            out = np.left_shift(part, 8 * offset, dtype=dtype, casting="unsafe")
        elif offset:
            out |= np.left_shift(part, 8 * offset, dtype=dtype, casting="unsafe")
        else:
            np.bitwise_or(out, part, out=out)
    return out


def pick_planes(streams: StreamReader, planes: object, count: int, rows: NDArray) -> NDArray | None:
    """Return the residuals of ``rows`` among ``count``, uint64; None if all are zero."""
    layout = _check_planes(planes)
    if not layout:
        return None
    out = np.zeros(len(rows), np.uint64)
    for plane in layout:
        offset, width, bits, stream = plane
        if width > 1 or bits == 8:
            picked = _read_plane(streams, plane, count)[rows]
        else:
            packed = streams.read(stream, packed_bytes(count, bits))
            places = rows * bits
            picked = (packed[places >> 3] >> (places & 7).astype(np.uint8)) & ((1 << bits) - 1)
        out |= picked.astype(np.uint64) << np.uint64(8 * offset)
    return out


def _gather_wide(streams: StreamReader, layout: list[Node], count: int) -> NDArray:
    """Assemble residuals of more than four bytes by strided assignment."""
    out = np.zeros(count, "<u8")
    for plane in layout:
        offset, width = plane[0], plane[1]
        lanes = out.view(_DTYPES[width]).reshape(count, 8 // width)
        lanes[:, offset // width] = _read_plane(streams, plane, count)
    return out


def _read_plane(streams: StreamReader, plane: Node, count: int) -> NDArray:
    _, width, bits, stream = plane
    if width == 1:
        return decode_packed(streams.read(stream, packed_bytes(count, bits)), bits, count)
    return streams.read(stream, count * width).view(_DTYPES[width])


def _check_planes(planes: object) -> list[Node]:
    """Check that the planes are a partition of the bytes of a word."""
    layout = []
    free_from = 0
    for plane in need_list(planes, None, "planes"):
        offset, width, bits, _ = need_list(plane, 4, "plane")
        need_int(width, 1, 8, "plane width")
        need_int(bits, 1, 8, "plane bits")
        if width not in _DTYPES or bits not in _DTYPES or (width > 1 and bits != 8):
            raise Damage(f"plane: impossible width {width} or bits {bits}")
        need_int(offset, free_from, 8 - width, "plane offset")
        if offset % width:
            raise Damage(f"plane: offset {offset} is not a multiple of width {width}")
        free_from = offset + width
        layout.append(plane)
    return layout


def single_plane(planes: object) -> tuple[int, Node] | None:
    """Return bits and stream of residuals that are one plane of one byte, else None."""
    layout = _check_planes(planes)
    if len(layout) == 1 and layout[0][:2] == [0, 1]:
        return layout[0][2], layout[0][3]
    return None
