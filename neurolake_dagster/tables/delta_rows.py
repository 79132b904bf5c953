"""Rows on their way into deltalake's engine and out of it: what it must not be left alone with.

Left alone it casts rows to the table's types whatever is lost: 1.9 becomes 1.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable, QueryBuilder
from deltalake.exceptions import DeltaError

from neurolake_dagster.errors import SchemaMismatchError
from neurolake_dagster.tables.conditions import Joined, Predicate
from neurolake_dagster.tables.schemas import cast_column, fit_batch, joined_schema, plain_schema
from neurolake_dagster.tables.sql import quoted_column

# With 8,192, the engine's own, a read takes two thirds longer.
BATCH_ROWS = 1 << 15
WAKING_S = 0.2
_TABLE = "rows_of_the_table"
_SIGNED = {pa.uint8(): pa.int16(), pa.uint16(): pa.int32()}
_LARGE = (pa.types.is_large_list, pa.types.is_large_list_view)
_LISTS = (
    *_LARGE,
    pa.types.is_list,
    pa.types.is_list_view,
    pa.types.is_fixed_size_list,
)


def delta_schema(schema: pa.Schema) -> pa.Schema:
    """The schema of a new Delta table for rows of an Arrow schema."""
    return pa.schema(
        [field.with_type(_delta_type(field.type)) for field in schema], schema.metadata
    )


def fit_delta(
    data: pa.Table | pa.RecordBatchReader,
    held: pa.Schema | None,
    where: str,
    *,
    adds_columns: bool = False,
) -> pa.Table | pa.RecordBatchReader:
    """The rows in the types of a Delta table, or of a new one.

    Parameters
    ----------
    held
        The table's schema; None for a new one, or one that the rows' replaces.
    adds_columns
        The rows may have columns that the table lacks, and lack some that may be null.

    Raises
    ------
    SchemaMismatchError
        If a column does not fit, or one of its values; the latter while rows go by.
    """
    target = delta_schema(data.schema)
    if held is not None:
        held = plain_schema(held)
        target = pa.schema(
            [_asked(field, had, held) for field, had in zip(target, data.schema, strict=True)]
        )
        whole = joined_schema(held, target, where, adds=adds_columns)
        target = pa.schema([field.with_type(whole.field(field.name).type) for field in target])
    if target.types == data.schema.types:
        return data
    if isinstance(data, pa.Table):
        batches = [_cast(batch, target, where) for batch in data.to_batches()]
        return pa.Table.from_batches(batches, target)
    return pa.RecordBatchReader.from_batches(
        target, (_cast(batch, target, where) for batch in data)
    )


def typing_mode(held: pa.Schema | None, schema: pa.Schema) -> str | None:
    """The engine's schema mode for rows of the table's columns: some may type null ones."""
    if held is None:
        return None
    is_typed = any(
        pa.types.is_null(field.type) and not pa.types.is_null(schema.field(field.name).type)
        for field in held
        if field.name in schema.names
    )
    return "merge" if is_typed and set(held.names) == set(schema.names) else None


def _asked(field: pa.Field, had: pa.Field, held: pa.Schema) -> pa.Field:
    """A field to compare with the table's; of unsigned integers the values are compared."""
    if pa.types.is_unsigned_integer(had.type) and field.name in held.names:
        kind = held.field(field.name).type
        return field.with_type(kind) if pa.types.is_integer(kind) else field
    return field


