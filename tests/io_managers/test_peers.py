"""The 20 measured defects of other IO managers, M1 to M20: ours are right on each row.

Those with a subject of their own lie beside it; `peers.py` knows the test of each.
"""

import threading
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pyarrow as pa
import pytest

from neurolake_dagster.io_managers import DeltaIOManager, ParquetIOManager
from neurolake_dagster.io_managers.base import LakehouseIOManager
from neurolake_dagster.resources import StorageResource
from tests.io_managers.peers import DEFECTS
from tests.io_managers.test_io_managers import (
    DAYS,
    MANAGERS,
    failure,
    instance,
    manager,
    run,
    run_range,
    stored,
)

__all__ = ["instance", "manager"]
pytestmark = [
    pytest.mark.filterwarnings("ignore:Parameter `backfill_policy`:dagster.BetaWarning"),
]


def test_every_defect_of_the_peers_has_a_test() -> None:
    assert [one.number for one in DEFECTS] == list(range(1, 21))
    assert [one.test for one in DEFECTS if not one.exists()] == []


def by_key(name: str, definition: Any, expr: Any, build: Any) -> Any:
    """An asset whose rows are those that `build` gives for each key of the run."""

    @dg.asset(
        name=name,
        partitions_def=definition,
        metadata={"partition_expr": expr},
        backfill_policy=dg.BackfillPolicy.single_run(),
    )
    def made(context: dg.AssetExecutionContext) -> pa.Table:
        return pa.concat_tables([build(key) for key in context.partition_keys])

    return made


def test_m1_columns_come_back_as_they_are(
    manager: LakehouseIOManager, instance: dg.DagsterInstance
) -> None:
    seen: list[Any] = []

    @dg.asset
    def made() -> pa.Table:
        return pa.table({"a": [1, 2], "b": ["x", "y"], "c": [0.5, 1.5]})

    @dg.asset(ins={"made": dg.AssetIn(metadata={"columns": ["a", "b"]})})
    def used(made: pa.Table) -> None:
        seen.append(made.to_pydict())

    assert run([made, used], manager, instance).success
    assert seen == [{"a": [1, 2], "b": ["x", "y"]}]


def test_m2_create_or_replace_holds_the_new_rows(
    manager: LakehouseIOManager, instance: dg.DagsterInstance
) -> None:
    @dg.asset(metadata={"mode": "create_or_replace"})
    def made() -> pa.Table:
        return pa.table({"a": [1, 2]})

    for _ in range(2):
        assert run([made], manager, instance).success
    assert stored(manager, "made").num_rows == 2


def test_m3_and_m16_days_in_a_text_column_stay_apart(
    manager: LakehouseIOManager, instance: dg.DagsterInstance
) -> None:
    made = by_key("made", DAYS, "day", lambda key: pa.table({"day": [key], "n": [1]}))
    for key in ("2013-01-01", "2013-01-02", "2013-01-01"):
        assert run([made], manager, instance, partition_key=key).success
    assert sorted(stored(manager, "made")["day"].to_pylist()) == ["2013-01-01", "2013-01-02"]


@pytest.mark.parametrize("zone", [None, "UTC"])
def test_m4_hours_with_times_between_stay_apart(
    manager: LakehouseIOManager, instance: dg.DagsterInstance, zone: str | None
) -> None:
    hours = dg.HourlyPartitionsDefinition(start_date="2013-01-01-00:00")

    def build(key: str) -> pa.Table:
        start = datetime.strptime(key, "%Y-%m-%d-%H:%M").replace(minute=17, second=3, tzinfo=UTC)
        moment = start if zone else start.replace(tzinfo=None)
        return pa.table({"at": pa.array([moment], pa.timestamp("us", zone))})

    made = by_key("made", hours, "at", build)
    for key in ("2013-01-01-05:00", "2013-01-01-06:00", "2013-01-01-05:00"):
        assert run([made], manager, instance, partition_key=key).success
    assert stored(manager, "made").num_rows == 2


def test_m5_an_unpartitioned_asset_reads_all_days(
    manager: LakehouseIOManager, instance: dg.DagsterInstance
) -> None:
    made = by_key("made", DAYS, "day", lambda key: pa.table({"day": [date.fromisoformat(key)]}))
    seen: list[int] = []

    @dg.asset
    def used(made: pa.Table) -> None:
        seen.append(made.num_rows)

    for key in ("2013-01-01", "2013-01-02", "2013-01-05"):
        assert run([made], manager, instance, partition_key=key).success
    assert run([made, used], manager, instance, selection=[used]).success
    assert seen == [3]


