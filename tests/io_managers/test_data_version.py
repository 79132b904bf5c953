"""The data version of an output: what lies below is stale where rows changed, and nowhere else."""

import random
from collections.abc import Mapping
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest
from dagster._utils.test.data_versions import get_stale_status_resolver

from neurolake_dagster.io_managers import checked_rows
from neurolake_dagster.io_managers.base import LakehouseIOManager
from tests.io_managers.test_io_managers import instance, manager, run
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
    assert event.asset_materialization.tags is not None
    return event.asset_materialization.tags["dagster/data_version"]


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


class Lake:
    """A partitioned asset whose rows are set from outside, and one below each of its partitions."""

    def __init__(
        self, manager: LakehouseIOManager, instance: dg.DagsterInstance, **metadata: Any
    ) -> None:
        self.rows: dict[str, list[int]] = {}
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
        tags = {"dagster/asset_partition_range_start": first,
                "dagster/asset_partition_range_end": last or first}  # fmt: skip
        assert run(self.assets[:1], self._manager, self._instance, tags=tags).success

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
    lake.write("b", b=[2])
    lake.write("a", "d", a=[7])  # one changed: Dagster has no other version for the others
    assert "a" in lake.stale()


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


def test_no_change_of_a_partition_is_ever_hidden(
    manager: LakehouseIOManager, instance: dg.DagsterInstance
) -> None:
    """Whatever runs came: a data version that a partition had before is of the same rows."""
    chance = random.Random(7)
    lake, seen = Lake(manager, instance), dict[tuple[str, str], list[int]]()
    for _ in range(15):
        first, last = sorted(chance.choices("abcd", k=2))
        changed = {key: [chance.randrange(2)] for key in "abcd" if first <= key <= last}
        lake.write(first, last, **(changed if chance.random() < 0.6 else {}))
        for key, version in lake.versions().items():
            assert seen.setdefault((key, version), lake.rows.get(key, [])) == lake.rows.get(key, [])


def test_many_partitions_at_once_are_digested_in_bounded_memory(
    manager: LakehouseIOManager, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows wait for others of their partition; past the bound there is no digest, and no harm."""
    monkeypatch.setattr(checked_rows, "HELD_BYTES", 8)
    lake = Lake(manager, instance)
    lake.write("a", "b", a=[1], b=[2])
    lake.read("a", "b")
    lake.write("a", "b", a=[3])
    assert "a" in lake.stale()
