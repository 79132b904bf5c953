"""Delta through deltalake: versions, restores and merges, stores and types that cannot be used."""

import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from neurolake_dagster.errors import (
    SchemaMismatchError,
    StorageAccessError,
    StorageError,
    StorageUnavailableError,
    TableError,
    TableNotFoundError,
)
from neurolake_dagster.ncf.arrow import holds_type
from neurolake_dagster.storage import Storage, StorageOptions
from neurolake_dagster.tables import Table
from neurolake_dagster.tables.delta import DeltaDataset
from neurolake_dagster.tables.windows import Window, sql_test
from tests.doctor.strange_s3 import strange_s3_process
from tests.s3_server import S3Server
from tests.test_storage import TOLD_WITHIN_S, profile, s3_options, stray_variables

__all__ = ["profile", "stray_variables"]

ROWS = pa.table({"id": [1, 2]})


@pytest.fixture
def stalled() -> Iterator[str]:
    """An endpoint that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture
def no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, os.devnull)


ACTS = {
    "write": lambda storage: DeltaDataset(storage, "t").write(ROWS),
    "read": lambda storage: DeltaDataset(storage, "t").scan().read_all(),
}


@pytest.mark.parametrize("act", ACTS.values(), ids=list(ACTS))
@pytest.mark.parametrize(
    ("root", "changes", "expected"),
    [
        ("s3://lake", {"secret_key": "wrong"}, StorageAccessError),
        ("s3://absent", {}, StorageUnavailableError),
        ("s3://lake", {"endpoint": "http://127.0.0.1:9"}, StorageUnavailableError),
    ],
    ids=["wrong secret", "missing bucket", "refused"],
)
def test_a_store_that_deltalake_cannot_use_is_told_soon(
    s3_server: S3Server,
    act: Callable[[Storage], object],
    root: str,
    changes: dict[str, object],
    expected: type[StorageError],
) -> None:
    started = time.monotonic()
    with pytest.raises(expected) as caught:
        act(Storage(root, s3_options(s3_server, **changes)))
    assert time.monotonic() - started < TOLD_WITHIN_S
    assert "\n" not in str(caught.value)
    assert s3_server.secret_key not in str(caught.value)


@pytest.mark.slow  # waits for time to pass
def test_a_store_that_never_answers_is_told_soon(s3_server: S3Server, stalled: str) -> None:
    storage = Storage("s3://lake", s3_options(s3_server, endpoint=stalled))
    started = time.monotonic()
    with pytest.raises(StorageUnavailableError, match="does not answer: nothing came in time"):
        storage.read("x")
    assert time.monotonic() - started < TOLD_WITHIN_S


@pytest.mark.usefixtures("stray_variables")
def test_aws_variables_of_the_environment_are_not_mixed_in(
    s3_server: S3Server, tmp_path: Path
) -> None:
    dataset = DeltaDataset(Storage(f"s3://lake/{tmp_path.name}", s3_options(s3_server)), "t")
    dataset.write(ROWS)
    assert dataset.scan().read_all().num_rows == 2


def test_without_keys_the_profile_in_force_has_them(
    profile: StorageOptions, tmp_path: Path
) -> None:
    dataset = DeltaDataset(Storage(f"s3://lake/{tmp_path.name}", profile), "t")
    dataset.write(ROWS)
    assert dataset.scan().read_all().num_rows == 2


@pytest.mark.parametrize("name", ["a#1", "a?b", "50%", "a[b]", "a+b ü"])
def test_a_prefix_is_no_url(s3_server: S3Server, tmp_path: Path, name: str) -> None:
    """Behind ``#`` and ``?`` all was cut off: the tables of all assets lay in one place."""
    above = Storage(f"s3://lake/{tmp_path.name}", s3_options(s3_server))
    for path in ("t", "u"):
        dataset = DeltaDataset(above.child(name), path)
        dataset.write(ROWS)
        assert dataset.scan().read_all().num_rows == 2
    assert {entry.key.rpartition("/")[0] for entry in above.list()} == {
        f"{name}/{place}" for place in ("t", "t/_delta_log", "u", "u/_delta_log")
    }


