"""Every Arrow type, at every size that matters, bit for bit; and values Hypothesis thinks of."""

import io
import struct
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from neurolake_dagster import ncf
from tests.ncf.every_type import every_type

PAGE = 64
SIZES = [0, 1, 2, 7, 8, PAGE - 1, PAGE, PAGE + 1, 4 * PAGE - 1, 4 * PAGE + 1]
NAMES = every_type(2).column_names


def write_bytes(table: pa.Table, **options: object) -> bytes:
    file = io.BytesIO()
    ncf.write_table(table, file, **options)
    return file.getvalue()


def bits(column: pa.ChunkedArray) -> Any:
    """Return a column as something whose equality is that of the bits of valid values."""
    if pa.types.is_floating(column.type):
        word = {16: pa.int16(), 32: pa.int32(), 64: pa.int64()}[column.type.bit_width]
        return [chunk.view(word).to_pylist() for chunk in [pa.concat_arrays(column.chunks)]]
    return repr(column.to_pylist())


def assert_same(got: pa.Table, expected: pa.Table) -> None:
    got.validate(full=True)
    assert got.schema.equals(expected.schema, check_metadata=True)
    assert got.num_rows == expected.num_rows
    for name in expected.column_names if expected.num_rows else []:
        assert bits(got[name]) == bits(expected[name]), name


@pytest.mark.parametrize("rows", SIZES)
def test_every_type_comes_back_at_any_size(rows: int) -> None:
    table = every_type(max(rows, 1)).slice(0, rows)
    assert_same(ncf.read_table(write_bytes(table, page_rows=PAGE, row_group_size=4 * PAGE)), table)


@pytest.mark.parametrize("profile", ["fast", "archive", "none"])
def test_every_type_comes_back_in_every_profile(profile: str) -> None:
    table = every_type(300)
    assert_same(ncf.read_table(write_bytes(table, compression=profile)), table)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("start", "rows"), [(1, 5), (3, 200), (13, 271)])
def test_slices_at_odd_offsets_come_back(name: str, start: int, rows: int) -> None:
    table = every_type(290).select([name]).slice(start, rows)
    assert_same(ncf.read_table(write_bytes(table, page_rows=PAGE)), table)


@pytest.mark.parametrize("name", NAMES)
def test_chunks_that_differ_come_back(name: str) -> None:
    table = every_type(100).select([name])
    joined = pa.concat_tables([table.slice(50), table, every_type(30).select([name])])
    assert_same(ncf.read_table(write_bytes(joined, page_rows=PAGE)), joined)


@pytest.mark.parametrize("name", NAMES)
def test_single_rows_of_every_type_are_taken(name: str) -> None:
    table, rows = every_type(200).select([name]), [199, 0, 65, 65]
    with ncf.NCFFile(write_bytes(table, page_rows=PAGE)) as file:
        got = file.take(rows)
    assert got[name].to_pylist().__repr__() == repr([table[name][i].as_py() for i in rows])


@pytest.mark.parametrize("kind", [pa.null(), pa.int8(), pa.string(), pa.list_(pa.int8())], ids=str)
def test_all_null_columns_take_no_bytes(kind: pa.DataType) -> None:
    table = pa.table({"a": pa.nulls(1000, kind)})
    with ncf.NCFFile(write_bytes(table)) as file:
        assert_same(file.read(), table)
        assert file.metadata.row_groups[0].columns[0].compressed_bytes < 50


def float_of_bits(word: int) -> float:
    value: float = struct.unpack("<d", struct.pack("<Q", word))[0]
    return value


CASES = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def tiled(values: list[Any], kind: pa.DataType, copies: int) -> pa.Table:
    return pa.table({"a": pa.array(values * copies, kind)})


@CASES
@given(
    st.lists(st.none() | st.integers(-(2**63), 2**63 - 1) | st.integers(-3, 300), max_size=30),
    st.integers(1, 90),
)
def test_any_integers_come_back(values: list[int | None], copies: int) -> None:
    table = tiled(values, pa.int64(), copies)
    assert_same(ncf.read_table(write_bytes(table)), table)


@CASES
@given(st.lists(st.integers(0, 2**64 - 1), max_size=20), st.integers(1, 90))
def test_any_unsigned_integers_come_back(values: list[int], copies: int) -> None:
    table = tiled(values, pa.uint64(), copies)
    assert_same(ncf.read_table(write_bytes(table)), table)


@CASES
@given(
    st.lists(
        st.floats(width=64)
        | st.decimals(-(10**6), 10**6, places=3).map(float)
        | st.integers(0, 2**64 - 1).map(
            lambda word: struct.unpack("<d", struct.pack("<Q", word))[0]
        ),
        max_size=30,
    ),
    st.integers(1, 90),
)
def test_any_floats_come_back_bit_for_bit(values: list[float], copies: int) -> None:
    table = pa.table({"a": np.tile(np.array(values, np.float64), copies)})
    assert_same(ncf.read_table(write_bytes(table)), table)


