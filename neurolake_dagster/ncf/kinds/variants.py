"""Unions, run-end encoded arrays and dictionary arrays.

- union ``[14, type_ids, [[child_rows, child], ...]]``: type ids are an integer node of one per
  row; the children of a sparse union have its rows, those of a dense one the rows of that type
  in row order
- run_end_encoded ``[15, run_count, lengths, values]``
- dictionary ``[16, validity, table, indices]``: the table is the dictionary, indices below its
  length in valid slots and null ones
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from neurolake_dagster.ncf.arrow import (
    allocate,
    build_dictionary,
    build_fixed,
    build_runs,
    build_union,
    runs_of,
    union_children_of,
    union_codes_of,
    validity_of,
    words_of,
)
from neurolake_dagster.ncf.checks import Damage, NDArray, Node, need_int, need_list
from neurolake_dagster.ncf.compression import StreamWriter
from neurolake_dagster.ncf.encodings.integers import (
    IntPlan,
    decode_integers,
    encode_integers,
)
from neurolake_dagster.ncf.encodings.runs import decode_run_count, decode_run_ends
from neurolake_dagster.ncf.kinds.context import DecodeContext, PrepareContext, Prepared
from neurolake_dagster.ncf.kinds.nested import child_names, encode_mask
from neurolake_dagster.ncf.kinds.text_table import valid_codes
from neurolake_dagster.ncf.kinds.validity import decode_validity
from neurolake_dagster.ncf.planning.integers import plan_integers
from neurolake_dagster.ncf.statistics import Ranking, Stats, build_ranking

UNION, RUN_END, DICTIONARY = 14, 15, 16


@dataclass(frozen=True)
class UnionChunk:
    """A union: type ids, and for each child the child rows before every row.

    Parameters
    ----------
    before
        Per child, shape ``(n + 1,)``; for a sparse union simply the row numbers.
    """

    type_ids: NDArray
    children: tuple[Prepared, ...]
    before: Sequence[NDArray]
    plan: IntPlan

    def encode(self, streams: StreamWriter, start: int, stop: int) -> Node:
        """Encode type ids, then the rows of each child."""
        ids = encode_integers(streams, self.type_ids[start:stop], self.plan)
        children: Node = []
        for child, before in zip(self.children, self.before, strict=True):
            first, last = int(before[start]), int(before[stop])
            node = child.encode(streams, first, last) if last > first else [0]
            children.append([last - first, node])
        return [UNION, ids, children]

    def stats(self, start: int, stop: int) -> Stats:  # noqa: ARG002
        """Return no nulls: a union has none of its own."""
        return Stats(null_count=0)

    def names(self) -> list[str]:
        """Return ``union`` and what the children use."""
        return ["union", *child_names(self.children)]


def prepare_union(context: PrepareContext, array: Any) -> UnionChunk:
    """Prepare a sparse or dense union; a dense one's children are put in row order."""
    type_ids = union_codes_of(array)
    children, before = union_children_of(array, type_ids)
    prepared = tuple(context.prepare(child) for child in children)
    return UnionChunk(type_ids, prepared, before, plan_integers(type_ids, None, context.profile))


def decode_union(context: DecodeContext, node: Node, kind: Any, count: int) -> Any:
    """Decode a union; type ids must be among the type's, child rows must agree with them."""
    need_list(node, 3, "union node")
    context.budget.debit(5 * count)
    type_ids = np.empty(count, np.int8)
    decode_integers(context.streams, node[1], count, type_ids)
    stored = need_list(node[2], kind.num_fields, "union children")
    used = np.bincount(type_ids.view(np.uint8), minlength=256)
    if int(used[list(kind.type_codes)].sum()) != count:
        raise Damage("union: a type id is not in the type")
    children = []
    for index, code in enumerate(kind.type_codes):
        rows, child = need_list(stored[index], 2, "union child")
        expected = count if kind.mode == "sparse" else int(used[code])
        need_int(rows, expected, expected, "union child rows")
        children.append(context.decode(child, kind.field(index).type, expected))
    return build_union(kind, type_ids, children)


