"""What assets and inputs can ask for in their metadata: modes, predicates, versions."""

import time
from collections.abc import Iterator
from datetime import UTC, date, datetime
from typing import Any

import dagster as dg
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from neurolake_dagster.errors import TableNotFoundError
from neurolake_dagster.io_managers.base import LakehouseIOManager
from tests.io_managers.test_io_managers import (
    DAYS,
    failure,
    instance,
    manager,
    metadata_of,
    run,
    run_range,
    stored,
)

__all__ = ["instance", "manager"]
AB = dg.StaticPartitionsDefinition(["a", "b"])
pytestmark = [
    pytest.mark.filterwarnings("ignore:Parameter `backfill_policy`:dagster.BetaWarning"),
]


def people(*rows: tuple[int, str]) -> pa.Table:
    return pa.table({"id": [row[0] for row in rows], "name": [row[1] for row in rows]})


def asset(rows: Any, **metadata: Any) -> Any:
    @dg.asset(name="people", metadata=metadata)
    def made() -> Any:
        return rows

    return made


def names(manager: LakehouseIOManager) -> dict[int, str]:
    return {row["id"]: row["name"] for row in stored(manager, "people").to_pylist()}


def test_merging_counts_what_it_did(
    manager: LakehouseIOManager, instance: dg.DagsterInstance
) -> None:
    options = {"mode": "merge", "merge_keys": ["id"]}
    assert run([asset(people((1, "a"), (2, "b")), **options)], manager, instance).success
    assert run([asset(people((2, "B"), (3, "c")), **options)], manager, instance).success
    assert names(manager) == {1: "a", 2: "B", 3: "c"}
    found = metadata_of(instance, "people")
    assert (found["rows_inserted"], found["rows_updated"], found["rows_deleted"]) == (1, 1, 0)
    assert found["dagster/row_count"] == 3


def test_a_merge_that_changes_nothing_tells_what_it_brought(
    manager: LakehouseIOManager, instance: dg.DagsterInstance
) -> None:
    """A partition of 2 rows came as 0, and without rows to merge Delta gave no counts."""

    def made(rows: pl.DataFrame) -> Any:
        options = {"partition_expr": "day", "mode": "merge", "merge_keys": "id"}

        @dg.asset(name="events", partitions_def=DAYS, metadata=options)
        def events() -> pl.DataFrame:
            return rows

        return events

    rows = pl.DataFrame({"id": [1, 2], "day": [date(2013, 1, 1)] * 2})
    for some, count in ((rows, 2), (rows, 2), (rows.clear(), 0)):
        assert run([made(some)], manager, instance, partition_key="2013-01-01").success
        found = metadata_of(instance, "events")
        assert found["dagster/partition_row_count"] == count
    assert [found[f"rows_{what}"] for what in ("inserted", "updated", "copied")] == [0, 0, 0]


def test_a_merge_tells_how_many_files_it_replaced(
    manager: LakehouseIOManager, instance: dg.DagsterInstance
) -> None:
    """The whole table, it said, where 2 of 3 files stayed."""
    for number in (1, 2, 3):
        assert run([asset(people((number, "a")), mode="append")], manager, instance).success
    changed = asset(people((3, "b")), mode="merge", merge_keys=["id"])
    assert run([changed], manager, instance).success
    assert str(metadata_of(instance, "people")["replaced"]).startswith("replaced 1 of 3 files, ")


def test_merging_in_a_partition_leaves_the_others(
    manager: LakehouseIOManager, instance: dg.DagsterInstance
) -> None:
    def made(day: str, value: int) -> Any:
        @dg.asset(
            name="events",
            partitions_def=DAYS,
            metadata={"partition_expr": "day", "mode": "merge", "merge_keys": "id"},
        )
        def events() -> pl.DataFrame:
            return pl.DataFrame({"id": [1], "day": [date.fromisoformat(day)], "value": [value]})

        return events

    for day, value in (("2013-01-01", 10), ("2013-01-02", 20), ("2013-01-01", 11)):
        assert run([made(day, value)], manager, instance, partition_key=day).success
    assert sorted(stored(manager, "events")["value"].to_pylist()) == [11, 20]


