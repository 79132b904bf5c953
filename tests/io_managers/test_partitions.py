"""Partitions in real runs: what is refused, what is missing, what each one is told."""

import re
from datetime import date, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from neurolake_dagster.errors import PartitionError
from neurolake_dagster.io_managers import DeltaIOManager
from neurolake_dagster.io_managers.base import LakehouseIOManager
from neurolake_dagster.io_managers.partitions import scope_of
from neurolake_dagster.resources import StorageResource
from neurolake_dagster.tables.maintenance import restore
from tests.io_managers.test_io_managers import (
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
    pytest.mark.filterwarnings("ignore:Class `MultiPartitionMapping`:dagster.BetaWarning"),
    pytest.mark.filterwarnings("ignore:Class `DimensionPartitionMapping`:dagster.BetaWarning"),
]
KEYS = dg.StaticPartitionsDefinition(["a", "b", "c"])


def made(rows: Any, **metadata: Any) -> Any:
    """An asset of the keys a, b and c; `rows` may depend on its context."""

    @dg.asset(
        name="made",
        partitions_def=KEYS,
        backfill_policy=dg.BackfillPolicy.single_run(),
        metadata={"partition_expr": "k"} | metadata,
    )
    def asset(context: dg.AssetExecutionContext) -> Any:
        return rows(context) if callable(rows) else rows

    return asset


def of_run(context: dg.AssetExecutionContext) -> pa.Table:
    keys = list(context.partition_keys)
    return pa.table({"k": keys, "n": [1] * len(keys)})


@pytest.mark.parametrize("mode", ["overwrite", "append"])
def test_a_dict_whose_values_have_rows_of_other_keys_is_refused(
    manager: LakehouseIOManager, instance: dg.DagsterInstance, mode: str
) -> None:
    """NCF and Parquet wrote a's rows as b's."""
    assert run_range(made(of_run), manager, instance, "a", "b").success
    swapped = {"a": pa.table({"k": ["b"], "n": [1]}), "b": pa.table({"k": ["a"], "n": [1]})}
    tags = {"dagster/asset_partition_range_start": "a", "dagster/asset_partition_range_end": "b"}
    result = run([made(swapped, mode=mode)], manager, instance, tags=tags, raise_on_error=False)
    assert "belong to none of the asked partitions ['a']" in str(failure(result))
    assert sorted(stored(manager, "made")["k"].to_pylist()) == ["a", "b"]


def test_the_order_of_keys_is_not_that_of_dagsters_sets() -> None:
    """A single run's append took its name from the keys in the order of a set, another one in
    each process: executed again, it added its rows again."""
    hours = dg.HourlyPartitionsDefinition("2013-11-03-00:00", timezone="America/New_York")
    names = hours.get_partition_keys(datetime(2013, 11, 3, 4))
    assert [key.name for key in scope_of(hours, names[::-1], "at").keys] == names
    assert [key.name for key in scope_of(KEYS, ["c", "a", "b"], "k").keys] == ["a", "b", "c"]


@pytest.mark.parametrize("type_", [pa.binary(), pa.large_binary(), pa.binary(1)], ids=str)
def test_bytes_that_are_no_text_are_of_no_key(type_: pa.DataType) -> None:
    """It was Arrow's own error."""
    rows = pa.record_batch({"k": pa.array([b"b", b"\xff", None, b"a"], type_)})
    assert scope_of(KEYS, ["a", "b"], "k").numbers(rows).tolist() == [1, -1, -1, 0]


@pytest.mark.parametrize(
    "expr", ["k", ["k"], ["k", "k"], {"one": "k"}, {"one": "k", "two": "k"}, ["k", 1]], ids=str
)
def test_each_dimension_has_a_column_of_its_own(expr: Any) -> None:
    """One column for both was a KeyError."""
    both = dg.MultiPartitionsDefinition({"one": KEYS, "two": KEYS})
    with pytest.raises(PartitionError, match=r"one column of its own for each .*'one', 'two'"):
        scope_of(both, ["a|b"], expr)


