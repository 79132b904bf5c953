"""All IO managers in real runs: types, partitions, ranges, failures, metadata."""

from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any, Optional

import dagster as dg
import polars as pl
import pyarrow as pa
import pytest

from neurolake_dagster.io_managers import (
    DeltaIOManager,
    NCFIOManager,
    ParquetIOManager,
    dataset_path,
)
from neurolake_dagster.io_managers.base import LakehouseIOManager
from neurolake_dagster.resources import StorageResource

# Said by Dagster's own code of every `backfill_policy`.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Parameter `backfill_policy`:dagster.BetaWarning"),
]

MANAGERS: dict[str, type[LakehouseIOManager]] = {
    "ncf": NCFIOManager,
    "parquet": ParquetIOManager,
    "delta": DeltaIOManager,
}
DAYS = dg.DailyPartitionsDefinition(start_date="2013-01-01", end_date="2013-01-11")
TABLE = pa.table({"id": pa.array([1, None, 3], pa.int64()), "name": ["a", "b", None]})


@pytest.fixture(params=list(MANAGERS))
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> LakehouseIOManager:
    return MANAGERS[request.param](storage=StorageResource(root=str(tmp_path / "lake")))


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as found:
        yield found


def run(
    assets: list[Any], manager: LakehouseIOManager, instance: dg.DagsterInstance, **options: Any
) -> dg.ExecuteInProcessResult:
    return dg.materialize(assets, resources={"io_manager": manager}, instance=instance, **options)


def run_range(
    asset: Any,
    manager: LakehouseIOManager,
    instance: dg.DagsterInstance,
    start: str,
    end: str,
    **tags: str,
) -> dg.ExecuteInProcessResult:
    tags |= {
        "dagster/asset_partition_range_start": start,
        "dagster/asset_partition_range_end": end,
    }
    return run([asset], manager, instance, tags=tags)


def metadata_of(instance: dg.DagsterInstance, key: str) -> dict[str, Any]:
    event = instance.get_latest_materialization_event(dg.AssetKey(key))
    assert event is not None
    assert event.asset_materialization is not None
    return {name: value.value for name, value in event.asset_materialization.metadata.items()}


def stored(manager: LakehouseIOManager, key: str) -> pa.Table:
    if isinstance(manager, DeltaIOManager):
        return manager.dataset([key]).scan().read_all()
    return manager.table([key]).read()


def daily(per_day: Callable[[date], list[int]] | None = None) -> Any:
    """An asset that returns the rows of all days in the run's window."""

    @dg.asset(
        partitions_def=DAYS,
        backfill_policy=dg.BackfillPolicy.single_run(),
        metadata={"partition_expr": "day"},
    )
    def events(context: dg.AssetExecutionContext) -> pl.DataFrame:
        window = context.partition_time_window
        found = pl.date_range(window.start, window.end, "1d", closed="left", eager=True)
        rows = [(day, value) for day in found.cast(pl.Date) for value in (per_day or _one_row)(day)]
        return pl.DataFrame(rows, schema={"day": pl.Date, "value": pl.Int64}, orient="row")

    return events


def _one_row(day: date) -> list[int]:
    return [day.day]


def test_the_materialization_carries_the_standard_metadata(
    manager: LakehouseIOManager, instance: dg.DagsterInstance
) -> None:
    @dg.asset(metadata={"column_descriptions": {"id": "Key"}, "pii_columns": ["name"]})
    def people() -> pa.Table:
        return TABLE

    assert run([people], manager, instance).success
    found = metadata_of(instance, "people")
    assert found["dagster/row_count"] == 3
    assert found["dagster/column_schema"].columns[0].description == "Key"
    assert found["dagster/uri"].endswith("/lake/people")
    assert found["bytes"] > 0
    assert found["files"] == 1
    assert found["version"] == 0
    assert 0 < found["seconds"] < 60
    assert [record.data for record in found["preview"].records] == [
        {"id": 1},
        {"id": None},
        {"id": 3},
    ]


def test_metadata_of_the_run_is_not_replaced(
    manager: LakehouseIOManager, instance: dg.DagsterInstance
) -> None:
    """A `version` or `preview` that the asset itself told was lost to the table's."""

    @dg.asset
    def people(context: dg.AssetExecutionContext) -> dg.Output[pa.Table]:
        context.add_output_metadata({"version": "2024-Q1"})
        return dg.Output(TABLE)

    @dg.asset
    def places() -> dg.MaterializeResult:
        return dg.MaterializeResult(value=TABLE, metadata={"preview": "see the map"})

    assert run([people, places], manager, instance).success
    found, others = metadata_of(instance, "people"), metadata_of(instance, "places")
    assert (found["version"], found["files"]) == ("2024-Q1", 1)
    assert (others["preview"], others["version"]) == ("see the map", 0)