@pytest.mark.parametrize("as_dict", [False, True])
def test_a_merged_row_moves_to_its_partition_or_is_refused(
    manager: LakehouseIOManager, instance: dg.DagsterInstance, as_dict: bool
) -> None:
    """But for Delta it stayed in the folder of the partition where its key was."""

    def made(rows: pa.Table) -> Any:
        options = {"partition_expr": "p", "mode": "merge", "merge_keys": "id"}

        @dg.asset(name="events", partitions_def=AB, metadata=options)
        def events(context: dg.AssetExecutionContext) -> Any:
            keys = context.partition_keys
            return {k: rows.filter(pc.field("p") == k) for k in keys} if as_dict else rows

        return events

    @dg.asset(name="seen", partitions_def=AB, ins={"events": dg.AssetIn()})
    def seen(events: pa.Table) -> None:
        found.append(events["id"].to_pylist())

    found: list[list[int]] = []
    for p in ("a", "b"):
        asset = made(pa.table({"id": [1], "p": [p]}))
        assert run_range(asset, manager, instance, "a", "b").success
    for key in ("a", "b"):
        assert run([asset, seen], manager, instance, partition_key=key, selection=["seen"]).success
    assert found == [[], [1]]
    assert metadata_of(instance, "events")["rows_updated"] == 1
    if not as_dict:
        stray = made(pa.table({"id": [1], "p": ["a"]}))
        result = run([stray], manager, instance, partition_key="b", raise_on_error=False)
        assert "belong to none of the asked partitions ['b']" in str(failure(result))


@pytest.mark.parametrize(
    ("metadata", "told"),
    [
        ({"mode": "upsert"}, "mode 'upsert', expected one of"),
        ({"mode": "merge"}, "merge_keys"),
        ({"mode": "merge", "merge_keys": ["nope"]}, "nope"),
    ],
)
def test_modes_that_make_no_sense_are_refused(
    manager: LakehouseIOManager,
    instance: dg.DagsterInstance,
    metadata: dict[str, Any],
    told: str,
) -> None:
    assert run([asset(people((1, "a")))], manager, instance).success
    made = asset(people((2, "b")), **metadata)
    assert told in str(failure(run([made], manager, instance, raise_on_error=False)))
    assert names(manager) == {1: "a"}


def test_error_and_ignore_leave_what_is_there(
    manager: LakehouseIOManager, instance: dg.DagsterInstance
) -> None:
    assert run([asset(people((1, "a")), mode="error")], manager, instance).success
    again = asset(people((2, "b")), mode="error")
    assert not run([again], manager, instance, raise_on_error=False).success
    assert run([asset(people((3, "c")), mode="ignore")], manager, instance).success
    other = pa.table({"id": [4], "more": [5]})  # Delta refused rows that it was to leave out
    assert run([asset(other, mode="ignore")], manager, instance).success
    assert names(manager) == {1: "a"}


@pytest.mark.parametrize("mode", ["overwrite", "append", "merge"])
def test_a_source_that_fails_makes_no_table(
    manager: LakehouseIOManager, instance: dg.DagsterInstance, mode: str
) -> None:
    """A merge into Delta had made one without rows by then."""

    def rows() -> Iterator[pa.RecordBatch]:
        yield from people((1, "a")).to_batches()
        raise OSError("the source is gone")

    @dg.asset(
        name="people", metadata={"mode": mode} | ({"merge_keys": "id"} if mode == "merge" else {})
    )
    def made() -> pa.RecordBatchReader:
        return pa.RecordBatchReader.from_batches(people((1, "a")).schema, rows())

    result = run([made], manager, instance, raise_on_error=False)
    assert "the source is gone" in str(failure(result))
    with pytest.raises(TableNotFoundError):
        stored(manager, "people")


@pytest.mark.parametrize("partitions", [None, AB], ids=["whole", "partition"])
def test_a_retry_is_not_refused_for_what_its_step_wrote_before(
    manager: LakehouseIOManager,
    instance: dg.DagsterInstance,
    partitions: dg.PartitionsDefinition[Any] | None,
) -> None:
    """Mode ``error`` found the table that the first try had made, and failed for good."""
    tries = []

    @dg.multi_asset(
        outs={
            name: dg.AssetOut(metadata={"mode": "error", "partition_expr": "name"})
            for name in ("people", "others")
        },
        partitions_def=partitions,
        retry_policy=dg.RetryPolicy(max_retries=1),
    )
    def made() -> Iterator[dg.Output[pa.Table]]:
        yield dg.Output(people((1, "a")), "people")
        tries.append(1)
        if len(tries) == 1:
            raise OSError("the source is gone")
        yield dg.Output(people((2, "a")), "others")

    key = None if partitions is None else "a"
    assert run([made], manager, instance, partition_key=key).success
    assert names(manager) == {1: "a"}
    result = run([made], manager, instance, raise_on_error=False, partition_key=key)
    assert "mode 'error' refuses" in str(failure(result))