@pytest.mark.parametrize("root", ["s3://lake/a%20b", "{tmp}/a%20b", "{tmp}/a[b]", "{tmp}/a|b"])
def test_a_root_that_deltalake_misreads_is_refused(
    s3_server: S3Server, tmp_path: Path, root: str
) -> None:
    storage = Storage(root.format(tmp=tmp_path), s3_options(s3_server))
    with pytest.raises(TableError, match="deltalake finds no table below"):
        DeltaDataset(storage, "t").write(ROWS)


@pytest.mark.usefixtures("no_keys")
@pytest.mark.parametrize(
    "act",
    [lambda storage: storage.put("x", b""), ACTS["write"]],
    ids=["obstore", "deltalake"],
)
def test_no_keys_at_all_is_told_soon(s3_server: S3Server, act: Callable[[Storage], object]) -> None:
    options = s3_options(s3_server, access_key=None, secret_key=None)
    started = time.monotonic()
    with pytest.raises((StorageAccessError, StorageUnavailableError)) as caught:
        act(Storage("s3://lake", options))
    assert time.monotonic() - started < TOLD_WITHIN_S
    assert "key" in str(caught.value)


@pytest.mark.parametrize(
    "type_",
    [pa.duration("s"), pa.time64("us"), pa.float16(), pa.month_day_nano_interval(), pa.struct([])],
    ids=str,
)
def test_a_type_that_delta_lacks_is_told(tmp_path: Path, type_: pa.DataType) -> None:
    dataset = DeltaDataset(Storage(str(tmp_path)), "t")
    with pytest.raises(TableError):
        dataset.write(pa.table({"x": pa.nulls(1, type_)}))
    assert not dataset.exists()


@pytest.fixture
def dataset(tmp_path: Path) -> DeltaDataset:
    return DeltaDataset(Storage(str(tmp_path)), "t")


def ids(dataset: DeltaDataset) -> list[int]:
    return sorted(dataset.scan().read_all()["id"].to_pylist())


def test_a_version_that_is_not_there_is_told_as_for_our_tables(dataset: DeltaDataset) -> None:
    """A moment before the first version gave its rows; -1 was an OverflowError."""
    dataset.write(ROWS)
    time.sleep(0.01)
    after = datetime.now(UTC)
    time.sleep(0.01)
    dataset.write(ROWS.slice(1))
    table = Table(dataset.storage, "ncf", "ncf")
    table.write(ROWS)
    for version in (99, -1):
        for one in (dataset, table):
            with pytest.raises(TableNotFoundError, match=f"no version {version}; see"):
                one.scan(version=version)
    for moment in (datetime(2000, 1, 1, tzinfo=UTC), datetime(2000, 1, 1)):
        for one in (dataset, table):
            with pytest.raises(TableNotFoundError, match="no version at 2000-01-01"):
                one.scan(version=moment)
    assert dataset.scan(version=after).read_all().num_rows == 2


def test_slices_of_structs_in_structs_are_written(dataset: DeltaDataset) -> None:
    """The engine aborted the whole process, whatever it ran."""
    nested = [{"a": {"b": number}} if number % 3 else None for number in range(20)]
    rows = pa.table({"id": range(20), "nested": nested})
    dataset.write(rows.slice(3, 5).to_reader(max_chunksize=2))
    dataset.merge(rows.slice(6, 4), ["id"])
    found = dataset.scan().read_all().sort_by("id")
    assert found.to_pylist() == rows.slice(3, 7).to_pylist()


def test_columns_that_are_not_there_are_told(dataset: DeltaDataset) -> None:
    dataset.write(ROWS)
    with pytest.raises(TableError, match=r"no columns \['zz'\]; the table has \['id'\]"):
        dataset.scan(columns=["zz", "id"])


def test_what_a_restore_takes_back_can_be_done_again(dataset: DeltaDataset) -> None:
    """An append that was run again after a restore did nothing, and said it had."""
    for number in range(3):
        rows = pa.table({"id": [number]})
        dataset.write(rows, mode="append", transaction=f"run/{number}")
    dataset.restore(0)
    assert ids(dataset) == [0]
    for _ in range(2):
        for number in range(2):
            rows = pa.table({"id": [number]})
            dataset.write(rows, mode="append", transaction=f"run/{number}")
    assert ids(dataset) == [0, 1]
    dataset.restore(2)
    assert ids(dataset) == [0, 1, 2]
    dataset.write(pa.table({"id": [2]}), mode="append", transaction="run/2")
    assert ids(dataset) == [0, 1, 2]


