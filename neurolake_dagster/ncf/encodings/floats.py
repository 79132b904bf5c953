"""Float nodes: bits ``[0, integer node]``, decimals (decimals.py), words ``[2, stream]``.

Kind 2 hands the little-endian values to zstd as they are.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from neurolake_dagster.ncf.checks import Damage, NDArray, Node, brief, need_list
from neurolake_dagster.ncf.compression import StreamReader, StreamWriter
from neurolake_dagster.ncf.encodings.decimals import (
    CODE as DECIMALS,
    decode_decimals,
    encode_decimals,
)
from neurolake_dagster.ncf.encodings.integers import (
    FRAME,
    IntPlan,
    decode_integers,
    encode_integers,
)

BITS, WORDS = 0, 2
NAMES = ("float bits", "decimal", "float words")
_FIELDS = (2, 4, 2)


@dataclass(frozen=True, kw_only=True)
class FloatPlan:
    """How to encode the floats of a chunk; a page may fall back to its bits."""

    kind: Literal["bits", "decimals", "words", "dictionary"] = "bits"
    exponent: int = 0
    integers: IntPlan = FRAME


def encode_floats(streams: StreamWriter, values: NDArray, plan: FloatPlan) -> Node:
    """Encode float32 or float64 values."""
    if plan.kind == "words":
        return [WORDS, streams.put_text(np.ascontiguousarray(values))]
    if plan.kind == "decimals" and len(values):
        node = encode_decimals(streams, values, plan.exponent, plan.integers)
        if node is not None:
            return node
    integers = plan.integers if plan.kind == "bits" else FRAME
    return [BITS, encode_integers(streams, values.view(f"<i{values.dtype.itemsize}"), integers)]


def decode_floats(streams: StreamReader, node: object, count: int, out: NDArray) -> None:
    """Decode ``count`` values into ``out`` (float32 or float64)."""
    fields = need_list(node, None, "float node")
    code = fields[0] if fields else None
    if type(code) is not int or not 0 <= code < len(_FIELDS) or len(fields) != _FIELDS[code]:
        raise Damage(f"float node: unknown or malformed {brief(node)}")
    if code == DECIMALS:
        decode_decimals(streams, fields, count, out)
    elif code == BITS:
        decode_integers(streams, fields[1], count, out.view(f"<i{out.dtype.itemsize}"))
    else:
        out[...] = streams.read(fields[1], count * out.dtype.itemsize).view(out.dtype)


def encoding_name(node: Node) -> str:
    """Return the name of a float node's encoding."""
    return NAMES[node[0]]
