"""Parts of a file: filters, batches, scans, single rows."""

import io
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from neurolake_dagster import ncf
from neurolake_dagster.errors import NCFCorruptError
from tests.ncf.every_type import every_type

ROWS = 20_000


@pytest.fixture(scope="module")
def table() -> pa.Table:
    rng = np.random.default_rng(5)
    numbers = rng.normal(0, 100, ROWS)
    numbers[::97] = np.nan
    return pa.table(
        {
            "sorted": np.arange(ROWS),
            "number": pa.array(numbers, mask=rng.random(ROWS) < 0.2),
            "word": pa.array([f"w{i % 13}" * (i % 4) for i in range(ROWS)]),
            "list": pa.array([[i] * (i % 3) for i in range(ROWS)]),
            "view": pa.array([f"a longer text {i}" for i in range(ROWS)], pa.string_view()),
        }
    )


@pytest.fixture(scope="module")
def data(table: pa.Table) -> bytes:
    file = io.BytesIO()
    ncf.write_table(table, file, row_group_size=6000, page_rows=1000)
    return file.getvalue()


class Counting:
    """A ranged source that counts what is asked of it."""

    name = "counting"
    coalesce_bytes = 0

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.bytes = self.requests = 0

    def size(self) -> int:
        return len(self.data)

    def read_at(self, offset: int, length: int) -> memoryview:
        self.bytes += length
        self.requests += 1
        return memoryview(self.data)[offset : offset + length]


@pytest.mark.parametrize(
    "expression",
    [
        pc.field("sorted") < 50,
        (pc.field("sorted") > 5990) & (pc.field("sorted") < 6010),
        ~(pc.field("number") < 150.0),
        pc.field("number").is_null(),
        pc.field("number").is_nan(),
        pc.field("word").isin(["w3", "w12w12"]),
        (pc.field("word") == "") | (pc.field("sorted") == 19_999),
        pc.field("sorted") > ROWS,
        pc.field("number") * 2 > 500,
    ],
    ids=str,
)
def test_filter_keeps_the_rows_arrow_keeps(table: pa.Table, data: bytes, expression: Any) -> None:
    expected = table.drop_columns(["view"]).filter(expression)
    got = ncf.read_table(data, columns=expected.column_names, filters=expression)
    assert got.num_rows == expected.num_rows
    for name in expected.column_names:
        assert (
            got[name].to_numpy().tolist().__repr__()
            == expected[name].to_numpy().tolist().__repr__()
        )


def test_filter_returns_types_arrow_cannot_filter(table: pa.Table, data: bytes) -> None:
    got = ncf.read_table(data, columns=["view"], filters=pc.field("sorted").isin([3, 7000]))
    assert got["view"].to_pylist() == ["a longer text 3", "a longer text 7000"]


def test_filter_by_lists_means_or_of_ands(table: pa.Table, data: bytes) -> None:
    got = ncf.read_table(data, filters=[[("sorted", "<", 3)], [("sorted", ">", ROWS - 2)]])
    assert got["sorted"].to_pylist() == [0, 1, 2, ROWS - 1]


def test_filter_on_a_sorted_column_reads_few_bytes(data: bytes) -> None:
    source = Counting(data)
    with ncf.NCFFile(source) as file:
        opening = source.bytes
        assert file.read(["number"], pc.field("sorted") == 7777).num_rows == 1
    assert source.bytes - opening < 0.06 * len(data)


def test_filter_on_an_unknown_column_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="nowhere"):
        ncf.read_table(data, filters=pc.field("nowhere") == 1)


def test_projection_reads_only_its_chunks() -> None:
    noise = np.random.default_rng(3).integers(0, 1 << 60, 30_000)
    sink = io.BytesIO()
    ncf.write_table(pa.table({"id": range(30_000), "noise": noise}), sink, row_group_size=9000)
    source = Counting(sink.getvalue())
    with ncf.NCFFile(source) as file:
        opening = source.bytes
        stored = sum(group.columns[0].compressed_bytes for group in file.metadata.row_groups[:2])
        assert sum(len(b) for b in file.iter_batches(columns=["id"], row_groups=[0, 1])) == 18_000
    assert source.bytes - opening == stored


