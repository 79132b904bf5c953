"""Filters on the row groups of a Parquet file, also those that Arrow cannot skip any by.

Owns which these are. Its statistics of floats leave NaN out, so it would
also skip rows that pass: with a filter such as `f != 1.0` the groups are chosen here, and their
rows tested after they are read.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from neurolake_dagster.ncf.arrow import holds_type
from neurolake_dagster.ncf.expressions import (
    Call,
    Literal,
    Reference,
    Tree,
    columns_of,
    holds_nan,
    parse_expression,
)
from neurolake_dagster.ncf.pruning import mentioned_columns, surviving
from neurolake_dagster.tables.bounds import bounds_of_row_group, flat_columns, promise_of

if TYPE_CHECKING:
    import pyarrow.dataset as ds

_COMPARISONS = ("equal", "less", "less_equal", "greater", "greater_equal")


def must_be_tested(expression: pc.Expression, schema: pa.Schema) -> bool:
    """Whether Arrow must not skip row groups by this filter.

    It leaves out rows that pass because of a NaN, their own or one that the filter compares with,
    and fails at extension types.
    """
    extensions = [field.name for field in schema if holds_type(field.type, _is_extension)]
    if mentioned_columns(expression, extensions):
        return True
    floats = [field.name for field in schema if holds_type(field.type, pa.types.is_floating)]
    tree = parse_expression(expression)
    if tree is None:
        return bool(mentioned_columns(expression, floats))
    return holds_nan(tree) or not _is_false_for_nan(tree, set(floats))


def tested_batches(
    fragment: "ds.ParquetFileFragment", columns: Sequence[str], expression: pc.Expression
) -> Iterator[pa.RecordBatch]:
    """Stream some columns of the rows that pass; no row group is skipped by bounds of floats."""
    schema = fragment.physical_schema
    mentioned = mentioned_columns(expression, schema.names)
    tested = pa.schema([schema.field(name) for name in mentioned])
    places = flat_columns(fragment.metadata)
    promises = [
        promise_of(bounds_of_row_group(group, places, tested), group.num_rows, tested)
        for group in map(fragment.metadata.row_group, range(fragment.num_row_groups))
    ]
    kept = fragment.subset(row_group_ids=surviving(expression, schema, promises))
    # In the file's order, for a filter may name a column by its number.
    names = dict.fromkeys([*schema.names, *columns])
    needed = [name for name in names if name in columns or name in mentioned]
    for batch in kept.scanner(columns=needed, batch_readahead=1).to_batches():
        yield batch.filter(expression).select(list(columns))


def _is_extension(type_: pa.DataType) -> bool:
    return isinstance(type_, pa.BaseExtensionType)


def _is_false_for_nan(tree: Tree, floats: set[str]) -> bool:
    """Whether no NaN in these columns makes it true: comparisons with NaN are false."""
    match tree:
        case Call("and_kleene" | "or_kleene", arguments):
            return all(_is_false_for_nan(one, floats) for one in arguments)
        case Call(function, arguments) if function in _COMPARISONS and all(
            isinstance(one, (Reference, Literal)) for one in arguments
        ):
            return True
    return not floats & columns_of(tree)
