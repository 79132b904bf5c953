"""The data version of an output: what lies below is stale where rows changed, and nowhere else."""

import random
from collections.abc import Mapping
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest
from dagster._utils.test.data_versions import get_stale_status_resolver

from neurolake_dagster.io_managers import data_version
from neurolake_dagster.io_managers.base import LakehouseIOManager
from tests.io_managers.test_io_managers import instance, manager, run, run_range
from tests.io_managers.test_modes import asset, people

__all__ = ["instance", "manager"]
pytestmark = pytest.mark.filterwarnings("ignore:Parameter `backfill_policy`:dagster.BetaWarning")
DAYS = dg.StaticPartitionsDefinition(["a", "b", "c", "d"])


def test_the_same_rows_have_the_same_data_version(
    manager: LakehouseIOManager, instance: dg.DagsterInstance
) -> None:
    versions = []
    rows = pa.table({"id": range(50_000), "name": ["a"] * 50_000})
    others = rows.set_column(1, "name", [["b"] * 50_000])
    for made in (rows, rows.to_reader(7_000), rows.to_pandas(), others):
        assert run([asset(made)], manager, instance).success
        versions.append(data_version_of(instance, "people"))
    assert versions[0] == versions[1] == versions[2] != versions[3]


def test_a_write_that_changes_nothing_keeps_the_data_version(
    manager: LakehouseIOManager, instance: dg.DagsterInstance
) -> None:
    """Whatever was below it was run again."""
    merge: dict[str, Any] = {"mode": "merge", "merge_keys": ["id"]}
    versions = []
    for rows, metadata in (
        (people((1, "a")), merge),
        (people((1, "b")), {**merge, "when_matched": "ignore"}),
        (people((1, "b")), {"mode": "ignore"}),
        (people((2, "b")), merge),
    ):
        assert run([asset(rows, **metadata)], manager, instance).success
        versions.append(data_version_of(instance, "people"))
    assert versions[0] == versions[1] == versions[2] != versions[3]


def test_what_a_run_changed_and_did_not_tell_passes_for_no_known_data_version(
    manager: LakehouseIOManager, instance: dg.DagsterInstance
) -> None:
    """Its process may die between the commit and the event."""
    untold = dg.DagsterInstance.ephemeral()
    metadata: dict[str, Any] = {"mode": "merge", "merge_keys": ["id"], "when_matched": "ignore"}
    assert run([asset(people((1, "a")), **metadata)], manager, instance).success
    first = data_version_of(instance, "people")
    assert run([asset(people((2, "b")), **metadata)], manager, untold).success
    assert run([asset(people((2, "b")), **metadata)], manager, instance).success
    assert data_version_of(instance, "people") != first


def data_version_of(instance: dg.DagsterInstance, name: str) -> str:
    """The data version of an asset's last materialization."""
    event = instance.get_latest_materialization_event(dg.AssetKey(name))
    assert event is not None
    assert event.asset_materialization is not None
    return version_of(event.asset_materialization)


def version_of(event: dg.AssetMaterialization) -> str:
    """The data version that a materialization tells."""
    assert event.tags is not None
    return event.tags["dagster/data_version"]


def test_a_data_version_of_ones_own_stays(
    manager: LakehouseIOManager, instance: dg.DagsterInstance
) -> None:
    """That of the rows took the place of what the asset itself had set."""

    @dg.asset(name="people")
    def made(context: dg.AssetExecutionContext) -> pa.Table:
        context.set_data_version(context.asset_key, dg.DataVersion("mine"))
        return people((1, "a"))

    assert run([made], manager, instance).success
    assert data_version_of(instance, "people") == "mine"


@pytest.mark.parametrize(
    ("own", "told"),
    [
        ({"data_version": "mine"}, "dagster/data_version"),
        ({"data_version": "9e107d9d372bb6826bd81d3542a419d6"}, "dagster/data_version"),
        ({"tags": "mine"}, "team"),
    ],
    ids=["version", "digest", "tags"],
)
def test_what_comes_with_an_output_is_told_of_all_its_partitions(
    manager: LakehouseIOManager, instance: dg.DagsterInstance, own: dict[str, str], told: str
) -> None:
    """The IO manager sees neither: what was told before tells it."""
    number = 0

    @dg.asset(
        name="above",
        partitions_def=DAYS,
        backfill_policy=dg.BackfillPolicy.single_run(),
        metadata={"partition_expr": "k"},
    )
    def above(context: dg.AssetExecutionContext) -> dg.MaterializeResult[pa.Table]:
        keys = context.partition_keys
        rows = pa.table({"k": keys, "n": [number * (key == "a") for key in keys]})
        if "tags" in own:
            return dg.MaterializeResult(value=rows, tags={"team": f"mine{number}"})
        version = dg.DataVersion(own["data_version"] + str(number))
        return dg.MaterializeResult(value=rows, data_version=version)

    for number in range(2):  # noqa: B007 - the asset reads it
        assert run_range(above, manager, instance, "a", "d").success
    records = instance.fetch_materializations(dg.AssetKey("above"), limit=4).records
    events = [one.asset_materialization for one in records if one.asset_materialization]
    found = {(one.tags or {}).get(told) for one in events}
    assert found == {f"{own.get('data_version', 'mine')}1"}