def test_a_merge_that_lacks_columns_is_refused_unless_they_may_stay(dataset: DeltaDataset) -> None:
    dataset.write(pa.table({"id": [1, 2], "v": ["a", "b"]}))
    rows = pa.table({"id": [2, 3]})
    with pytest.raises(SchemaMismatchError, match=r"column 'v' is missing.*schema_mode merge"):
        dataset.merge(rows, ["id"])
    dataset.merge(rows, ["id"], adds_columns=True)
    found = {row["id"]: row["v"] for row in dataset.scan().read_all().to_pylist()}
    assert found == {1: "a", 2: "b", 3: None}


def test_a_column_that_was_all_null_takes_the_first_type(dataset: DeltaDataset) -> None:
    dataset.write(pa.table({"id": [1], "c": pa.nulls(1)}))
    dataset.write(pa.table({"id": [2], "c": pa.nulls(1)}), mode="append")
    dataset.write(pa.table({"id": [3], "c": ["s"]}), mode="append")
    found = {row["id"]: row["c"] for row in dataset.scan().read_all().to_pylist()}
    assert found == {1: None, 2: None, 3: "s"}
    with pytest.raises(SchemaMismatchError):
        dataset.write(pa.table({"id": [4], "c": ["x"], "d": [1]}), mode="append")


def test_what_the_rows_own_source_raises_is_told(dataset: DeltaDataset) -> None:
    def batches() -> Iterator[pa.RecordBatch]:
        yield from ROWS.to_batches()
        raise LookupError("the source is gone")

    with pytest.raises(LookupError, match="the source is gone"):
        dataset.write(pa.RecordBatchReader.from_batches(ROWS.schema, batches()))
    assert not dataset.exists()


NOON = datetime(2024, 1, 1, 12)
LOSING: dict[str, tuple[pa.Array, pa.Array]] = {
    "doubles to integers": (pa.array([1]), pa.array([2.5])),
    "large integers to doubles": (pa.array([1.5]), pa.array([2**60 + 1])),
    "doubles to floats": (pa.array([1.5], pa.float32()), pa.array([0.1])),
    "flags to integers": (pa.array([1]), pa.array([True])),
    "integers to text": (pa.array(["a"]), pa.array([1])),
    "text to integers": (pa.array([1]), pa.array(["2"])),
    "wide to narrow integers": (pa.array([1], pa.int32()), pa.array([2**40])),
    "decimals of more digits": (
        pa.array([Decimal("1.10")], pa.decimal128(10, 2)),
        pa.array([Decimal("1.1289")], pa.decimal128(10, 4)),
    ),
    "instants to no zone": (
        pa.array([NOON], pa.timestamp("us")),
        pa.array([NOON], pa.timestamp("us", "UTC")),
    ),
    "no zone to instants": (
        pa.array([NOON], pa.timestamp("us", "UTC")),
        pa.array([NOON], pa.timestamp("us")),
    ),
    "times to dates": (pa.array([NOON.date()]), pa.array([NOON], pa.timestamp("us"))),
    "nanoseconds": (pa.array([NOON], pa.timestamp("us")), pa.array([1_001], pa.timestamp("ns"))),
    "unsigned": (pa.array([1], pa.int8()), pa.array([200], pa.uint8())),
}


@pytest.mark.parametrize("name", LOSING)
def test_rows_that_would_lose_something_are_refused(name: str, dataset: DeltaDataset) -> None:
    """deltalake casts them as the table has it: 2.5 became 2, an instant a wall clock's time."""
    held, given = LOSING[name]
    dataset.write(pa.table({"id": [1], "v": held}))
    rows = pa.table({"id": [1], "v": given})
    for write in (
        lambda: dataset.write(rows, mode="append"),
        lambda: dataset.write(rows.to_reader(), mode="append"),
        lambda: dataset.write(rows),
        lambda: dataset.merge(rows, ["id"]),
        lambda: dataset.write(rows, mode="append", schema_mode="merge"),
    ):
        with pytest.raises(SchemaMismatchError, match="'v'"):
            write()
    assert dataset.open().version() == 0
    with pytest.raises(SchemaMismatchError, match="'more' is not in the table"):
        dataset.merge(pa.table({"id": [1], "v": held, "more": [1]}), ["id"])


