"""Which rows fit a table: comparing, fitting and numbering of schemas.

Owns the rules of what is cast without loss and what is refused; moves no data but by casts.
"""

from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from neurolake_dagster.errors import SchemaMismatchError, TableError
from neurolake_dagster.ncf.batches import rowless_batch
from neurolake_dagster.tables.snapshot import Snapshot, TableSchema

SchemaMode = Literal["strict", "merge", "overwrite"]

TEXT = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
BYTES = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view)
_LIST_VIEWS = (pa.types.is_list_view, pa.types.is_large_list_view)
LISTS = (pa.types.is_list, pa.types.is_large_list, *_LIST_VIEWS)
_LARGE_LISTS = (pa.types.is_large_list, pa.types.is_large_list_view)
# Below other types, Arrow casts them wrongly or not at all.
_UNCAST = (
    *_LIST_VIEWS,
    pa.types.is_dictionary,
    pa.types.is_run_end_encoded,
    pa.types.is_null,
    lambda type_: isinstance(type_, pa.JsonType),
)
_UNITS = ("s", "ms", "us", "ns")
# How large integers a float of so many bits tells apart.
_EXACT_BITS = {16: 11, 32: 24, 64: 53}


def first_schema(schema: pa.Schema) -> TableSchema:
    """The schema of a new table."""
    return TableSchema(id=0, schema=plain_schema(schema), field_ids=tuple(range(len(schema))))


def next_schema(base: Snapshot, schema: pa.Schema) -> TableSchema:
    """The schema of a table whose rows are all replaced; the current one if it is the same."""
    plain = plain_schema(schema)
    current = base.table_schema
    if plain.equals(current.schema, check_metadata=True):
        return current
    ids = dict(zip(current.schema.names, current.field_ids, strict=True))
    fresh = next_field_id(base)
    numbers = []
    for name in plain.names:
        if name in ids:
            numbers.append(ids[name])
        else:
            numbers.append(fresh)
            fresh += 1
    return TableSchema(id=current.id + 1, schema=plain, field_ids=tuple(numbers))


def next_field_id(base: Snapshot) -> int:
    """The first id that no column of a table ever had."""
    return 1 + max((i for known in base.schemas.values() for i in known.field_ids), default=-1)


def schema_after(
    base: Snapshot | None, schema: pa.Schema, mode: SchemaMode | None, where: str, *, whole: bool
) -> TableSchema:
    """The schema of a table after rows of another came to it.

    Parameters
    ----------
    mode
        ``strict`` refuses columns that the table lacks, ``merge`` adds them, ``overwrite`` takes
        the rows'. None is ``overwrite`` for a whole table, else ``strict``.
    whole
        Whether no row stays that was there.

    Raises
    ------
    SchemaMismatchError
        If the rows do not fit.
    """
    if base is None:
        return first_schema(schema)
    if whole and mode in (None, "overwrite"):
        return next_schema(base, schema)
    return merged_schema(base, schema, where, adds=mode == "merge")


def merged_schema(base: Snapshot, schema: pa.Schema, where: str, *, adds: bool) -> TableSchema:
    """The table's schema with what the rows' brings: types for columns that were all null.

    Parameters
    ----------
    adds
        Columns that the table lacks are put at its end, and the rows may lack some.

    Raises
    ------
    SchemaMismatchError
        If a column that both have does not fit, or one that must be there is missing.
    """
    current = base.table_schema
    whole = joined_schema(current.schema, schema, where, adds=adds)
    if whole.equals(current.schema):
        return current
    fresh = next_field_id(base)
    added = len(whole) - len(current.schema)
    ids = (*current.field_ids, *range(fresh, fresh + added))
    return TableSchema(id=current.id + 1, schema=whole, field_ids=ids)


def joined_schema(held: pa.Schema, incoming: pa.Schema, where: str, *, adds: bool) -> pa.Schema:
    """A table's schema with what that of rows brings, as :func:`merged_schema` has it."""
    plain = plain_schema(incoming)
    known = [
        field.with_type(plain.field(field.name).type)
        if pa.types.is_null(field.type) and field.name in plain.names
        else _plain_field(field)
        for field in held
    ]
    new = [field.with_nullable(True) for field in plain if field.name not in held.names]
    whole = pa.schema([*known, *(new if adds else [])], held.metadata)
    check_fit(incoming, whole, where, may_miss=adds)
    return whole


def plain_schema(schema: pa.Schema) -> pa.Schema:
    """The schema in the types that a table holds, and without pandas' own notes.

    Raises
    ------
    TableError
        If two columns share a name.
    """
    twice = sorted({name for name in schema.names if schema.names.count(name) > 1})
    if twice:
        raise TableError(f"columns {twice!r} come twice; rename them before writing")
    metadata = {k: v for k, v in (schema.metadata or {}).items() if k != b"pandas"}
    return pa.schema([_plain_field(field) for field in schema], metadata or None)


