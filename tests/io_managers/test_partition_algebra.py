"""Any set of partition keys, written and read at once, equals one key at a time."""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, Phase, given, settings, strategies as st

from neurolake_dagster.errors import PartitionError
from neurolake_dagster.io_managers.base import LakehouseIOManager
from neurolake_dagster.io_managers.partitions import scope_of
from neurolake_dagster.resources import StorageResource
from tests.io_managers.test_io_managers import MANAGERS

# Said by Dagster's own code of every `backfill_policy`.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Parameter `backfill_policy`:dagster.BetaWarning"),
]
RANGE_START = "dagster/asset_partition_range_start"
RANGE_END = "dagster/asset_partition_range_end"

NAMES = ["a", "b/c", "O'Neil", "..", "é ü"]
STATIC = dg.StaticPartitionsDefinition(NAMES)
DAYS = dg.DailyPartitionsDefinition(start_date="2013-01-01", end_date="2013-01-07")
HOURS = dg.HourlyPartitionsDefinition(
    start_date="2013-11-03-00:00", end_date="2013-11-03-05:00", timezone="America/New_York"
)
# Of an hour that comes twice Dagster confuses the ranges: its caches take both hours for one.
SPRING = dg.HourlyPartitionsDefinition(
    start_date="2013-03-10-00:00", end_date="2013-03-10-06:00", timezone="America/New_York"
)
MONTHS = dg.MonthlyPartitionsDefinition(start_date="2013-01-01", end_date="2013-06-01")
SHORT = dg.DailyPartitionsDefinition(start_date="20130101", end_date="20130107", fmt="%Y%m%d")
LATE = dg.DailyPartitionsDefinition("2013-01-01", end_date="2013-01-07", hour_offset=5)
UTC_HOURS = dg.HourlyPartitionsDefinition("2013-01-01-20:00", end_date="2013-01-02-03:00")
DYNAMIC = dg.DynamicPartitionsDefinition(name="names")
BOTH = dg.MultiPartitionsDefinition({"day": DAYS, "name": STATIC})


@dataclass(frozen=True)
class Kind:
    """A partitions definition, its columns, and a row's values for a key."""

    definition: Any
    expr: Any
    types: Mapping[str, pa.DataType]
    form: str = ""  # of times in a text column

    def keys(self) -> list[str]:
        if isinstance(self.definition, dg.DynamicPartitionsDefinition):
            return NAMES
        return [str(key) for key in self.definition.get_partition_keys()]

    def between(self, first: str, last: str) -> list[str]:
        """The keys of a range as Dagster takes it: of two dimensions, a box."""
        if isinstance(self.definition, dg.MultiPartitionsDefinition):
            asked = dg.PartitionKeyRange(first, last)
            return [str(key) for key in self.definition.get_partition_keys_in_range(asked)]
        keys = self.keys()
        return keys[keys.index(first) : keys.index(last) + 1]

    def rows(self, keys: list[str], tags: list[int]) -> pa.Table:
        """Two rows of each key, at the start of its window and just before its end."""
        values = [value for key in keys for value in self._values(key)]
        columns = {
            name: pa.array([row[i] for row in values], type_)
            for i, (name, type_) in enumerate(self.types.items())
        }
        return pa.table(columns | {"tag": [tag for tag in tags for _ in range(2)]})

    def _values(self, key: str) -> list[tuple[Any, ...]]:
        if isinstance(self.definition, dg.MultiPartitionsDefinition):
            parts = self.definition.get_partition_key_from_str(str(key)).keys_by_dimension
            day = _edges(DAYS, parts["day"], self.types["day"], self.form)
            return [(moment, parts["name"]) for moment in day]
        if not isinstance(self.definition, dg.TimeWindowPartitionsDefinition):
            return [(key,), (key,)]
        (type_,) = self.types.values()
        return [(moment,) for moment in _edges(self.definition, key, type_, self.form)]


def _edges(definition: Any, key: str, type_: pa.DataType, form: str) -> list[Any]:
    window = definition.time_window_for_partition_key(key)
    last = datetime.fromtimestamp(window.end.timestamp() - 1e-6, UTC).astimezone(window.end.tzinfo)
    if pa.types.is_date(type_):
        return [window.start.date(), last.date()]
    if pa.types.is_string(type_):
        return [f"{window.start:{form}}", f"{last:{form}}"]
    if pa.types.is_integer(type_):
        return [int(key), int(key)]
    if type_.tz is not None:
        return [window.start.astimezone(UTC), last.astimezone(UTC)]
    return [window.start.replace(tzinfo=None), last.replace(tzinfo=None)]