def test_statistics_come_from_the_log_without_values_of_persons(
    manager: LakehouseIOManager, instance: dg.DagsterInstance
) -> None:
    @dg.asset(metadata={"pii_columns": ["mail"]})
    def people() -> pa.Table:
        day = pa.array([date(2013, 1, 2), None, date(2013, 1, 1)], pa.date32())
        none = pa.nulls(3, pa.float64())
        return pa.table({"id": [3, 1, 2], "mail": ["a", "b", "c"], "day": day, "none": none})

    assert run([people], manager, instance).success
    rows = [record.data for record in metadata_of(instance, "people")["statistics"].records]
    told = {row["column"]: (row["nulls"], row["minimum"], row["maximum"]) for row in rows}
    assert told == {
        "id": (0, 1, 3),
        "mail": (0, None, None),
        "day": (1, "2013-01-01", "2013-01-02"),
        "none": (3, None, None),
    }
    assert {row["rows"] for row in rows} == {3}


def test_days_are_written_one_by_one_and_read_together(
    manager: LakehouseIOManager, instance: dg.DagsterInstance
) -> None:
    events = daily()
    seen: list[Any] = []

    @dg.asset
    def total(events: pl.DataFrame) -> None:
        seen.append(sorted(events["value"]))

    @dg.asset(partitions_def=DAYS)
    def same_day(events: pa.Table) -> None:
        seen.append(events["value"].to_pylist())

    for day in ("2013-01-03", "2013-01-01", "2013-01-03"):
        assert run([events], manager, instance, partition_key=day).success
    assert run([events, total], manager, instance, selection=[total]).success
    assert run(
        [events, same_day], manager, instance, selection=[same_day], partition_key="2013-01-03"
    ).success
    assert seen == [[1, 3], [3]]
    found = metadata_of(instance, "events")
    assert found["dagster/partition_row_count"] == 1
    assert found["dagster/row_count"] == 2


def test_a_range_in_one_run_replaces_exactly_its_days(
    manager: LakehouseIOManager, instance: dg.DagsterInstance
) -> None:
    """M6 and M7: a single run wiped days outside of it, and failed the second time."""
    for day in ("2013-01-02", "2013-01-06"):
        assert run([daily()], manager, instance, partition_key=day).success
    for factor in (10, 20):
        events = daily(lambda day, factor=factor: [day.day * factor])
        assert run_range(events, manager, instance, "2013-01-01", "2013-01-03").success
    assert sorted(stored(manager, "events")["value"].to_pylist()) == [6, 20, 40, 60]
    found = metadata_of(instance, "events")
    assert found["dagster/row_count"] == 4
    assert found["partitions"].records[1].data["rows"] == 1
    assert found["partitions"].records[1].data["bytes"] > 0
    if not isinstance(manager, DeltaIOManager):
        assert found["replaced"].startswith("replaced 3 of 4 partitions")


def test_rows_of_other_days_are_refused_before_anything_is_touched(
    manager: LakehouseIOManager, instance: dg.DagsterInstance
) -> None:
    assert run([daily()], manager, instance, partition_key="2013-01-01").success

    @dg.asset(name="events", partitions_def=DAYS, metadata={"partition_expr": "day"})
    def stray() -> pl.DataFrame:
        days = [date(2013, 1, 1), date(2013, 1, 2)]
        return pl.DataFrame({"day": days, "value": [7, 8]}, schema_overrides={"value": pl.Int64})

    result = run([stray], manager, instance, partition_key="2013-01-01", raise_on_error=False)
    assert not result.success
    assert "none of the asked partitions" in str(failure(result))
    assert stored(manager, "events")["value"].to_pylist() == [1]


def failure(result: dg.ExecuteInProcessResult) -> Any:
    events = [event for event in result.all_events if event.is_step_failure]
    return events[0].step_failure_data.error


def test_a_day_without_rows_is_written_and_read(
    manager: LakehouseIOManager, instance: dg.DagsterInstance
) -> None:
    seen: list[int] = []
    events = daily(lambda day: [day.day] * (day.day % 2))

    @dg.asset(partitions_def=DAYS, backfill_policy=dg.BackfillPolicy.single_run())
    def used(events: pl.DataFrame) -> None:
        seen.append(events.height)

    for day in ("2013-01-01", "2013-01-02"):
        assert run([events, used], manager, instance, partition_key=day).success
    assert seen == [1, 0]


def test_missing_days_are_named(instance: dg.DagsterInstance, tmp_path: Path) -> None:
    manager = NCFIOManager(storage=StorageResource(root=str(tmp_path)))
    events = daily()

    @dg.asset(
        ins={
            "events": dg.AssetIn(
                partition_mapping=dg.TimeWindowPartitionMapping(start_offset=-1, end_offset=0)
            )
        },
        partitions_def=DAYS,
    )
    def two_days(events: pa.Table) -> None: ...

    assert run([events], manager, instance, partition_key="2013-01-05").success
    result = run(
        [events, two_days], manager, instance, selection=[two_days], partition_key="2013-01-05",
        raise_on_error=False,
    )  # fmt: skip
    assert "2013-01-04" in str(failure(result))
    assert "allow_missing_partitions" in str(failure(result))


