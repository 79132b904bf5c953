"""Which rows fit a table: comparing, fitting and numbering of schemas.

Owns the rules of what is cast without loss and what is refused; moves no data but by casts.
"""

import pyarrow as pa

from neurolake_dagster.errors import SchemaMismatchError, TableError
from neurolake_dagster.tables.snapshot import Snapshot, TableSchema

_TEXT = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
_BYTES = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view)
_LISTS = (pa.types.is_list, pa.types.is_large_list, pa.types.is_list_view)
_UNITS = ("s", "ms", "us", "ns")


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
    fresh = 1 + max((i for known in base.schemas.values() for i in known.field_ids), default=-1)
    numbers = []
    for name in plain.names:
        if name in ids:
            numbers.append(ids[name])
        else:
            numbers.append(fresh)
            fresh += 1
    return TableSchema(id=current.id + 1, schema=plain, field_ids=tuple(numbers))


def merged_schema(base: Snapshot, schema: pa.Schema, where: str) -> TableSchema:
    """The table's schema, at its end the columns of the rows that it lacks.

    Raises
    ------
    SchemaMismatchError
        If a column that both have does not fit, or one that must not be null is missing.
    """
    current, plain = base.table_schema, plain_schema(schema)
    added = [field.with_nullable(True) for field in plain if field.name not in current.schema.names]
    whole = pa.schema([*current.schema, *added], current.schema.metadata)
    check_fit(schema, whole, where, may_miss=True)
    if not added:
        return current
    fresh = 1 + max(i for known in base.schemas.values() for i in known.field_ids)
    ids = (*current.field_ids, *range(fresh, fresh + len(added)))
    return TableSchema(id=current.id + 1, schema=whole, field_ids=ids)


def plain_schema(schema: pa.Schema) -> pa.Schema:
    """The schema with views as plain types, and without pandas' own notes.

    Raises
    ------
    TableError
        If two columns share a name.
    """
    twice = sorted({name for name in schema.names if schema.names.count(name) > 1})
    if twice:
        raise TableError(f"columns {twice!r} come twice; rename them before writing")
    metadata = {k: v for k, v in (schema.metadata or {}).items() if k != b"pandas"}
    fields = [field.with_type(_plain_type(field.type)) for field in schema]
    return pa.schema(fields, metadata or None)


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
            f"{where}: the rows do not fit the table: {'; '.join(problems)}; "
            "cast them, or overwrite the whole table"
        )


def fits(have: pa.DataType, want: pa.DataType) -> bool:
    """Whether every value of one type is a value of the other."""
    if have.equals(want) or pa.types.is_null(have):
        return True
    if pa.types.is_dictionary(have):
        return fits(have.value_type, want)
    if any(_both(have, want, family) for family in (_TEXT, _BYTES)):
        return True
    if _both(have, want, _LISTS):
        return fits(have.value_type, want.value_type)
    if pa.types.is_struct(have) and pa.types.is_struct(want):
        return have.num_fields == want.num_fields and all(
            have.field(i).name == want.field(i).name
            and fits(have.field(i).type, want.field(i).type)
            for i in range(have.num_fields)
        )
    return _widens(have, want)


def fit_batch(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """The batch in the table's schema: columns by name, cast where they differ, null if missing.

    No copy where the types are the same.
    """
    columns = []
    for field in schema:
        if field.name not in batch.schema.names:
            columns.append(pa.nulls(batch.num_rows, field.type))
            continue
        column = batch.column(field.name)
        if pa.types.is_dictionary(column.type) and not pa.types.is_dictionary(field.type):
            column = column.dictionary_decode()
        columns.append(column if column.type.equals(field.type) else column.cast(field.type))
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _widens(have: pa.DataType, want: pa.DataType) -> bool:
    if pa.types.is_integer(have) and pa.types.is_integer(want):
        if pa.types.is_signed_integer(have) == pa.types.is_signed_integer(want):
            return bool(have.bit_width <= want.bit_width)
        return pa.types.is_signed_integer(want) and bool(have.bit_width < want.bit_width)
    if pa.types.is_floating(have) and pa.types.is_floating(want):
        return bool(have.bit_width <= want.bit_width)
    if pa.types.is_timestamp(have) and pa.types.is_timestamp(want):
        finer = _UNITS.index(have.unit) <= _UNITS.index(want.unit)
        return finer and have.tz == want.tz
    return False


def _both(have: pa.DataType, want: pa.DataType, family: tuple[object, ...]) -> bool:
    return all(any(is_one(type_) for is_one in family) for type_ in (have, want))  # type: ignore[operator]


def _plain_type(type_: pa.DataType) -> pa.DataType:
    if pa.types.is_string_view(type_):
        return pa.string()
    if pa.types.is_binary_view(type_):
        return pa.binary()
    if pa.types.is_null(type_):
        return type_
    if any(is_list(type_) for is_list in _LISTS):
        child = type_.value_field.with_type(_plain_type(type_.value_type))
        return pa.large_list(child) if pa.types.is_large_list(type_) else pa.list_(child)
    return type_
