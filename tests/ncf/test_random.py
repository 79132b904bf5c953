"""Random tables of random types come back bit for bit, by every way to read them."""

import io
import random

import pyarrow as pa
import pytest

from neurolake_dagster import ncf
from tests.ncf.random_arrays import random_table

SETTINGS = [
    {},
    {"row_group_size": 50, "page_rows": 16},
    {"compression": "archive", "page_rows": 64},
    {"compression": "none", "row_group_size": 7},
    {"compression": "fast", "page_rows": 1},
]


def values(table: pa.Table) -> str:
    """Word all values: repr tells NaN from null and -0.0 from 0.0, by column and row."""
    return repr([_bits(column) for column in table.columns])


def _bits(column: pa.ChunkedArray) -> list[object]:
    if pa.types.is_floating(column.type):
        words = {16: pa.int16(), 32: pa.int32(), 64: pa.int64()}[column.type.bit_width]
        return [v for chunk in column.chunks for v in chunk.view(words).to_pylist()]
    if pa.types.is_temporal(column.type) or pa.types.is_interval(column.type):
        width = column.type.bit_width // 8
        return [v for c in column.chunks for v in c.view(pa.binary(width)).to_pylist()]
    return list(column.to_pylist())


def check(seed: int) -> None:
    table = random_table(seed)
    sink = io.BytesIO()
    ncf.write_table(table, sink, **SETTINGS[seed % len(SETTINGS)])  # type: ignore[arg-type]
    data = sink.getvalue()
    found = ncf.read_table(data)
    found.validate(full=True)
    assert found.schema.equals(table.schema, check_metadata=True)
    assert values(found) == values(table)
    with ncf.NCFFile(data) as file:
        file.verify()
        rows = sorted(random.Random(seed).sample(range(len(table)), min(9, len(table))))
        if rows:
            taken = pa.concat_tables([table.slice(row, 1) for row in rows])
            assert values(file.take(rows)) == values(taken)
        batches = list(file.iter_batches(batch_size=13))
        assert values(pa.Table.from_batches(batches, table.schema)) == values(table)
    unverified = ncf.read_table(data, columns=table.column_names[::-1], verify=False)
    assert values(unverified) == values(table.select(table.column_names[::-1]))


@pytest.mark.parametrize("block", range(6))
def test_random_tables_come_back(block: int) -> None:
    for seed in range(40 * block, 40 * block + 40):
        check(seed)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_many_random_tables_come_back() -> None:
    for seed in range(10_000, 14_000):
        check(seed)
