"""Arrow dictionaries that differ from batch to batch."""

import io
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from neurolake_dagster import ncf

Dictionary = pa.DictionaryArray.from_arrays


def encoded(indices: list[Any], values: pa.Array) -> pa.Array:
    return Dictionary(pa.array(indices, pa.int8()), values)


def many(prefix: str) -> pa.Array:
    return encoded([0, 99, None], pa.array([f"{prefix}{i}" for i in range(100)]))


def nested(prefix: str) -> pa.Array:
    return pa.ListArray.from_arrays([0, 1, 3], many(prefix))


BATCHES: dict[str, list[pa.Array]] = {
    "too many values for the index": [many("k"), many("q"), many("k")],
    "nulls among the values": [
        encoded([0, 1, None], pa.array(["a", None])),
        encoded([0, 1], pa.array([None, "z"])),
    ],
    "structs": [
        encoded([0, 1, None], pa.array([{"x": 1}, {"x": 2}])),
        encoded([1, 0], pa.array([{"x": 3}, {"x": 1}])),
    ],
    "lists of them": [nested("k"), nested("q")],
    "none at first": [many("k").slice(0, 0), many("k"), many("q")],
    "same values": [encoded([0], pa.array(["a"])), encoded([0], pa.array(["a"]))],
}


def written(arrays: list[pa.Array], **options: Any) -> bytes:
    file = io.BytesIO()
    schema = pa.schema([("c", arrays[0].type), ("i", pa.int64())])
    start = 0
    with ncf.NCFWriter(file, schema, **options) as writer:
        for array in arrays:
            numbers = pa.array(range(start, start + len(array)), pa.int64())
            writer.write_batch(pa.record_batch([array, numbers], schema=schema))
            start += len(array)
    return file.getvalue()


@pytest.mark.parametrize("row_group_size", [2, 1000])
@pytest.mark.parametrize("name", BATCHES)
def test_batches_of_other_dictionaries_are_written_and_reordered(
    name: str, row_group_size: int
) -> None:
    arrays = BATCHES[name]
    values = [value for array in arrays for value in array.to_pylist()]
    data = written(arrays, row_group_size=row_group_size)
    with ncf.NCFFile(data) as file:
        assert file.read()["c"].to_pylist() == values
        rows = [*range(len(values) - 1, -1, -1), 0, 0]
        assert file.take(rows)["c"].to_pylist() == [values[row] for row in rows]
        odd = file.read(filters=pc.field("i").isin(list(range(1, len(values), 2))))
        assert odd["c"].to_pylist() == values[1::2]
        file.verify()


def test_dictionaries_that_fit_share_a_row_group() -> None:
    for name in ("nulls among the values", "structs", "same values"):
        assert ncf.read_metadata(written(BATCHES[name])).num_row_groups == 1


WORDS = pa.array([f"{i:06d}" + "x" * 100 for i in range(30_000)])
CODES = pa.array([i * 7 % 30_000 for i in range(40_000)], pa.int32())
SHARED = {
    "dictionary": Dictionary(CODES, WORDS),
    "dictionary below": pa.StructArray.from_arrays([Dictionary(CODES, WORDS)], ["x"]),
    "views": WORDS.take(CODES).cast(pa.string_view()),
}


@pytest.mark.parametrize("name", SHARED)
def test_what_batches_share_counts_once_for_a_row_group(name: str) -> None:
    """A row group ends at 256 MiB: batches of one dictionary each counted all of it."""
    file, table = io.BytesIO(), pa.table({"c": SHARED[name]})
    with ncf.NCFWriter(file, table.schema) as writer:
        for batch in table.to_batches(max_chunksize=100):
            writer.write_batch(batch)
    assert ncf.read_metadata(file.getvalue()).num_row_groups == 1
    assert ncf.read_table(file.getvalue())["c"].to_pylist() == table["c"].to_pylist()