def check_fit(incoming: pa.Schema, table: pa.Schema, where: str, *, may_miss: bool = False) -> None:
    """Refuse rows that would lose something in the table's schema.

    The order of columns, their metadata, and forms of the same type (large, view,
    dictionary) do not matter; narrower numbers widen. With `may_miss` a column that may be null
    can be missing.

    Raises
    ------
    SchemaMismatchError
        Naming every column that does not fit.
    """
    problems = [
        f"column {field.name!r} is missing"
        for field in table
        if field.name not in incoming.names and not (may_miss and field.nullable)
    ]
    for field in incoming:
        if field.name not in table.names:
            problems.append(f"column {field.name!r} is not in the table")
        elif not fits(field.type, table.field(field.name).type):
            expected = table.field(field.name).type
            problems.append(f"column {field.name!r} is {field.type}, expected {expected}")
    if problems:
        raise SchemaMismatchError(
            f"{where}: the rows do not fit the table: {'; '.join(problems)}; cast them, "
            f"{'' if may_miss else 'add or leave out columns by schema_mode merge, '}"
            "or overwrite the whole table"
        )


def fits(have: pa.DataType, want: pa.DataType) -> bool:
    """Whether every value of one type is a value of the other."""
    if have.equals(want) or pa.types.is_null(have):
        return True
    if pa.types.is_dictionary(have):
        return fits(have.value_type, want)
    if pa.types.is_dictionary(want):
        return fits(have, want.value_type)
    if any(_both(have, want, family) for family in (TEXT, BYTES)):
        return True
    if isinstance(have, pa.JsonType) and isinstance(want, pa.JsonType):
        return True
    if _both(have, want, LISTS):
        return fits(have.value_type, want.value_type)
    if pa.types.is_fixed_size_list(have) and pa.types.is_fixed_size_list(want):
        return have.list_size == want.list_size and fits(have.value_type, want.value_type)
    if pa.types.is_map(have) and pa.types.is_map(want):
        return fits(have.key_type, want.key_type) and fits(have.item_type, want.item_type)
    if pa.types.is_struct(have) and pa.types.is_struct(want):
        return have.num_fields == want.num_fields and all(
            have.field(i).name == want.field(i).name
            and fits(have.field(i).type, want.field(i).type)
            for i in range(have.num_fields)
        )
    return _widens(have, want)