def test_a_column_of_the_partitions_that_comes_twice_is_refused(
    manager: LakehouseIOManager, instance: dg.DagsterInstance
) -> None:
    """It was a KeyError."""
    rows = pa.Table.from_arrays([pa.array(["a"])] * 2, names=["k", "k"])
    result = run([made(rows)], manager, instance, partition_key="a", raise_on_error=False)
    assert re.search("several columns ..k|Delta tells columns ..k.*apart", str(failure(result)))


def test_more_keys_than_two_bytes_number_are_told_apart() -> None:
    names = [f"{number:05}" for number in range(70_000)]
    scope = scope_of(dg.StaticPartitionsDefinition(names), names, "k")
    rows = pa.record_batch({"k": ["69999", "00000", "65536", "00000"]})
    order, numbers, cuts = scope.order(rows)
    assert order.tolist() == [1, 3, 2, 0]
    assert numbers == [0, 65_536, 69_999]
    assert cuts.tolist() == [0, 2, 3, 4]


class Readers:
    """Assets that read `made`, each in its own way, and what they got."""

    def __init__(self) -> None:
        self.seen: list[Any] = []
        single = dg.BackfillPolicy.single_run()

        @dg.asset(partitions_def=KEYS, backfill_policy=single)
        def table(made: pa.Table) -> None:
            self.seen.append(made.num_rows)

        @dg.asset(partitions_def=KEYS, backfill_policy=single)
        def lazy(made: pl.LazyFrame) -> None:
            self.seen.append(made.collect().height)

        @dg.asset(partitions_def=KEYS)
        def optional(made: pa.Table | None) -> None:
            self.seen.append(None if made is None else made.num_rows)

        @dg.asset(partitions_def=KEYS)
        def by_key(made: dict[str, pa.Table]) -> None:
            self.seen.append({key: rows.num_rows for key, rows in made.items()})

        @dg.asset
        def whole(made: pa.Table) -> None:
            self.seen.append(made.num_rows)

        allowed = {"made": dg.AssetIn(metadata={"allow_missing_partitions": True})}

        @dg.asset(partitions_def=KEYS, ins=allowed, backfill_policy=single)
        def allowing(made: pa.Table) -> None:
            self.seen.append((made.num_rows, made.column_names))

        self.assets = {a.key.path[0]: a for a in (table, lazy, optional, by_key, whole, allowing)}


def none_of_b(context: dg.AssetExecutionContext) -> pa.Table:
    keys = [key for key in context.partition_keys if key != "b"]
    return pa.table({"k": pa.array(keys, pa.string()), "n": pa.array([1] * len(keys), pa.int64())})


@pytest.mark.parametrize("mode", ["overwrite", "append"])
@pytest.mark.parametrize("at_once", [True, False], ids=["one run", "two runs"])
def test_a_partition_is_missing_if_it_was_never_written_in_all_formats(
    manager: LakehouseIOManager, instance: dg.DagsterInstance, mode: str, at_once: bool
) -> None:
    """Delta took one nobody wrote for empty; NCF and Parquet took an empty append for none, and
    skipped a missing one if the run had all keys."""
    asset = made(none_of_b, mode=mode)
    if at_once:
        assert run_range(asset, manager, instance, "a", "b").success
    else:
        for key in ("a", "b"):
            assert run([asset], manager, instance, partition_key=key).success
    readers = Readers()

    def told(name: str, **options: Any) -> str:
        asked = [asset, readers.assets[name]]
        found = run(asked, manager, instance, selection=asked[1:], raise_on_error=False, **options)
        return "" if found.success else str(failure(found))

    for name in ("table", "lazy", "by_key"):
        assert told(name, partition_key="b") == ""
        assert "1 partitions were never written: c" in told(name, partition_key="c")
    assert readers.seen == [0, 0, {"b": 0}]
    for name in ("table", "lazy"):
        assert "1 partitions were never written: c (2 others were)" in told(name, tags=ALL)
    readers.seen.clear()
    assert told("optional", partition_key="b") == told("optional", partition_key="c") == ""
    assert told("whole") == told("allowing", tags=ALL) == ""
    assert readers.seen == [0, None, 1, (1, ["k", "n"])]