class Lake:
    """A partitioned asset whose rows are set from outside, and one below each of its partitions."""

    def __init__(
        self, manager: LakehouseIOManager, instance: dg.DagsterInstance, **metadata: Any
    ) -> None:
        self.rows: dict[str, list[int]] = {}
        self.tags: dict[str, str] = {}
        self._manager, self._instance = manager, instance

        @dg.asset(
            partitions_def=DAYS,
            backfill_policy=dg.BackfillPolicy.single_run(),
            metadata={"partition_expr": "k"} | metadata,
            code_version="1",
        )
        def above(context: dg.AssetExecutionContext) -> pa.Table:
            pairs = [(key, n) for key in context.partition_keys for n in self.rows.get(key, [])]
            return pa.table(
                {"k": pa.array([k for k, _ in pairs], pa.string()),
                 "n": pa.array([n for _, n in pairs], pa.int64())}
            )  # fmt: skip

        @dg.asset(partitions_def=DAYS, code_version="1")
        def below(above: pa.Table) -> None:
            pass

        self.assets = [above, below]

    def write(self, first: str, last: str | None = None, **rows: list[int]) -> None:
        """Run the asset for a range of partitions, after setting rows of some."""
        self.rows |= rows
        asked = (self._manager, self._instance, first, last or first)
        assert run_range(self.assets[0], *asked, **self.tags).success

    def read(self, *keys: str) -> None:
        """Run what is below some partitions."""
        for key in keys:
            assert run(
                self.assets,
                self._manager,
                self._instance,
                partition_key=key,
                selection=self.assets[1:],
            ).success

    def stale(self) -> str:
        """The partitions below which Dagster holds for stale."""
        resolver = get_stale_status_resolver(self._instance, self.assets)
        states = {
            key: resolver.get_status(dg.AssetKey("below"), key) for key in DAYS.get_partition_keys()
        }
        return "".join(key for key, state in states.items() if state.value == "STALE")

    def versions(self) -> Mapping[str, str]:
        """The newest data version of each partition."""
        return {
            key: tags["dagster/data_version"]
            for key, tags in self._instance.event_log_storage.get_latest_tags_by_partition(
                dg.AssetKey("above"),
                dg.DagsterEventType.ASSET_MATERIALIZATION,
                ["dagster/data_version"],
            ).items()
        }


def test_partitions_that_did_not_change_leave_what_is_below_them_fresh(
    manager: LakehouseIOManager, instance: dg.DagsterInstance
) -> None:
    """A run of other partitions than before made all below it stale."""
    lake = Lake(manager, instance)
    lake.write("a", "c", a=[1], b=[2], c=[])
    lake.read("a", "b", "c")
    for first, last in (("a", "c"), ("a", "b"), ("b", "b"), ("c", "c")):
        lake.write(first, last)
        assert lake.stale() == ""
    lake.write("b", "d", d=[4])  # a window that moved on by one
    assert lake.stale() == ""
    lake.write("b", b=[2, 3])
    assert lake.stale() == "b"
    lake.write("a")
    assert lake.stale() == "b"
    lake.read("b")
    lake.write("a", "d", a=[7])
    assert lake.stale() == "a"
    lake.read("a")
    lake.write("a", "d")  # of two versions, and none changed
    assert lake.stale() == ""


@pytest.mark.parametrize("mode", ["merge", "append", "ignore"])
def test_a_mode_that_changed_nothing_in_a_partition_keeps_its_data_version(
    manager: LakehouseIOManager, instance: dg.DagsterInstance, mode: str
) -> None:
    """It was kept only if no other partition had been written since."""
    more = {"merge_keys": ["n"], "when_matched": "ignore"} if mode == "merge" else {}
    lake = Lake(manager, instance, mode=mode, **more)
    for number, key in enumerate("abc"):
        lake.write(key, **{key: [number]})
    lake.read("a", "b", "c")
    if mode == "append":
        lake.rows = {}
    lake.write("a")
    assert lake.stale() == ""
    lake.write("b", b=[8, 9])
    assert lake.stale() == ("" if mode == "ignore" else "b")


