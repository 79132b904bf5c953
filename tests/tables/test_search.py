"""Finding tables by words, and what the log knows of their columns."""

from datetime import date
from pathlib import Path

import pyarrow as pa
import pytest

from neurolake_dagster.storage import Storage
from neurolake_dagster.tables import (
    Table,
    column_statistics,
    evolve_schema,
    search_tables,
    set_properties,
)
from neurolake_dagster.tables.delta import DeltaDataset
from neurolake_dagster.tables.delta_settings import DeltaSettings
from neurolake_dagster.tables.snapshot import TableFormat
from tests.s3_server import S3Server
from tests.test_storage import s3_options


@pytest.fixture(params=["local", "s3"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "local":
        return Storage(str(tmp_path / "lake"))
    server: S3Server = request.getfixturevalue("s3_server")
    return Storage(f"s3://{server.bucket}/{tmp_path.name}", s3_options(server))


def test_tables_are_found_by_path_column_description_and_property(storage: Storage) -> None:
    assert search_tables(storage) == []
    told = pa.field("dep", pa.int64(), metadata={"ncf.description": "Minutes of Delay"})
    flights = Table(storage, "ncf/air/flights", "ncf")
    flights.write(pa.table({"dep": [1, 2]}, schema=pa.schema([told])), partition="a")
    planes = Table(storage, "parquet/planes", "parquet")
    planes.write(pa.table({"tail": ["N1"]}))
    set_properties(planes, {"owner": "Team Wing"})

    delta = DeltaDataset(storage, "delta/weather")
    delta.write(pa.table({"temp": [1.5, None]}))
    delta.settle(
        DeltaSettings(properties={"delta.appendOnly": "true"}), delta.snapshot().schema, []
    )

    assert [(found.path, found.format, found.row_count) for found in search_tables(storage)] == [
        ("delta/weather", "delta", 2),
        ("ncf/air/flights", "ncf", 2),
        ("parquet/planes", "parquet", 1),
    ]
    (found,) = search_tables(storage, "appendonly temp")
    assert found.matches == ("column temp", "property delta.appendOnly")
    (found,) = search_tables(storage, "delay FLIGHTS")
    assert (found.path, found.format, found.version, found.row_count) == (
        "ncf/air/flights", "ncf", 0, 2,
    )  # fmt: skip
    assert found.matches == ("path", "column dep")
    (found,) = search_tables(storage, "wing")
    assert (found.uri, found.matches) == (planes.uri, ("property owner",))
    assert search_tables(storage, "delay wing") == []


@pytest.mark.parametrize("file_format", ["ncf", "parquet"])
def test_statistics_come_from_the_log(tmp_path: Path, file_format: TableFormat) -> None:
    table = Table(Storage(str(tmp_path)), "t", file_format)
    first = pa.table(
        {"id": [3, None], "day": [date(2013, 1, 2), date(2013, 1, 1)], "t": ["b", "a"]}
    )
    second = pa.table({"id": [-7, 9], "day": [None, None], "t": ["x" * 100, "c"]})
    table.write(first, partition="a")
    table.write(second.cast(first.schema), partition="b")
    table.write(first.slice(0, 0), partition="empty")
    for file in table.files():
        table.folder.delete([file.path])

    found = {column.name: column for column in column_statistics(table.snapshot())}
    assert (found["id"].minimum, found["id"].maximum, found["id"].null_count) == (-7, 9, 1)
    assert (found["day"].minimum, found["day"].maximum) == (date(2013, 1, 1), date(2013, 1, 2))
    assert found["day"].null_count == 2
    longest = found["t"].maximum
    assert longest is None or str(longest) >= "x" * 100, "a long text is bounded, never cut"
    assert found["t"].null_count == 0


def test_statistics_follow_renamed_and_added_columns(tmp_path: Path) -> None:
    table = Table(Storage(str(tmp_path)), "t", "ncf")
    table.write(pa.table({"a": pa.array([1, 5], pa.int32())}))
    evolve_schema(table, rename={"a": "b"}, add={"a": pa.int64()})
    fresh, added = column_statistics(table.snapshot())
    assert (fresh.name, fresh.minimum, fresh.maximum, fresh.null_count) == ("b", 1, 5, 0)
    assert (added.name, added.minimum, added.null_count) == ("a", None, 2)


def test_a_damaged_table_does_not_hide_the_others(storage: Storage) -> None:
    """The whole search failed."""
    for name in ("good", "bad"):
        Table(storage, name, "ncf").write(pa.table({"x": [1]}))
    DeltaDataset(storage, "worse").write(pa.table({"x": [1]}))
    storage.put(f"bad/_log/{0:020d}.json", b"{")
    storage.put(f"worse/_delta_log/{0:020d}.json", b"{")
    found = {one.path: one for one in search_tables(storage)}
    assert {path: one.version for path, one in found.items()} == {
        "bad": None, "good": 0, "worse": None,
    }  # fmt: skip
    assert "not JSON" in found["bad"].problem
    assert [one.path for one in search_tables(storage, "good")] == ["good"]