ALL = {"dagster/asset_partition_range_start": "a", "dagster/asset_partition_range_end": "c"}


def test_a_table_that_nobody_wrote_has_no_rows_where_that_is_allowed(
    manager: LakehouseIOManager, instance: dg.DagsterInstance
) -> None:
    readers, asset = Readers(), made(of_run)
    for name in ("allowing", "optional"):
        asked = [asset, readers.assets[name]]
        assert run(asked, manager, instance, selection=asked[1:], partition_key="a").success
    assert readers.seen == [(0, []), None]
    for name in ("table", "whole"):
        asked = [asset, readers.assets[name]]
        options = {} if name == "whole" else {"partition_key": "a"}
        result = run(asked, manager, instance, selection=asked[1:], raise_on_error=False, **options)
        assert "TableNotFoundError" in str(failure(result))


def test_a_former_version_lacks_the_partitions_that_came_later(
    manager: LakehouseIOManager, instance: dg.DagsterInstance
) -> None:
    """A dict of all partitions failed at each version before the last partition came, and an
    optional input was no None there."""
    seen: list[Any] = []
    former = {"made": dg.AssetIn(metadata={"version": 0})}

    @dg.asset(ins=former)
    def by_key(made: dict[str, pa.Table]) -> None:
        seen.append(list(made))

    @dg.asset(ins=former, partitions_def=KEYS)
    def optional(made: pa.Table | None) -> None:
        seen.append(made)

    asset = made(of_run)
    for key in ("a", "b"):
        assert run([asset], manager, instance, partition_key=key).success
    assert run([asset, by_key], manager, instance, selection=[by_key]).success
    asked = [asset, optional]
    assert run(asked, manager, instance, selection=[optional], partition_key="b").success
    assert seen == [["a"], None]


DAYS = dg.DailyPartitionsDefinition("2013-01-01", end_date="2013-01-06")
BEFORE = dg.TimeWindowPartitionMapping(start_offset=-1, end_offset=-1)


@pytest.mark.parametrize("wanted", [pa.Table, pl.LazyFrame, pl.DataFrame])
def test_an_asset_reads_its_own_past_in_a_single_run(
    manager: LakehouseIOManager, instance: dg.DagsterInstance, wanted: Any
) -> None:
    """The first backfill failed, for the partitions that it was to write were not there."""
    seen: list[Any] = []

    @dg.asset(
        partitions_def=DAYS,
        backfill_policy=dg.BackfillPolicy.single_run(),
        metadata={"partition_expr": "day"},
        ins={"grown": dg.AssetIn(partition_mapping=BEFORE, metadata={"columns": ["day"]})},
    )
    def grown(context: dg.AssetExecutionContext, grown: wanted) -> pa.Table:
        found = grown.collect() if wanted is pl.LazyFrame else grown
        seen.append(sorted(found["day"].to_pylist() if wanted is pa.Table else found["day"]))
        keys = list(context.partition_keys)
        return pa.table({"day": keys, "n": [1] * len(keys)})

    assert run_range(grown, manager, instance, "2013-01-01", "2013-01-03").success
    assert run([grown], manager, instance, partition_key="2013-01-04").success
    assert run_range(grown, manager, instance, "2013-01-04", "2013-01-05").success
    assert seen == [[], ["2013-01-03"], ["2013-01-03", "2013-01-04"]]


