"""Vacuum: what a table may delete below its folder, and what it may not."""

import os
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from neurolake_dagster.errors import TableError
from neurolake_dagster.storage import Storage, StorageOptions
from neurolake_dagster.tables import Table, search_tables, vacuum
from neurolake_dagster.tables.delta import DeltaDataset
from tests.s3_server import S3Server

NOW = timedelta(0)


@pytest.fixture(params=["local", "s3"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "local":
        return Storage(str(tmp_path / "lake"))
    server: S3Server = request.getfixturevalue("s3_server")
    options = StorageOptions(
        endpoint=server.endpoint, access_key=server.access_key, secret_key=server.secret_key
    )
    return Storage(f"s3://{server.bucket}/{tmp_path.name}", options)


@pytest.fixture(params=["ncf", "parquet"])
def outer(request: pytest.FixtureRequest, storage: Storage) -> Table:
    return Table(storage, "flights", request.param)


def rows(number: int) -> pa.Table:
    return pa.table({"x": [number]})


@pytest.mark.parametrize("place", [None, "a"], ids=["whole", "partition"])
def test_a_table_below_another_one_survives_its_vacuum(outer: Table, place: str | None) -> None:
    """Vacuuming `flights` deleted the files and the log of `flights/daily`."""
    inner = Table(outer.storage, "flights/daily", outer.format)
    delta = DeltaDataset(outer.storage, "flights/x=1/delta")
    outer.write(rows(1), partition=place)
    inner.write(rows(2), partition=place)
    delta.write(rows(3))
    outer.write(rows(4), partition=place)
    outer.folder.put(f"part-lost.{outer.files_format.suffix}", b"lost")

    gone = vacuum(outer, retention=NOW).paths
    assert f"part-lost.{outer.files_format.suffix}" in gone
    assert not [path for path in gone if "daily" in path or "delta" in path]
    assert inner.read().equals(rows(2))
    assert delta.scan().read_all().equals(rows(3))
    assert outer.read().equals(rows(4))
    vacuum(inner, retention=NOW)
    assert outer.read().equals(rows(4))


def test_files_that_no_table_writes_are_left(outer: Table) -> None:
    suffix = outer.files_format.suffix
    outer.write(rows(1), partition="a")
    kept = ["README.md", f"notes/part-1.{suffix}", "partition_key=a/notes.txt"]
    lost = [f"partition_key=a/part-9.{suffix}", "_staging/1/part-0.parquet", "_staging/1/_SUCCESS"]
    for key in [*kept, *lost]:
        outer.folder.put(key, b"x")

    assert vacuum(outer, retention=NOW).paths == tuple(sorted(lost))
    assert all(outer.folder.exists(key) for key in kept)


def test_a_delta_table_below_another_one_survives_its_vacuum(storage: Storage) -> None:
    outer, inner = DeltaDataset(storage, "flights"), DeltaDataset(storage, "flights/daily")
    outer.write(rows(1))
    inner.write(rows(2))
    outer.write(rows(3))
    assert len(outer.vacuum(NOW)) == 1
    assert inner.scan().read_all().equals(rows(2))


def test_tables_below_tables_are_found(storage: Storage) -> None:
    for path in ("flights", "flights/daily", "flights/daily/late"):
        Table(storage, path, "ncf").write(rows(1), partition="a")
    DeltaDataset(storage, "flights/delta").write(pa.table({"x": [1], "y": [2]}), partition_by=["x"])
    DeltaDataset(storage, "flights/delta/late").write(rows(1))
    assert [found.path for found in search_tables(storage)] == [
        "flights", "flights/daily", "flights/daily/late", "flights/delta", "flights/delta/late",
    ]  # fmt: skip


def test_writes_leave_no_folders_in_staging(tmp_path: Path) -> None:
    """Each write of a Parquet table left its own, for ever."""
    table = Table(Storage(str(tmp_path)), "t", "parquet")
    table.write({(("day", "1"),): rows(1), (("day", "2"),): rows(2)})

    def failing() -> Iterator[pa.RecordBatch]:
        yield from rows(3).to_batches()
        raise OSError("the source broke")

    broken = pa.RecordBatchReader.from_batches(rows(3).schema, failing())
    with pytest.raises(OSError, match="the source broke"):
        table.write(broken, partition=(("day", "1"),))
    with table.stage() as stage:
        stage.open_for_tasks()
    assert list((tmp_path / "t" / "_staging").iterdir()) == []


def test_vacuum_takes_empty_folders_that_killed_writes_left(tmp_path: Path) -> None:
    table = Table(Storage(str(tmp_path)), "t", "parquet")
    table.write(rows(1))
    staging = tmp_path / "t" / "_staging"
    old, new = staging / "old" / "day=1", staging / "new" / "day=1"
    for folder in (old, new):
        folder.mkdir(parents=True)
    for folder in (old, old.parent):
        os.utime(folder, (0, 0))
    vacuum(table, dry_run=True)
    assert old.exists()
    vacuum(table)
    assert [path.name for path in staging.iterdir()] == ["new"]
    vacuum(table, retention=NOW)
    assert not staging.exists()
    assert table.read().equals(rows(1))


def test_a_table_of_the_other_format_is_not_vacuumed(tmp_path: Path) -> None:
    """Taken for one of Parquet, an NCF table lost all its former versions."""
    table = Table(Storage(str(tmp_path)), "t", "ncf")
    table.write(rows(1))
    table.write(rows(2))
    with pytest.raises(TableError, match="holds ncf files, asked for parquet"):
        vacuum(Table(table.storage, "t", "parquet"))
    assert table.read(version=0)["x"].to_pylist() == [1]