KEEPING: dict[str, tuple[pa.Array, pa.Array]] = {
    "integers": (pa.array([1]), pa.array([2], pa.int16())),
    "unsigned to what there was": (pa.array([1], pa.int8()), pa.array([5], pa.uint8())),
    "large unsigned": (pa.array([200], pa.uint8()), pa.array([2**63 - 1], pa.uint64())),
    "nanoseconds without a rest": (
        pa.array([NOON], pa.timestamp("us")),
        pa.array([NOON], pa.timestamp("ns")),
    ),
    "another zone": (
        pa.array([NOON], pa.timestamp("us", "UTC")),
        pa.array([NOON], pa.timestamp("s", "Asia/Tokyo")),
    ),
    "categories": (pa.array(["a"]), pa.array(["b"]).dictionary_encode()),
    "small decimals": (
        pa.array([Decimal("1.2")], pa.decimal32(5, 2)),
        pa.array([Decimal("3.4")], pa.decimal64(5, 2)),
    ),
    "runs": (pa.array([1]), pa.RunEndEncodedArray.from_arrays([1], pa.array([7]))),
    "runs in structs": (
        pa.array([{"a": 1}]),
        pa.StructArray.from_arrays([pa.RunEndEncodedArray.from_arrays([1], pa.array([7]))], ["a"]),
    ),
    "lists": (pa.array([[1]], pa.list_(pa.uint8())), pa.array([[200]], pa.list_(pa.uint8()))),
}


@pytest.mark.parametrize("name", KEEPING)
def test_rows_that_lose_nothing_are_taken(name: str, dataset: DeltaDataset) -> None:
    held, given = KEEPING[name]
    if name == "large unsigned":
        dataset.write(pa.table({"v": pa.array([200], pa.uint64())}))
    else:
        dataset.write(pa.table({"v": held}))
    dataset.write(pa.table({"v": given}), mode="append")
    found = dataset.scan().read_all()["v"].to_pylist()
    want = [*held.to_pylist(), *given.to_pylist()]
    assert sorted(map(str, map(_instant, found))) == sorted(map(str, map(_instant, want)))


def _instant(value: Any) -> Any:
    is_aware = isinstance(value, datetime) and value.tzinfo is not None
    return value.astimezone(UTC) if is_aware else value


def test_the_first_rows_lose_nothing_either(dataset: DeltaDataset) -> None:
    with pytest.raises(SchemaMismatchError, match=r"(?s)'t' has values.*would lose data"):
        dataset.write(pa.table({"t": pa.array([1_001], pa.timestamp("ns"))}))
    assert not dataset.exists()


def test_times_without_a_zone_in_maps_alone_are_told(dataset: DeltaDataset) -> None:
    """The engine leaves out the feature that they need, and fails at it."""
    times = pa.array([[("a", NOON)]], pa.map_(pa.string(), pa.timestamp("us")))
    with pytest.raises(TableError, match="without a zone are in maps; give them the zone UTC"):
        dataset.write(pa.table({"times": times}))
    assert not dataset.exists()
    dataset.write(pa.table({"times": times, "at": pa.array([NOON], pa.timestamp("us"))}))
    assert dataset.scan().read_all()["times"].to_pylist() == times.to_pylist()


def test_names_that_differ_by_case_are_told(dataset: DeltaDataset) -> None:
    with pytest.raises(TableError, match=r"\('id', 'ID'\).*differ by case"):
        dataset.write(pa.table({"id": [1], "ID": [2]}))


def test_texts_within_others_come_back_as_plain_texts(dataset: DeltaDataset) -> None:
    """They came as views, which Parquet's writer does not slice."""
    rows = pa.table({"x": [[{"a": "b", "c": ["d"]}], None]})
    dataset.write(rows)
    found = dataset.scan().read_all()
    assert found.to_pylist() == rows.to_pylist()
    assert not holds_type(found.schema.field("x").type, pa.types.is_string_view)
    Table(dataset.storage, "plain", "parquet").write(found)


def test_json_comes_back_in_plain_texts(dataset: DeltaDataset) -> None:
    """It lay in views, which no row can be taken from."""
    json = pa.ExtensionArray.from_storage(pa.json_(), pa.array(['{"a": 1}', None]))
    rows = pa.table({"j": json, "s": pa.StructArray.from_arrays([json], ["j"])})
    dataset.write(rows)
    views = pa.ExtensionArray.from_storage(
        pa.json_(pa.string_view()), json.storage.cast(pa.string_view())
    )
    dataset.write(rows.set_column(0, "j", views), mode="append")
    found = dataset.scan().read_all()
    assert found.schema.types == rows.schema.types
    assert found.take([2, 3]).to_pylist() == rows.to_pylist()
    assert dataset.scan(columns=[]).read_all().num_rows == 4