@pytest.mark.parametrize("manager", ["ncf", "parquet"], indirect=True)
@pytest.mark.parametrize(
    ("definition", "message"),
    [
        (DAYS, r"are the windows 'partition_key: 0 0 1 \* \* UTC, keys %Y-%m-%d'"),
        (dg.MonthlyPartitionsDefinition("2013-01-01", timezone="Asia/Tokyo"), "Asia/Tokyo, keys"),
        (dg.MultiPartitionsDefinition({"day": DAYS, "k": KEYS}), "but asked for are rows part"),
    ],
    ids=["days", "zone", "dimensions"],
)
def test_keys_that_mean_other_rows_than_before_are_refused(
    manager: LakehouseIOManager,
    instance: dg.DagsterInstance,
    definition: dg.PartitionsDefinition,
    message: str,
) -> None:
    """An asset of months became one of days: January was read as its first day, and the other days
    were written beside it; other keys and dimensions were read as no rows."""

    def dated(definition: dg.PartitionsDefinition) -> Any:
        expr = {"day": "day", "k": "k"} if definition.get_num_partitions() == 15 else "day"

        @dg.asset(name="made", partitions_def=definition, metadata={"partition_expr": expr})
        def asset() -> pa.Table:
            return pa.table({"day": [date(2013, 1, 1)], "k": ["a"]})

        return asset

    @dg.asset
    def whole(made: pa.Table) -> None: ...

    months, changed = dated(dg.MonthlyPartitionsDefinition("2013-01-01")), dated(definition)
    assert run([months], manager, instance, partition_key="2013-01-01").success
    key = definition.get_partition_keys()[0]
    for asked, options in ((changed, {"partition_key": key}), (whole, {})):
        result = run(
            [changed, whole], manager, instance, selection=[asked], raise_on_error=False, **options
        )
        assert re.search(message, str(failure(result)))
    assert run([months], manager, instance, partition_key="2013-01-01").success
    assert stored(manager, "made").num_rows == 1


def test_a_range_of_dynamic_partitions_reads_its_own_past_and_is_checked(
    manager: LakehouseIOManager, instance: dg.DagsterInstance
) -> None:
    """Ranges were resolved without the instance, which alone knows the dynamic keys: an asset that
    reads its own past, and a check of a range, failed."""
    both = {"customer": dg.DynamicPartitionsDefinition(name="customer"), "day": DAYS}
    mapping = dg.MultiPartitionMapping(
        {
            "customer": dg.DimensionPartitionMapping("customer", dg.IdentityPartitionMapping()),
            "day": dg.DimensionPartitionMapping("day", BEFORE),
        }
    )
    seen: list[Any] = []

    @dg.asset(
        partitions_def=dg.MultiPartitionsDefinition(both),
        backfill_policy=dg.BackfillPolicy.single_run(),
        metadata={"partition_expr": {"customer": "customer", "day": "day"}},
        ins={"made": dg.AssetIn(partition_mapping=mapping)},
    )
    def made(context: dg.AssetExecutionContext, made: pa.Table) -> pa.Table:
        seen.append(made.num_rows)
        keys = [key.keys_by_dimension for key in context.partition_keys]
        return pa.table({name: [key[name] for key in keys] for name in ("customer", "day")})

    @dg.asset_check(asset=made)
    def is_of_the_range(made: pa.Table) -> dg.AssetCheckResult:
        seen.append(made.num_rows)
        return dg.AssetCheckResult(passed=True)

    instance.add_dynamic_partitions("customer", ["x", "y"])
    for start, end in (("x|2013-01-01", "y|2013-01-02"), ("x|2013-01-02", "x|2013-01-04")):
        tags = {f"dagster/asset_partition_range_{at}": key
                for at, key in (("start", start), ("end", end))}  # fmt: skip
        assert run([made, is_of_the_range], manager, instance, tags=tags).success
    assert seen == [0, 4, 2, 3]


