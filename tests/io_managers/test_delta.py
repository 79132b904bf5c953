"""Delta assets: the same settings and rows give the same table by Arrow and by Spark."""

import threading
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from deltalake import write_deltalake

from neurolake_dagster.errors import TableNotFoundError
from neurolake_dagster.io_managers import DeltaIOManager
from neurolake_dagster.resources import SparkResource, StorageResource
from tests.io_managers.test_io_managers import (
    DAYS,
    failure,
    instance,
    metadata_of,
    run,
    run_range,
    stored,
)

__all__ = ["instance"]

Returned = Callable[[pa.Table], Any]
DAY, NEXT = date(2013, 1, 1), date(2013, 1, 2)


@pytest.fixture(params=["arrow", pytest.param("spark", marks=pytest.mark.spark)])
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def returned(engine: str, request: pytest.FixtureRequest) -> Returned:
    """What an asset returns for some rows: they, or a DataFrame of them."""
    if engine == "arrow":
        return lambda rows: rows
    spark = request.getfixturevalue("spark")
    return lambda rows: spark.createDataFrame(rows)


@pytest.fixture
def manager(engine: str, tmp_path: Path, request: pytest.FixtureRequest) -> DeltaIOManager:
    spark: SparkResource | None = None
    if engine == "spark":
        spark = request.getfixturevalue("spark_resource")
    return DeltaIOManager(storage=StorageResource(root=str(tmp_path)), spark=spark)


def rows(*ids: int, day: date = DAY, **more: Any) -> pa.Table:
    columns = {"id": pa.array(ids, pa.int64()), "day": pa.array([day] * len(ids), pa.date32())}
    return pa.table(columns | {name: [one] * len(ids) for name, one in more.items()})


def made(
    returned: Returned,
    table: pa.Table,
    partitions: Any = None,
    backfill_policy: dg.BackfillPolicy | None = None,
    **metadata: Any,
) -> Any:
    @dg.asset(
        name="made",
        partitions_def=partitions,
        backfill_policy=backfill_policy,
        metadata=metadata,
    )
    def asset() -> Any:
        return returned(table)

    return asset


def ids(manager: DeltaIOManager) -> list[int]:
    return sorted(stored(manager, "made")["id"].to_pylist())


def test_properties_constraints_and_partition_columns_are_the_tables(
    manager: DeltaIOManager, instance: dg.DagsterInstance, returned: Returned
) -> None:
    settings: dict[str, Any] = {
        "table_properties": {
            "delta.logRetentionDuration": "interval 9 days",
            "delta.appendOnly": False,
        },
        "constraints": {"positive": "id > 0"},
        "partition_columns": ["day"],
    }
    for _ in range(2):
        assert run([made(returned, rows(1, 2), **settings)], manager, instance).success
    table = manager.dataset("made").open()
    assert table.metadata().configuration["delta.logRetentionDuration"] == "interval 9 days"
    assert table.metadata().partition_columns == ["day"]
    bad = made(returned, rows(3, -987654), **settings)
    error = failure(run([bad], manager, instance, raise_on_error=False))
    assert "errors.TableError" in str(error)
    # Values may be about persons: both engines show them.
    assert "987654" not in str(error)
    assert ids(manager) == [1, 2]


@pytest.mark.parametrize(
    ("metadata", "told"),
    [
        ({"partition_columns": ["id"]}, "delete the table to partition it anew"),
        ({"constraints": {"small": "id < 2"}}, "1 rows failed"),
        ({"constraints": {"positive": "id > 5"}}, "say something else"),
        ({"table_properties": {"delta.noSuch": "1"}}, "delta.noSuch"),
        ({"table_properties": ["a"]}, "expected a dict"),
    ],
)
def test_settings_that_the_table_cannot_take_are_refused(
    tmp_path: Path, instance: dg.DagsterInstance, metadata: dict[str, Any], told: str
) -> None:
    """Settings are made by deltalake whoever writes the rows, so one engine tells of both."""
    manager = DeltaIOManager(storage=StorageResource(root=str(tmp_path)))
    first = made(lambda table: table, rows(1, 2), constraints={"positive": "id > 0"})
    assert run([first], manager, instance).success
    other = made(lambda table: table, rows(3), mode="append", **metadata)
    assert told in str(failure(run([other], manager, instance, raise_on_error=False)))
    assert ids(manager) == [1, 2]


