"""What is written comes back bit for bit."""

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from neurolake_dagster import ncf
from tests.ncf.every_type import every_type
from tests.ncf.forge import explode


def write_bytes(table: pa.Table, **options: object) -> bytes:
    file = io.BytesIO()
    ncf.write_table(table, file, **options)
    return file.getvalue()


@pytest.fixture
def table() -> pa.Table:
    rng = np.random.default_rng(3)
    rows = 5000
    return pa.table(
        {
            "key": np.arange(rows),
            "price": np.round(rng.normal(20, 5, rows), 2),
            "city": pa.array([f"city {i % 7}" for i in range(rows)], mask=rng.random(rows) < 0.1),
            "tags": pa.array([["a"] * (i % 3) for i in range(rows)]),
            "spot": pa.array([{"x": i, "y": None if i % 5 else "y"} for i in range(rows)]),
        }
    )


def test_table_comes_back_equal(table: pa.Table) -> None:
    back = ncf.read_table(write_bytes(table))
    back.validate(full=True)
    assert back.schema.equals(table.schema, check_metadata=True)
    assert back.equals(table)


def test_the_writer_tells_the_metadata_that_the_file_has(tmp_path: Path) -> None:
    rows, path = every_type(200), tmp_path / "told.ncf"
    notes = {rows.column_names[0]: {"description": "of a test", "pii": True}}
    with ncf.NCFWriter(
        path, rows.schema, row_group_size=80, column_metadata=notes, metadata={"by": "a test"}
    ) as writer:
        writer.write_table(rows)
        with pytest.raises(ValueError, match=r"told\.ncf: no file was published"):
            _ = writer.metadata
    found = ncf.read_metadata(path)
    assert writer.metadata == found
    assert writer.metadata.schema.equals(found.schema, check_metadata=True)


def test_the_dearest_columns_come_first_in_a_file() -> None:
    data = write_bytes(pa.table({"n": [1, 2], "text": ["a", "b"], "list": [[1], [2]], "m": [3, 4]}))
    assert ncf.read_table(data).to_pydict()["text"] == ["a", "b"]
    offsets = [chunk.offset for chunk in explode(data).groups[0]]
    assert sorted(range(4), key=offsets.__getitem__) == [2, 1, 0, 3]


def test_columns_come_in_the_order_asked_for(table: pa.Table) -> None:
    back = ncf.read_table(write_bytes(table), columns=["city", "key"])
    assert back.equals(table.select(["city", "key"]))


def test_unknown_column_is_refused_by_name(table: pa.Table) -> None:
    data = write_bytes(table)
    with pytest.raises(ValueError, match="no single column 'nowhere'"):
        ncf.read_table(data, columns=["key", "nowhere"])


def test_small_row_groups_and_pages_come_back_equal(table: pa.Table) -> None:
    data = write_bytes(table, row_group_size=1000, page_rows=300)
    with ncf.NCFFile(data) as file:
        assert [group.num_rows for group in file.metadata.row_groups] == [1000] * 5
        assert file.read_row_group(2).equals(table.slice(2000, 1000))
        assert file.read().equals(table)


@pytest.mark.parametrize("kind", [pa.string(), pa.large_binary()], ids=str)
@pytest.mark.parametrize("count", [2, 3, 9])
def test_tiny_tables_of_equal_lengths_come_back_equal(kind: pa.DataType, count: int) -> None:
    rng = np.random.default_rng(count)
    texts = pa.array([b"ab%d" % i for i in range(count)]).cast(kind)
    codes = pa.array(rng.integers(0, count, 4099), mask=rng.random(4099) < 0.1)
    table = pa.table({"text": texts.take(codes), "full": texts.take(codes.fill_null(0))})
    assert ncf.read_table(write_bytes(table)).equals(table)