KINDS = {
    "static": Kind(STATIC, "name", {"name": pa.string()}),
    "dynamic": Kind(DYNAMIC, "name", {"name": pa.string()}),
    "days as dates": Kind(DAYS, "day", {"day": pa.date32()}),
    "hours with one left out": Kind(SPRING, "at", {"at": pa.timestamp("us", "UTC")}),
    "hours with one twice": Kind(HOURS, "at", {"at": pa.timestamp("us", "UTC")}),
    "months as wall time": Kind(MONTHS, "at", {"at": pa.timestamp("us")}),
    "hours as texts with T": Kind(UTC_HOURS, "at", {"at": pa.string()}, "%Y-%m-%dT%H:%M:%S.%fZ"),
    "hours as texts": Kind(UTC_HOURS, "at", {"at": pa.string()}, "%Y-%m-%d %H:%M:%S"),
    "hours as keys": Kind(UTC_HOURS, "at", {"at": pa.string()}, "%Y-%m-%d-%H:%M"),
    "late days as texts": Kind(LATE, "at", {"at": pa.string()}, "%Y-%m-%dT%H:%M:%S"),
    "days as short keys": Kind(SHORT, "day", {"day": pa.string()}, "%Y%m%d"),
    "days as integers": Kind(SHORT, "day", {"day": pa.int32()}),
    "two dimensions": Kind(
        BOTH, {"day": "day", "name": "name"}, {"day": pa.date32(), "name": pa.string()}
    ),
}


RANGED = {name: kind for name, kind in KINDS.items() if kind.definition is not HOURS}


class Runs:
    """An asset of some partitions, and runs that write and read sets of them."""

    def __init__(self, manager: LakehouseIOManager, kind: Kind, instance: dg.DagsterInstance):
        self._instance = instance
        self._resources = {"io_manager": manager}
        self._tags: dict[str, int] = {}

        @dg.asset(
            partitions_def=kind.definition,
            backfill_policy=dg.BackfillPolicy.single_run(),
            metadata={"partition_expr": kind.expr},
        )
        def source(context: dg.AssetExecutionContext) -> pa.Table:
            keys = [str(key) for key in context.partition_keys]
            return kind.rows(keys, [self._tags[key] for key in keys])

        self._source = source

    def write(self, first: str, last: str, tags: dict[str, int]) -> None:
        """Materialize a range of keys in one run, each with its tag."""
        self._tags = tags
        self._run([self._source], {RANGE_START: first, RANGE_END: last})

    def read(self, keys: list[str]) -> list[int]:
        """The tags of some keys, which need not be neighbours, as an input of them."""
        seen: list[int] = []
        asked = dg.AssetIn(
            partition_mapping=dg.SpecificPartitionsPartitionMapping(keys),
            metadata={"allow_missing_partitions": True},
        )

        @dg.asset(ins={"source": asked})
        def reader(source: pa.Table) -> None:
            seen.extend(sorted(source["tag"].to_pylist()))

        self._run([self._source, reader], {}, selection=[reader])
        return seen

    def _run(self, assets: list[Any], tags: dict[str, str], **options: Any) -> None:
        options |= {"resources": self._resources, "instance": self._instance}
        assert dg.materialize(assets, tags=tags, **options).success


@pytest.mark.parametrize("kind", list(RANGED.values()), ids=list(RANGED))
@pytest.mark.parametrize("name", list(MANAGERS))
@settings(
    max_examples=3,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.generate],  # a failing run is dear, and short already
)
@given(data=st.data())
def test_sets_of_keys_equal_one_key_at_a_time(name: Any, kind: Kind, data: st.DataObject) -> None:
    subsets = st.lists(st.sampled_from(kind.keys()), min_size=1, max_size=6, unique=True)
    oracle: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as folder, dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("names", NAMES)
        manager = MANAGERS[name](storage=StorageResource(root=folder))
        runs = Runs(manager, kind, instance)
        for number in range(data.draw(st.integers(1, 3))):
            ends = [data.draw(st.sampled_from(kind.keys())) for _ in range(2)]
            # A box that is reversed in one dimension only has no keys.
            keys = kind.between(*ends) or kind.between(*reversed(ends)) or ends[:1]
            tags = {key: 100 * number + index for index, key in enumerate(keys)}
            runs.write(keys[0], keys[-1], tags)
            oracle |= tags
        for asked in (data.draw(subsets), kind.keys()):
            expected = sorted(oracle[key] for key in asked if key in oracle for _ in range(2))
            assert runs.read(asked) == expected


@pytest.mark.parametrize("kind", list(KINDS.values()), ids=list(KINDS))
@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_rows_of_a_key_that_was_not_asked_for_are_refused(kind: Kind, data: st.DataObject) -> None:
    keys = data.draw(st.lists(st.sampled_from(kind.keys()), min_size=2, max_size=5, unique=True))
    scope = scope_of(kind.definition, keys[1:], kind.expr)
    (batch,) = kind.rows(keys, list(range(len(keys)))).combine_chunks().to_batches()
    with pytest.raises(PartitionError, match="none of the asked partitions"):
        list(scope.divide(batch))


@pytest.mark.parametrize("kind", list(KINDS.values()), ids=list(KINDS))
def test_a_batch_without_rows_is_divided_into_none(kind: Kind) -> None:
    """A ValueError of zip: a stream with such a batch could not be written."""
    keys = kind.keys()[:2]
    (batch,) = kind.rows(keys, [1, 2]).combine_chunks().to_batches()
    assert list(scope_of(kind.definition, keys, kind.expr).divide(batch.slice(0, 0))) == []