def test_the_run_is_stronger_than_the_definition_and_that_than_the_manager(
    manager: LakehouseIOManager, instance: dg.DagsterInstance
) -> None:
    appending = type(manager)(storage=manager.storage, mode="append")

    @dg.asset(name="people", metadata={"write_mode": "append"})
    def overwritten(context: dg.AssetExecutionContext) -> pa.Table:
        context.add_output_metadata({"mode": "overwrite"})
        return people((9, "z"))

    for _ in range(2):
        assert run([asset(people((1, "a")))], appending, instance).success
    assert stored(manager, "people").num_rows == 2
    assert run([asset(people((2, "b")), mode="overwrite")], appending, instance).success
    assert names(manager) == {2: "b"}
    assert run([overwritten], manager, instance).success
    assert names(manager) == {9: "z"}


@pytest.mark.parametrize(
    "where",
    ["id >= 2 AND name <> 'c'", [("id", ">=", 2), ("name", "!=", "c")]],
    ids=["sql", "list"],
)
def test_an_input_reads_the_rows_that_it_asks_for(
    manager: LakehouseIOManager, instance: dg.DagsterInstance, where: Any
) -> None:
    seen: list[Any] = []
    made = asset(people((1, "a"), (2, "b"), (3, "c")))

    @dg.asset(ins={"people": dg.AssetIn(metadata={"where": where, "columns": ["name"]})})
    def used(people: pa.Table) -> None:
        seen.append(people.to_pydict())

    assert run([made, used], manager, instance).success
    assert seen == [{"name": ["b"]}]


@pytest.mark.parametrize("manager", ["ncf", "delta"], indirect=True)
def test_an_input_reads_a_former_version_by_number_and_moment(
    manager: LakehouseIOManager, instance: dg.DagsterInstance
) -> None:
    seen: list[Any] = []
    assert run([asset(people((1, "a")))], manager, instance).success
    time.sleep(0.05)
    moment = datetime.now(UTC).isoformat()
    time.sleep(0.05)
    made = asset(people((2, "b")))
    assert run([made], manager, instance).success
    for metadata in ({"version": 0}, {"as_of": moment}, {}):

        @dg.asset(ins={"people": dg.AssetIn(metadata=metadata)})
        def used(people: pa.Table) -> None:
            seen.append(people["id"].to_pylist())

        assert run([made, used], manager, instance, selection=[used]).success
    assert seen == [[1], [1], [2]]


def test_each_partition_of_a_single_run_is_recorded_by_itself(
    manager: LakehouseIOManager, instance: dg.DagsterInstance
) -> None:
    @dg.asset(
        partitions_def=DAYS,
        backfill_policy=dg.BackfillPolicy.single_run(),
        metadata={"partition_expr": "day"},
    )
    def events(context: dg.AssetExecutionContext) -> pl.DataFrame:
        days = [date.fromisoformat(key) for key in context.partition_keys]
        return pl.DataFrame({"day": [day for day in days for _ in range(day.day)]})

    assert run_range(events, manager, instance, "2013-01-01", "2013-01-03").success
    records = instance.fetch_materializations(dg.AssetKey("events"), limit=10).records
    counts = {
        record.partition_key: record.asset_materialization.metadata[
            "dagster/partition_row_count"
        ].value
        for record in records
    }
    assert counts == {"2013-01-01": 1, "2013-01-02": 2, "2013-01-03": 3}


def test_what_a_partition_shows_of_others_says_so(
    manager: LakehouseIOManager, instance: dg.DagsterInstance
) -> None:
    """The page of one day showed the rows and bounds of others as if they were its own."""

    @dg.asset(
        partitions_def=DAYS,
        backfill_policy=dg.BackfillPolicy.single_run(),
        metadata={"partition_expr": "day"},
    )
    def events(context: dg.AssetExecutionContext) -> pl.DataFrame:
        return pl.DataFrame({"day": [date.fromisoformat(key) for key in context.partition_keys]})

    assert run_range(events, manager, instance, "2013-01-01", "2013-01-03").success
    found = metadata_of(instance, "events")
    assert found["preview_told"] == "of all 3 partitions of the run"
    assert found["statistics_told"] == "of the whole table, all partitions"
    assert run([events], manager, instance, partition_key="2013-01-02").success
    found = metadata_of(instance, "events")
    assert "preview" in found
    assert "preview_told" not in found
    assert found["statistics_told"] == "of the whole table, all partitions"


def test_properties_of_an_asset_are_its_tables(
    manager: LakehouseIOManager, instance: dg.DagsterInstance
) -> None:
    """Only Delta took them: a Parquet table could not be told to keep its former files."""
    properties = {"neurolake.keep_former_files": True, "owner": "me"}
    for _ in range(2):
        made = asset(people((1, "a")), table_properties=properties)
        assert run([made], manager, instance).success
    place = manager.dataset("people") if hasattr(manager, "dataset") else manager.table("people")
    held = dict(place.snapshot().properties)
    assert held == {"neurolake.keep_former_files": "true", "owner": "me"}
    files = [key for key in manager.dataset_storage().list("people") if "part-" in key.key]
    assert len(files) == 2
