"""Nulls of a page: nil without any, else ``[mode, null_count, where]``.

Mode 0: null slots hold some valid value and values are as many as rows; ``where`` is a stream of
one bit per row, 1 = valid. Mode 1 (more than half null): the same, but only the valid values are
stored. Mode 2 (few nulls): as mode 0, ``where`` is the list of the null rows.
"""

from typing import Any, NamedTuple

import numpy as np

from neurolake_dagster.ncf.arrow import as_buffer
from neurolake_dagster.ncf.checks import Damage, NDArray, Node, need_int, need_list
from neurolake_dagster.ncf.compression import StreamReader, StreamWriter
from neurolake_dagster.ncf.encodings.packing import packed_bytes

DENSE, SPARSE, FEW = 0, 1, 2
# So many row numbers take no more bytes than the bitmap does, and no call of the codec.
_FEW_NULLS = 8


def encode_validity(streams: StreamWriter, mask: NDArray, nulls: int, mode: int = DENSE) -> Node:
    """Encode the mask of a page that has nulls; `DENSE` or `SPARSE` says what is stored of them."""
    if mode == DENSE and nulls <= _FEW_NULLS:
        return [FEW, nulls, np.flatnonzero(~mask).tolist()]
    return [mode, nulls, streams.put_plane(np.packbits(mask, bitorder="little"))]


class Validity(NamedTuple):
    """The nulls of a decoded page; ``buffer`` is an Arrow bitmap or None without nulls."""

    rows: int
    nulls: int = 0
    sparse: bool = False
    bits: NDArray | None = None

    @property
    def buffer(self) -> Any:
        """Return the bitmap as a buffer, None without nulls."""
        return None if self.bits is None else as_buffer(self.bits)

    @property
    def stored(self) -> int:
        """Return how many values the streams hold."""
        return self.rows - self.nulls if self.sparse else self.rows

    def mask(self) -> NDArray:
        """Return the bool mask of a page that has nulls."""
        assert self.bits is not None
        return np.unpackbits(self.bits, count=self.rows, bitorder="little").view(bool)

    def pick(self, rows: NDArray) -> "Validity":
        """Return the nulls of some rows; not of sparse values."""
        if self.bits is None:
            return Validity(len(rows))
        mask = self.mask()[rows]
        nulls = len(rows) - int(np.count_nonzero(mask))
        if not nulls:
            return Validity(len(rows))
        return Validity(len(rows), nulls, bits=np.packbits(mask, bitorder="little"))


def decode_validity(streams: StreamReader, node: object, rows: int) -> Validity:
    """Read and check the nulls of ``rows`` rows: the bitmap must agree with the count."""
    if node is None:
        return Validity(rows)
    mode, nulls, where = need_list(node, 3, "validity")
    need_int(mode, DENSE, FEW, "validity mode")
    need_int(nulls, 1, rows - 1, "null count")
    if mode == FEW:
        return Validity(rows, nulls, bits=_bits_without(need_list(where, nulls, "null rows"), rows))
    bits = streams.read(where, packed_bytes(rows, 1))
    if rows % 8 and int(bits[-1]) >> (rows % 8):
        raise Damage("validity: bits set after the last row")
    # A Python integer: 30 us less than numpy in a cold cache, 10 us more in a large page.
    valid = int.from_bytes(bits, "little").bit_count()
    if valid != rows - nulls:
        raise Damage(f"validity: {valid} rows valid of {rows}, {nulls} nulls stated")
    return Validity(rows, nulls, mode == SPARSE, bits)


def _bits_without(null_rows: Node, rows: int) -> NDArray:
    """Return the bitmap of ``rows`` rows, all valid but some; nothing is set after the last."""
    bits = bytearray(b"\xff") * packed_bytes(rows, 1)
    bits[-1] = 255 >> (-rows % 8)
    free_from = 0
    for row in null_rows:
        need_int(row, free_from, rows - 1, "null row")
        bits[row >> 3] ^= 1 << (row & 7)
        free_from = row + 1
    return np.frombuffer(bits, np.uint8)
