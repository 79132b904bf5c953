"""Arrow types as Spark takes them, both ways: the only owner of that translation.

Owns the refusal of types that the other side lacks. Moves no rows but by `fit_table`.
"""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyspark.errors import PySparkException
from pyspark.sql.pandas.types import from_arrow_schema, to_arrow_schema, to_arrow_type
from pyspark.sql.types import (
    ArrayType,
    DataType,
    GeographyType,
    GeometryType,
    MapType,
    StringType,
    StructType,
    VariantType,
)

from neurolake_dagster.errors import SchemaMismatchError, UnsupportedTypeError
from neurolake_dagster.tables.schemas import fits

# Arrow would carry these as bare structs, and they would come back as such.
REFUSED = (VariantType, GeometryType, GeographyType)
_PLAIN: dict[int, pa.DataType] = {
    pa.lib.Type_UINT8: pa.int16(),
    pa.lib.Type_UINT16: pa.int32(),
    pa.lib.Type_UINT32: pa.int64(),
    pa.lib.Type_UINT64: pa.decimal128(20, 0),
    pa.lib.Type_HALF_FLOAT: pa.float32(),
    pa.lib.Type_LARGE_STRING: pa.string(),
    pa.lib.Type_STRING_VIEW: pa.string(),
    pa.lib.Type_LARGE_BINARY: pa.binary(),
    pa.lib.Type_BINARY_VIEW: pa.binary(),
    pa.lib.Type_FIXED_SIZE_BINARY: pa.binary(),
    pa.lib.Type_DATE64: pa.date32(),
    pa.lib.Type_TIME32: pa.time64("ns"),
    pa.lib.Type_TIME64: pa.time64("ns"),
    pa.lib.Type_DURATION: pa.duration("us"),
}


def spark_schema(schema: pa.Schema) -> StructType:
    """The Spark schema of a file's: every column nullable, names and order kept.

    Raises
    ------
    UnsupportedTypeError
        Naming every column that Spark has no type for.
    """
    plain, problems = [], []
    for field in schema:
        try:
            plain.append(pa.field(field.name, plain_type(field.type)))
            from_arrow_schema(pa.schema([plain[-1]]))
        except (PySparkException, UnsupportedTypeError):
            problems.append(f"{field.name!r} ({field.type})")
    if problems:
        raise UnsupportedTypeError(
            f"columns {', '.join(problems)}: Spark has no such type; leave them out by "
            'option("columns", ...)'
        )
    return from_arrow_schema(pa.schema(plain))


def arrow_schema(schema: StructType, *, is_stored: bool = False) -> pa.Schema:
    """The Arrow schema of a Spark schema, exactly as Spark exchanges it with Python.

    Parameters
    ----------
    is_stored
        Whether files are to have it: these know no collations, by which Spark compares text.

    Raises
    ------
    UnsupportedTypeError
        Naming every column that a file cannot hold.
    """
    problems = []
    for field in schema:
        try:
            to_arrow_type(field.dataType, timezone="UTC")
            known = not _is_refused(field.dataType, is_stored)
        except (PySparkException, ValueError):  # the latter of lists of void, as array() is
            known = False
        if not known:
            problems.append(f"{field.name!r} ({field.dataType.simpleString()})")
    if problems:
        raise UnsupportedTypeError(
            f"columns {', '.join(problems)}: Arrow, by which rows go to Python, has no such type; "
            "cast them, for example to string"
        )
    return to_arrow_schema(schema, timezone="UTC")


def _is_refused(kind: DataType, is_stored: bool) -> bool:
    """Whether a type, or one inside it, is refused."""
    if isinstance(kind, ArrayType):
        return _is_refused(kind.elementType, is_stored)
    if isinstance(kind, MapType):
        return _is_refused(kind.keyType, is_stored) or _is_refused(kind.valueType, is_stored)
    if isinstance(kind, StructType):
        return any(_is_refused(field.dataType, is_stored) for field in kind)
    if is_stored and isinstance(kind, StringType):
        return kind.collation != StringType().collation
    return isinstance(kind, REFUSED)