def test_a_check_reads_all_of_what_is_partitioned_in_another_way(
    manager: LakehouseIOManager, instance: dg.DagsterInstance
) -> None:
    """The run's range was looked for among the other partitions, which failed; a single key was
    looked for too, and found where a month begins."""
    seen: list[tuple[int, int]] = []
    months = dg.MonthlyPartitionsDefinition("2013-01-01", end_date="2013-03-01")

    def dated(name: str, definition: dg.PartitionsDefinition) -> Any:
        @dg.asset(
            name=name,
            partitions_def=definition,
            backfill_policy=dg.BackfillPolicy.single_run(),
            metadata={"partition_expr": "day"},
        )
        def asset(context: dg.AssetExecutionContext) -> pa.Table:
            return pa.table({"day": list(context.partition_keys)})

        return asset

    daily, monthly = dated("daily", DAYS), dated("monthly", months)

    @dg.asset_check(asset=daily, additional_ins={"monthly": dg.AssetIn("monthly")})
    def agrees(daily: pa.Table, monthly: pa.Table) -> dg.AssetCheckResult:
        seen.append((daily.num_rows, monthly.num_rows))
        return dg.AssetCheckResult(passed=True)

    assert run_range(monthly, manager, instance, "2013-01-01", "2013-02-01").success
    asked = dg.AssetSelection.assets(daily) | dg.AssetSelection.checks_for_assets(daily)
    days = {"dagster/asset_partition_range_start": "2013-01-01",
            "dagster/asset_partition_range_end": "2013-01-03"}  # fmt: skip
    for options in ({"partition_key": "2013-01-01"}, {"tags": days}):
        found = run([daily, monthly, agrees], manager, instance, selection=asked, **options)
        assert found.success
    assert seen == [(1, 2), (3, 2)]


def test_a_single_run_tells_rows_bytes_and_content_of_each_partition(
    manager: LakehouseIOManager, instance: dg.DagsterInstance
) -> None:
    """Delta told no bytes."""
    told = []
    for rows in (of_run, of_run, none_of_b):
        assert run_range(made(rows), manager, instance, "a", "b").success
        assert counts_of(instance, 2) == {"a": 1, "b": 1 if rows is of_run else 0}
        records = instance.fetch_materializations(dg.AssetKey("made"), limit=2).records
        found = {record.partition_key: record.asset_materialization for record in records}
        assert found["a"].metadata["bytes"].value > 0
        digests = {key: one.metadata["content_digest"].value for key, one in found.items()}
        told.append({key: set(text.split()) for key, text in digests.items()})
    assert told[0]["a"] & told[1]["a"] & told[2]["a"]
    assert told[0]["b"] & told[1]["b"]
    assert not told[1]["b"] & told[2]["b"]


@pytest.mark.parametrize("end", ["a", "b"], ids=["one key", "two keys"])
def test_a_merge_of_no_rows_writes_its_partitions(
    manager: LakehouseIOManager, instance: dg.DagsterInstance, end: str
) -> None:
    """Delta fell over the first of two partitions, and told readers of one that it never was."""
    none = of_three().slice(0, 0)
    merged = made(none, mode="merge", merge_keys=["k"])
    assert run_range(merged, manager, instance, "a", end).success
    reader = Readers()
    table = reader.assets["table"]
    asked = {"dagster/asset_partition_range_start": "a", "dagster/asset_partition_range_end": end}
    assert run([merged, table], manager, instance, selection=[table], tags=asked).success
    assert reader.seen == [0]


def test_keys_that_no_folder_can_be_named_by_are_refused(
    manager: LakehouseIOManager, instance: dg.DagsterInstance
) -> None:
    """It was an OSError of the file system, after the rows were computed."""
    long = ["k" * 241, "k" * 242]

    @dg.asset(
        partitions_def=dg.StaticPartitionsDefinition(long), metadata={"partition_expr": "key"}
    )
    def named(context: dg.AssetExecutionContext) -> pa.Table:
        return pa.table({"key": [context.partition_key], "n": [1]})

    assert run([named], manager, instance, partition_key=long[0]).success
    result = run([named], manager, instance, partition_key=long[1], raise_on_error=False)
    assert "its folder's name has 256 bytes, expected at most 255" in str(failure(result))


def of_three() -> pa.Table:
    return pa.table({"k": ["a", "b", "c"], "n": [2, 2, 2]})


def counts_of(instance: dg.DagsterInstance, limit: int) -> dict[str | None, Any]:
    """The rows that each of the newest materializations tells of its partition."""
    records = instance.fetch_materializations(dg.AssetKey("made"), limit=limit).records
    return {
        one.partition_key: one.asset_materialization.metadata["dagster/partition_row_count"].value
        for one in records
        if one.asset_materialization is not None
    }


