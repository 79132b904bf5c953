"""`neurolake table`: what it finds and does, for tables of each format."""

import json
from pathlib import Path

import pyarrow as pa
import pytest
from click.testing import CliRunner, Result

from neurolake_dagster.cli import main
from neurolake_dagster.storage import Storage
from neurolake_dagster.tables import Table
from neurolake_dagster.tables.delta import DeltaDataset

FORMATS = ["ncf", "parquet", "delta"]


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["table", *map(str, arguments)])


@pytest.fixture
def storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Storage:
    monkeypatch.setenv("NEUROLAKE_STORAGE__ROOT", str(tmp_path))
    return Storage(str(tmp_path))


def opened(storage: Storage, name: str) -> Table | DeltaDataset:
    if name == "delta":
        return DeltaDataset(storage, "delta/events")
    return Table(storage, f"{name}/events", "ncf" if name == "ncf" else "parquet")


def written(storage: Storage, name: str) -> Table | DeltaDataset:
    """Four commits of ten rows."""
    found = opened(storage, name)
    for start in range(0, 40, 10):
        found.write(pa.table({"id": range(start, start + 10)}), mode="append")
    return found


def ids(found: Table | DeltaDataset) -> list[int]:
    return sorted(found.scan().read_all().column("id").to_pylist())


def test_tables_of_all_formats_are_listed(storage: Storage) -> None:
    assert run("list").output == "none\n"
    for name in FORMATS:
        written(storage, name)
    found = json.loads(run("list", "--json").output)
    assert [(one["path"], one["version"], one["rows"]) for one in found] == [
        ("delta/events", 3, 40), ("ncf/events", 3, 40), ("parquet/events", 3, 40),
    ]  # fmt: skip
    (found,) = json.loads(run("list", "NCF", "id", "--json").output)
    assert found["format"] == "ncf"
    assert "ncf/events" in run("list").output


def test_names_are_whole_in_a_pipe(storage: Storage) -> None:
    """They were cut at 40 characters, and a row took several lines."""
    path = "/".join(["a_long_folder_name"] * 6)
    Table(storage, path, "ncf").write(
        pa.table({"id": [1]}), properties={"dagster/run_id": "0123456789abcdef" * 3}
    )
    _, row = run("list").output.splitlines()
    assert row.split()[:2] == [path, "ncf"]
    _, row = run("history", path).output.splitlines()
    assert row.split()[-1] == "0123456789abcdef" * 3


def test_a_damaged_table_is_listed_with_its_problem(storage: Storage) -> None:
    written(storage, "ncf")
    storage.put(f"bad/_log/{0:020d}.json", b"{")
    found = run("list")
    assert found.exit_code == 0
    assert "ncf/events" in found.stdout
    assert f"bad: {storage.uri('bad')}/_log" in found.stderr
    assert "not JSON" in json.loads(run("list", "bad", "--json").output)[0]["problem"]


def test_a_retention_of_more_than_a_century_is_refused(storage: Storage) -> None:
    """A raw OverflowError."""
    written(storage, "ncf")
    found = run("vacuum", "ncf/events", "--retention-hours", "1e12")
    assert found.exit_code == 2
    assert "not in the range" in found.stderr


@pytest.mark.parametrize("name", FORMATS)
def test_history_tells_the_newest_commits(storage: Storage, name: str) -> None:
    written(storage, name)
    rows = json.loads(run("history", f"{name}/events", "--limit", 2, "--json").output)
    assert [row["version"] for row in rows] == [3, 2]
    assert all(row["operation"] and row["at"] for row in rows)


@pytest.mark.parametrize("name", FORMATS)
def test_small_files_become_one_and_the_others_go(storage: Storage, name: str) -> None:
    found = written(storage, name)
    assert "4 files into 1, version 4" in run("optimize", f"{name}/events").output
    assert ids(found) == list(range(40))
    vacuum = ("vacuum", f"{name}/events", "--retention-hours", 0)
    listed = json.loads(run(*vacuum, "--json").output)["paths"]
    assert len(listed) == (0 if name == "parquet" else 4)  # it keeps no former files
    here = Path(storage.root, name, "events")
    assert all((here / path).exists() for path in listed)
    assert run(*vacuum, "--delete").exit_code == 0
    assert not any((here / path).exists() for path in listed)
    assert ids(found) == list(range(40))


@pytest.mark.parametrize("name", ["ncf", "delta"])
def test_a_former_version_comes_back(storage: Storage, name: str) -> None:
    found = written(storage, name)
    assert "version 1 is back as version 4" in run("restore", f"{name}/events", 1).output
    assert ids(found) == list(range(20))


@pytest.mark.parametrize("name", ["ncf", "delta"])
def test_rows_are_clustered_by_columns(storage: Storage, name: str) -> None:
    found = opened(storage, name)
    for start in (1, 0):
        found.write(pa.table({"id": range(start, 40, 2)}), mode="append")
    assert "2 files into 1" in run("optimize", f"{name}/events", "--sort-by", "id").output
    assert found.scan().read_all().column("id").to_pylist() == list(range(40))


@pytest.mark.parametrize("command", [["history"], ["optimize"], ["vacuum"], ["restore", "0"]])
def test_an_absent_table_is_one_line(storage: Storage, command: list[str]) -> None:
    name, *rest = command
    result = run(name, "nothing/here", *rest)
    assert result.exit_code == 1
    assert (
        result.stderr
        == f"Error: {storage.uri('nothing/here')}: no table lies here, neither ours nor Delta's\n"
    )
    assert not Path(storage.uri("nothing")).exists()
