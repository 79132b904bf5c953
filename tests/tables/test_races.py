"""Writers at the same time, in threads and processes, on disk and on S3."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from neurolake_dagster.errors import CommitConflictError
from neurolake_dagster.storage import Storage, StorageEntry, StorageOptions
from neurolake_dagster.tables import (
    Commit,
    Partition,
    Table,
    delete_rows,
    evolve_schema,
    merge_rows,
    optimize,
    restore,
    set_properties,
)
from neurolake_dagster.tables.entry import Entry
from neurolake_dagster.tables.log import Log
from neurolake_dagster.tables.snapshot import Snapshot, TableFormat
from neurolake_dagster.tables.table import Version
from tests.s3_server import S3Server
from tests.tables.racing import append, merge, numbers, processes

WRITERS = 3


@pytest.fixture(params=["local", "s3"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "local":
        return Storage(str(tmp_path / "lake"))
    server: S3Server = request.getfixturevalue("s3_server")
    options = StorageOptions(
        endpoint=server.endpoint, access_key=server.access_key, secret_key=server.secret_key
    )
    return Storage(f"s3://{server.bucket}/{tmp_path.name}", options)


@pytest.fixture
def ncf(tmp_path: Path) -> Table:
    return Table(Storage(str(tmp_path)), "t", "ncf")


def ids(table: Table) -> list[int]:
    return sorted(table.read()["id"].to_pylist())


def run_at_once(work: Callable[[Table, list[int]], None], table: Table, *args: list[int]) -> None:
    context = processes()
    running = [context.Process(target=work, args=(table, values)) for values in args]
    for process in running:
        process.start()
    for process in running:
        process.join(60)
    assert [process.exitcode for process in running] == [0] * len(args)


def test_appends_of_several_processes_all_arrive_once(storage: Storage) -> None:
    table = Table(storage, "t", "ncf")
    append(table, [-1])
    run_at_once(append, table, *([i * 10 + n for n in range(5)] for i in range(WRITERS)))

    assert ids(table) == [-1, *sorted(i * 10 + n for i in range(WRITERS) for n in range(5))]
    assert table.snapshot().version == 5 * WRITERS
    assert [entry.version for entry in table.history()] == list(range(5 * WRITERS, -1, -1))


def test_merges_of_the_same_new_keys_insert_each_once(storage: Storage) -> None:
    """Two merges that saw no such key both inserted it."""
    table = Table(storage, "t", "parquet")
    append(table, [-1])
    run_at_once(merge, table, *([list(range(4))] * WRITERS))
    assert ids(table) == [-1, 0, 1, 2, 3]


def test_properties_set_at_once_are_all_kept(ncf: Table) -> None:
    append(ncf, [1])
    threads = [
        threading.Thread(target=set_properties, args=(ncf, {f"k{number}": "v"}))
        for number in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(ncf.snapshot().properties) == {f"k{number}" for number in range(6)}


def overtaken_by(act: Callable[[], object]) -> pa.RecordBatchReader:
    def batches() -> Iterator[pa.RecordBatch]:
        act()
        yield numbers(99).to_batches()[0]

    return pa.RecordBatchReader.from_batches(numbers().schema, batches())


@pytest.mark.parametrize(
    "act",
    [
        lambda table: append(table, [7]),
        lambda table: delete_rows(table, [("id", "=", 2)]),
        lambda table: optimize(table, sort_by=["id"]),
        lambda table: table.write(numbers(5)),
        lambda table: set_properties(table, {"a": "b"}),
    ],
    ids=["append", "delete", "optimize", "overwrite", "properties"],
)
def test_an_append_goes_on_top_of_whatever_came_first(
    ncf: Table, act: Callable[[Table], object]
) -> None:
    append(ncf, [1, 2])
    commit = ncf.write(overtaken_by(lambda: act(ncf)), mode="append")
    expected = ids(Table(ncf.storage, ncf.path, "ncf"))
    assert 99 in expected
    assert commit.version == ncf.snapshot().version
    before = ncf.read(version=commit.version - 1)["id"].to_pylist()
    assert expected == sorted([*before, 99])


@pytest.mark.parametrize("kind", ["ncf", "parquet"])
@pytest.mark.parametrize("is_first", [True, False], ids=["first", "later"])
def test_two_live_attempts_at_one_append_add_its_rows_once(
    tmp_path: Path, kind: TableFormat, is_first: bool
) -> None:
    """A run taken for dead went on beside its retry, and both added the rows."""
    table = Table(Storage(str(tmp_path)), "t", kind)
    if not is_first:
        table.write(numbers(1))
    done: list[Commit] = []

    def other_attempt() -> None:
        done.append(table.write(numbers(99), mode="append", transaction="run/step"))
        table.write(numbers(7), mode="append")

    commit = table.write(overtaken_by(other_attempt), mode="append", transaction="run/step")
    assert ids(table) == ([7, 99] if is_first else [1, 7, 99])
    assert commit == done[0]
    parts = {entry.key for entry in table.folder.list() if "part-" in entry.key}
    assert parts == {file.path for file in table.files()}


def test_two_live_attempts_at_one_merge_are_one(ncf: Table) -> None:
    ncf.write(numbers(1))

    def split(batch: pa.RecordBatch) -> Iterator[tuple[Partition, pa.RecordBatch]]:
        merge_rows(ncf, numbers(2), ["id"], transaction="run/step")
        yield (), batch

    commit = merge_rows(ncf, numbers(2), ["id"], split=split, transaction="run/step")
    assert commit.metrics["rows_inserted"] == 1
    assert (ids(ncf), ncf.snapshot().version) == ([1, 2], 1)


@pytest.mark.parametrize(
    ("act", "told"),
    [
        (lambda table: append(table, [7]), "whole table"),
        (lambda table: delete_rows(table, [("id", "=", 2)]), "whole table"),
        (lambda table: table.write(numbers(5)), "whole table"),
        (lambda table: evolve_schema(table, add={"x": pa.int8()}), "schema"),
    ],
    ids=["append", "delete", "overwrite", "evolve"],
)
def test_an_overwrite_refuses_to_take_away_what_it_did_not_see(
    ncf: Table, act: Callable[[Table], object], told: str
) -> None:
    append(ncf, [1, 2])
    with pytest.raises(CommitConflictError, match=rf"\(based on version 1\) and version 2.*{told}"):
        ncf.write(overtaken_by(lambda: act(ncf)))
    assert 99 not in ids(ncf)


@pytest.mark.parametrize(
    "act",
    [
        lambda table: append(table, [7]),
        lambda table: delete_rows(table, [("id", "=", 3)]),
        lambda table: table.write(numbers(5)),
    ],
    ids=["append", "delete", "overwrite"],
)
def test_a_restore_gives_exactly_the_former_version_or_nothing(
    ncf: Table, act: Callable[[Table], object]
) -> None:
    """Rows that came meanwhile stayed, some twice; and a conflict deleted the former files."""
    append(ncf, [1, 2])
    ncf.write(numbers(3))
    expected: list[int] = []

    class Overtaken(Table):
        def snapshot(self, version: Version = None) -> Snapshot:
            found = super().snapshot(version)
            if version is not None:
                act(ncf)
                expected.extend(ids(ncf))
            return found

    with pytest.raises(CommitConflictError, match=r"restore.*whole table|same files"):
        restore(Overtaken(ncf.storage, ncf.path, "ncf"), 1)
    assert ids(ncf) == expected
    restore(ncf, 1)
    assert ids(ncf) == [1, 2]


def test_what_comes_while_others_are_looked_at_is_a_conflict_too(
    ncf: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The change went on top of the newest version, of which it had looked at all but the last.

    Rows that both had rewritten were there twice.
    """
    append(ncf, [1, 2, 3])
    last: list[Callable[[], object]] = [lambda: optimize(ncf, sort_by=["id"])]
    entries = Log.entries

    def overtaken(log: Log, after: int = -1) -> Iterator[Entry]:
        yield from list(entries(log, after))
        if last:
            last.pop()()

    class Overtaken(Table):
        def snapshot(self, version: Version = None) -> Snapshot:
            found = super().snapshot(version)
            append(ncf, [4])
            monkeypatch.setattr(Log, "entries", overtaken)
            return found

    with pytest.raises(CommitConflictError, match=r"delete .*version 4 .*same files"):
        delete_rows(Overtaken(ncf.storage, ncf.path, "ncf"), [("id", "=", 2)])
    assert not last
    assert ids(ncf) == [1, 2, 3, 4]