def test_m9_one_dimension_reads_its_part_of_two(
    manager: LakehouseIOManager, instance: dg.DagsterInstance
) -> None:
    colours = dg.StaticPartitionsDefinition(["red", "blue"])
    both = dg.MultiPartitionsDefinition({"day": DAYS, "colour": colours})
    seen: list[Any] = []

    @dg.asset(partitions_def=both, metadata={"partition_expr": {"day": "day", "colour": "colour"}})
    def made(context: dg.AssetExecutionContext) -> pa.Table:
        keys = context.partition_key.keys_by_dimension
        return pa.table({"day": [date.fromisoformat(keys["day"])], "colour": [keys["colour"]]})

    @dg.asset(partitions_def=colours)
    def used(made: pa.Table) -> None:
        seen.append(made["day"].to_pylist())

    for day, colour in (("2013-01-01", "red"), ("2013-01-02", "red"), ("2013-01-01", "blue")):
        key = dg.MultiPartitionKey({"day": day, "colour": colour})
        assert run([made], manager, instance, partition_key=key).success
    allowed = dg.AssetIn(metadata={"allow_missing_partitions": True})
    used = dg.asset(ins={"made": allowed}, partitions_def=colours)(used.op.compute_fn.decorated_fn)
    assert run([made, used], manager, instance, selection=[used], partition_key="red").success
    assert [sorted(days) for days in seen] == [[date(2013, 1, 1), date(2013, 1, 2)]]


@pytest.mark.parametrize("annotation", [pl.DataFrame, pl.DataFrame | None])
def test_m12_an_asset_reads_its_own_past_from_the_first_day_on(
    manager: LakehouseIOManager, instance: dg.DagsterInstance, annotation: Any
) -> None:
    seen: list[int] = []
    yesterday = dg.TimeWindowPartitionMapping(start_offset=-1, end_offset=-1)

    @dg.asset(
        partitions_def=DAYS,
        ins={"balance": dg.AssetIn(partition_mapping=yesterday)},
        metadata={"partition_expr": "day"},
    )
    def balance(context: dg.AssetExecutionContext, balance: annotation) -> pl.DataFrame:
        before = 0 if balance is None or balance.is_empty() else balance["total"][0]
        seen.append(before)
        day = date.fromisoformat(context.partition_key)
        return pl.DataFrame({"day": [day], "total": [before + 10]})

    for key in ("2013-01-01", "2013-01-02", "2013-01-03"):
        assert run([balance], manager, instance, partition_key=key).success
    assert seen == [0, 10, 20]


def test_m13_parallel_first_writes_of_a_delta_table_all_arrive(tmp_path: Path) -> None:
    manager = DeltaIOManager(storage=StorageResource(root=str(tmp_path)))
    made = by_key("made", DAYS, "day", lambda key: pa.table({"day": [date.fromisoformat(key)]}))
    failures: list[str] = []

    def write(key: str) -> None:
        with dg.DagsterInstance.ephemeral() as own:
            result = run([made], manager, own, partition_key=key, raise_on_error=False)
            if not result.success:
                failures.append(str(failure(result)))

    threads = [threading.Thread(target=write, args=(f"2013-01-0{n}",)) for n in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert stored(manager, "made").num_rows == 8


def test_m14_a_reader_in_a_single_run_with_the_root_from_the_environment(
    instance: dg.DagsterInstance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAKE_ROOT", str(tmp_path))
    for name, kind in MANAGERS.items():
        manager = kind(storage=StorageResource(root=dg.EnvVar("LAKE_ROOT")))

        @dg.asset(
            name=name,
            partitions_def=DAYS,
            metadata={"partition_expr": "day"},
            backfill_policy=dg.BackfillPolicy.single_run(),
        )
        def made(context: dg.AssetExecutionContext) -> pa.RecordBatchReader:
            days = [date.fromisoformat(key) for key in context.partition_keys]
            return pa.table({"day": days}).to_reader()

        assert run_range(made, manager, instance, "2013-01-01", "2013-01-04").success
        plain = kind(storage=StorageResource(root=str(tmp_path)))
        assert stored(plain, name).num_rows == 4


def test_m15_parquet_is_read_as_polars(instance: dg.DagsterInstance, tmp_path: Path) -> None:
    manager = ParquetIOManager(storage=StorageResource(root=str(tmp_path)))
    seen: list[Any] = []

    @dg.asset
    def made() -> pl.LazyFrame:
        return pl.LazyFrame({"a": [1, 2]})

    @dg.asset
    def used(made: pl.DataFrame) -> None:
        seen.append(made["a"].to_list())

    assert run([made, used], manager, instance).success
    assert seen == [[1, 2]]


def test_m17_no_partition_key_leaves_the_table(
    manager: LakehouseIOManager, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    keys = ["../../evil", "/abs", "a/b", "..", "x:*[y]?"]
    definition = dg.StaticPartitionsDefinition(keys)
    made = by_key("made", definition, "key", lambda key: pa.table({"key": [key]}))
    for key in keys:
        assert run([made], manager, instance, partition_key=key).success
    assert sorted(stored(manager, "made")["key"].to_pylist()) == sorted(keys)
    assert [path.name for path in tmp_path.iterdir()] == ["lake"]
    assert [path.name for path in (tmp_path / "lake").iterdir()] == ["made"]


def test_m20_an_unpartitioned_check_sees_the_partition_of_the_run(
    manager: LakehouseIOManager, instance: dg.DagsterInstance
) -> None:
    made = by_key("made", DAYS, "day", lambda key: pa.table({"day": [date.fromisoformat(key)]}))
    seen: list[int] = []

    @dg.asset_check(asset=made)
    def has_one_row(made: pa.Table) -> dg.AssetCheckResult:
        seen.append(made.num_rows)
        return dg.AssetCheckResult(passed=made.num_rows == 1)

    for key in ("2013-01-01", "2013-01-02"):
        assert run([made, has_one_row], manager, instance, partition_key=key).success
    assert seen == [1, 1]
