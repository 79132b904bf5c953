"""Wrong arguments are refused as such, and never called a damage of the file."""

import io
import mmap
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from neurolake_dagster import ncf

TABLE = pa.table({"a": range(10), "s": [f"x{i}" for i in range(10)]})


@pytest.fixture(scope="module")
def data() -> bytes:
    return written(TABLE)


def written(table: pa.Table, **options: Any) -> bytes:
    file = io.BytesIO()
    ncf.write_table(table, file, **options)
    return file.getvalue()


WRONG: list[dict[str, Any]] = [
    {"page_rows": 2.5},
    {"page_rows": True},
    {"page_rows": 0},
    {"page_rows": (1 << 24) + 1},
    {"row_group_size": 0},
    {"row_group_size": "9"},
    {"compression": "snappy"},
    {"compression": 5},
    {"compression_level": True},
    {"compression_level": 99},
    {"compression_level": "3"},
    {"metadata": {"a": 1}},
    {"column_metadata": {"a": {"pii": "yes"}}},
    {"column_metadata": {"a": {"pii": 1}}},
    {"column_metadata": {"a": {"pii": None}}},
    {"column_metadata": {"a": {"semantic": "no such"}}},
]


@pytest.mark.parametrize("options", WRONG, ids=str)
def test_wrong_options_are_refused_before_there_is_a_file(
    options: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        ncf.write_table(TABLE, tmp_path / "t.ncf", **options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["pii", "ncf.pii", "contains_pii"])
@pytest.mark.parametrize("value", [True, "True", "true", np.True_, False, "false"])
def test_a_flag_is_kept_as_it_was_meant(name: str, value: Any) -> None:
    """ "True" was stored as false, and v1's name refused."""
    data = written(TABLE, column_metadata={"a": {name: value}})
    assert ncf.read_metadata(data).notes["a"].pii == (str(value).lower() == "true")


def test_texts_for_the_reader_are_kept() -> None:
    data = written(TABLE, metadata={"source": "a test"})
    assert ncf.read_metadata(data).key_value == {"source": "a test"}


def test_nulls_where_there_may_be_none_are_refused(tmp_path: Path) -> None:
    schema = pa.schema([pa.field("a", pa.int64(), nullable=False)])
    table = pa.table({"a": pa.array([1, None])}, schema=schema)
    with pytest.raises(ValueError, match="'a' is not nullable"):
        ncf.write_table(table, tmp_path / "t.ncf")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "indices",
    [[1.7], ["1"], [True], [[1]], [None], 5, pa.array([1, None]), pa.array([1.5]), {1, 2}],
    ids=str,
)
def test_row_numbers_that_are_none_are_refused(data: bytes, indices: Any) -> None:
    """1.7 was row 1, and so was "1"."""
    with ncf.NCFFile(data) as file, pytest.raises(TypeError, match="indices"):
        file.take(indices)


CODES = pa.array(["x"]).dictionary_encode()
NO_ROWS = pa.chunked_array([], pa.int64())


@pytest.mark.parametrize(
    "indices",
    [range(3), np.array([2, 1], np.uint8), pa.chunked_array([[3], [1, 1]]), [], (4,), NO_ROWS],
)
def test_row_numbers_come_in_many_forms(data: bytes, indices: Any) -> None:
    wanted = indices.to_pylist() if isinstance(indices, pa.ChunkedArray) else list(indices)
    with ncf.NCFFile(data) as file:
        assert file.take(indices)["a"].to_pylist() == wanted
        with pytest.raises(IndexError):
            file.take(np.array([2**63], np.uint64))


@pytest.mark.parametrize("size", [0, -1, 1.5, True])
def test_impossible_batch_sizes_are_refused(data: bytes, size: Any) -> None:
    """0 yielded empty batches for ever."""
    with ncf.NCFFile(data) as file, pytest.raises(ValueError, match="batch_size"):
        file.iter_batches(size)


@pytest.mark.parametrize("where", ["s3://bucket/key.ncf", "file:///tmp/t.ncf"])
def test_a_url_is_no_path(where: str) -> None:
    """A local folder "s3:" was looked for, or written to."""
    for use in (ncf.read_table, lambda url: ncf.write_table(TABLE, url)):
        with pytest.raises(ValueError, match="open it first"):
            use(where)


def test_memory_in_any_form_is_a_source(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "t.ncf"
    path.write_bytes(data)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        sources = (mapped, bytearray(data), memoryview(data), np.frombuffer(data, np.uint8))
        for source in sources:
            assert ncf.read_table(source).equals(TABLE)
        del sources, source


@pytest.fixture(scope="module")
def large() -> bytes:
    """A file that is not read whole when it is opened."""
    sink = io.BytesIO()
    ncf.write_table(pa.table({"n": np.random.default_rng(1).integers(0, 1 << 60, 20_000)}), sink)
    return sink.getvalue()


class Failing:
    """A source that fails after it was opened."""

    def __init__(self, data: bytes, error: Exception) -> None:
        self.data, self.error, self.left = data, error, 2

    def size(self) -> int:
        return len(self.data)

    def read_at(self, offset: int, length: int) -> bytes:
        self.left -= 1
        if self.left < 0:
            raise self.error
        return self.data[offset : offset + length]


@pytest.mark.parametrize("error", [ValueError("closed"), TypeError("no"), IndexError(), OSError()])
def test_errors_of_the_source_are_no_damage(large: bytes, error: Exception) -> None:
    for use in ("read", "verify"):
        with ncf.NCFFile(Failing(large, error)) as file, pytest.raises(type(error)) as caught:
            getattr(file, use)()
        assert caught.value is error


def test_a_file_that_was_closed_says_so(large: bytes) -> None:
    source = io.BytesIO(large)
    with ncf.NCFFile(source) as file:
        source.close()
        with pytest.raises(ValueError, match="closed file"):
            file.read()


def test_a_path_that_was_closed_says_so(large: bytes, tmp_path: Path) -> None:
    """It was a bad file descriptor of no file."""
    path = tmp_path / "large.ncf"
    path.write_bytes(large)
    with ncf.NCFFile(path) as file:
        batches = file.iter_batches()
    with pytest.raises(ValueError, match=r"large\.ncf: closed file"):
        next(batches)


@pytest.mark.parametrize(
    "values",
    [pa.array([b"a" * 16]).cast(pa.binary(16)).cast(pa.uuid()), CODES],
    ids=["ext", "dict"],
)
def test_a_dictionary_that_arrow_cannot_tell_of_is_refused(values: Any, tmp_path: Path) -> None:
    """Its file was written, and no column of it could ever be read."""
    array = pa.DictionaryArray.from_arrays(pa.array([0], pa.int8()), values)
    with pytest.raises(ValueError, match=r"column 'd': dictionary.*cast to"):
        ncf.write_table(pa.table({"d": array}), tmp_path / "t.ncf")
    assert list(tmp_path.iterdir()) == []