def _cast(batch: pa.RecordBatch, schema: pa.Schema, where: str) -> pa.RecordBatch:
    columns = []
    for column, field in zip(batch.columns, schema, strict=True):
        try:
            columns.append(cast_column(column, field.type))
        except pa.ArrowInvalid as exc:
            raise SchemaMismatchError(
                f"{where}: column {field.name!r} has values that Delta's {field.type} cannot "
                "hold; round or cast them first"
            ).quoting(exc) from exc
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _delta_type(type_: pa.DataType) -> pa.DataType:
    """The type that Delta holds values of an Arrow type in."""
    if isinstance(type_, pa.BaseExtensionType):
        stored = _delta_type(type_.storage_type)
        # Its name is kept beside the type that it is stored in, which must be its own.
        return type_ if stored == type_.storage_type else stored
    if pa.types.is_fixed_size_binary(type_):
        return pa.binary()
    if pa.types.is_dictionary(type_) or pa.types.is_run_end_encoded(type_):
        return _delta_type(type_.value_type)
    if pa.types.is_unsigned_integer(type_):
        return _SIGNED.get(type_, pa.int64())
    if pa.types.is_timestamp(type_):
        return pa.timestamp("us", None if type_.tz is None else "UTC")
    if pa.types.is_decimal32(type_) or pa.types.is_decimal64(type_):
        return pa.decimal128(type_.precision, type_.scale)
    if pa.types.is_struct(type_):
        return pa.struct([one.with_type(_delta_type(one.type)) for one in type_])
    if pa.types.is_map(type_):
        key, item = (
            one.with_type(_delta_type(one.type)) for one in (type_.key_field, type_.item_field)
        )
        return pa.map_(key, item, type_.keys_sorted)
    if any(is_list(type_) for is_list in _LISTS):
        child = type_.value_field.with_type(_delta_type(type_.value_type))
        return pa.large_list(child) if any(is_one(type_) for is_one in _LARGE) else pa.list_(child)
    return type_


def give_rows(
    data: pa.Table | pa.RecordBatchReader, write: Callable[[pa.RecordBatchReader], object]
) -> None:
    """Give rows to the engine, and raise what their own source did: the engine makes a text of it.

    The engine works in a thread of its own, so that an interrupt reaches this one: then the
    source ends with an error, and nothing is committed.
    """
    source = data.to_reader() if isinstance(data, pa.Table) else data
    failures: list[BaseException] = []
    interrupted = threading.Event()

    def batches() -> Iterator[pa.RecordBatch]:
        try:
            for batch in source:
                yield _importable(batch)
                if interrupted.is_set():
                    raise InterruptedError
        except BaseException as exc:
            failures.append(exc)
            raise

    reader = pa.RecordBatchReader.from_batches(source.schema, batches())
    with ThreadPoolExecutor(1, "delta") as thread:
        done = thread.submit(write, reader)
        try:
            # polars, once imported, lets no signal end a wait without a limit.
            while not wait([done], WAKING_S).done:
                pass
            done.result()
        except DeltaError as exc:
            if failures:
                raise failures[0] from exc
            raise
        finally:
            interrupted.set()


def _importable(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The batch, structs in structs copied where they are slices: arrow-rs 59 aborts on those."""
    for index, column in enumerate(batch.columns):
        if column.offset and pa.types.is_struct(column.type) and _has_struct(column.type):
            whole = pa.concat_arrays([column])
            batch = batch.set_column(index, batch.schema.field(index), whole)
    return batch


def _has_struct(type_: pa.StructType) -> bool:
    return any(pa.types.is_struct(field.type) for field in type_)


def select(table: DeltaTable, columns: Sequence[str], where: str | None) -> pa.RecordBatchReader:
    """Stream rows from the engine, in whatever order.

    Views of text and bytes, which few consumers take, are cast to plain ones.

    Parameters
    ----------
    where
        A SQL predicate.
    """
    names = ", ".join(map(quoted_column, columns))
    test = "" if where is None else f" WHERE ({where})"
    sql = f"SELECT {names} FROM {_TABLE}{test}"  # noqa: S608
    # `DeltaTable.scan` asks the same of the same engine, in batches of 8,192 rows only.
    engine = QueryBuilder({"datafusion.execution.batch_size": str(BATCH_ROWS)})
    reader = pa.RecordBatchReader.from_stream(engine.register(_TABLE, table).execute(sql))
    schema = plain_schema(reader.schema)
    return pa.RecordBatchReader.from_batches(schema, (fit_batch(one, schema) for one in reader))


def divided(predicate: Predicate, schema: pa.Schema) -> tuple[list[str], list[pc.Expression]]:
    """What the engine is to test, and what is tested after it: all that looks at floats.

    Where a file's bounds of a column are equal, deltalake 1.6 gives that value for every row,
    also for those with NaN, which no bounds tell of.
    """
    floats = {field.name for field in schema if pa.types.is_floating(field.type)}
    parts: tuple[Predicate, ...] = (predicate,)
    if isinstance(predicate, Joined) and predicate.operator == "AND":
        parts = predicate.parts
    pushed, rest = [], []
    for part in parts:
        if floats.intersection(part.columns()):
            rest.append(part.expression(schema))
        else:
            pushed.append(part.sql(schema))
    return pushed, rest