def test_a_small_file_is_one_request() -> None:
    sink = io.BytesIO()
    ncf.write_table(pa.table({"id": range(1000), "text": ["x"] * 1000}), sink)
    source = Counting(sink.getvalue())
    with ncf.NCFFile(source) as file:
        assert file.read().num_rows == 1000
    assert (source.requests, source.bytes) == (1, len(sink.getvalue()))


@pytest.mark.parametrize("batch_size", [1, 999, 1000, 1 << 20])
def test_batches_make_up_the_table(table: pa.Table, data: bytes, batch_size: int) -> None:
    with ncf.NCFFile(data) as file:
        batches = list(file.iter_batches(batch_size, columns=["word", "sorted"]))
    assert all(0 < batch.num_rows <= batch_size for batch in batches)
    assert pa.Table.from_batches(batches).equals(table.select(["word", "sorted"]))


def test_scan_is_a_reader_with_projection_and_filter(table: pa.Table, data: bytes) -> None:
    with ncf.NCFFile(data) as file:
        reader = file.scan(["word"], pc.field("sorted") < 10)
        assert reader.schema.names == ["word"]
        assert reader.read_all().equals(table.slice(0, 10).select(["word"]))


def test_take_gives_rows_in_the_order_asked_for(table: pa.Table, data: bytes) -> None:
    rows = [19_999, 0, 7, 7, 12_345, 3]
    with ncf.NCFFile(data) as file:
        got = file.take(rows, columns=["sorted", "word", "list"])
    assert got.equals(table.select(["sorted", "word", "list"]).take(rows).combine_chunks())


def test_take_outside_the_file_is_refused(data: bytes) -> None:
    with ncf.NCFFile(data) as file, pytest.raises(IndexError, match=f"of {ROWS}"):
        file.take([0, ROWS])


def test_row_groups_split_a_scan(table: pa.Table, data: bytes) -> None:
    with ncf.NCFFile(data) as file:
        second = file.scan(["sorted"], row_groups=[1]).read_all()
    assert second["sorted"].to_pylist() == list(range(6000, 12_000))


def test_a_page_without_a_bound_leaves_the_row_group_without_one() -> None:
    """The upper bound of bytes of FF cannot be raised: the chunk's was that of the other page."""
    values = [b"\xff" * 40, b"\xff" * 41, b"a", b"b"]
    file = io.BytesIO()
    ncf.write_table(pa.table({"x": values}), file, page_rows=2)
    got = ncf.read_table(file.getvalue(), filters=pc.field("x") >= b"\xff")
    assert got["x"].to_pylist() == values[:2]


@pytest.mark.parametrize("name", every_type(2).column_names)
def test_few_rows_of_a_large_page_are_those_of_the_table(name: str) -> None:
    """Few rows are made alone where the encoding allows it, with their nulls."""
    table = every_type(4000).select([name])
    file = io.BytesIO()
    ncf.write_table(table, file)
    rows = [3999, 0, 7, 8, 1234, 1235, 1236, 3998]
    with ncf.NCFFile(file.getvalue()) as opened:
        got = opened.take(rows)
    got.validate(full=True)
    assert repr(got[name].to_pylist()) == repr([table[name][row].as_py() for row in rows])


def test_verify_tells_how_far_it_is(data: bytes) -> None:
    told: list[tuple[int, int]] = []
    with ncf.NCFFile(data) as file:
        report = file.verify(lambda done, total: told.append((done, total)))
        stored = sum(group.compressed_bytes for group in file.metadata.row_groups)
    assert report.row_groups * 5 == len(told)
    assert told == sorted(told)
    assert told[-1] == (stored, stored)


def test_a_filter_without_columns_counts_the_rows(data: bytes) -> None:
    """A table without columns forgot how many rows had passed."""
    narrow = (pc.field("sorted") > 5000) & (pc.field("sorted") < 12_500)
    assert ncf.read_table(data, columns=[], filters=narrow).num_rows == 7499
    with ncf.NCFFile(data) as file:
        assert sum(len(batch) for batch in file.iter_batches(columns=[], filters=narrow)) == 7499


def test_a_filtered_stream_has_a_budget_for_each_row_group(table: pa.Table, data: bytes) -> None:
    """One budget for all row groups stopped long streams that never held much."""
    everything = pc.field("sorted") >= 0
    with ncf.NCFFile(data, decode_limit_bytes=800_000) as file:
        found = sum(len(batch) for batch in file.iter_batches(filters=everything))
        with pytest.raises(NCFCorruptError, match="decode_limit_bytes"):
            file.read(filters=everything)
    assert found == table.num_rows


