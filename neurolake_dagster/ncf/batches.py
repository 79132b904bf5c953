"""Tables and record batches of decoded rows; those without columns keep their row count."""

from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from neurolake_dagster.ncf.arrow import combine, keep_ascending
from neurolake_dagster.ncf.checks import NDArray


def keep_rows(table: Any, rows: NDArray) -> Any:
    """Return the rows of ascending numbers."""
    if len(rows) == table.num_rows:
        return table
    arrays = [keep_ascending(column, rows) for column in table.columns]
    return pa.Table.from_arrays(arrays, schema=table.schema)


def split_batches(table: Any, batch_size: int) -> Iterator[Any]:
    """Yield a table as record batches; one without columns keeps its rows."""
    if table.num_columns:
        yield from table.to_batches(max_chunksize=batch_size)
        return
    for start in range(0, table.num_rows, batch_size):
        rows = min(batch_size, table.num_rows - start)
        yield rowless_batch(rows, table.schema)


def rowless_batch(rows: int, schema: Any) -> Any:
    """Return a record batch of no columns that still has its row count."""
    filler = pa.schema([pa.field("", pa.null())], schema.metadata)
    return pa.record_batch([pa.nulls(rows)], schema=filler).select([])


def rowless_table(rows: int, schema: Any) -> Any:
    """Return a table of no columns that still has its row count."""
    return pa.Table.from_batches([rowless_batch(rows, schema)])


def joinable_tables(table: Any, encoded: list[int]) -> list[Any]:
    """Split a table, as little as halving does, until each column can be one array.

    Parameters
    ----------
    encoded
        The places of the columns that may hinder it.
    """
    try:
        joined = {index: combine(table.column(index)) for index in encoded}
    except pa.ArrowException:
        batches = [batch for batch in table.to_batches() if batch.num_rows]
        half = len(batches) // 2
        if not half:
            # What hindered it are dictionaries of no rows.
            return [pa.Table.from_batches(batches)]
        parts = [pa.Table.from_batches(some) for some in (batches[:half], batches[half:])]
        return [whole for part in parts for whole in joinable_tables(part, encoded)]
    for index, array in joined.items():
        table = table.set_column(index, table.schema.field(index), array)
    return [table]