def by_key(manager: LakehouseIOManager) -> dict[str, int]:
    rows = stored(manager, "made")
    return dict(zip(rows["k"].to_pylist(), rows["n"].to_pylist(), strict=True))


@pytest.mark.parametrize("mode", ["overwrite", "append", "ignore", "merge"])
def test_a_reversed_range_is_refused_and_leaves_all(
    manager: LakehouseIOManager, instance: dg.DagsterInstance, mode: str
) -> None:
    """Dagster tells no partition of it: a write of none replaced the whole table."""
    assert run_range(made(of_run), manager, instance, "a", "c").success
    more = {"merge_keys": ["k"]} if mode == "merge" else {}
    tags = {"dagster/asset_partition_range_start": "c", "dagster/asset_partition_range_end": "a"}
    for rows in (of_three(), of_three().slice(0, 0)):
        asset = made(rows, mode=mode, **more)
        told = str(failure(run([asset], manager, instance, tags=tags, raise_on_error=False)))
        assert "no partitions, expected at least one; is its range 'c' to 'a' reversed?" in told
    assert by_key(manager) == {"a": 1, "b": 1, "c": 1}


@pytest.mark.parametrize("as_dict", [False, True])
def test_ignore_and_error_are_decided_for_each_partition(
    manager: LakehouseIOManager, instance: dg.DagsterInstance, as_dict: bool
) -> None:
    """They were decided by the table: its second partition was never written."""

    def rows(context: dg.AssetExecutionContext) -> Any:
        keys = list(context.partition_keys)
        if as_dict:
            return {key: pa.table({"k": [key], "n": [2]}) for key in keys}
        return pa.table({"k": keys, "n": [2] * len(keys)})

    ignoring, refusing = made(rows, mode="ignore"), made(rows, mode="error")
    assert run_range(made(of_run), manager, instance, "b", "b").success
    assert run_range(ignoring, manager, instance, "a", "b").success
    assert by_key(manager) == {"a": 2, "b": 1}
    assert counts_of(instance, 2) == {"a": 1, "b": 0}  # b was told to have a's
    assert run_range(made(of_run, mode="ignore"), manager, instance, "a", "b").success
    assert run([refusing], manager, instance, partition_key="c").success
    result = run([refusing], manager, instance, partition_key="b", raise_on_error=False)
    assert "1 partitions exist already, mode 'error' refuses them: b" in str(failure(result))
    assert by_key(manager) == {"a": 2, "b": 1, "c": 2}


DAILY = dg.DailyPartitionsDefinition("2024-01-01", end_date="2024-01-11")


def test_a_day_without_rows_may_have_no_types(
    manager: LakehouseIOManager, instance: dg.DagsterInstance
) -> None:
    """An empty pandas frame: its columns are of the null type."""

    @dg.asset(partitions_def=DAILY, metadata={"partition_expr": "day"})
    def days(context: dg.AssetExecutionContext) -> pd.DataFrame:
        rows = [(context.partition_key, 1)] if context.partition_key == "2024-01-01" else []
        return pd.DataFrame(rows, columns=["day", "x"])

    for key in ("2024-01-01", "2024-01-02"):
        assert run([days], manager, instance, partition_key=key).success
    assert stored(manager, "days").num_rows == 1


def test_the_values_of_a_dict_share_a_schema(
    manager: LakehouseIOManager, instance: dg.DagsterInstance
) -> None:
    """The first value's was that of all: the next might have text where it had only nulls."""
    first, second = {"k": ["a"], "v": [None], "n": [1]}, {"k": ["b"], "v": ["x"], "n": [1.5]}
    frames = {"a": pd.DataFrame(first), "b": pd.DataFrame(second)}
    assert run_range(made(frames), manager, instance, "a", "b").success
    found = stored(manager, "made").sort_by("k").to_pydict()
    assert found == {"k": ["a", "b"], "v": [None, "x"], "n": [1.0, 1.5]}
    mixed = {"a": pa.table({"k": ["a"], "v": [1]}), "b": pa.table({"k": ["b"], "v": ["x"]})}
    tags = {"dagster/asset_partition_range_start": "a", "dagster/asset_partition_range_end": "b"}
    result = run([made(mixed)], manager, instance, tags=tags, raise_on_error=False)
    assert "do not fit into one table" in str(failure(result))


