"""Filters: pyarrow expressions or DNF lists, and which rows statistics can rule out.

Arrow's own simplifier decides: every page becomes a fragment of a dataset that is never opened,
whose guarantee is what the statistics say, and the dataset drops the fragments whose guarantee
contradicts the filter. So pruning means exactly what filtering means.
"""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import fs

from neurolake_dagster.ncf.arrow import (
    convert_exactly,
    holds_type,
    matching_rows,
    plain_of,
    plain_type,
)
from neurolake_dagster.ncf.expressions import (
    Call,
    Literal,
    Reference,
    Tree,
    columns_of,
    holds_nan,
    parse_expression,
)
from neurolake_dagster.ncf.statistics import Stats, typed_bound


def _anything() -> Any:
    """Return what promises nothing. Not a constant: making it imports pandas, inside pyarrow."""
    return pc.scalar(True)


def build_filter(filters: Any) -> Any:
    """Return an expression from one, or from DNF: ``[("a", ">", 1)]`` or a list of such lists."""
    if filters is None or isinstance(filters, pc.Expression):
        return filters
    if not isinstance(filters, (list, tuple)) or not filters:
        raise ValueError(
            f"filters: expected a pyarrow expression or a list of (column, op, value), "
            f"got {filters!r}"
        )
    return pq.filters_to_expression(filters)


def mentioned_columns(expression: Any, names: Sequence[str]) -> list[str]:
    """Return at least the columns that an expression refers to; all where it uses numbers."""
    tree = parse_expression(expression)
    if tree is not None:
        used = columns_of(tree)
        return [name for name in names if name in used]
    try:
        text = str(expression)
    except UnicodeDecodeError:  # Arrow shortens long texts within a character.
        return list(names)
    if "FieldPath" in text:
        return list(names)
    # Its text holds every name as it is, so a name that does not occur in it is not referred to.
    return [name for name in names if name in text]


def guarantee(field: Any, rows: int, stats: Stats) -> Any:
    """Return what statistics promise of every row of a page, as an expression.

    Parameters
    ----------
    field
        Of the plain type.
    """
    column = pc.field(field.name)
    if stats.null_count == rows:
        return column.is_null()
    if stats.nan_count or (stats.nan_count is None and pa.types.is_floating(field.type)):
        # NaN lies outside the bounds, yet passes filters such as ~(x < 1).
        return _anything()
    low, high = typed_bound(stats.min, field.type), typed_bound(stats.max, field.type)
    promises = []
    if low is not None:
        promises.append(column >= low)
    if high is not None:
        promises.append(column <= high)
    if not promises:
        return _anything()
    promise = promises[0] if len(promises) == 1 else promises[0] & promises[1]
    return promise | column.is_null() if stats.null_count else promise


def surviving(expression: Any, schema: Any, guarantees: Sequence[Any]) -> list[int]:
    """Return the indexes of the guarantees that do not rule the filter out."""
    everything = list(range(len(guarantees)))
    tree = parse_expression(expression)
    if tree is None or holds_nan(tree) or not _has_known_sets(tree, schema):
        return everything
    # Imported here: it brings pandas along, a second that no plain read should pay.
    import pyarrow.dataset as ds

    store, form = fs.LocalFileSystem(), ds.ParquetFileFormat()
    fragments = [
        form.make_fragment(str(index), store, partition_expression=promise)
        for index, promise in enumerate(guarantees)
    ]
    dataset = ds.FileSystemDataset(fragments, schema, form, store)
    try:
        return sorted(int(found.path) for found in dataset.get_fragments(filter=expression))
    except pa.ArrowException:
        # Bounds of some types compare with no literal of another zone, or fail a checked cast.
        return everything


def _has_known_sets(tree: Tree, schema: Any) -> bool:
    """Whether each set to look values up in holds what its column can hold.

    Arrow looks up a set as values of the column's type (0.1 as a float32), but its simplifier
    compares the bounds with the set as it is.
    """
    match tree:
        case Call("is_in", (Reference(name, False), Literal(values))):
            kind = plain_type(schema.field(name).type)
            return values.type == kind or convert_exactly(plain_of(values), kind) is not None
        case Call(_, arguments):
            return all(_has_known_sets(argument, schema) for argument in arguments)
    return True


def guarantee_all(fields: Sequence[Any], stats: Sequence[tuple[int, Stats]]) -> Any:
    """Return what (rows, statistics) of several columns promise of the same rows together."""
    whole = _anything()
    for field, (rows, known) in zip(fields, stats, strict=True):
        whole = whole & guarantee(field, rows, known)
    return whole


def check_filter(expression: Any, schema: Any) -> None:
    """Refuse a filter that names unknown columns or compares what cannot be compared."""
    tree = parse_expression(expression)
    unknown = set() if tree is None else columns_of(tree) - set(schema.names)
    if unknown:
        raise ValueError(
            f"filters: no column {', '.join(map(repr, sorted(unknown)))}, there are "
            f"{', '.join(schema.names[:50])}"
        )
    names = set(mentioned_columns(expression, schema.names))
    mentioned = pa.schema([field for field in schema if field.name in names])
    for field in mentioned:
        if holds_type(field.type, pa.types.is_union):
            raise ValueError(f"filters: column {field.name!r} is or holds a union: {field.type}")
    try:
        matching_rows(pa.Table.from_batches([], mentioned), expression)
    except (pa.ArrowException, TypeError) as exc:
        raise ValueError(f"filters: {exc}") from exc