def test_extensions_that_would_not_come_back_are_refused(dataset: DeltaDataset) -> None:
    """The commit stood, and the table could not be read any more."""
    rows = pa.table({"id": pa.array([b"0123456789abcdef"], pa.uuid())})
    with pytest.raises(TableError, match=r"'id' is extension<arrow.uuid>; cast"):
        dataset.write(rows)
    assert not dataset.exists()


def test_a_damaged_log_is_told_without_the_engine_s_backtrace(dataset: DeltaDataset) -> None:
    dataset.storage.put(f"{dataset.path}/_delta_log/{0:020d}.json", b"{")
    with pytest.raises(TableError) as caught:
        dataset.snapshot()
    assert "<unknown>" not in str(caught.value)


@pytest.mark.parametrize("mode", ["append", "overwrite", "merge"])
def test_a_commit_whose_answer_was_lost_is_known_again(mode: str) -> None:
    """It was told as a conflict with another's, though it stood."""
    with strange_s3_process("loses an answer") as endpoint:
        options = StorageOptions(endpoint=endpoint, access_key="a", secret_key="s")
        dataset = DeltaDataset(Storage("s3://lake/x", options), "t")
        dataset.write(ROWS)
        if mode == "merge":
            dataset.merge(ROWS, ["id"])
        else:
            dataset.write(ROWS.to_reader(), mode=mode)
        expected = [1, 1, 2, 2] if mode == "append" else [1, 2]
        assert sorted(dataset.scan().read_all()["id"].to_pylist()) == expected


def test_a_key_that_may_not_write_is_told() -> None:
    """It was told as a failure to parse Parquet."""
    with strange_s3_process("refuses writes") as endpoint:
        options = StorageOptions(endpoint=endpoint, access_key="a", secret_key="s")
        with pytest.raises(StorageAccessError, match=r"t: access refused \(AccessDenied\)"):
            DeltaDataset(Storage("s3://lake/x", options), "t").write(ROWS)


def test_a_scan_of_thousands_of_scattered_windows_does_not_overflow_the_stack(
    tmp_path: Path,
) -> None:
    """The engine recursed for each of a chain of conditions: the process ended by SIGSEGV."""
    days = [datetime(2000, 1, 1, tzinfo=UTC) + timedelta(days=number) for number in range(10_000)]
    rows = pa.table({"day": days, "n": range(10_000)})
    dataset = DeltaDataset(Storage(str(tmp_path), StorageOptions()), "t")
    dataset.write(rows)
    windows = [Window(start=day, end=day + timedelta(days=1)) for day in days[::2]]
    found = dataset.scan(["n"], sql_test("day", rows.schema.field("day").type, windows))
    assert sorted(found.read_all()["n"].to_pylist()) == list(range(0, 10_000, 2))


@pytest.mark.parametrize("mode", ["overwrite", "append"])
def test_an_interrupted_write_ends_soon_and_commits_nothing(tmp_path: Path, mode: str) -> None:
    """The engine took all rows first and committed; only then was the interrupt heard."""
    dataset = DeltaDataset(Storage(str(tmp_path), StorageOptions()), "t")
    dataset.write(ROWS)
    (batch,) = ROWS.to_batches()
    taken = 0

    def batches() -> Iterator[pa.RecordBatch]:
        nonlocal taken
        for taken in range(100):
            if taken == 3:
                os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.02)
            yield batch

    with pytest.raises(KeyboardInterrupt):
        dataset.write(pa.RecordBatchReader.from_batches(ROWS.schema, batches()), mode=mode)
    assert taken < 50
    assert dataset.scan().read_all().equals(ROWS)


def test_an_interrupt_of_the_source_itself_is_raised_as_it_is(tmp_path: Path) -> None:
    """It became an error of the table."""

    def batches() -> Iterator[pa.RecordBatch]:
        yield from ROWS.to_batches()
        raise KeyboardInterrupt

    dataset = DeltaDataset(Storage(str(tmp_path), StorageOptions()), "t")
    with pytest.raises(KeyboardInterrupt):
        dataset.write(pa.RecordBatchReader.from_batches(ROWS.schema, batches()))
    assert not dataset.exists()