@pytest.mark.parametrize(
    ("clauses", "expected", "counts"),
    [
        ({}, {1: "old", 2: "new", 3: "new"}, (1, 1, 0)),
        pytest.param(
            {"when_matched": "delete"},
            {1: "old", 3: "new"},
            (1, 0, 1),
            marks=pytest.mark.slow,
        ),
        ({"when_matched": "ignore", "when_gone": "delete"}, {2: "old", 3: "new"}, (1, 0, 1)),
        pytest.param(
            {"when_new": "ignore"}, {1: "old", 2: "new"}, (0, 1, 0), marks=pytest.mark.slow
        ),
    ],
    ids=["upsert", "delete matched", "mirror keys", "update only"],
)
def test_merge_clauses_do_the_same(
    manager: DeltaIOManager,
    instance: dg.DagsterInstance,
    returned: Returned,
    clauses: dict[str, str],
    expected: dict[int, str],
    counts: tuple[int, int, int],
) -> None:
    options = {"mode": "merge", "merge_keys": ["id"]}
    assert run([made(returned, rows(1, 2, v="old"), **options)], manager, instance).success
    again = made(returned, rows(2, 3, v="new"), **options, **clauses)
    assert run([again], manager, instance).success
    assert {row["id"]: row["v"] for row in stored(manager, "made").to_pylist()} == expected
    found = metadata_of(instance, "made")
    names = ("rows_inserted", "rows_updated", "rows_deleted")
    assert tuple(found[name] for name in names) == counts
    assert found["dagster/row_count"] == len(expected)


def test_a_merge_touches_only_the_partitions_of_the_run(
    manager: DeltaIOManager, instance: dg.DagsterInstance, returned: Returned
) -> None:
    options: dict[str, Any] = {"mode": "merge", "merge_keys": "id", "partition_expr": "day"}
    for day in (DAY, NEXT):
        asset = made(returned, rows(1, 2, day=day), DAYS, **options)
        assert run([asset], manager, instance, partition_key=f"{day}").success
    mirror = made(returned, rows(2, 3), DAYS, **options, when_gone="delete")
    assert run([mirror], manager, instance, partition_key=f"{DAY}").success
    found = sorted((row["day"], row["id"]) for row in stored(manager, "made").to_pylist())
    assert found == [(DAY, 2), (DAY, 3), (NEXT, 1), (NEXT, 2)]
    stray = made(returned, rows(9, day=NEXT), DAYS, **options)
    result = run([stray], manager, instance, partition_key=f"{DAY}", raise_on_error=False)
    assert "errors.PartitionError" in str(failure(result))
    assert stored(manager, "made").num_rows == 4


@pytest.mark.filterwarnings("ignore:Parameter `backfill_policy`:dagster.BetaWarning")
@pytest.mark.parametrize("mode", ["overwrite", "merge"])
def test_partitions_that_share_files_get_their_rows_share_of_the_bytes(
    manager: DeltaIOManager, instance: dg.DagsterInstance, returned: Returned, mode: str
) -> None:
    """A partition of a table that is partitioned on disk by nothing was told no bytes."""
    hours = dg.HourlyPartitionsDefinition("2013-01-01-00:00", end_date="2013-01-02-00:00")
    moments = [datetime(2013, 1, 1, hour, tzinfo=UTC) for hour in (0, 1, 1, 1)]
    table = pa.table({"id": range(4), "at": pa.array(moments, pa.timestamp("us", "UTC"))})
    options: dict[str, Any] = {"partition_expr": "at", "mode": mode}
    if mode == "merge":
        options["merge_keys"] = ["id"]
    asset = made(returned, table, hours, backfill_policy=dg.BackfillPolicy.single_run(), **options)
    assert run_range(asset, manager, instance, "2013-01-01-00:00", "2013-01-01-02:00").success
    records = instance.fetch_materializations(dg.AssetKey("made"), limit=3).records
    told = {
        str(record.partition_key)[-5:]: record.asset_materialization.metadata for record in records
    }
    counts = {key: one["dagster/partition_row_count"].value for key, one in told.items()}
    assert counts == {"00:00": 1, "01:00": 3, "02:00": 0}
    dataset = manager.dataset("made")
    files = pa.table(dataset.open().get_add_actions(flatten=True))
    size = pc.sum(files["size_bytes"]).as_py()
    assert {key: one["bytes"].value for key, one in told.items()} == {
        "00:00": size // 4,
        "01:00": size * 3 // 4,
        "02:00": 0,
    }
    assert all(one["bytes_told"].value.startswith("by rows") for one in told.values())
    (version,) = {one["version"].value for one in told.values()}
    assert dataset.snapshot(version).row_count == 4