@dataclass(frozen=True)
class RunEndChunk:
    """A run-end encoded array: exclusive ends (int64) and one value per run."""

    ends: NDArray
    child: Prepared

    def encode(self, streams: StreamWriter, start: int, stop: int) -> Node:
        """Encode the runs that overlap the rows, the outer ones cut."""
        first = int(np.searchsorted(self.ends, start, "right"))
        last = int(np.searchsorted(self.ends, stop, "left")) + 1
        ends = np.minimum(self.ends[first:last], stop) - start
        lengths = encode_integers(streams, np.diff(ends, prepend=0))
        return [RUN_END, last - first, lengths, self.child.encode(streams, first, last)]

    def stats(self, start: int, stop: int) -> Stats:  # noqa: ARG002
        """Return no nulls: only the values of the runs have them."""
        return Stats(null_count=0)

    def names(self) -> list[str]:
        """Return ``run_end`` and what the values use."""
        return ["run_end", *self.child.names()]


def prepare_run_end(context: PrepareContext, array: Any) -> RunEndChunk:
    """Prepare a run-end encoded array, its slice applied."""
    ends, values = runs_of(array)
    return RunEndChunk(ends, context.prepare(values))


def decode_run_end(context: DecodeContext, node: Node, kind: Any, count: int) -> Any:
    """Decode a run-end encoded array without expanding it."""
    need_list(node, 4, "run-end node")
    run_count = decode_run_count(node[1], count)
    limit = 1 << (kind.run_end_type.bit_width - 1)
    if count >= limit:
        raise Damage(f"run ends: {count} rows do not fit in {kind.run_end_type}")
    lengths = context.budget.empty(run_count, np.int64)
    decode_integers(context.streams, node[2], run_count, lengths)
    values = context.decode(node[3], kind.value_type, run_count)
    return build_runs(kind, decode_run_ends(lengths, count), values, count)


@dataclass(frozen=True)
class DictionaryChunk:
    """A dictionary array: its indices, null slots 0, and the number of its dictionary."""

    number: int
    indices: NDArray
    mask: NDArray | None
    plan: IntPlan
    ranking: Ranking | None

    def encode(self, streams: StreamWriter, start: int, stop: int) -> Node:
        """Encode the indices of the rows."""
        empty, validity = encode_mask(streams, self.mask, start, stop)
        if empty:
            return [0]
        indices = encode_integers(streams, self.indices[start:stop], self.plan)
        return [DICTIONARY, validity, self.number, indices]

    def stats(self, start: int, stop: int) -> Stats:
        """Return bounds of the values used, where the dictionary is ranked."""
        codes, nulls = valid_codes(self.indices, self.mask, start, stop)
        if not len(codes) or self.ranking is None:
            return Stats(null_count=nulls)
        return self.ranking.stats(codes, nulls)

    def names(self) -> list[str]:
        """Return ``arrow dictionary`` and the encoding of the indices."""
        return ["arrow dictionary", self.plan.kind]


def prepare_dictionary(context: PrepareContext, array: Any) -> DictionaryChunk:
    """Prepare a dictionary array; its dictionary becomes a table of the chunk."""
    indices, mask = words_of(array.indices), validity_of(array.indices)
    if mask is not None:
        indices = np.where(mask, indices, indices.dtype.type(0))
    if indices.dtype == np.uint64:
        indices = indices.view(np.int64)
    number = context.tables.add(array.dictionary)
    plan = plan_integers(indices, None, context.profile)
    return DictionaryChunk(number, indices, mask, plan, build_ranking(array.dictionary))


def decode_dictionary(context: DecodeContext, node: Node, kind: Any, count: int) -> Any:
    """Decode a dictionary array; every index must lie in the dictionary."""
    need_list(node, 4, "dictionary node")
    validity = decode_validity(context.streams, node[1], count)
    table = context.tables.get(node[2], kind.value_type)
    width = kind.index_type.bit_width // 8
    buffer, indices = allocate(context.budget, count, f"<i{width}")
    decode_integers(context.streams, node[3], count, indices)
    if count and int(indices.view(f"<u{width}").max()) >= len(table):
        raise Damage(f"dictionary: an index is not below its {len(table)} values")
    array = build_fixed(kind.index_type, count, validity.buffer, validity.nulls, buffer)
    return build_dictionary(array, table, kind)
