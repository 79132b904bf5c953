"""The same values in the types that Arrow's comparisons know, and the rows that pass a filter."""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from neurolake_dagster.ncf.arrow.views import array_of, numbers_of, runs_of
from neurolake_dagster.ncf.checks import NDArray

types = pa.types


def is_text(kind: Any) -> bool:
    """Whether ``kind`` is string or binary with offsets."""
    return bool(
        types.is_string(kind)
        or types.is_binary(kind)
        or types.is_large_string(kind)
        or types.is_large_binary(kind)
    )


def view_storage(kind: Any) -> Any:
    """Return the type with offsets that a string or binary view is stored as, else None."""
    if types.is_string_view(kind):
        return pa.string()
    return pa.binary() if types.is_binary_view(kind) else None


def plain_type(kind: Any) -> Any:
    """Return the type that values of ``kind`` are compared as; most are themselves."""
    if isinstance(kind, pa.BaseExtensionType):
        return plain_type(kind.storage_type)
    if types.is_dictionary(kind) or types.is_run_end_encoded(kind):
        return plain_type(kind.value_type)
    if types.is_float16(kind):
        return pa.float32()
    if types.is_decimal32(kind) or types.is_decimal64(kind):
        return pa.decimal128(kind.precision, kind.scale)
    return view_storage(kind) or kind


def plain_of(array: Any) -> Any:
    """Return an array as its `plain_type`."""
    kind = array.type
    if isinstance(kind, pa.BaseExtensionType):
        return plain_of(array.storage)
    if types.is_dictionary(kind):
        return _decode_dictionary(plain_of(array.dictionary), array.indices)
    if types.is_run_end_encoded(kind):
        # Arrow's own kernel knows no views.
        ends, values = runs_of(array)
        runs = np.repeat(np.arange(len(ends)), np.diff(ends, prepend=0))
        return _decode_dictionary(plain_of(values), array_of(runs))
    return array if plain_type(kind) == kind else array.cast(plain_type(kind))


def _decode_dictionary(dictionary: Any, indices: Any) -> Any:
    if not len(dictionary):
        return pa.nulls(len(indices), dictionary.type)
    return dictionary.take(indices)


def plain_schema(schema: Any) -> Any:
    """Return a schema with every column as its `plain_type`."""
    return pa.schema([pa.field(field.name, plain_type(field.type)) for field in schema])


def convert_exactly(values: Any, kind: Any) -> Any:
    """Return values as the column holds them; None if one is null or is not the same there."""
    if values.null_count or not _are_akin(values.type, kind):
        return None
    try:
        found = values.cast(kind)
        return found if found.cast(values.type).equals(values) else None
    except pa.ArrowException:
        return None


def _are_akin(given: Any, kind: Any) -> bool:
    """Whether Arrow compares values of the two types as what they are."""
    if types.is_timestamp(given) and types.is_timestamp(kind):
        return (given.tz is None) == (kind.tz is None)
    pairs = (
        (types.is_integer, types.is_integer),
        (types.is_integer, types.is_floating),
        (types.is_floating, types.is_floating),
        (types.is_decimal, types.is_decimal),
        (_is_string, _is_string),
        (_is_binary, _is_binary),
    )
    return bool(given == kind or any(a(given) and b(kind) for a, b in pairs))


def _is_string(kind: Any) -> bool:
    return bool(types.is_string(kind) or types.is_large_string(kind))


def _is_binary(kind: Any) -> bool:
    return bool(types.is_binary(kind) or types.is_large_binary(kind))


def matching_rows(table: Any, expression: Any) -> NDArray:
    """Return the row numbers of a table that pass a filter expression, ascending.

    Only what the filter computes is gathered: some types have no such kernel.
    """
    # Imported here: it brings pandas along, a second that no plain read should pay.
    from pyarrow import acero

    schema = plain_schema(table.schema).append(pa.field("\0row", pa.int64()))
    columns = [
        pa.chunked_array([plain_of(chunk) for chunk in column.chunks], field.type)
        for column, field in zip(table.columns, schema, strict=False)
    ]
    numbered = pa.Table.from_arrays([*columns, array_of(np.arange(table.num_rows))], schema=schema)
    plan = acero.Declaration.from_sequence(
        [
            acero.Declaration("table_source", acero.TableSourceNodeOptions(numbered)),
            acero.Declaration(
                "project",
                acero.ProjectNodeOptions([expression, pc.field("\0row")], ["passes", "row"]),
            ),
        ]
    )
    found = plan.to_table(use_threads=False)
    passes, rows = (column.combine_chunks() for column in found.columns)
    return numbers_of(rows.filter(passes))
