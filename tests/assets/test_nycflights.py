"""Source tables: proper types from the CSV files, and one clear error for what is wrong."""

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from neurolake_dagster.assets.nycflights import TABLES, SourceTable, read_source, source_directory
from neurolake_dagster.errors import StorageNotFoundError, TableError

AIRLINES = TABLES[0]


@pytest.mark.parametrize(
    ("table", "row_count"),
    list(zip(TABLES, (16, 1_458, 336_776, 3_322, 26_115), strict=True)),
    ids=[table.name for table in TABLES],
)
def test_a_source_is_read_whole_with_its_types(table: SourceTable, row_count: int) -> None:
    rows = read_source(table, source_directory(None))
    assert rows.num_rows == row_count
    assert rows.schema.equals(table.schema, check_metadata=True)


def test_missing_values_are_nulls_and_times_are_utc() -> None:
    flights = read_source(TABLES[2], source_directory(None))
    assert flights["dep_delay"].null_count == 8_255
    assert pc.min(flights["time_hour"]).as_py().isoformat() == "2013-01-01T10:00:00+00:00"


def test_a_missing_file_is_told_with_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "planes.csv").write_text("")
    with pytest.raises(StorageNotFoundError, match=r"expected airlines\.csv .* found \['planes"):
        read_source(AIRLINES, tmp_path)


def test_a_missing_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(StorageNotFoundError, match="no such folder"):
        read_source(AIRLINES, tmp_path / "nowhere")


@pytest.mark.parametrize(
    "text",
    ["carrier\nUA\n", "carrier,name\nUA\n"],
    ids=["a column is missing", "a row is short"],
)
def test_a_file_that_does_not_fit_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "airlines.csv").write_text(text)
    with pytest.raises(TableError, match=r"expected carrier string, name string"):
        read_source(AIRLINES, tmp_path)


def test_a_value_of_another_type_is_refused(tmp_path: Path) -> None:
    table = SourceTable(name="t", description="", schema=pa.schema([("n", pa.int32())]))
    (tmp_path / "t.csv").write_text("n\n12\ntwelve\n")
    with pytest.raises(TableError, match="twelve"):
        read_source(table, tmp_path)
