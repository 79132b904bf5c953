"""CSV as rows with types: all values decide on a column's type, not those of the first block.

A number must keep its digits: what is written with zeros in front (007) stays text, and so does a
column of whole numbers that only floats could hold, but not exactly.
"""

import contextlib
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

_PARSING = pa_csv.ParseOptions(newlines_in_values=True)
_PADDED = r"^\s*[+-]?0[0-9]"
# Up to 15 digits a float holds any whole number.
_LONG = r"^\s*[+-]?[0-9]{16,}\s*$"


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
    long = set()
    row_count = 0
    with open_csv(path, dict.fromkeys(names, pa.binary())) as file:
        for batch in file:
            for name, (kind, is_long) in zip(names, _batch_types(batch), strict=True):
                types[name] = _widened(types[name], kind)
                if is_long:
                    long.add(name)
            row_count += batch.num_rows
            if row_limit is not None and row_count >= row_limit:
                break
    return types | {name: pa.string() for name in long if types[name] == pa.float64()}


def _batch_types(batch: pa.RecordBatch) -> list[tuple[pa.DataType, bool]]:
    """The types of raw values, and whether there are whole numbers that floats may not hold.

    pyarrow finds them, by a file of the values alone that is one block.
    """
    types = [(pa.binary(), False)] * batch.num_columns
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
            types[int(column.name)] = _exact(column.type, texts[column.name])
    return types


def _exact(kind: pa.DataType, texts: pa.Array) -> tuple[pa.DataType, bool]:
    if kind not in (pa.int64(), pa.float64()):
        return kind, False
    if pc.any(pc.match_substring_regex(texts, _PADDED)).as_py():
        return pa.string(), False
    return kind, bool(pc.any(pc.match_substring_regex(texts, _LONG)).as_py())


def _widened(known: pa.DataType, other: pa.DataType) -> pa.DataType:
    """The narrowest type that takes the values of both."""
    if known == other or pa.types.is_null(other):
        return known
    if pa.types.is_null(known):
        return other
    if {known, other} == {pa.int64(), pa.float64()}:
        return pa.float64()
    return pa.binary() if pa.binary() in (known, other) else pa.string()