@CASES
@given(
    st.lists(st.none() | st.text(max_size=8) | st.text("0123456789abcdef", min_size=8, max_size=8)),
    st.sampled_from([pa.string(), pa.large_string(), pa.string_view()]),
    st.integers(1, 90),
)
def test_any_text_comes_back(values: list[str | None], kind: pa.DataType, copies: int) -> None:
    table = tiled(values, kind, copies)
    assert_same(ncf.read_table(write_bytes(table)), table)


@CASES
@given(
    st.lists(st.none() | st.lists(st.none() | st.lists(st.none() | st.binary(max_size=3)))),
    st.integers(1, 20),
)
def test_any_nested_lists_come_back(values: list[Any], copies: int) -> None:
    table = tiled(values, pa.list_(pa.large_list(pa.binary())), copies)
    assert_same(ncf.read_table(write_bytes(table, page_rows=7)), table)


RUNS = pa.RunEndEncodedArray.from_arrays(pa.array([2, 4], pa.int32()), pa.array([5, None]))
OFFSETS, MASK = pa.array([0, 4, 4], pa.int32()), pa.array([False, True])
IDS = pa.array([0] * 4, pa.int8())
BELOW: dict[str, pa.Array] = {
    "runs": RUNS,
    "struct": pa.StructArray.from_arrays([RUNS, pa.array(range(4))], ["a", "b"]),
    "sparse union": pa.UnionArray.from_sparse(IDS, [RUNS, pa.array(range(4))]),
    "dense union": pa.UnionArray.from_dense(IDS, pa.array(range(4), pa.int32()), [RUNS, RUNS]),
    "list": pa.ListArray.from_arrays(pa.array(range(5), pa.int32()), RUNS),
    "fixed list": pa.FixedSizeListArray.from_arrays(pa.concat_arrays([RUNS, RUNS]), 2),
    "map": pa.MapArray.from_arrays(pa.array(range(5), pa.int32()), pa.array(list("abcd")), RUNS),
}


@pytest.mark.parametrize("name", BELOW)
def test_nulls_above_runs_come_back(name: str) -> None:
    """Arrow's own nulls of such types are not valid: a sound file was told to be damaged."""
    lists = pa.ListArray.from_arrays(OFFSETS, BELOW[name], mask=MASK)
    structs = pa.StructArray.from_arrays([BELOW[name].slice(0, 2)], ["s"], mask=MASK)
    table = pa.table({"lists": lists, "structs": structs})
    data = write_bytes(table, row_group_size=1)
    assert_same(ncf.read_table(data), table)
    assert ncf.read_table(data)["lists"].chunk(1).to_pylist() == [None]


UNION = pa.UnionArray.from_dense(
    pa.array([0, 1] * 300, pa.int8()),
    pa.array([0, 0, 1, 1] * 150, pa.int32()),
    [pa.array(["x", "y"]), pa.array([1, 2])],
)
THREES, STARTS = pa.array([3] * 200, pa.int32()), pa.array(range(0, 601, 3), pa.int32())
OVER: dict[str, pa.Array] = {
    "none": UNION,
    "struct": pa.StructArray.from_arrays([UNION], ["u"]),
    "list": pa.ListArray.from_arrays(STARTS, UNION),
    "fixed list": pa.FixedSizeListArray.from_arrays(UNION, 3),
    "list view": pa.ListViewArray.from_arrays(STARTS[:-1], THREES, UNION),
    "map": pa.MapArray.from_arrays(STARTS, pa.array(range(600)), UNION),
    "union": pa.UnionArray.from_sparse(pa.array([0] * 600, pa.int8()), [UNION]),
    "dictionary": pa.DictionaryArray.from_arrays(pa.array([1, 2] * 40), UNION.slice(5, 9)),
    "runs": pa.RunEndEncodedArray.from_arrays(pa.array([2, 5, 600]), UNION.slice(1, 3)),
    "extension": pa.ExtensionArray.from_storage(pa.opaque(UNION.type, "t", "v"), UNION),
}


@pytest.mark.parametrize("name", OVER)
def test_slices_of_dense_unions_come_back(name: str) -> None:
    """Arrow's size of them reads other memory: a crash, or a negative size that no reader took."""
    whole = pa.table({"a": OVER[name]})
    table = whole.slice(1, whole.num_rows - 2)
    data = write_bytes(table, row_group_size=50)
    assert_same(ncf.read_table(data), table)
    groups = ncf.read_metadata(data).row_groups
    assert all(0 < group.columns[0].raw_bytes < 9000 for group in groups)