def fit_batch(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """The batch in the table's schema: columns by name, cast where they differ, null if missing.

    No copy where the types are the same. Without columns it keeps its number of rows.
    """
    if not schema.names:
        return rowless_batch(batch.num_rows, schema)
    columns = []
    for field in schema:
        if field.name not in batch.schema.names:
            columns.append(pa.nulls(batch.num_rows, field.type))
            continue
        columns.append(cast_column(batch.column(field.name), field.type))
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def cast_column(column: pa.Array, type_: pa.DataType) -> pa.Array:
    """The column in another type that holds its values, also where Arrow has no cast.

    pyarrow's own cast (26.0) of list views to lists gives offsets that are one too few.
    """
    if column.type.equals(type_):
        return column
    if pa.types.is_null(column.type) or not len(column):
        return pa.nulls(len(column), type_)
    if not _is_cast_by_arrow(column.type) or not _is_cast_by_arrow(type_):
        if pa.types.is_struct(column.type) and pa.types.is_struct(type_):
            return _cast_struct(column, type_)
        if pa.types.is_map(column.type) and pa.types.is_map(type_):
            return _cast_map(column, type_)
        if _is_list(column.type) and _is_list(type_):
            return _cast_list(column, type_)
        if isinstance(column.type, pa.JsonType) and isinstance(type_, pa.JsonType):
            return pa.ExtensionArray.from_storage(type_, column.storage.cast(type_.storage_type))
    return _decoded(column, type_).cast(type_)


def _decoded(column: pa.Array, type_: pa.DataType) -> pa.Array:
    """The column with its values themselves, or a dictionary of them where one is asked for."""
    if pa.types.is_run_end_encoded(column.type):
        return pc.run_end_decode(column)
    if pa.types.is_dictionary(column.type) and not pa.types.is_dictionary(type_):
        return column.dictionary_decode()
    if pa.types.is_dictionary(type_) and not pa.types.is_dictionary(column.type):
        # Parquet gives back as such only dictionaries of text.
        return column.cast(type_.value_type).dictionary_encode()
    return column


def _is_cast_by_arrow(type_: pa.DataType) -> bool:
    """Whether Arrow's own cast may be left alone with a type, and with all below it."""
    if any(is_one(type_) for is_one in _UNCAST):
        return False
    return all(_is_cast_by_arrow(type_.field(index).type) for index in range(type_.num_fields))


def _is_list(type_: pa.DataType) -> bool:
    return any(is_one(type_) for is_one in (*LISTS, pa.types.is_fixed_size_list))


def _cast_struct(column: pa.Array, type_: pa.StructType) -> pa.Array:
    members = [cast_column(column.field(index), field.type) for index, field in enumerate(type_)]
    return pa.StructArray.from_arrays(members, fields=list(type_), mask=column.is_null())


def _cast_map(column: pa.Array, type_: pa.MapType) -> pa.Array:
    first, last = column.offsets[0].as_py(), column.offsets[-1].as_py()
    keys, items = (
        cast_column(part.slice(first, last - first), one)
        for part, one in ((column.keys, type_.key_type), (column.items, type_.item_type))
    )
    offsets = pc.subtract(column.offsets, first)
    return pa.MapArray.from_arrays(offsets, keys, items, type_, mask=column.is_null())


def _cast_list(column: pa.Array, type_: pa.DataType) -> pa.Array:
    if pa.types.is_fixed_size_list(type_):
        # As a list, it has values under its nulls too.
        values = column.values.slice(column.offset * type_.list_size, len(column) * type_.list_size)
        values = cast_column(values, type_.value_type)
        return pa.FixedSizeListArray.from_arrays(values, type=type_, mask=column.is_null())
    is_large = any(is_one(type_) for is_one in _LARGE_LISTS)
    width, build = (pa.int64(), pa.LargeListArray) if is_large else (pa.int32(), pa.ListArray)
    lengths = pc.fill_null(pc.list_value_length(column), 0)
    ends = pc.cumulative_sum(lengths.cast(pa.int64())).cast(width)
    offsets = pa.concat_arrays([pa.array([0], width), ends])
    values = cast_column(column.flatten(), type_.value_type)
    child = type_.value_field
    built = pa.large_list(child) if is_large else pa.list_(child)
    found = build.from_arrays(offsets, values, type=built, mask=column.is_null())
    # Arrow's cast of lists of nulls to their own type has too few of them.
    return found if built.equals(type_) else found.cast(type_)


def column_texts(schema: pa.Schema) -> list[str]:
    """What stands for each column in a digest: its name, its type, whether it may be null."""
    return [f"{field.name}\0{field.type}\0{field.nullable}" for field in schema]


def fit_table(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """The table in another schema, as :func:`fit_batch`; the same one where it has it."""
    if rows.schema.equals(schema, check_metadata=True):
        return rows
    return pa.Table.from_batches([fit_batch(batch, schema) for batch in rows.to_batches()], schema)


def _widens(have: pa.DataType, want: pa.DataType) -> bool:
    if pa.types.is_integer(have):
        return _holds_integers(want, have)
    if pa.types.is_floating(have) and pa.types.is_floating(want):
        return bool(have.bit_width <= want.bit_width)
    if pa.types.is_decimal(have) and pa.types.is_decimal(want):
        whole = have.precision - have.scale <= want.precision - want.scale
        return bool(have.scale <= want.scale and whole)
    if pa.types.is_timestamp(have) and pa.types.is_timestamp(want):
        finer = _UNITS.index(have.unit) <= _UNITS.index(want.unit)
        return finer and have.tz == want.tz
    if pa.types.is_date(have) and pa.types.is_timestamp(want):
        # Nanoseconds end in 2262; an instant of a day depends on a zone.
        return want.unit != "ns" and want.tz is None
    return False


def _holds_integers(type_: pa.DataType, integers: pa.DataType) -> bool:
    is_signed = pa.types.is_signed_integer(integers)
    if pa.types.is_integer(type_):
        if is_signed == pa.types.is_signed_integer(type_):
            return bool(integers.bit_width <= type_.bit_width)
        return not is_signed and bool(integers.bit_width < type_.bit_width)
    if pa.types.is_floating(type_):
        bits = integers.bit_width - is_signed
        return bool(bits <= _EXACT_BITS.get(type_.bit_width, 0))
    if pa.types.is_decimal(type_):
        digits = len(str(2 ** (integers.bit_width - is_signed)))
        return bool(digits <= type_.precision - type_.scale)
    return False


def _both(have: pa.DataType, want: pa.DataType, family: tuple[object, ...]) -> bool:
    return all(any(is_one(type_) for is_one in family) for type_ in (have, want))  # type: ignore[operator]


def _plain_type(type_: pa.DataType) -> pa.DataType:
    """The type that a table holds values of such a type in.

    Categories of several writes come together in one file, and soon are more than the indices
    of 8 or 16 bits that pandas gives a few of them.
    """
    if pa.types.is_string_view(type_):
        return pa.string()
    if pa.types.is_binary_view(type_):
        return pa.binary()
    if pa.types.is_dictionary(type_):
        is_wide = type_.index_type.bit_width >= pa.int32().bit_width
        index = type_.index_type if is_wide else pa.int32()
        return pa.dictionary(index, type_.value_type, type_.ordered)
    if isinstance(type_, pa.JsonType):
        return pa.json_(_plain_type(type_.storage_type))
    if pa.types.is_struct(type_):
        return pa.struct([_plain_field(field) for field in type_])
    if pa.types.is_map(type_):
        key, item = _plain_field(type_.key_field), _plain_field(type_.item_field)
        return pa.map_(key, item, type_.keys_sorted)
    if pa.types.is_fixed_size_list(type_):
        return pa.list_(_plain_field(type_.value_field), type_.list_size)
    if any(is_list(type_) for is_list in LISTS):
        child = _plain_field(type_.value_field)
        is_large = any(is_one(type_) for is_one in _LARGE_LISTS)
        return pa.large_list(child) if is_large else pa.list_(child)
    return type_


def _plain_field(field: pa.Field) -> pa.Field:
    return field.with_type(_plain_type(field.type))