def test_what_is_below_is_stale_where_rows_changed_and_nowhere_else(
    manager: LakehouseIOManager, instance: dg.DagsterInstance
) -> None:
    """Whatever runs came; and a data version that a partition had before is of the same rows."""
    chance = random.Random(7)
    lake, seen, changed = Lake(manager, instance), dict[tuple[str, str], list[int]](), set[str]()
    lake.write("a", "d", **{key: [0] for key in "abcd"})
    lake.read(*"abcd")
    for _ in range(12):
        first, last = sorted(chance.choices("abcd", k=2))
        keys = [key for key in "abcd" if first <= key <= last]
        rows = {key: [chance.randrange(2)] for key in keys if chance.random() < 0.5}
        changed |= {key for key, values in rows.items() if values != lake.rows[key]}
        lake.write(first, last, **rows)
        assert lake.stale() == "".join(sorted(changed))
        for key, version in lake.versions().items():
            assert seen.setdefault((key, version), lake.rows[key]) == lake.rows[key]
        if chance.random() < 0.3:
            lake.read(*changed)
            changed.clear()


def test_a_partition_that_joins_others_has_no_version_of_other_rows(
    manager: LakehouseIOManager, instance: dg.DagsterInstance
) -> None:
    """It got that of the empty one beside it, and got it again when it lost its rows."""
    lake = Lake(manager, instance)
    lake.write("a")
    lake.write("a", "b", b=[1])
    lake.read("b")
    lake.write("b", b=[])
    assert lake.stale() == "b"


def test_what_another_run_told_meanwhile_is_not_taken_back(
    manager: LakehouseIOManager, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The version of the rows that it had replaced came after its own."""
    lake, other = Lake(manager, instance), Lake(manager, instance)
    lake.write("a", "b", a=[1], b=[2])
    lake.read("a", "b")
    begin = data_version._origin

    def begin_late(context: dg.OutputContext) -> dict[str, str]:
        monkeypatch.setattr(data_version, "_origin", begin)
        other.write("a", a=[99])
        return begin(context)

    monkeypatch.setattr(data_version, "_origin", begin_late)
    lake.write("a", "b", b=[3])
    assert data_version._origin is begin
    assert lake.stale() == "ab"


def test_a_run_that_defers_its_events_has_none_of_partitions(
    manager: LakehouseIOManager, instance: dg.DagsterInstance
) -> None:
    lake = Lake(manager, instance)
    lake.write("a", "b", a=[1], b=[2])
    before = lake.versions()
    lake.tags["dagster/defer_asset_events"] = "true"
    lake.write("a", "b", b=[3])
    assert len(instance.fetch_materializations(dg.AssetKey("above"), limit=9).records) == 2
    assert lake.versions() == before


def test_partitions_told_apart_have_all_that_dagster_tells(
    manager: LakehouseIOManager, instance: dg.DagsterInstance
) -> None:
    """Tags and metadata, in runs where one of them changed; each is told once."""
    days = dg.DailyPartitionsDefinition("2024-01-01", end_date="2024-01-03")
    both = dg.MultiPartitionsDefinition({"day": days, "k": dg.StaticPartitionsDefinition(["x"])})
    single = dg.BackfillPolicy.single_run()

    @dg.asset(name="source")
    def source() -> pa.Table:
        return pa.table({"n": [1]})

    def above(rows: int) -> dg.AssetsDefinition:
        @dg.asset(
            name="above",
            partitions_def=both,
            backfill_policy=single,
            metadata={"partition_expr": {"day": "day", "k": "k"}},
        )
        def made(context: dg.AssetExecutionContext, source: pa.Table) -> dg.Output[pa.Table]:
            keys = [key.keys_by_dimension["day"] for key in context.partition_keys]
            counts = [rows if key == "2024-01-02" else 1 for key in keys]
            found = [key for key, n in zip(keys, counts, strict=True) for _ in range(n)]
            context.add_asset_metadata({"of": "asset"}, "above")
            context.add_asset_metadata({"of_key": "key"}, "above", context.partition_keys[0])
            return dg.Output(pa.table({"day": found, "k": ["x"] * len(found)}), metadata={"o": 1})

        return made

    tags = {"dagster/asset_partition_range_start": "2024-01-01|x",
            "dagster/asset_partition_range_end": "2024-01-02|x"}  # fmt: skip
    assert run([source], manager, instance).success
    for rows in (1, 2):
        made = [source, above(rows)]
        assert run(made, manager, instance, selection=made[1:], tags=tags).success
    records = instance.fetch_materializations(dg.AssetKey("above"), limit=10).records
    told = [one.asset_materialization for one in records if one.asset_materialization]
    assert len(told) == 4
    known, changed = sorted(told[:2], key=lambda one: str(one.partition))
    assert version_of(known) == version_of(told[2]) == version_of(told[3]) != version_of(changed)
    assert known.partition == dg.MultiPartitionKey({"day": "2024-01-01", "k": "x"})
    same = {"dagster/partition/day": "2024-01-01", "dagster/data_version": version_of(known)}
    assert {**(changed.tags or {}), **same} == known.tags
    assert known.metadata.keys() - {"of_key"} == changed.metadata.keys()
    assert known.metadata["of_key"].value == "key"
