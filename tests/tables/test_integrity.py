"""Files that somebody changed behind the log are told, and read with an error that names them."""

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from neurolake_dagster import ncf
from neurolake_dagster.errors import TableError
from neurolake_dagster.storage import Storage
from neurolake_dagster.tables import Table
from neurolake_dagster.tables.integrity import changed_files
from neurolake_dagster.tables.snapshot import TableFormat

FORMATS: tuple[TableFormat, ...] = ("ncf", "parquet")
ROWS = pa.table({"name": ["a", "b"], "km": [1, 2]})


def typed(*values: object) -> pa.Table:
    return ROWS.set_column(1, "km", pa.array(values))


def written(tmp_path: Path, fmt: TableFormat, behind: pa.Table | None = None) -> Table:
    """A table, and other rows written into its live file behind the log."""
    table = Table(Storage(str(tmp_path)), "t", fmt)
    table.write(ROWS)
    if behind is not None:
        write: Callable[..., object] = ncf.write_table if fmt == "ncf" else pq.write_table
        write(behind, live(table))
    return table


def live(table: Table) -> str:
    return table.folder.uri(table.files()[0].path)


@pytest.mark.parametrize("fmt", FORMATS)
def test_a_table_that_nobody_touched_has_no_changed_files(tmp_path: Path, fmt: TableFormat) -> None:
    assert list(changed_files(written(tmp_path, fmt))) == []


@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize(
    ("behind", "expected"),
    [
        (typed("1", "2"), "with columns 'km' string"),
        (typed(1.0, 2.0), "with columns 'km' double"),
        (ROWS.append_column("extra", ROWS["km"]), "with columns 'extra' int64"),
        (ROWS.select(["km", "name"]), "with columns 'km' int64, 'name' string"),
        (typed(1, 3), "got "),
    ],
    ids=["text", "double", "extra", "order", "value"],
)
def test_a_file_changed_behind_the_log_is_named(
    tmp_path: Path, fmt: TableFormat, behind: pa.Table, expected: str
) -> None:
    table = written(tmp_path, fmt, behind)
    (text,) = changed_files(table)
    assert text.startswith(f"{live(table)}: changed since its commit")
    assert expected in text


@pytest.mark.parametrize("km", [pa.int64(), pa.string()], ids=str)
def test_a_file_without_digest_is_judged_by_its_columns(tmp_path: Path, km: pa.DataType) -> None:
    table = Table(Storage(str(tmp_path)), "t", "parquet")
    with table.stage() as stage:
        folder = tmp_path / "t" / stage.path
        folder.mkdir(parents=True)
        pq.write_table(typed("1", "2"), folder / "a.parquet")
        schema = pa.schema({"name": pa.string(), "km": km})
        table.commit(stage.collect().files, schema=schema)
    misfits = list(changed_files(table))
    assert len(misfits) == (km == pa.int64())
    assert all("'km' is string, expected int64" in text for text in misfits)


@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize("way", ["scan", "read"])
@pytest.mark.parametrize("behind", [typed(1.7, 2.0), typed("1", "x")], ids=["double", "text"])
def test_a_damaged_column_is_named(
    tmp_path: Path, fmt: TableFormat, way: str, behind: pa.Table
) -> None:
    table = written(tmp_path, fmt, behind)
    with pytest.raises(TableError, match=rf"{live(table)}: .*column 'km' is .*, expected int64"):
        table.scan().read_all() if way == "scan" else table.read()


@pytest.mark.parametrize("way", ["scan", "read"])
def test_a_column_that_an_ncf_file_lost_is_named(tmp_path: Path, way: str) -> None:
    """A bare ValueError came out of the format."""
    table = written(tmp_path, "ncf", ROWS.drop_columns(["km"]))
    with pytest.raises(TableError, match=rf"{live(table)}: .*no columns \['km'\]"):
        table.scan().read_all() if way == "scan" else table.read()
