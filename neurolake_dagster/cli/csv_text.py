"""CSV as rows with types: all values decide on a column's type, not those of the first block."""

import contextlib
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pa_csv

_PARSING = pa_csv.ParseOptions(newlines_in_values=True)


def open_csv(
    path: Path, types: Mapping[str, pa.DataType] | None = None
) -> pa_csv.CSVStreamingReader:
    """Open a CSV file with a header; values in quotes may hold line breaks.

    Parameters
    ----------
    types
        By column; None takes what fits the first block.
    """
    converting = pa_csv.ConvertOptions(column_types=types)
    return pa_csv.open_csv(path, parse_options=_PARSING, convert_options=converting)


def read_types(path: Path, row_limit: int | None = None) -> dict[str, pa.DataType]:
    """Find the types that fit every value, in one pass and bounded memory.

    Parameters
    ----------
    row_limit
        Look no further than the block with this row; None is the whole file.
    """
    with open_csv(path) as file:
        names = file.schema.names
    types = dict.fromkeys(names, pa.null())
    row_count = 0
    with open_csv(path, dict.fromkeys(names, pa.binary())) as file:
        for batch in file:
            for name, kind in zip(names, _batch_types(batch), strict=True):
                types[name] = _widened(types[name], kind)
            row_count += batch.num_rows
            if row_limit is not None and row_count >= row_limit:
                break
    return types


def _batch_types(batch: pa.RecordBatch) -> list[pa.DataType]:
    """Let pyarrow find the types of raw values, by a file of them alone that is one block."""
    types = [pa.binary()] * batch.num_columns
    texts = {}
    for index, column in enumerate(batch.columns):
        with contextlib.suppress(pa.ArrowInvalid):  # not UTF-8
            texts[str(index)] = column.cast(pa.string())
    if texts:
        sink = pa.BufferOutputStream()
        pa_csv.write_csv(pa.record_batch(texts), sink)
        block = sink.getvalue()
        reading = pa_csv.ReadOptions(block_size=block.size + 1, use_threads=False)
        table = pa_csv.read_csv(pa.BufferReader(block), reading, _PARSING)
        for column in table.schema:
            types[int(column.name)] = column.type
    return types


def _widened(known: pa.DataType, other: pa.DataType) -> pa.DataType:
    """The narrowest type that takes the values of both."""
    if known == other or pa.types.is_null(other):
        return known
    if pa.types.is_null(known):
        return other
    if {known, other} == {pa.int64(), pa.float64()}:
        return pa.float64()
    return pa.binary() if pa.binary() in (known, other) else pa.string()