def test_streamed_batches_equal_one_table(table: pa.Table, tmp_path: Path) -> None:
    path = tmp_path / "stream.ncf"
    with ncf.NCFWriter(path, table.schema, row_group_size=1024) as writer:
        writer.write_reader(table.to_reader(max_chunksize=333))
    assert ncf.read_table(path).equals(table)
    assert ncf.read_metadata(path).num_row_groups == 5


def test_table_of_no_columns_keeps_its_rows(table: pa.Table) -> None:
    back = ncf.read_table(write_bytes(table.select([])))
    assert (back.num_rows, back.num_columns) == (table.num_rows, 0)


def test_empty_table_keeps_its_schema(table: pa.Table) -> None:
    back = ncf.read_table(write_bytes(table.slice(0, 0)))
    assert back.num_rows == 0
    assert back.schema.equals(table.schema)


def test_same_table_gives_the_same_bytes(table: pa.Table) -> None:
    assert write_bytes(table) == write_bytes(table)


@pytest.mark.parametrize("width", range(1, 10))
def test_short_strings_of_one_length_come_back(width: int) -> None:
    rng = np.random.default_rng(width)
    letters = rng.integers(97, 100, (5003, width), dtype=np.uint8)
    letters[:, 3:] = 120
    texts = pa.array([row.tobytes().decode() for row in letters])
    table = pa.table({"whole": texts[1:], "head": texts[:-1]})
    assert ncf.read_table(write_bytes(table)).equals(table)


@pytest.mark.parametrize("first", [float("nan"), 1.5], ids=["nan", "number"])
@pytest.mark.parametrize("nulls", [3, 4000], ids=["few nulls", "most null"])
def test_nan_beside_nulls_is_counted_once(first: float, nulls: int) -> None:
    values = [None] * nulls + [first, float("nan")] + [float(i % 9) for i in range(2000)]
    file = ncf.NCFFile(write_bytes(pa.table({"x": pa.array(values, pa.float64())})))
    found = file.metadata.row_groups[0].columns[0].statistics
    expected = sum(value != value for value in values)
    assert (found.null_count, found.nan_count) == (nulls, expected)


def test_metadata_is_typed(table: pa.Table) -> None:
    metadata = ncf.read_metadata(write_bytes(table))
    key, price, city, *_ = metadata.row_groups[0].columns
    assert (key.statistics.min, key.statistics.max) == (0, 4999)
    assert isinstance(price.statistics.min, float)
    assert (city.statistics.min, city.statistics.max) == ("city 0", "city 6")
    assert city.statistics.null_count == table["city"].null_count
    assert 0 < key.compressed_bytes < key.raw_bytes


def test_notes_live_in_field_metadata(table: pa.Table) -> None:
    notes = {"city": {"semantic": ncf.SemanticType.PII_ADDRESS, "pii": True, "description": "où"}}
    back = ncf.read_schema(write_bytes(table, column_metadata=notes))
    assert ncf.column_notes(back.field("city")) == ncf.ColumnNotes(
        semantic="pii_address", pii=True, description="où"
    )


def test_failing_writer_leaves_the_old_file(table: pa.Table, tmp_path: Path) -> None:
    path = tmp_path / "kept.ncf"
    ncf.write_table(table, path)
    with (
        pytest.raises(ValueError, match="another schema"),
        ncf.NCFWriter(path, table.schema) as writer,
    ):
        writer.write_table(table.select(["key"]))
    assert ncf.read_table(path).equals(table)
    assert [entry.name for entry in tmp_path.iterdir()] == ["kept.ncf"]


@pytest.mark.parametrize("at_end", [True, False])
def test_sorted_floats_with_infinite_ends_come_back(at_end: bool) -> None:
    """Whole runs of the sample are without a decimal: those that begin behind it are nowhere."""
    decimals = np.arange(50_000) // 8 / 100
    infinite = np.full(15_000, np.inf if at_end else -np.inf)
    parts = [decimals, infinite] if at_end else [infinite, decimals]
    table = pa.table({"x": np.concatenate(parts)})
    assert ncf.read_table(write_bytes(table)).equals(table)
