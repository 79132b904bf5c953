"""Nulls of a page: nil without any, else ``[mode, null_count, stream]``.

The stream has one bit per row, 1 = valid. Mode 0: null slots hold some valid value and values
are as many as rows. Mode 1 (more than half null): only the valid values are stored.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from neurolake_dagster.ncf.arrow import as_buffer
from neurolake_dagster.ncf.checks import Damage, NDArray, Node, need_int, need_list
from neurolake_dagster.ncf.compression import StreamReader, StreamWriter
from neurolake_dagster.ncf.encodings.packing import packed_bytes

DENSE, SPARSE = 0, 1


def encode_validity(streams: StreamWriter, mask: NDArray, nulls: int, mode: int = DENSE) -> Node:
    """Encode the mask of a page that has nulls."""
    return [mode, nulls, streams.put_plane(np.packbits(mask, bitorder="little"))]


@dataclass(frozen=True)
class Validity:
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
    mode, nulls, stream = need_list(node, 3, "validity")
    need_int(mode, DENSE, SPARSE, "validity mode")
    need_int(nulls, 1, rows - 1, "null count")
    bits = streams.read(stream, packed_bytes(rows, 1))
    if rows % 8 and int(bits[-1]) >> (rows % 8):
        raise Damage("validity: bits set after the last row")
    # By Python's own integers: numpy's two calls cost more in a cold cache, 2 us else.
    valid = int.from_bytes(bits, "little").bit_count()
    if valid != rows - nulls:
        raise Damage(f"validity: {valid} rows valid of {rows}, {nulls} nulls stated")
    return Validity(rows, nulls, mode == SPARSE, bits)
