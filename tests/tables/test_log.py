"""The log: how it grows, how it is cut, and what it remembers of transactions."""

import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from bench.long_log import grow
from neurolake_dagster.errors import TableError, TableNotFoundError
from neurolake_dagster.storage import Storage
from neurolake_dagster.tables import Table, restore, set_properties, vacuum

DAY = timedelta(days=1)


@pytest.fixture
def table(tmp_path: Path) -> Table:
    return Table(Storage(str(tmp_path)), "t", "ncf")


def append(table: Table, number: int, transaction: str | None = None) -> None:
    table.write(pa.table({"x": [number]}), mode="append", transaction=transaction)


def values(table: Table, version: int | None = None) -> list[int]:
    return sorted(table.read(version=version)["x"].to_pylist())


def age(table: Table, versions: range, days: int) -> None:
    """Have some versions be so old."""
    for version in versions:
        entry = table.log.entry(version)
        when = datetime.now(UTC) - days * DAY + timedelta(milliseconds=version)
        old = replace(entry, timestamp_ms=int(when.timestamp() * 1000))
        table.folder.put(f"_log/{version:020d}.json", old.encode())


def log_files(table: Table) -> list[str]:
    return [entry.key.removeprefix("_log/") for entry in table.folder.list("_log")]


@pytest.mark.parametrize("mode", ["overwrite", "append"])
@pytest.mark.parametrize("commits", [1_500, pytest.param(10_000, marks=pytest.mark.slow)])
def test_the_log_of_many_commits_stays_small_and_opens_quickly(
    table: Table, commits: int, mode: str
) -> None:
    """10,000 appends left 300 MB of checkpoints, each with all files."""
    table.write(pa.table({f"c{number}": [1] for number in range(20)}))
    grow(table, commits, mode)
    checkpoints = [entry for entry in table.folder.list("_log") if "checkpoint" in entry.key]
    every = 50 if mode == "append" else 10
    assert len(checkpoints) <= 10 + commits // (20 * every)
    assert max(entry.bytes for entry in checkpoints) < 700 * commits

    started = time.perf_counter()
    found = table.snapshot()
    assert time.perf_counter() - started < 0.5
    assert (found.version, len(found.files)) == (commits, commits + 1 if mode == "append" else 1)
    assert found.files[-1].bounds == table.snapshot(0).files[0].bounds
    assert table.snapshot(700).row_count == (701 if mode == "append" else 1)


def test_a_vacuum_cuts_the_log_and_keeps_what_can_be_read(table: Table) -> None:
    for number in range(25):
        append(table, number, transaction=f"run/{number}")
    age(table, range(13), days=40)
    assert vacuum(table, dry_run=True).paths == tuple(
        sorted([*(f"_log/{n:020d}.json" for n in range(12)), f"_log/{10:020d}.checkpoint.json"])
    )
    assert len(vacuum(table, log_retention=50 * DAY).paths) == 0
    before = log_files(table)
    gone = vacuum(table).paths
    assert set(before) - set(log_files(table)) == {path.removeprefix("_log/") for path in gone}

    assert values(table) == list(range(25))
    for version in (12, 13, 24):
        assert values(table, version) == list(range(version + 1))
    for version in (0, 11):
        with pytest.raises(TableNotFoundError, match=f"no version {version}"):
            table.snapshot(version)
    with pytest.raises(TableNotFoundError, match="first one is of"):
        table.snapshot(datetime.now(UTC) - 60 * DAY)
    assert [entry.version for entry in table.history()] == list(range(24, 11, -1))
    assert vacuum(table).paths == ()


def test_a_cut_log_goes_on(table: Table) -> None:
    for number in range(8):
        append(table, number, transaction=f"run/{number}")
    age(table, range(8), days=40)
    vacuum(table)
    assert set(log_files(table)) == {
        "_last_checkpoint", f"{7:020d}.checkpoint.json", f"{7:020d}.json",
    }  # fmt: skip

    append(table, 3, transaction="run/3")
    assert values(table) == list(range(8)), "what was done stays done, though its commit is gone"
    for number in range(8, 30):
        append(table, number)
    restore(table, 7)
    assert values(table) == list(range(8))
    table.folder.delete(["_log/_last_checkpoint"])
    assert values(Table(table.storage, table.path, "ncf"), 20) == list(range(21))


def test_a_cut_at_a_checkpoint_keeps_what_it_begins_with(table: Table) -> None:
    """Twenty commits later that checkpoint went, and with it ten versions and every vacuum."""
    for number in range(31):
        append(table, number)
    age(table, range(31), days=40)
    vacuum(table)
    for number in range(31, 55):
        append(table, number)
    assert values(table, 33) == list(range(34))
    assert vacuum(table).paths == ()
    assert f"{40:020d}.checkpoint.json" in log_files(table)


def test_a_cut_that_was_killed_leaves_no_half_versions(table: Table) -> None:
    """The next vacuum took what was left for all there was, and deleted live files."""
    for number in range(16):
        append(table, number)
    age(table, range(14), days=40)
    left = {key: table.folder.read(key) for key in map("_log/{:020d}.json".format, (2, 3, 7))}
    vacuum(table)
    for key, content in left.items():
        table.folder.put(key, content)
    assert [entry.version for entry in table.history()] == [15, 14, 13]
    with pytest.raises(TableNotFoundError, match="no version 3"):
        table.snapshot(3)
    assert vacuum(table, retention=timedelta(0)).paths == tuple(left)
    assert values(table) == list(range(16))


def test_no_vacuum_where_a_commit_is_missing(table: Table) -> None:
    """It deleted the live files that only the missing commit had named."""
    for number in range(12):
        append(table, number)
    table.folder.delete([f"_log/{5:020d}.json"])
    assert values(table) == list(range(12))
    with pytest.raises(TableError, match="version 6 where 5 was expected"):
        vacuum(table, retention=timedelta(0))
    assert values(table) == list(range(12))


def test_a_reader_whose_hint_is_older_than_the_cut_finds_the_table(table: Table) -> None:
    for number in range(30):
        append(table, number)
    age(table, range(26), days=40)
    stale = table.folder.read(f"_log/{20:020d}.checkpoint.json")
    vacuum(table)
    table.folder.put(f"_log/{20:020d}.checkpoint.json", stale)
    table.folder.put("_log/_last_checkpoint", b'{"version": 20}')
    assert values(table) == list(range(30))


def test_a_missing_commit_is_told(table: Table) -> None:
    for number in range(5):
        append(table, number)
    table.folder.delete([f"_log/{3:020d}.json"])
    with pytest.raises(TableError, match="version 4 where 3 was expected"):
        table.snapshot()


def test_what_a_restore_takes_back_can_be_done_again(table: Table) -> None:
    """An append that was run again after a restore did nothing, and said it had."""
    append(table, 1, transaction="a")
    append(table, 2, transaction="b")
    restore(table, 0)
    append(table, 1, transaction="a")
    assert values(table) == [1]
    append(table, 2, transaction="b")
    append(table, 2, transaction="b")
    assert values(table) == [1, 2]

    restore(table, 0)
    restore(table, 1)
    append(table, 2, transaction="b")
    assert values(table) == [1, 2], "version 1 has it"
    set_properties(table, {"a": "b"})
    assert len(table.snapshot().transactions) == 2
