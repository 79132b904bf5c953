"""Integer nodes: chooses among constant, frame, delta and runs. Owns the dispatch, no bytes.

========  =====================================  ==========
code      node                                   module
========  =====================================  ==========
0         ``[0, value]``                         constant
1         ``[1, base, gcd, planes]``             frame
2         ``[2, first, base, gcd, planes]``      delta
3         ``[3, first, delta, base, planes]``    delta
4         ``[4, run_count, lengths, values]``    runs
========  =====================================  ==========
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from neurolake_dagster.ncf.checks import Damage, NDArray, Node, brief, need_list
from neurolake_dagster.ncf.compression import StreamReader, StreamWriter
from neurolake_dagster.ncf.encodings import constant, delta, frame, runs
from neurolake_dagster.ncf.encodings.planes import PLAIN_PLANES, PlanePlan

NAMES = ("constant", "frame", "delta", "delta2", "runs")
_FIELDS = (2, 4, 5, 5, 4)
MAX_RUN_DEPTH = 2


@dataclass(frozen=True, kw_only=True)
class IntPlan:
    """How to encode the integers of a chunk; every page may fall back to a frame.

    ``values`` and ``lengths`` are the plans of a runs plan's two parts.
    """

    kind: Literal["frame", "delta", "delta2", "runs", "dictionary"] = "frame"
    gcd: int = 1
    planes: PlanePlan = PLAIN_PLANES
    values: "IntPlan | None" = None
    lengths: "IntPlan | None" = None


FRAME = IntPlan()
DELTA = IntPlan(kind="delta")


def encode_integers(
    streams: StreamWriter,
    values: NDArray,
    plan: IntPlan = FRAME,
    bounds: tuple[int, int] | None = None,
) -> Node:
    """Encode integers of any width; uint64 must come viewed as int64.

    Parameters
    ----------
    bounds
        Exact minimum and maximum of ``values`` if the caller knows them already.
    """
    count = len(values)
    if count == 0:
        return constant.encode_constant(0)
    if plan.kind == "runs":
        found = runs.encode_runs(values)
        if found is not None:
            lengths = encode_integers(streams, found[0], plan.lengths or FRAME)
            firsts = encode_integers(streams, found[1], plan.values or FRAME)
            return [runs.CODE, len(found[0]), lengths, firsts]
    if plan.kind == "delta2" and count > 4:
        return delta.encode_delta_twice(streams, values, plan.planes)
    if plan.kind == "delta":
        return delta.encode_delta(streams, values, plan.gcd, plan.planes)
    low, high = bounds if bounds is not None else (int(values.min()), int(values.max()))
    return frame.encode_frame(streams, values, low, high, plan.gcd, plan.planes)


def need_integers(node: object) -> Node:
    """Return ``node`` if it has the shape of an integer node."""
    fields = need_list(node, None, "integer node")
    code = fields[0] if fields else None
    if type(code) is not int or not 0 <= code < len(_FIELDS) or len(fields) != _FIELDS[code]:
        raise Damage(f"integer node: unknown or malformed {brief(node)}")
    return fields


def decode_integers(
    streams: StreamReader, node: object, count: int, out: NDArray, depth: int = 0
) -> None:
    """Decode ``count`` integers into ``out``: signed, any width, possibly strided."""
    fields = need_integers(node)
    code = fields[0]
    if code == frame.CODE:
        frame.decode_frame(streams, fields, count, out)
    elif code == constant.CODE:
        constant.decode_constant(fields, out)
    elif code == delta.CODE:
        delta.decode_delta(streams, fields, count, out)
    elif code == delta.CODE_TWICE:
        delta.decode_delta_twice(streams, fields, count, out)
    else:
        found = decode_runs(streams, fields, count, np.dtype(np.int64), depth)
        out[...] = np.repeat(found.values, found.lengths)


def decode_runs(
    streams: StreamReader, node: Node, count: int, dtype: np.dtype[np.signedinteger], depth: int = 0
) -> runs.Runs:
    """Return the runs of a runs node, which fill ``count`` rows; values of ``dtype``."""
    if depth >= MAX_RUN_DEPTH:
        raise Damage("runs: nested too deep")
    run_count = runs.decode_run_count(node[1], count)
    lengths = np.empty(run_count, np.int64)
    decode_integers(streams, node[2], run_count, lengths, depth + 1)
    values = np.empty(run_count, dtype)
    decode_integers(streams, node[3], run_count, values, depth + 1)
    return runs.Runs(lengths, runs.decode_run_ends(lengths, count), values)


def encoding_name(node: Node) -> str:
    """Return the name of an integer node's encoding."""
    return NAMES[node[0]]
