"""What is left when a writer is killed, a log file is damaged, or the clock jumps."""

import random
import time
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from neurolake_dagster.errors import StorageAccessError, StorageError, TableError
from neurolake_dagster.storage import Storage
from neurolake_dagster.tables import Table, merge_rows, restore, set_properties, vacuum
from neurolake_dagster.tables.checkpoints import Checkpoints
from neurolake_dagster.tables.commit import KEEP_FILES
from neurolake_dagster.tables.snapshot import TableFormat
from tests.s3_server import S3Server
from tests.tables.racing import PLACES, append, numbers, overwrite_forever, processes
from tests.test_storage import s3_options


@pytest.fixture
def ncf(tmp_path: Path) -> Table:
    return Table(Storage(str(tmp_path)), "t", "ncf")


@pytest.fixture(params=["local", "s3"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "local":
        return Storage(str(tmp_path / "lake"))
    server: S3Server = request.getfixturevalue("s3_server")
    return Storage(f"s3://{server.bucket}/{tmp_path.name}", s3_options(server))


def kill_while_writing(table: Table, rng: random.Random) -> int:
    """Kill a writer at a random moment; the newest version that it was told of."""
    context = processes()
    receiver, sender = context.Pipe(duplex=False)
    writer = context.Process(target=overwrite_forever, args=(table, sender))
    writer.start()
    sender.close()
    told = int(receiver.recv())
    time.sleep(rng.uniform(0, 0.03))
    writer.kill()
    writer.join()
    while receiver.poll():
        try:
            told = int(receiver.recv())
        except EOFError:
            break
    return told


def settled_version(table: Table) -> int:
    """The newest version once no request of the killed writer is on its way to S3 any more."""
    version = -1
    while version != (newest := table.snapshot().version):
        version = newest
        time.sleep(0 if table.folder.is_local else 0.3)
    return version


def expected(version: int) -> set[int]:
    """What the writer left in its partitions at a version."""
    return set(range(max(0, version - PLACES + 1), version + 1))


@pytest.mark.parametrize("kills", [4, pytest.param(100, marks=pytest.mark.slow)])
@pytest.mark.parametrize("file_format", ["ncf", "parquet"])
def test_a_killed_writer_leaves_a_whole_version(
    storage: Storage, file_format: TableFormat, kills: int
) -> None:
    table = Table(storage, "t", file_format)
    rng = random.Random(kills)
    for _ in range(kills):
        told = kill_while_writing(table, rng)
        version = settled_version(table)
        assert told <= version <= told + 1
        assert set(table.read()["id"].to_pylist()) == expected(version)

    vacuum(table, retention=timedelta(0))
    assert set(table.read()["id"].to_pylist()) == expected(version)
    live = {file.path for file in table.files()}
    left = {entry.key for entry in (*table.folder.list(), *table.folder.unfinished())}
    assert {name for name in left if not name.startswith("_log/")} == live
    if storage.is_local and file_format == "parquet":
        plain = pq.read_table(table.uri, columns=["id"])
        assert sorted(plain["id"].to_pylist()) == sorted(expected(version))


def test_the_next_commit_finishes_what_a_crash_left_of_a_parquet_table(tmp_path: Path) -> None:
    """Killed between its commit and the deletion of the former files."""
    table = Table(Storage(str(tmp_path)), "t", "parquet")
    table.write(numbers(1), partition="a")
    (former,) = table.files()
    content = table.folder.read(former.path)
    table.write(numbers(2), partition="a")
    table.folder.put(former.path, content)
    assert sorted(pq.read_table(tmp_path / "t")["id"].to_pylist()) == [1, 2]

    table.write(numbers(3), partition="b")
    assert sorted(pq.read_table(tmp_path / "t")["id"].to_pylist()) == [2, 3]


def test_work_that_is_done_again_finishes_what_a_crash_left_of_a_parquet_table(
    tmp_path: Path,
) -> None:
    """A merge killed right after its commit, and executed again: plain readers saw rows twice."""
    table = Table(Storage(str(tmp_path)), "t", "parquet")
    append(table, [1])
    (former,) = table.files()
    content = table.folder.read(former.path)
    for _ in range(2):
        merge_rows(table, numbers(1, 2), ["id"], when_gone="delete", transaction="run")
        plain = pq.read_table(tmp_path / "t")["id"].to_pylist()
        assert sorted(plain) == [1, 2]
        table.folder.put(former.path, content)


def overwritten_but_not_cleaned(folder: Path) -> Table:
    """A Parquet table whose newest commit has not yet deleted the former version's file."""
    table = Table(Storage(str(folder)), "t", "parquet")
    append(table, [1])
    (former,) = table.files()
    content = table.folder.read(former.path)
    table.write(numbers(2))
    table.folder.put(former.path, content)
    return table


def test_what_parquet_does_not_keep_is_not_restored_before_it_is_deleted(tmp_path: Path) -> None:
    """The commit that took the file away deleted it after the restore: live rows were lost."""
    table = overwritten_but_not_cleaned(tmp_path)
    with pytest.raises(TableError, match="version 0 cannot be restored"):
        restore(table, 0)
    assert table.read()["id"].to_pylist() == [2]


def test_what_was_not_kept_is_not_restored_after_files_are_kept_again(tmp_path: Path) -> None:
    """The overwrite deleted its former file at last: the restored table could not be read."""
    table = overwritten_but_not_cleaned(tmp_path)
    set_properties(table, {KEEP_FILES: "true"})
    with pytest.raises(TableError, match="version 0 cannot be restored"):
        restore(table, 0)
    table.write(numbers(3))
    restore(table, 2)
    assert table.read()["id"].to_pylist() == [2]


def test_who_may_delete_nothing_shows_no_rows_of_a_commit_that_fails(
    s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Copies were in their place before the originals could not be deleted."""
    storage = Storage(f"s3://{s3_server.bucket}/{tmp_path.name}", s3_options(s3_server))
    table = Table(storage, "t", "parquet")
    append(table, [1])

    def refused(storage: Storage, keys: Iterable[str]) -> None:
        if list(keys):
            raise StorageAccessError("s3: may not delete")

    monkeypatch.setattr(Storage, "delete", refused)
    with pytest.raises(StorageAccessError):
        append(table, [2])
    parts = {one.key for one in table.folder.list() if not one.key.startswith("_")}
    assert parts == {file.path for file in table.files()}


@pytest.mark.parametrize("file_format", ["ncf", "parquet"])
def test_an_interrupt_right_after_the_commit_deletes_none_of_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file_format: TableFormat
) -> None:
    """The log named files that the interrupted write deleted: the table could not be read."""
    table = Table(Storage(str(tmp_path)), "t", file_format)
    append(table, list(range(10)))

    def interrupted(*_: object) -> bool:
        raise KeyboardInterrupt

    monkeypatch.setattr(Checkpoints, "put_if_due", interrupted)
    with pytest.raises(KeyboardInterrupt):
        append(table, [10])
    assert set(table.read()["id"].to_pylist()) == set(range(11))


@pytest.mark.parametrize("file_format", ["ncf", "parquet"])
def test_a_commit_that_the_disk_has_no_place_for_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file_format: TableFormat
) -> None:
    """Readers of the plain folder saw its rows, and after a second try all of them twice."""
    table = Table(Storage(str(tmp_path)), "t", file_format)
    append(table, [1])
    before = [entry.key for entry in table.folder.list()]

    def full(storage: Storage, key: str, data: object) -> None:
        raise StorageError(f"{storage.uri(key)}: No space left on device")

    monkeypatch.setattr(Storage, "put_if_absent", full)
    with pytest.raises(StorageError, match="No space left"):
        append(table, [2])
    assert [entry.key for entry in table.folder.list()] == before


def test_what_a_killed_write_left_is_vacuumed_by_its_age(ncf: Table) -> None:
    """obstore's unfinished files are in no listing, so no vacuum found them."""
    append(ncf, [1])
    left = Path(ncf.uri) / "part-1.ncf#7"
    left.write_bytes(b"x" * 100)
    assert vacuum(ncf, retention=timedelta(hours=1)).paths == ()
    planned = vacuum(ncf, retention=timedelta(0), dry_run=True)
    assert (planned.paths, planned.bytes) == (("part-1.ncf#7",), 100)
    assert left.exists()
    assert vacuum(ncf, retention=timedelta(0)).paths == planned.paths
    assert not left.exists()


@pytest.mark.parametrize("content", [b"", b'{"neurolake_table": 1, "ver', b"{}", b"[]"])
def test_a_damaged_checkpoint_or_hint_only_costs_time(ncf: Table, content: bytes) -> None:
    append(ncf, list(range(23)))
    names = [entry.key for entry in ncf.folder.list("_log")]
    checkpoints = [key for key in names if "checkpoint" in key]
    assert len(checkpoints) == 3
    for key in checkpoints:
        ncf.folder.put(key, content)
        snapshot = ncf.snapshot()
        assert (snapshot.version, snapshot.row_count) == (22, 23)
        assert ncf.snapshot(21).row_count == 22
    ncf.folder.delete(checkpoints)
    assert ncf.snapshot().row_count == 23
    append(ncf, list(range(23, 31)))
    assert ncf.snapshot().row_count == 31


@pytest.mark.parametrize(
    "content", [b"", b'{"neurolake_table": 1, "ver', b'{"neurolake_table": 1}']
)
def test_a_half_written_commit_is_told_and_the_version_before_stands(
    ncf: Table, content: bytes
) -> None:
    append(ncf, [1, 2])
    key = "_log/" + f"{2:020d}.json"
    ncf.folder.put(key, content)
    for act in (ncf.read, lambda: append(ncf, [3])):
        with pytest.raises(TableError, match=rf"{key}: .*damaged"):
            act()
    assert ncf.read(version=1).num_rows == 2
    ncf.folder.delete([key])
    append(ncf, [3])
    assert ncf.snapshot().version == 2


@pytest.mark.parametrize("file_format", ["ncf", "parquet"])
def test_what_has_the_name_of_the_next_commit_is_told(
    tmp_path: Path, file_format: TableFormat
) -> None:
    """A folder of that name had writers try again for ever."""
    table = Table(Storage(str(tmp_path)), "t", file_format)
    append(table, [1])
    (tmp_path / "t/_log" / f"{1:020d}.json").mkdir()
    with pytest.raises(TableError, match=r"1\.json: has the name of the next commit.*remove it"):
        append(table, [2])
    assert len([one for one in table.folder.list() if "part-" in one.key]) == 1


def test_a_missing_commit_is_told(ncf: Table) -> None:
    append(ncf, [1, 2, 3])
    ncf.folder.delete([f"_log/{1:020d}.json"])
    with pytest.raises(TableError, match="version 2 where 1 was expected"):
        ncf.snapshot()


def test_times_grow_with_the_version_though_the_clock_jumps(
    ncf: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time_ns()
    day = 86_400 * 10**9
    for number, jump in enumerate([0, 2 * day, -3 * day, day]):
        with monkeypatch.context() as clock:
            clock.setattr(time, "time_ns", lambda jump=jump: now + jump)
            append(ncf, [number])
    times = [entry.timestamp for entry in ncf.history()]
    assert times == sorted(times, reverse=True)
    assert len(set(times)) == 4
    start = datetime.fromtimestamp(now / 10**9, UTC)
    assert ncf.snapshot(start + timedelta(days=1)).version == 0
    assert ncf.snapshot(start + timedelta(days=3)).version == 3
    assert vacuum(ncf, retention=timedelta(0)).paths == ()
    assert ncf.read().num_rows == 4