def test_a_listing_that_misses_a_commit_is_made_again(
    ncf: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A vacuum beside writers told of a damaged log."""
    append(ncf, [1, 2, 3])
    missed = [f"_log/{1:020d}.json"]
    listed = Storage.list

    def missing(storage: Storage, prefix: str = "", **options: Any) -> Iterator[StorageEntry]:
        found = list(listed(storage, prefix, **options))
        gone = missed.pop() if prefix == "_log" and missed else ""
        return iter([entry for entry in found if entry.key != gone])

    monkeypatch.setattr(Storage, "list", missing)
    assert [entry.version for entry in ncf.log.entries()] == [0, 1, 2]
    assert not missed


def test_a_delete_does_not_miss_rows_that_a_restore_brings_back(ncf: Table) -> None:
    append(ncf, [1, 2, 3])
    delete_rows(ncf, [("id", "=", 1)])

    class Overtaken(Table):
        def snapshot(self, version: Version = None) -> Snapshot:
            found = super().snapshot(version)
            restore(ncf, 2)
            return found

    with pytest.raises(CommitConflictError, match="restore"):
        delete_rows(Overtaken(ncf.storage, ncf.path, "ncf"), [("id", "<", 3)])
    assert ids(ncf) == [1, 2, 3]


def merge_new(table: Table, *ids: int, before: Callable[[], object] | None = None) -> None:
    """Insert the rows that the table lacks, after something came between its read and that."""

    def split(batch: pa.RecordBatch) -> Iterator[tuple[Partition, pa.RecordBatch]]:
        if before is not None:
            before()
        yield place, batch

    place = next(iter(table.snapshot().partitions), ())
    merge_rows(table, numbers(*ids), ["id"], when_matched="ignore", split=split)


def append_and_merge_new(table: Table) -> None:
    append(table, [2])
    merge_new(table, 1, 2, 9)


@pytest.mark.parametrize("kind", ["ncf", "parquet"])
@pytest.mark.parametrize(
    ("act", "told", "expected"),
    [
        (lambda table: merge_new(table, 1, 2), "merge.*both change rows", [1, 2]),
        (append_and_merge_new, "merge.*both change rows", [1, 2, 9]),
        (lambda table: merge_new(table, 1, 9), "", [9]),
        (lambda table: append(table, [2]), "", [2]),
    ],
    ids=["such rows by a merge", "by an append before a merge", "others", "by an append"],
)
def test_a_delete_and_what_comes_meanwhile_stand_as_in_some_order(
    tmp_path: Path,
    kind: TableFormat,
    act: Callable[[Table], object],
    told: str,
    expected: list[int],
) -> None:
    """A merge had left a row that the delete took, and brought one that the delete had to take."""
    table = Table(Storage(str(tmp_path)), "t", kind)
    append(table, [1])

    class Overtaken(Table):
        def snapshot(self, version: Version = None) -> Snapshot:
            found = super().snapshot(version)
            act(table)
            return found

    def delete() -> None:
        delete_rows(Overtaken(table.storage, table.path, kind), "id < 5")

    if told:
        with pytest.raises(CommitConflictError, match=told):
            delete()
    else:
        delete()
    assert ids(table) == expected


@pytest.mark.parametrize(
    "act",
    [
        lambda table: delete_rows(table, "id IN (1, 2)"),
        lambda table: merge_rows(table, numbers(7), ["id"], when_new="ignore", when_gone="delete"),
        lambda table: table.write(numbers(), split=lambda batch: []),
    ],
    ids=["delete", "merge", "overwrite by nothing"],
)
def test_a_merge_depends_on_rows_that_it_found_and_left(
    ncf: Table, act: Callable[[Table], object]
) -> None:
    """Of rows 1 and 2 neither was there: not the one it had seen, and not the one it brought."""
    ncf.write(numbers(1), partition="a")
    with pytest.raises(CommitConflictError, match="both depend on the same rows"):
        merge_new(ncf, 1, 2, before=lambda: act(ncf))
    assert ids(ncf) == []
    merge_new(ncf, 1, 2)
    assert ids(ncf) == [1, 2]


def test_a_conflict_is_only_seen_in_the_partitions_concerned(ncf: Table) -> None:
    """A delete in one partition refused the overwrite of another."""
    for number in (1, 2):
        ncf.write(numbers(number, number + 10), partition=f"p{number}")

    ncf.write(overtaken_by(lambda: delete_rows(ncf, [("id", "=", 1)])), partition="p2")
    assert ids(ncf) == [11, 99]
    with pytest.raises(CommitConflictError, match="p1"):
        ncf.write(overtaken_by(lambda: delete_rows(ncf, [("id", "=", 11)])), partition="p1")
    assert ids(ncf) == [99]


def test_a_merge_refuses_rows_it_did_not_see_and_deletes_its_files(ncf: Table) -> None:
    place: Partition = (("partition_key", "a"),)
    ncf.write(numbers(1), partition=place)
    other = (("partition_key", "b"),)

    def merge_while(act: Callable[[], object]) -> None:
        def split(batch: pa.RecordBatch) -> Iterator[tuple[Partition, pa.RecordBatch]]:
            act()
            yield place, batch

        merge_rows(ncf, numbers(1, 2), ["id"], split=split, partitions=[place])

    merge_while(lambda: ncf.write(numbers(5), partition=other))
    assert ids(ncf) == [1, 2, 5]
    files = len(list(ncf.folder.list()))
    with pytest.raises(CommitConflictError, match="same keys"):
        merge_while_new(ncf, place)
    assert ids(ncf) == [1, 2, 3, 5]
    assert len(list(ncf.folder.list())) == files + 2  # the other's commit and its file


def merge_while_new(table: Table, place: Partition) -> None:
    def split(batch: pa.RecordBatch) -> Iterator[tuple[Partition, pa.RecordBatch]]:
        table.write(numbers(3), partition=place, mode="append")
        yield place, batch

    merge_rows(table, numbers(3), ["id"], split=split, partitions=[place])
