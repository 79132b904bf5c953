"""Structs, lists and maps: children are array nodes of their own, no repetition levels.

- struct ``[10, validity, [child, ...]]``; children have the rows of the struct
- list, large_list, map ``[11, validity, lengths, child_rows, child]``: lengths are an integer
  node of one per row that add up to ``child_rows``; a map's child is the struct of key and value
- fixed_size_list ``[12, validity, child]``; the child has rows times size
- list_view, large_list_view ``[13, ...]`` as a list, stored in row order

A null struct or list may have children: they are stored as they are.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from neurolake_dagster.ncf.arrow import (
    build_list,
    build_nested,
    fixed_list_child_of,
    list_child_of,
    list_offsets_of,
    offset_dtype,
    validity_of,
    view_lists_of,
)
from neurolake_dagster.ncf.checks import MAX_CHILD_ROWS, Damage, NDArray, Node, need_int, need_list
from neurolake_dagster.ncf.compression import StreamWriter
from neurolake_dagster.ncf.encodings.integers import IntPlan, encode_integers
from neurolake_dagster.ncf.kinds.context import DecodeContext, PrepareContext, Prepared
from neurolake_dagster.ncf.kinds.text import decode_offsets
from neurolake_dagster.ncf.kinds.validity import decode_validity, encode_validity
from neurolake_dagster.ncf.planning.integers import plan_integers
from neurolake_dagster.ncf.statistics import Stats

STRUCT, LIST, FIXED_LIST, LIST_VIEW = 10, 11, 12, 13


def encode_mask(
    streams: StreamWriter, mask: NDArray | None, start: int, stop: int
) -> tuple[bool, Node | None]:
    """Return whether all rows are null, and the validity node of the page."""
    if mask is None:
        return False, None
    page = mask[start:stop]
    nulls = len(page) - int(np.count_nonzero(page))
    if nulls == len(page):
        return True, None
    return False, encode_validity(streams, page, nulls) if nulls else None


def count_nulls(mask: NDArray | None, start: int, stop: int) -> Stats:
    """Return statistics of a type without order."""
    return Stats(null_count=0 if mask is None else int(np.count_nonzero(~mask[start:stop])))


def child_names(children: Sequence[Prepared]) -> list[str]:
    """Return the encodings of the children, each once."""
    return list(dict.fromkeys(name for child in children for name in child.names()))


@dataclass(frozen=True)
class StructChunk:
    """A struct, its children already prepared."""

    children: tuple[Prepared, ...]
    mask: NDArray | None

    def encode(self, streams: StreamWriter, start: int, stop: int) -> Node:
        """Encode the same rows of every child."""
        empty, validity = encode_mask(streams, self.mask, start, stop)
        if empty:
            return [0]
        return [STRUCT, validity, [c.encode(streams, start, stop) for c in self.children]]

    def stats(self, start: int, stop: int) -> Stats:
        """Count null structs."""
        return count_nulls(self.mask, start, stop)

    def names(self) -> list[str]:
        """Return ``struct`` and what the children use."""
        return ["struct", *child_names(self.children)]


def prepare_struct(context: PrepareContext, array: Any) -> StructChunk:
    """Prepare a struct array and its children."""
    children = tuple(context.prepare(array.field(i)) for i in range(array.type.num_fields))
    return StructChunk(children, validity_of(array))


def decode_struct(context: DecodeContext, node: Node, kind: Any, count: int) -> Any:
    """Decode a struct."""
    need_list(node, 3, "struct node")
    validity = decode_validity(context.streams, node[1], count)
    stored = need_list(node[2], kind.num_fields, "struct children")
    children = [context.decode(c, kind.field(i).type, count) for i, c in enumerate(stored)]
    return build_nested(kind, count, [validity.buffer], validity.nulls, children)


@dataclass(frozen=True)
class ListChunk:
    """Lists of any length; ``offsets`` are relative to the prepared child."""

    kind: int
    offsets: NDArray
    child: Prepared
    mask: NDArray | None
    plan: IntPlan

    def encode(self, streams: StreamWriter, start: int, stop: int) -> Node:
        """Encode lengths, then the children of these rows."""
        empty, validity = encode_mask(streams, self.mask, start, stop)
        if empty:
            return [0]
        window = self.offsets[start : stop + 1]
        first, last = int(window[0]), int(window[-1])
        lengths = encode_integers(streams, np.diff(window), self.plan)
        child = self.child.encode(streams, first, last) if last > first else [0]
        return [self.kind, validity, lengths, last - first, child]

    def stats(self, start: int, stop: int) -> Stats:
        """Count null lists."""
        return count_nulls(self.mask, start, stop)

    def names(self) -> list[str]:
        """Return ``list`` and what the child uses."""
        return ["list", *self.child.names()]


def prepare_list(context: PrepareContext, array: Any) -> ListChunk:
    """Prepare a list, large_list or map array and its child."""
    offsets = list_offsets_of(array)
    child = list_child_of(array, offsets)
    return _prepare_list(context, array, LIST, offsets - offsets[0], child)


def prepare_list_view(context: PrepareContext, array: Any) -> ListChunk:
    """Prepare a list view array: its lists are laid out in row order first. A copy."""
    return _prepare_list(context, array, LIST_VIEW, *view_lists_of(array))


def _prepare_list(
    context: PrepareContext, array: Any, kind: int, offsets: NDArray, child: Any
) -> ListChunk:
    plan = plan_integers(np.diff(offsets), None, context.profile)
    return ListChunk(kind, offsets, context.prepare(child), validity_of(array), plan)


def decode_list(context: DecodeContext, node: Node, kind: Any, count: int) -> Any:
    """Decode kind 11 or 13; offsets are the sums of the lengths."""
    need_list(node, 5, "list node")
    validity = decode_validity(context.streams, node[1], count)
    child_rows = need_int(node[3], 0, MAX_CHILD_ROWS, "child rows")
    dtype = offset_dtype(kind)
    context.budget.debit((count + 1) * dtype.itemsize)
    offsets = decode_offsets(context.streams, node[2], count, dtype, child_rows)
    return build_list(
        kind, count, validity, offsets, lambda child: context.decode(node[4], child, child_rows)
    )


@dataclass(frozen=True)
class FixedListChunk:
    """Lists of one length."""

    size: int
    child: Prepared
    mask: NDArray | None

    def encode(self, streams: StreamWriter, start: int, stop: int) -> Node:
        """Encode the children of these rows."""
        empty, validity = encode_mask(streams, self.mask, start, stop)
        if empty:
            return [0]
        first, last = start * self.size, stop * self.size
        child = self.child.encode(streams, first, last) if last > first else [0]
        return [FIXED_LIST, validity, child]

    def stats(self, start: int, stop: int) -> Stats:
        """Count null lists."""
        return count_nulls(self.mask, start, stop)

    def names(self) -> list[str]:
        """Return ``list`` and what the child uses."""
        return ["list", *self.child.names()]


def prepare_fixed_list(context: PrepareContext, array: Any) -> FixedListChunk:
    """Prepare a fixed_size_list array and its child."""
    child = context.prepare(fixed_list_child_of(array))
    return FixedListChunk(array.type.list_size, child, validity_of(array))


def decode_fixed_list(context: DecodeContext, node: Node, kind: Any, count: int) -> Any:
    """Decode a fixed_size_list."""
    need_list(node, 3, "fixed list node")
    validity = decode_validity(context.streams, node[1], count)
    child_rows = count * kind.list_size
    if child_rows > MAX_CHILD_ROWS:
        raise Damage(f"fixed list: {child_rows} child rows are too many")
    child = context.decode(node[2], kind.value_type, child_rows)
    return build_nested(kind, count, [validity.buffer], validity.nulls, [child])
