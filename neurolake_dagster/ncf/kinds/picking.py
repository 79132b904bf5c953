"""Few rows of a page: only their values are made, where the encoding gives them by place.

Owns no bytes: it reads the nodes of numbers.py and text_table.py whose integers are a frame or a
constant. Other nodes are decoded whole.
"""

from typing import Any

import numpy as np

from neurolake_dagster.ncf.arrow import (
    as_buffer,
    build_fixed,
    gather,
    is_text,
    take_texts,
    with_validity,
    words_of,
)
from neurolake_dagster.ncf.checks import Damage, NDArray, Node, need_list
from neurolake_dagster.ncf.compression import StreamReader
from neurolake_dagster.ncf.encodings import constant, frame
from neurolake_dagster.ncf.encodings.integers import need_integers
from neurolake_dagster.ncf.encodings.planes import pick_planes
from neurolake_dagster.ncf.kinds.context import DecodeContext
from neurolake_dagster.ncf.kinds.dispatch import is_integer_like
from neurolake_dagster.ncf.kinds.numbers import DECIMAL, INT, NUMBER_TABLE
from neurolake_dagster.ncf.kinds.text_table import TEXT_TABLE
from neurolake_dagster.ncf.kinds.validity import Validity, decode_validity

# Where each kind has its integers.
_INTEGERS = {INT: 2, DECIMAL: 2, NUMBER_TABLE: 3, TEXT_TABLE: 3}


def pick_rows(context: DecodeContext, node: object, kind: Any, count: int, rows: NDArray) -> Any:
    """Return ``rows`` of an array node of ``count`` rows; None where it must be decoded whole.

    Parameters
    ----------
    rows
        Row numbers below ``count``.
    """
    fields = need_list(node, None, "array node")
    code = fields[0] if fields else None
    if type(code) is not int or code not in _INTEGERS or not _fits(code, kind):
        return None
    at = _INTEGERS[code]
    need_list(fields, at + 1, "array node")
    integers = need_integers(fields[at])
    if integers[0] not in (frame.CODE, constant.CODE):
        return None
    validity = decode_validity(context.streams, fields[1], count)
    if validity.sparse:
        return None
    context.budget.debit(64 * len(rows))
    values = _pick_integers(context.streams, integers, count, rows)
    kept = validity.pick(rows)
    if code in (INT, DECIMAL):
        return _build(code, kind, values, kept)
    table = context.tables.get(fields[2], kind)
    if code == NUMBER_TABLE:
        found = as_buffer(gather(words_of(table), values))
        return build_fixed(kind, len(rows), kept.buffer, kept.nulls, found)
    if table.null_count:
        raise Damage("text table: holds nulls")
    return with_validity(take_texts(table, values), kept.buffer, kept.nulls)


def _fits(code: int, kind: Any) -> bool:
    """Whether these rows of an Arrow type are made here: no extension, view or float."""
    if code == TEXT_TABLE:
        return is_text(kind)
    return str(kind).startswith("decimal128") if code == DECIMAL else is_integer_like(kind)


def _pick_integers(streams: StreamReader, node: Node, count: int, rows: NDArray) -> NDArray:
    out = np.empty(len(rows), np.int64)
    if node[0] == constant.CODE:
        constant.decode_constant(node, out)
        return out
    base, gcd = frame.read_frame(node)
    frame.add_base(pick_planes(streams, node[3], count, rows), base, gcd, out)
    return out


def _build(code: int, kind: Any, values: NDArray, kept: Validity) -> Any:
    if code == DECIMAL:
        stored = np.stack([values, values >> 63], axis=1)
    else:
        stored = values.astype(f"<i{kind.bit_width // 8}")
    return build_fixed(kind, len(values), kept.buffer, kept.nulls, as_buffer(stored))
