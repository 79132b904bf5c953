"""Rows on their way into deltalake's engine and out of it: what it must not be left alone with."""

import sys
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

from neurolake_dagster.tables.conditions import Joined, Predicate


class NotedRows:
    """Rows on their way into the engine, and what their source raised."""

    def __init__(self, data: pa.Table | pa.RecordBatchReader) -> None:
        self.failure: Exception | None = None
        self._data = data.to_reader() if isinstance(data, pa.Table) else data

    def reader(self) -> pa.RecordBatchReader:
        """The rows, once."""
        return pa.RecordBatchReader.from_batches(self._data.schema, self._batches())

    def _batches(self) -> Iterator[pa.RecordBatch]:
        try:
            yield from self._data
        finally:
            found = sys.exc_info()[1]
            if isinstance(found, Exception):
                self.failure = found


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