@pytest.mark.parametrize(
    ("rows", "page_rows", "pages"),
    [(700, 100, [104] * 6 + [76]), (512, 128, [128] * 4), (50, 100, [50]), (250, 128, [250])],
)
def test_row_groups_are_cut_into_about_equal_pages(
    rows: int, page_rows: int, pages: list[int]
) -> None:
    file = io.BytesIO()
    ncf.write_table(pa.table({"a": range(rows)}), file, page_rows=page_rows)
    with ncf.NCFFile(file.getvalue()) as opened:
        assert [count for count, _ in opened._chunks.zones(0)[0]] == pages


STRANGE: dict[str, pa.Array] = {
    "union": pa.UnionArray.from_sparse(
        pa.array([0, 1, 0], pa.int8()), [pa.array([1, 2, 3]), pa.array(["a", "b", "c"])]
    ),
    "runs": pa.RunEndEncodedArray.from_arrays(pa.array([1, 3], pa.int32()), pa.array(["a", "b"])),
    "view": pa.array([b"a", b"b", None], pa.binary_view()),
    "struct of views": pa.array(
        [{"x": "a"}, None, {"x": None}], pa.struct({"x": pa.string_view()})
    ),
    "list of views": pa.array([["a"], None, []], pa.list_(pa.string_view())),
    "dictionary of structs": pa.DictionaryArray.from_arrays(
        pa.array([1, None, 0]), pa.array([{"x": 1}, {"x": 2}])
    ),
    "half": pa.array([1.5, None, 2.5], pa.float32()).cast(pa.float16()),
    "dictionary of times": pa.DictionaryArray.from_arrays(
        pa.array([1, None, 0]), pa.array([5, 6], pa.timestamp("us"))
    ),
    "runs of views": pa.RunEndEncodedArray.from_arrays(
        pa.array([1, 3], pa.int32()), pa.array(["a", None], pa.string_view())
    ),
}


@pytest.mark.parametrize("name", STRANGE)
def test_columns_that_arrow_cannot_filter_come_along(name: str) -> None:
    """A union made every filter on its file fail, and views a filter on themselves."""
    table, file = pa.table({"c": STRANGE[name], "i": [1, 2, 3]}), io.BytesIO()
    ncf.write_table(table, file)
    got = ncf.read_table(file.getvalue(), filters=pc.field("i") != 2)
    assert got["c"].to_pylist() == [STRANGE[name][0].as_py(), STRANGE[name][2].as_py()]
    assert ncf.read_table(file.getvalue(), filters=pc.field("i") > 3).num_rows == 0
    if name == "union":
        with pytest.raises(ValueError, match="union"):
            ncf.read_table(file.getvalue(), filters=pc.field("c").is_valid())
    else:
        valid = ncf.read_table(file.getvalue(), filters=pc.field("c").is_valid())
        assert valid.num_rows == 3 - STRANGE[name].to_pylist().count(None)


def test_wide_values_lie_where_arrow_wants_them() -> None:
    """Stored as they are, behind others, they were read where they lie: Arrow complained."""
    wide = pa.array([i % 7 for i in range(9)], pa.decimal128(5)).cast(pa.decimal256(60))
    lists = pa.ListArray.from_arrays(pa.array([0, 1, 3, 9], pa.int32()), wide)
    table, file = pa.table({"c": lists}), io.BytesIO()
    ncf.write_table(table, file, compression="none")
    got = ncf.read_table(file.getvalue())
    assert got.equals(table)
    assert got["c"].chunk(0).values.buffers()[1].address % 8 == 0


@pytest.mark.parametrize("row_groups", [[99], [-1], [0, 4]])
def test_row_groups_that_are_not_there_are_refused(data: bytes, row_groups: list[int]) -> None:
    """99 was called a damage of the file, -1 was the last one."""
    with ncf.NCFFile(data) as file:
        for filters in (None, pc.field("sorted") >= 0):
            with pytest.raises(IndexError, match="of 4"):
                list(file.iter_batches(filters=filters, row_groups=row_groups))