def test_a_dict_holds_one_value_for_each_partition(
    manager: LakehouseIOManager, instance: dg.DagsterInstance
) -> None:
    seen: dict[str, pl.DataFrame] = {}

    @dg.asset(
        partitions_def=dg.StaticPartitionsDefinition(["x", "y", "O'Neil"]),
        metadata={"partition_expr": "who"},
        backfill_policy=dg.BackfillPolicy.single_run(),
    )
    def made(context: dg.AssetExecutionContext) -> dict[str, pl.DataFrame]:
        return {key: pl.DataFrame({"who": [key], "n": [1]}) for key in context.partition_keys}

    @dg.asset
    def used(made: dict[str, pl.DataFrame]) -> None:
        seen.update(made)

    assert run_range(made, manager, instance, "x", "O'Neil").success
    assert run([made, used], manager, instance, selection=[used]).success
    assert {key: frame["who"].to_list() for key, frame in seen.items()} == {
        "x": ["x"], "y": ["y"], "O'Neil": ["O'Neil"],
    }  # fmt: skip


def test_optional_inputs_are_none_before_the_first_write(
    manager: LakehouseIOManager, instance: dg.DagsterInstance
) -> None:
    seen: list[Any] = []
    made = dg.AssetSpec("made")

    @dg.asset
    def used(made: Optional[pa.Table]) -> None:  # noqa: UP045 - the form users write
        seen.append(made)

    assert run([made, used], manager, instance, selection=[used]).success
    assert seen == [None]


def test_columns_of_an_input_are_pushed_into_the_read(
    manager: LakehouseIOManager, instance: dg.DagsterInstance
) -> None:
    seen: list[list[str]] = []

    @dg.asset
    def made() -> pa.Table:
        return TABLE

    @dg.asset(ins={"made": dg.AssetIn(metadata={"columns": ["name", "id"]})})
    def used(made: pa.Table) -> None:
        seen.append(made.column_names)

    assert run([made, used], manager, instance).success
    assert seen == [["name", "id"]]


@dg.asset(metadata={"mode": "append"})
def journal() -> pa.Table:
    return TABLE


def build_append_job(name: str) -> dg.JobDefinition:
    definitions = dg.Definitions(
        assets=[journal],
        jobs=[dg.define_asset_job("append", executor_def=dg.in_process_executor)],
        resources={"io_manager": MANAGERS[name](storage=StorageResource())},
    )
    return definitions.resolve_job_def("append")


def build_ncf_job() -> dg.JobDefinition:
    return build_append_job("ncf")


def build_parquet_job() -> dg.JobDefinition:
    return build_append_job("parquet")


def build_delta_job() -> dg.JobDefinition:
    return build_append_job("delta")


@pytest.mark.parametrize(
    ("name", "build"),
    [("ncf", build_ncf_job), ("parquet", build_parquet_job), ("delta", build_delta_job)],
    ids=list(MANAGERS),
)
def test_an_append_that_is_executed_again_adds_once(
    name: str,
    build: Callable[[], dg.JobDefinition],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """M11: re-executing a run doubled its rows."""
    monkeypatch.setenv("NEUROLAKE_STORAGE__ROOT", str(tmp_path / "lake"))
    manager = MANAGERS[name](storage=StorageResource())
    job = dg.reconstructable(build)
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        first = dg.execute_job(job, instance)
        assert first.success
        assert stored(manager, "journal").num_rows == 3
        options = dg.ReexecutionOptions(parent_run_id=first.run_id)
        assert dg.execute_job(job, instance, reexecution_options=options).success
        assert stored(manager, "journal").num_rows == 3
        assert dg.execute_job(job, instance).success
        assert stored(manager, "journal").num_rows == 6


def test_asset_keys_stay_below_the_root_and_never_meet() -> None:
    keys = [
        ["ncf", "flights"], ["ncf/flights"], ["..", "..", "evil"], ["../../evil"], ["/abs"], ["."],
        ["a.b"], ["a~2Eb"], ["a:b"], ["a*[b]?"], ["_log"], ["a b"], ["é"], ["a%2Eb"], [""],
    ]  # fmt: skip
    paths = [dataset_path(key) for key in keys]
    assert paths[0] == "ncf/flights"
    assert len(set(paths)) == len(paths)
    for path in paths:
        assert all(part not in ("", ".", "..") for part in path.split("/"))
        assert not set(path) & set(".%:*?[]{}\\ #")


def test_keys_that_differ_in_the_middle_lie_apart(
    manager: LakehouseIOManager, instance: dg.DagsterInstance
) -> None:
    """M10: gold/sales/t and raw/sales/t went to the same place."""

    @dg.asset(key=["gold", "sales", "t"])
    def gold() -> pa.Table:
        return pa.table({"x": [1]})

    @dg.asset(key=["raw", "sales", "t"])
    def raw() -> pa.Table:
        return pa.table({"x": [2]})

    seen: list[int] = []

    @dg.asset(
        ins={"gold": dg.AssetIn(["gold", "sales", "t"]), "raw": dg.AssetIn(["raw", "sales", "t"])}
    )
    def used(gold: pa.Table, raw: pa.Table) -> None:
        seen.extend([gold["x"][0].as_py(), raw["x"][0].as_py()])

    assert run([gold, raw, used], manager, instance).success
    assert seen == [1, 2]
