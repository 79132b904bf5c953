"""What is changed of a table without a change of its rows: its columns and its properties.

Owns which changes of a schema lose nothing. Files stay as they are.
"""

from collections.abc import Mapping, Sequence

import pyarrow as pa

from neurolake_dagster.errors import SchemaMismatchError, TableError
from neurolake_dagster.tables.change import Change, Commit
from neurolake_dagster.tables.commit import carry_out, checked_properties
from neurolake_dagster.tables.schemas import fits, next_field_id, plain_schema
from neurolake_dagster.tables.snapshot import TableSchema
from neurolake_dagster.tables.table import Table


def evolve_schema(
    table: Table,
    *,
    add: Mapping[str, pa.DataType] | None = None,
    drop: Sequence[str] = (),
    rename: Mapping[str, str] | None = None,
    widen: Mapping[str, pa.DataType] | None = None,
) -> Commit:
    """Change a table's columns without touching a file.

    Added columns are null in the rows there are; a dropped name that is added again does not
    bring its old values back. Only changes without loss are taken.

    Raises
    ------
    SchemaMismatchError
        Naming all changes that are not possible.
    """
    if table.format != "ncf":
        raise TableError(
            f"{table.uri}: {table.format} files are read by others, who would see the old columns;"
            " overwrite the table instead"
        )
    snapshot = table.snapshot()
    current = snapshot.table_schema
    renames = dict(rename or {})
    wider, added = (
        {name: _as_type(name, type_, table.uri) for name, type_ in (one or {}).items()}
        for one in (widen, add)
    )
    problems = _problems(current.schema, added, drop, renames, wider)
    if problems:
        raise SchemaMismatchError(f"{table.uri}: {'; '.join(problems)}")
    fresh = next_field_id(snapshot)
    fields = [
        (number, _changed(field, renames, wider))
        for number, field in zip(current.field_ids, current.schema, strict=True)
        if field.name not in drop
    ]
    fields += [(fresh + i, pa.field(name, type_)) for i, (name, type_) in enumerate(added.items())]
    schema = TableSchema(
        id=current.id + 1,
        schema=plain_schema(pa.schema([field for _, field in fields], current.schema.metadata)),
        field_ids=tuple(number for number, _ in fields),
    )
    change = Change(operation="evolve", files=(), schema=schema, replaced=None)
    return carry_out(table.folder, table.format, change, snapshot, lambda: None)


def set_properties(table: Table, properties: Mapping[str, str]) -> Commit:
    """Set properties of the table, beside those it has; a commit of its own.

    Raises
    ------
    TableError
        If one is no text.
    """
    snapshot = table.snapshot()
    change = Change(
        operation="properties",
        files=(),
        schema=snapshot.table_schema,
        replaced=None,
        sets=checked_properties(properties, table.uri),
    )
    return carry_out(table.folder, table.format, change, snapshot, lambda: None)


def _as_type(name: str, type_: object, where: str) -> pa.DataType:
    """A column's type; Arrow's own name of one does too."""
    try:
        return pa.type_for_alias(type_) if isinstance(type_, str) else pa.field(name, type_).type
    except (TypeError, ValueError) as exc:
        raise SchemaMismatchError(
            f"{where}: column {name!r} as {type_!r}, expected an Arrow type as pa.int64()"
        ) from exc


def _changed(
    field: pa.Field, renames: Mapping[str, str], wider: Mapping[str, pa.DataType]
) -> pa.Field:
    typed = field.with_type(wider.get(field.name, field.type))
    return typed.with_name(renames.get(field.name, field.name))


def _problems(
    schema: pa.Schema,
    add: Mapping[str, pa.DataType],
    drop: Sequence[str],
    rename: Mapping[str, str],
    widen: Mapping[str, pa.DataType],
) -> list[str]:
    found = [
        f"column {name!r} is not in the table {schema.names!r}"
        for name in [*drop, *rename, *widen]
        if name not in schema.names
    ]
    found += [
        f"column {name!r} is to be dropped, and changed too"
        for name in drop
        if name in rename or name in widen
    ]
    left = [rename.get(name, name) for name in schema.names if name not in drop] + list(add)
    found += [f"column {name!r} would come twice" for name in set(left) if left.count(name) > 1]
    found += [
        f"column {name!r} is {schema.field(name).type}, {type_} does not hold all its values"
        for name, type_ in widen.items()
        if name in schema.names and not fits(schema.field(name).type, type_)
    ]
    if not left:
        found.append("no column would be left")
    return found
