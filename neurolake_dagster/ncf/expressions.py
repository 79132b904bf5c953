"""Arrow's filter expressions taken apart. Owns the tree and how it is got.

Arrow gives no way to ask an expression what it is made of. It serializes one for pickling, as the
metadata of a schema: calls, references and places of literals in prefix order. What does not fit
that form, such as a column by number, is no tree, and nothing is concluded from it.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

_ITEM = re.compile(r"(call|field_ref|nested_field_ref|literal|options|end): '(.*)'")


@dataclass(frozen=True)
class Reference:
    """A column, or a field below it."""

    name: str
    nested: bool = False


@dataclass(frozen=True)
class Literal:
    """Values that stand in the expression: one, or those of a set, as an Arrow array."""

    values: Any


@dataclass(frozen=True)
class Call:
    """A function and its arguments; a set to look values up in is one of them."""

    function: str
    arguments: Sequence["Tree"]


Tree = Reference | Literal | Call


def parse_expression(expression: Any) -> Tree | None:
    """Return the tree of a `pyarrow.compute.Expression`; None where it has no such form."""
    try:
        _, (raw,) = expression.__reduce__()
        (literals,) = pa.ipc.open_file(raw).read_all().to_batches()
    except (pa.ArrowException, ValueError):
        return None
    text = literals.schema.to_string(
        truncate_metadata=False, show_field_metadata=False, show_schema_metadata=True
    )
    _, _, listed = text.partition("-- schema metadata --\n")
    found = [_ITEM.fullmatch(line) for line in listed.rstrip("\n").split("\n")]
    if None in found:
        return None
    try:
        items = iter([match.groups() for match in found if match is not None])
        return _parse(next(items), items, literals)
    except (StopIteration, LookupError, ValueError):
        return None


def _parse(item: Sequence[str], items: Iterator[Sequence[str]], literals: Any) -> Tree:
    kind, value = item
    if kind == "field_ref":
        return Reference(value)
    if kind == "nested_field_ref":
        first, *_ = [next(items)[1] for _ in range(int(value))]
        return Reference(first, nested=True)
    if kind == "literal":
        return Literal(literals.column(int(value)).slice(0, 1))
    if kind != "call":
        raise ValueError(f"{kind} where a value is expected")
    arguments: list[Tree] = []
    while (item := next(items))[0] != "end":
        if item[0] == "options":
            arguments += _value_sets(literals.column(int(item[1])))
        else:
            arguments.append(_parse(item, items, literals))
    return Call(value, arguments)


def _value_sets(options: Any) -> list[Tree]:
    """Return the values of ``is_in``; the options of other functions are not values."""
    names = [options.type.field(i).name for i in range(options.type.num_fields)]
    return [Literal(options.field("value_set").values)] if "value_set" in names else []


def columns_of(tree: Tree) -> set[str]:
    """Return the columns that an expression refers to."""
    if isinstance(tree, Reference):
        return {tree.name}
    if isinstance(tree, Literal):
        return set()
    return {name for argument in tree.arguments for name in columns_of(argument)}


def holds_nan(tree: Tree) -> bool:
    """Whether a literal is NaN: Arrow's simplifier takes ``x <= NaN`` for true of bounded x."""
    if isinstance(tree, Call):
        return any(map(holds_nan, tree.arguments))
    if isinstance(tree, Reference) or not pa.types.is_floating(tree.values.type):
        return False
    return bool(np.isnan(tree.values.drop_null().to_numpy(zero_copy_only=False)).any())
