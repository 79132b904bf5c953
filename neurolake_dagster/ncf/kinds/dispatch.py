"""Which kind holds which Arrow type, both ways. Owns the table of kinds, no bytes."""

from collections.abc import Callable
from typing import Any

import pyarrow as pa

from neurolake_dagster.errors import UnsupportedTypeError
from neurolake_dagster.ncf.arrow import cast_array, is_text, view_storage
from neurolake_dagster.ncf.checks import Damage, Node, brief, need_list
from neurolake_dagster.ncf.kinds import flat, nested, numbers, text, text_table, variants
from neurolake_dagster.ncf.kinds.context import DecodeContext, PrepareContext, Prepared

types = pa.types
Decoder = Callable[[DecodeContext, Node, Any, int], Any]


def is_integer_like(kind: Any) -> bool:
    """Whether values of ``kind`` are stored as integers of 1, 2, 4 or 8 bytes."""
    return bool(
        types.is_integer(kind)
        or (types.is_temporal(kind) and not types.is_interval(kind))
        or types.is_decimal32(kind)
        or types.is_decimal64(kind)
        or types.is_float16(kind)
    )


def is_float(kind: Any) -> bool:
    """Whether values of ``kind`` are float32 or float64."""
    return bool(types.is_float32(kind) or types.is_float64(kind))


def is_wide(kind: Any) -> bool:
    """Whether values of ``kind`` are opaque bytes of one width."""
    return bool(
        types.is_fixed_size_binary(kind)
        or types.is_decimal128(kind)
        or types.is_decimal256(kind)
        or types.is_interval(kind)
    )


def is_list(kind: Any) -> bool:
    """Whether ``kind`` has offsets into one child."""
    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_map(kind))


def is_view_list(kind: Any) -> bool:
    """Whether ``kind`` has offsets and sizes into one child."""
    return bool(types.is_list_view(kind) or types.is_large_list_view(kind))


def _is_number(kind: Any) -> bool:
    return is_integer_like(kind) or is_float(kind)


def _is_anything(kind: Any) -> bool:  # noqa: ARG001
    return True


_DECODERS: dict[int, tuple[Callable[[Any], Any], Decoder]] = {
    flat.NULL: (_is_anything, flat.decode_null),
    flat.BOOL: (types.is_boolean, flat.decode_bool),
    numbers.INT: (is_integer_like, numbers.decode_numbers),
    numbers.FLOAT: (is_float, numbers.decode_numbers),
    numbers.DECIMAL: (types.is_decimal128, numbers.decode_decimals),
    flat.WIDE: (is_wide, flat.decode_wide),
    numbers.NUMBER_TABLE: (_is_number, numbers.decode_number_table),
    numbers.OWN_TABLE: (_is_number, numbers.decode_number_table),
    text.TEXT: (is_text, text.decode_text),
    text.NIBBLES: (is_text, text.decode_text),
    text_table.TEXT_TABLE: (is_text, text_table.decode_text_table),
    nested.STRUCT: (types.is_struct, nested.decode_struct),
    nested.LIST: (is_list, nested.decode_list),
    nested.FIXED_LIST: (types.is_fixed_size_list, nested.decode_fixed_list),
    nested.LIST_VIEW: (is_view_list, nested.decode_list),
    variants.UNION: (types.is_union, variants.decode_union),
    variants.RUN_END: (types.is_run_end_encoded, variants.decode_run_end),
    variants.DICTIONARY: (types.is_dictionary, variants.decode_dictionary),
}


def prepare_array(context: PrepareContext, array: Any) -> Prepared:
    """Plan a chunk, or the child of one, by its type.

    Raises
    ------
    UnsupportedTypeError
        For a type that Arrow has learnt since.
    """
    kind = array.type
    if isinstance(kind, pa.BaseExtensionType):
        return prepare_array(context, array.storage)
    if array.null_count == len(array) and not types.is_union(kind):
        return flat.NullChunk()
    stored = view_storage(kind)
    if stored is not None:
        return text.prepare_text(context, cast_array(array, stored))
    for matches, prepare in _PREPARERS:
        if matches(kind):
            return prepare(context, array)
    raise UnsupportedTypeError(f"NCF cannot store the Arrow type {kind}")


def _prepare_bool(context: PrepareContext, array: Any) -> Prepared:  # noqa: ARG001
    return flat.prepare_bool(array)


def _prepare_integer_like(context: PrepareContext, array: Any) -> Prepared:
    return numbers.prepare_integers(context, array, half=types.is_float16(array.type))


_PREPARERS: list[tuple[Callable[[Any], Any], Callable[[PrepareContext, Any], Prepared]]] = [
    (is_integer_like, _prepare_integer_like),
    (is_float, numbers.prepare_floats),
    (is_text, text.prepare_text),
    (types.is_boolean, _prepare_bool),
    (types.is_decimal128, numbers.prepare_decimals),
    (is_wide, flat.prepare_wide),
    (types.is_struct, nested.prepare_struct),
    (is_list, nested.prepare_list),
    (types.is_fixed_size_list, nested.prepare_fixed_list),
    (is_view_list, nested.prepare_list_view),
    (types.is_union, variants.prepare_union),
    (types.is_run_end_encoded, variants.prepare_run_end),
    (types.is_dictionary, variants.prepare_dictionary),
]


def decode_array(context: DecodeContext, node: object, kind: Any, count: int) -> Any:
    """Decode an array node of ``count`` rows as Arrow type ``kind``."""
    if isinstance(kind, pa.BaseExtensionType):
        return kind.wrap_array(decode_array(context, node, kind.storage_type, count))
    stored = view_storage(kind)
    if stored is not None:
        return cast_array(decode_array(context, node, stored, count), kind)
    fields = need_list(node, None, "array node")
    code = fields[0] if fields else None
    if type(code) is not int or code not in _DECODERS:
        raise Damage(f"array node: unknown kind in {brief(node)}")
    matches, decode = _DECODERS[code]
    if not matches(kind):
        raise Damage(f"array node: kind {code} cannot hold {kind}")
    return decode(context, fields, kind, count)