def test_a_partition_that_a_restore_took_back_was_never_written(
    manager: LakehouseIOManager, instance: dg.DagsterInstance
) -> None:
    """Delta told its readers that it has no rows."""
    for key in ("a", "b"):
        asset = made(of_run, table_properties=KEPT.get(type(manager).__name__, {}))
        assert run([asset], manager, instance, partition_key=key).success
    if isinstance(manager, DeltaIOManager):
        manager.dataset(["made"]).restore(0)
    else:
        restore(manager.table(["made"]), 0)  # type: ignore[attr-defined] # of NCF and Parquet
    reader = Readers().assets["table"]
    asked = [made(of_run), reader]
    result = run(
        asked, manager, instance, selection=[reader], partition_key="b", raise_on_error=False
    )
    assert "1 partitions were never written: b" in str(failure(result))
    assert run([made(of_run)], manager, instance, partition_key="b").success
    assert run(asked, manager, instance, selection=[reader], partition_key="b").success


KEPT = {"ParquetIOManager": {"neurolake.keep_former_files": "true"}}


@pytest.mark.parametrize("manager", ["ncf"], indirect=True)
def test_windows_are_the_same_however_their_schedule_is_spelt(
    manager: LakehouseIOManager, instance: dg.DagsterInstance
) -> None:
    """A table of `@daily` partitions was refused once they were said as `0 0 * * *`."""

    def dated(cron: str) -> Any:
        windows = dg.TimeWindowPartitionsDefinition(
            start="2013-01-01", fmt="%Y-%m-%d", cron_schedule=cron, end="2013-02-01"
        )

        @dg.asset(name="made", partitions_def=windows)
        def asset(context: dg.AssetExecutionContext) -> pa.Table:
            return pa.table({"day": [context.partition_key]})

        return asset

    for day, cron in enumerate(["@daily", "0 0 * * *", "00 0 */1 * SUN-SAT"], 1):
        assert run([dated(cron)], manager, instance, partition_key=f"2013-01-0{day}").success
    assert len(stored(manager, "made")) == 3
    result = run(
        [dated("0 0 1 * *")], manager, instance, partition_key="2013-01-01", raise_on_error=False
    )
    assert "are the windows 'partition_key: 00 0 */1 * SUN-SAT UTC" in str(failure(result))


def test_what_the_run_tells_of_a_partition_is_not_replaced(
    manager: LakehouseIOManager, instance: dg.DagsterInstance
) -> None:
    """Its own `bytes` of a partition of a single run became the table's."""

    def rows(context: dg.AssetExecutionContext) -> pa.Table:
        context.add_asset_metadata({"bytes": 7}, partition_key="a")
        return of_run(context)

    assert run_range(made(rows), manager, instance, "a", "b").success
    asked = dg.AssetRecordsFilter(asset_key=dg.AssetKey("made"))
    found = {
        record.partition_key: record.asset_materialization
        for record in instance.fetch_materializations(asked, limit=2).records
    }
    assert found["a"].metadata["bytes"].value == 7
    assert found["b"].metadata["bytes"].value > 7
    assert found["a"].metadata["dagster/partition_row_count"].value == 1


