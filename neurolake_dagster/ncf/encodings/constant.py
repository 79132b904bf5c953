"""One value for all rows: node ``[0, value]``, no streams."""

from neurolake_dagster.ncf.checks import INT64_MAX, INT64_MIN, NDArray, Node, need_int

CODE = 0


def encode_constant(value: int) -> Node:
    """Return the node of a column whose values are all ``value`` (int64)."""
    return [CODE, value]


def decode_constant(node: Node, out: NDArray) -> None:
    """Fill ``out`` (signed integers) with the value, wrapped to its width."""
    out[...] = wrap(need_int(node[1], INT64_MIN, INT64_MAX, "constant"), out)


def wrap(value: int, like: NDArray) -> int:
    """Return ``value`` modulo the width of the signed dtype of ``like``."""
    bits = like.dtype.itemsize * 8
    half = 1 << (bits - 1)
    return ((value + half) & ((1 << bits) - 1)) - half
