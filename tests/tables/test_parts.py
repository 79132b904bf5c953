"""Part files in the making: how much of many partitions' rows is held at once."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from typing_extensions import Buffer

from neurolake_dagster.errors import StorageUnavailableError, TableError
from neurolake_dagster.storage import Storage, StorageWriter
from neurolake_dagster.tables import Table
from neurolake_dagster.tables.formats import file_format
from neurolake_dagster.tables.parts import PartFiles
from neurolake_dagster.tables.snapshot import TableFormat

PLACES = [(("partition_key", str(number)),) for number in range(40)]


@pytest.mark.parametrize("name", ["ncf", "parquet"])
def test_many_partitions_hold_no_row_group_each(name: TableFormat, tmp_path: Path) -> None:
    """Each open partition held up to a row group of a million rows, however many were open."""
    schema, most = pa.schema([("x", pa.float64())]), 0
    random = np.random.default_rng(1)
    order = pa.array(np.arange(5_000))
    before = pa.total_allocated_bytes()
    with PartFiles(Storage(str(tmp_path)), file_format(name), schema, open_bytes=4 << 20) as parts:
        for _ in range(20):
            for place in PLACES:
                # A copy in Arrow's own memory, which tells how much of it is in use.
                rows = pa.array(random.random(5_000)).take(order)
                parts.write(place, pa.record_batch([rows], schema=schema))
            most = max(most, pa.total_allocated_bytes() - before)
        parts.close()
        files = list(parts.files)
    assert most < 12 << 20
    assert sum(file.row_count for file in files) == 20 * 40 * 5_000
    assert {file.partition for file in files} == set(PLACES)


class LostServer(StorageWriter):
    """A sink of a server that is gone after the first bytes."""

    def write(self, data: Buffer) -> int:
        if self.tell():
            raise StorageUnavailableError("the server is gone")
        return super().write(data)


@pytest.mark.parametrize("name", ["ncf", "parquet"])
def test_a_lost_server_is_what_is_told(
    name: TableFormat, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Giving the part up failed too, by a RuntimeError of pyarrow, and that was told."""
    monkeypatch.setattr("neurolake_dagster.storage.store.StorageWriter", LostServer)
    rows = pa.record_batch({"x": np.zeros(10)})

    def write_and_close() -> None:
        with PartFiles(Storage(str(tmp_path)), file_format(name), rows.schema) as parts:
            parts.write((), rows)
            parts.close()

    with pytest.raises(StorageUnavailableError, match="the server is gone"):
        write_and_close()
    assert not any(tmp_path.rglob("*"))


def test_one_partition_keeps_one_file(tmp_path: Path) -> None:
    schema = pa.schema([("x", pa.float64())])
    storage = Storage(str(tmp_path))
    with PartFiles(storage, file_format("parquet"), schema, open_bytes=1 << 10) as parts:
        for _ in range(10):
            parts.write((), pa.record_batch({"x": np.zeros(5_000)}, schema=schema))
        parts.close()
        assert [file.row_count for file in parts.files] == [50_000]


@pytest.mark.parametrize("name", ["ncf", "parquet"])
def test_batches_do_not_matter(name: TableFormat, tmp_path: Path) -> None:
    """Pages of Parquet ended otherwise: the same rows had another data version."""
    numbers = np.arange(50_000)
    rows = pa.table({"n": numbers % 977, "t": [f"text {n}" for n in numbers]})
    found = []
    for size in (999, 16_384, 50_000):
        table = Table(Storage(str(tmp_path)), str(size), name)
        (file,) = table.write(rows.to_reader(size)).files_added
        found.append(file.digest)
        assert table.read().equals(rows)
    assert found[0] is not None
    assert len(set(found)) == 1


@pytest.mark.parametrize(
    "column",
    [
        pa.array([pa.MonthDayNano([1, 2, 3])]),
        pa.RunEndEncodedArray.from_arrays([1], ["a"]),
        pa.array([{}], pa.struct([])),
        pa.array([1200], pa.decimal128(5, -2)),
        pa.array([[], None], pa.list_(pa.int8(), 0)),
    ],
    ids=lambda column: str(column.type),
)
def test_what_parquet_cannot_hold_is_refused(column: pa.Array, tmp_path: Path) -> None:
    """Arrow's own errors came out, and lists of no size were written that nobody could read."""
    rows = pa.table({"c": column})
    table = Table(Storage(str(tmp_path)), "t", "parquet")
    with pytest.raises(TableError, match=r"fixed size 0|parquet file cannot hold these rows"):
        table.write(rows)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