def plain_type(kind: Any) -> pa.DataType:
    """The next Arrow type that Spark takes and that holds every value; nested too."""
    types = pa.types
    if types.is_dictionary(kind) or types.is_run_end_encoded(kind):
        return plain_type(kind.value_type)
    if isinstance(kind, pa.BaseExtensionType):
        return plain_type(kind.storage_type)
    if types.is_timestamp(kind):
        return pa.timestamp("us", None if kind.tz is None else "UTC")
    if types.is_decimal(kind):
        return _plain_decimal(kind)
    if types.is_map(kind):
        return pa.map_(plain_type(kind.key_type), plain_type(kind.item_type))
    if types.is_struct(kind):
        return pa.struct([pa.field(one.name, plain_type(one.type)) for one in kind])
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return pa.list_(pa.field("element", plain_type(kind.value_type)))
    return _PLAIN.get(kind.id, kind)


def _plain_decimal(kind: Any) -> pa.DataType:
    if kind.precision > 38:
        raise UnsupportedTypeError(f"{kind}: Spark's decimals have at most 38 digits")
    return pa.decimal128(kind.precision, kind.scale)


def keeps_values(stored: Any, asked: Any) -> bool:
    """Whether values come out as they are stored: bounds of these then hold for what is read.

    Of times only where the unit is the same: in the log bounds are integers of it.
    """
    if pa.types.is_dictionary(stored):
        stored = stored.value_type
    if pa.types.is_timestamp(stored):
        return bool(stored.unit == "us" and plain_type(stored) == asked)
    widened = stored if pa.types.is_temporal(stored) else _PLAIN.get(stored.id, stored)
    return bool(widened == asked)


def match_names(asked: Sequence[str], held: Sequence[str], where: str) -> list[str | None]:
    """For each asked name the held one: the very same, else the only one that differs in case.

    None where there is none. A held name that is asked for itself is no other's.

    Raises
    ------
    SchemaMismatchError
        If several differ in case only.
    """
    known, wanted = set(held), set(asked)
    found: list[str | None] = []
    for name in asked:
        if name in known:
            found.append(name)
            continue
        near = [one for one in held if one.lower() == name.lower() and one not in wanted]
        if len(near) > 1:
            raise SchemaMismatchError(
                f"{where}: {name!r} may be any of {near!r}; expected one of these spellings"
            )
        found.append(near[0] if near else None)
    return found


def fit_table(
    table: pa.Table,
    schema: pa.Schema,
    sources: list[str | None],
    *,
    allows_missing: bool = False,
) -> pa.Table:
    """The table in exactly the asked schema; nothing is copied where the types are the same.

    Parameters
    ----------
    sources
        For each field of `schema` the column of `table` that it is made of; None gives nulls.
    allows_missing
        Whether a field that a struct lacks is null there; else that is an error.

    Raises
    ------
    SchemaMismatchError
        If a column's values do not fit the asked type, or are nulls where it allows none.
    """
    columns = []
    for field, source in zip(schema, sources, strict=True):
        if source is None:
            column = pa.chunked_array([pa.nulls(table.num_rows, field.type)])
        else:
            column = table.column(source)
        if column.type != field.type:
            column = _cast(column, field, allows_missing)
        # Spark would not look for them, and take what lies in their place.
        if column.null_count and not field.nullable:
            raise SchemaMismatchError(
                f"column {field.name!r}: {column.null_count} nulls in the file, but the schema "
                "that was asked for says NOT NULL; leave NOT NULL out"
            )
        columns.append(column)
    return pa.Table.from_arrays(columns, schema=schema)


def _cast(column: pa.ChunkedArray, field: pa.Field, allows_missing: bool) -> pa.ChunkedArray:
    try:
        chunks = [_fit(chunk, field.type, field.name, allows_missing) for chunk in column.chunks]
    except pa.ArrowException:
        # Arrow quotes the value, and Spark all causes.
        raise _misfit(field.name, column.type, field.type, _BEYOND) from None
    return pa.chunked_array(chunks, field.type)


