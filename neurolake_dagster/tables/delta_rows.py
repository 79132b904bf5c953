"""Rows on their way into deltalake's engine and out of it: what it must not be left alone with."""

from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.compute as pc
from deltalake.exceptions import DeltaError

from neurolake_dagster.tables.conditions import Joined, Predicate


@contextmanager
def noted_rows(data: pa.Table | pa.RecordBatchReader) -> Iterator[pa.RecordBatchReader]:
    """Give rows to the engine, and raise what their own source did.

    The engine wraps that in a text.
    """
    source = data.to_reader() if isinstance(data, pa.Table) else data
    failures: list[Exception] = []

    def batches() -> Iterator[pa.RecordBatch]:
        try:
            yield from source
        except Exception as exc:
            failures.append(exc)
            raise

    try:
        yield pa.RecordBatchReader.from_batches(source.schema, batches())
    except DeltaError as exc:
        if failures:
            raise failures[0] from exc
        raise


def with_plain_strings(reader: pa.RecordBatchReader) -> pa.RecordBatchReader:
    """Cast the engine's string and binary views, which few consumers take, to plain ones."""
    plain = {pa.string_view(): pa.string(), pa.binary_view(): pa.binary()}
    fields = [field.with_type(plain.get(field.type, field.type)) for field in reader.schema]
    return reader.cast(pa.schema(fields, reader.schema.metadata))


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