def test_partitions_of_a_delta_table_that_was_replaced_are_gone(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    """They counted as written, and were read as no rows."""
    manager = DeltaIOManager(storage=StorageResource(root=str(tmp_path)))

    @dg.asset(name="made")
    def whole() -> pa.Table:
        return pa.table({"k": ["b"], "n": [1]})

    @dg.asset(partitions_def=KEYS)
    def used(made: pa.Table) -> None: ...

    def told(key: str) -> str:
        result = run([made(of_run), used], manager, instance, partition_key=key,
                     selection=[used], raise_on_error=False)  # fmt: skip
        return "read" if result.success else str(failure(result))

    assert run_range(made(of_run), manager, instance, "a", "c").success
    assert told("a") == "read"
    assert run([whole], manager, instance).success
    assert "1 partitions were never written: a" in told("a")
    assert told("b") == "read"
    assert run(
        [made(lambda _: pa.table({"k": pa.array([], pa.string()), "n": pa.array([], pa.int64())}))],
        manager,
        instance,
        partition_key="a",
    ).success
    assert told("a") == "read"
    assert "never written: c" in told("c")
    manager.dataset(["made"]).restore(0)
    assert told("c") == "read"


def test_a_partition_value_that_no_folder_can_be_called_is_told(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    """deltalake failed raw, with the file's address."""
    manager = DeltaIOManager(storage=StorageResource(root=str(tmp_path)))
    rows = pa.table({"k": ["\u00e9" * 60], "n": [1]})

    def told(**metadata: Any) -> Any:
        @dg.asset(name="made", metadata=metadata)
        def asset() -> pa.Table:
            return rows

        return run([asset], manager, instance, raise_on_error=False)

    assert "a value of a partition column is longer" in str(failure(told(partition_columns=["k"])))
    assert not manager.dataset(["made"]).exists()
    assert told(partition_columns=[]).success


def test_a_dict_names_all_partitions_that_are_missing(
    manager: LakehouseIOManager, instance: dg.DagsterInstance
) -> None:
    """It named the first of them."""

    asked = dg.AssetIn(partition_mapping=dg.AllPartitionMapping())

    @dg.asset(ins={"made": asked}, partitions_def=dg.StaticPartitionsDefinition(["x"]))
    def by_key(made: dict[str, pa.Table]) -> None:
        pass

    rows = made(lambda context: pa.table({"k": [context.partition_key]}))
    assert run([rows], manager, instance, partition_key="b").success
    asked = {"selection": [by_key], "partition_key": "x", "raise_on_error": False}
    failed = run([rows, by_key], manager, instance, **asked)
    assert "2 partitions were never written" in str(failure(failed))


def test_an_optional_dict_of_nothing_is_none_and_an_optional_value_is_refused(
    manager: LakehouseIOManager, instance: dg.DagsterInstance
) -> None:
    """The one was an empty dict, the other's Optional was not looked at."""
    seen: list[object] = []

    @dg.asset
    def by_key(made: dict[str, pa.Table] | None) -> None:
        seen.append(made)

    @dg.asset
    def each(made: dict[str, pa.Table | None]) -> None:
        pass

    assets = [made(lambda context: pa.table({"k": [context.partition_key]})), by_key, each]
    assert run(assets, manager, instance, selection=[by_key]).success
    assert seen == [None]
    failed = run(assets, manager, instance, selection=[each], raise_on_error=False)
    assert "expected dict[str, T], or Optional[dict[str, T]]" in str(failure(failed))


@pytest.mark.parametrize("manager", ["ncf", "delta"], indirect=True)
def test_the_values_of_a_dict_are_of_one_version(
    manager: LakehouseIOManager, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another run that replaced all of them meanwhile was seen in some."""
    seen: dict[str, list[int]] = {}

    @dg.asset
    def by_key(made: dict[str, pa.Table]) -> None:
        seen.update({key: rows["n"].to_pylist() for key, rows in made.items()})

    def write(number: int) -> None:
        rows = made(lambda context: pa.table({"k": context.partition_keys, "n": [number] * 3}))
        assert run_range(rows, manager, dg.DagsterInstance.ephemeral(), "a", "c").success

    read = type(manager)._load

    def read_and_replace(self: Any, *asked: Any) -> Any:
        monkeypatch.setattr(type(manager), "_load", read)
        value = read(self, *asked)
        write(2)
        return value

    write(1)
    monkeypatch.setattr(type(manager), "_load", read_and_replace)
    assert run([made(None), by_key], manager, instance, selection=[by_key]).success
    assert seen == {"a": [1], "b": [1], "c": [1]}
    assert stored(manager, "made")["n"].to_pylist() == [2, 2, 2]