def _fit(array: Any, asked: Any, name: str, allows_missing: bool) -> pa.Array:
    """The values as another type of the same kind; what is nested part by part."""

    def fit(part: Any, kind: Any, below: str = "") -> pa.Array:
        return _fit(part, kind, name + below, allows_missing)

    if isinstance(array, pa.ExtensionArray):
        return fit(array.storage, asked)
    if isinstance(array, pa.DictionaryArray):
        return fit(array.dictionary_decode(), asked)
    if isinstance(array, pa.RunEndEncodedArray):
        return fit(pc.run_end_decode(array), asked)
    types, stored = pa.types, array.type
    if stored == asked:
        return array
    if types.is_struct(stored) and types.is_struct(asked):
        return _fit_struct(array, asked, name, allows_missing)
    if types.is_list(asked) and (types.is_large_list(stored) or types.is_fixed_size_list(stored)):
        return fit(array.cast(pa.list_(stored.value_field)), asked)
    if types.is_list(stored) and types.is_list(asked):
        return _with_values(array, asked, fit(array.values, asked.value_type, ".element"))
    if types.is_map(stored) and types.is_map(asked):
        keys, items = array.values.flatten()
        parts = [fit(keys, asked.key_type, ".key"), fit(items, asked.item_type, ".value")]
        fields = [asked.key_field, asked.item_field]
        return _with_values(array, asked, pa.StructArray.from_arrays(parts, fields=fields))
    return _fit_plain(array, asked, name)


def _fit_struct(array: Any, asked: Any, name: str, allows_missing: bool) -> pa.Array:
    held = [field.name for field in array.type]
    sources = match_names([field.name for field in asked], held, f"column {name!r}")
    members = dict(zip(held, array.flatten(), strict=True))
    parts = []
    for field, source in zip(asked, sources, strict=True):
        if source is None and not allows_missing:
            raise SchemaMismatchError(
                f"column {name!r}: no field {field.name!r}, the file has {held!r}; "
                'option("mergeSchema", true) reads it as null'
            )
        part = pa.nulls(len(array)) if source is None else members[source]
        parts.append(_fit(part, field.type, f"{name}.{field.name}", allows_missing))
        if not field.nullable and parts[-1].filter(array.is_valid()).null_count:
            raise _misfit(f"{name}.{field.name}", part.type, field, "it has nulls")
    return pa.StructArray.from_arrays(parts, fields=list(asked), mask=array.is_null())


def _with_values(array: pa.Array, asked: Any, values: pa.Array) -> pa.Array:
    """A list or map with other values behind the same offsets."""
    return pa.Array.from_buffers(
        asked, len(array), array.buffers()[:2], offset=array.offset, children=[values]
    )


def _fit_plain(array: pa.Array, asked: Any, name: str) -> pa.Array:
    stored = array.type
    is_wider = fits(stored, asked)
    if not is_wider and not any(is_one(stored) and is_one(asked) for is_one in _KINDS):
        raise _misfit(name, stored, asked, "cast it after reading")
    # Nanoseconds are cut to the microseconds that Spark has; nothing else may lose.
    is_cut = _unit_of(stored) == "ns" and _unit_of(asked) == "us"
    found = array.cast(asked, safe=not is_cut)
    # Arrow rounds to floats and from them without a word.
    is_rounded = not is_wider and (pa.types.is_floating(stored) or pa.types.is_floating(asked))
    if is_rounded and not _same_numbers(array, found.cast(stored)):
        raise _misfit(name, stored, asked, "numbers would be rounded; cast it after reading")
    return found


def _same_numbers(one: pa.Array, other: pa.Array) -> bool:
    same = pc.or_(pc.equal(one, other), pc.is_nan(one))
    return bool(pc.all(same, min_count=0).as_py())


def _misfit(name: str, stored: Any, asked: Any, reason: str) -> SchemaMismatchError:
    return SchemaMismatchError(
        f"column {name!r}: {stored} in the file does not fit {asked}: {reason}"
    )


def _is_number(kind: Any) -> bool:
    return any(
        is_one(kind) for is_one in (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal)
    )


def _is_bytes(kind: Any) -> bool:
    return _PLAIN.get(kind.id, kind) in (pa.string(), pa.binary())


def _unit_of(kind: Any) -> str | None:
    """The unit of a moment, duration or time; None for what has none."""
    return getattr(kind, "unit", None)


_BEYOND = "some values are beyond it; cast it after reading"
# Within one of these values are cast if none of them changes; text is bytes in UTF-8.
_KINDS = (
    *(_is_number, _is_bytes),
    *(pa.types.is_timestamp, pa.types.is_date, pa.types.is_time, pa.types.is_duration),
)
