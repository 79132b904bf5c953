"""From Dagster's partition keys to a scope: what the rows of each key look like.

Owns what is said of keys that are missing or strange.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any

import dagster as dg
import pyarrow as pa

from neurolake_dagster.errors import PartitionError, SchemaMismatchError
from neurolake_dagster.io_managers.values import to_arrow
from neurolake_dagster.tables.partitions import DEFAULT_DIMENSION
from neurolake_dagster.tables.scope import Key, Member, Scope
from neurolake_dagster.tables.windows import Window


def scope_of(definition: dg.PartitionsDefinition[Any], keys: Sequence[str], expr: object) -> Scope:
    """The scope of some partition keys of an asset, in their order: Dagster's is that of a set.

    Parameters
    ----------
    expr
        The asset's ``partition_expr``: a column, or one per dimension of a multi-partition; None
        where it has none.
    """
    dimensions = _dimensions(definition)
    return Scope(
        keys=tuple(sorted((_key(definition, dimensions, key) for key in keys), key=_order)),
        columns=() if expr is None else _columns(expr, dimensions),
    )


def windows_of(definition: dg.PartitionsDefinition[Any]) -> str:
    """How dimensions of time are divided, which alone says what their keys mean; empty for none."""
    return "; ".join(
        f"{name}: {one.cron_schedule} {one.timezone}, keys {one.fmt}"
        for name, one in _dimensions(definition).items()
        if isinstance(one, dg.TimeWindowPartitionsDefinition)
    )


def missing_partitions(where: str, missing: Sequence[str], written: int) -> PartitionError:
    """The error for partitions that an input needs and nobody wrote."""
    shown = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
    return PartitionError(
        f"{where}: {len(missing)} partitions were never written: {shown} ({written} others were); "
        'materialize them, or set metadata={"allow_missing_partitions": True} on the AssetIn'
    )


def rows_by_partition(values: Mapping[Any, Any], scope: Scope, where: str) -> dict[str, pa.Table]:
    """A ``dict`` output: one value for each partition key of the run.

    Raises
    ------
    PartitionError
        If its keys are not exactly the run's, or a value has rows of another key.
    """
    asked = {key.name for key in scope.keys}
    if set(values) != asked:
        raise PartitionError(
            f"{where}: a dict with keys {sorted(map(str, values))!r} was returned, expected "
            f"exactly the partitions of the run, {sorted(asked)!r}"
        )
    found = {}
    for one in scope.single():
        name = one.keys[0].name
        data = to_arrow(values[name], where)
        rows = data if isinstance(data, pa.Table) else data.read_all()
        one.require_columns(rows.schema, where)
        for batch in rows.to_batches():
            one.check(batch)
        found[name] = rows
    return _of_one_schema(found, where)


def _of_one_schema(values: Mapping[str, pa.Table], where: str) -> dict[str, pa.Table]:
    """The tables with the columns of all, in types that hold the values of each."""
    try:
        whole = pa.concat_tables(values.values(), promote_options="permissive")
    except pa.ArrowException as exc:
        raise SchemaMismatchError(
            f"{where}: the values of the dict do not fit into one table"
        ).quoting(exc) from exc
    ends = list(accumulate(rows.num_rows for rows in values.values()))
    return {
        name: whole.slice(end - rows.num_rows, rows.num_rows)
        for (name, rows), end in zip(values.items(), ends, strict=True)
    }


def rows_of_keys(
    data: pa.Table | pa.RecordBatchReader, scope: Scope | None, kept: Scope | None
) -> pa.Table | pa.RecordBatchReader:
    """The rows of the kept keys of a scope; a row of none of the scope's is refused."""
    if scope is None or kept is None or kept is scope:
        return data
    places = {key.place for key in kept.keys}

    def batches() -> Iterator[pa.RecordBatch]:
        for batch in data.to_batches() if isinstance(data, pa.Table) else data:
            for place, rows in scope.divide(batch):
                if place in places:
                    yield rows

    scope.require_columns(data.schema, "rows")
    return pa.RecordBatchReader.from_batches(data.schema, batches())


def in_one(
    data: pa.Table | pa.RecordBatchReader | Mapping[str, pa.Table],
) -> pa.Table | pa.RecordBatchReader:
    """Rows by partition as one table; others as they are."""
    if not isinstance(data, Mapping):
        return data
    return pa.concat_tables(data.values(), promote_options="permissive")


def _dimensions(
    definition: dg.PartitionsDefinition[Any],
) -> dict[str, dg.PartitionsDefinition[Any]]:
    if isinstance(definition, dg.MultiPartitionsDefinition):
        return {one.name: one.partitions_def for one in definition.partitions_defs}
    return {DEFAULT_DIMENSION: definition}


def _key(
    definition: dg.PartitionsDefinition[Any],
    dimensions: Mapping[str, dg.PartitionsDefinition[Any]],
    key: str,
) -> Key:
    if isinstance(definition, dg.MultiPartitionsDefinition):
        parts = definition.get_partition_key_from_str(str(key)).keys_by_dimension
        place = tuple((f"{DEFAULT_DIMENSION}_{name}", parts[name]) for name in dimensions)
        members = tuple(_member(dimensions[name], parts[name]) for name in dimensions)
    else:
        place = ((DEFAULT_DIMENSION, str(key)),)
        members = (_member(definition, str(key)),)
    return Key(name=str(key), place=place, members=members)


def _order(key: Key) -> list[tuple[float, str]]:
    return [
        (member.start.timestamp(), "") if isinstance(member, Window) else (0.0, member)
        for member in key.members
    ]


def _member(definition: dg.PartitionsDefinition[Any], key: str) -> Member:
    if isinstance(definition, dg.TimeWindowPartitionsDefinition):
        window = definition.time_window_for_partition_key(key)
        return Window(start=window.start, end=window.end, text=key)
    return key


def _columns(expr: object, dimensions: Mapping[str, object]) -> tuple[str, ...]:
    names: list[object]
    if isinstance(expr, Mapping):
        names = [expr.get(dimension) for dimension in dimensions]
    elif isinstance(expr, (list, tuple)):
        names = list(expr)
    else:
        names = [expr]
    columns = tuple(name for name in names if isinstance(name, str))
    if not len(set(columns)) == len(names) == len(dimensions):
        raise PartitionError(
            f"partition_expr {expr!r}: expected one column of its own for each dimension of "
            f"{list(dimensions)!r}"
        )
    return columns