@pytest.mark.parametrize("twice", [(5, 5), (5, None)], ids=["repeated", "null"])
def test_keys_that_identify_no_row_are_refused(
    manager: DeltaIOManager, instance: dg.DagsterInstance, returned: Returned, twice: Any
) -> None:
    options = {"mode": "merge", "merge_keys": ["id"]}
    assert run([made(returned, rows(1), **options)], manager, instance).success
    result = run([made(returned, rows(*twice), **options)], manager, instance, raise_on_error=False)
    assert "errors.TableError" in str(failure(result))
    assert ids(manager) == [1]


def test_schema_modes_do_the_same(
    manager: DeltaIOManager, instance: dg.DagsterInstance, returned: Returned
) -> None:
    wider = rows(2, extra=7)
    assert run([made(returned, rows(1))], manager, instance).success
    strict = made(returned, wider, schema_mode="strict")
    assert "SchemaMismatch" in str(failure(run([strict], manager, instance, raise_on_error=False)))
    adding = made(returned, wider, mode="append", schema_mode="merge")
    assert run([adding], manager, instance).success
    assert sorted(stored(manager, "made")["extra"].to_pylist(), key=str) == [7, None]
    upsert = {"mode": "merge", "merge_keys": ["id"], "schema_mode": "merge"}
    assert run([made(returned, rows(3, more="x"), **upsert)], manager, instance).success
    assert stored(manager, "made").column_names == ["id", "day", "extra", "more"]
    assert run([made(returned, rows(4), schema_mode="overwrite")], manager, instance).success
    assert stored(manager, "made").column_names == ["id", "day"]


@pytest.mark.parametrize("mode", ["ignore", "error", "merge"])
def test_a_table_whose_first_rows_failed_was_never_written(
    tmp_path: Path, instance: dg.DagsterInstance, mode: str
) -> None:
    """It was made for its constraints: it read as empty, and stayed so in mode ``ignore``."""
    manager = DeltaIOManager(storage=StorageResource(root=str(tmp_path)))
    settings: dict[str, Any] = {"mode": mode, "constraints": {"positive": "id > 0"}}
    if mode == "merge":
        settings["merge_keys"] = "id"

    def write(*ids: int) -> dg.ExecuteInProcessResult:
        asset = made(lambda table: table, rows(*ids), **settings)
        return run([asset], manager, instance, raise_on_error=False)

    assert not write(1, -1).success
    for read in (manager.dataset("made").scan, lambda: stored(manager, "made")):
        with pytest.raises(TableNotFoundError):
            read()
    assert write(1, 2).success
    assert ids(manager) == [1, 2]


def test_a_merge_of_no_rows_writes_the_table(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    manager = DeltaIOManager(storage=StorageResource(root=str(tmp_path)))
    asset = made(lambda table: table, rows(), mode="merge", merge_keys="id")
    for _ in range(2):
        assert run([asset], manager, instance).success
    assert ids(manager) == []


def test_hours_that_are_written_at_once_all_arrive(
    manager: DeltaIOManager, instance: dg.DagsterInstance, engine: str, request: Any, tmp_path: Path
) -> None:
    """Delta takes hours for the same rows: frames and streamed rows failed."""
    hours = dg.HourlyPartitionsDefinition(datetime(2013, 1, 1, tzinfo=UTC))
    first, other = (rows_of_hour(number) for number in (1, 2))
    metadata = {"partition_expr": "at"}
    uri, done = manager.dataset("made").uri, tmp_path / "done"

    def with_another(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        yield from batches
        if not done.exists():
            done.touch()
            # deltalake, which reads these rows, begins nothing else in its own thread.
            writer = threading.Thread(
                target=write_deltalake, args=(uri, other), kwargs={"mode": "append"}
            )
            writer.start()
            writer.join()

    def value() -> Any:
        if engine == "arrow":
            return pa.RecordBatchReader.from_batches(first.schema, with_another(first.to_batches()))
        frame = request.getfixturevalue("spark").createDataFrame(first).coalesce(1)
        return frame.mapInArrow(with_another, frame.schema)

    assert run([made(lambda table: table, first, hours, **metadata)], manager, instance,
               partition_key="2013-01-01-01:00").success  # fmt: skip
    again = made(lambda _: value(), first, hours, **metadata)
    assert run([again], manager, instance, partition_key="2013-01-01-01:00").success
    assert ids(manager) == [1, 2]


def rows_of_hour(number: int) -> pa.Table:
    at = pa.array([datetime(2013, 1, 1, number, tzinfo=UTC)], pa.timestamp("us", "UTC"))
    return pa.table({"id": pa.array([number], pa.int64()), "at": at})
