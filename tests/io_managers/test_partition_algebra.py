"""Any set of partition keys, written and read at once, equals one key at a time."""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from neurolake_dagster.errors import PartitionError
from neurolake_dagster.io_managers.partitions import scope_of
from neurolake_dagster.storage import Storage
from neurolake_dagster.tables import Table
from neurolake_dagster.tables.delta import DeltaDataset

NAMES = ["a", "b/c", "O'Neil", "..", "é ü"]
STATIC = dg.StaticPartitionsDefinition(NAMES)
DAYS = dg.DailyPartitionsDefinition(start_date="2013-01-01", end_date="2013-01-07")
HOURS = dg.HourlyPartitionsDefinition(
    start_date="2013-11-03-00:00", end_date="2013-11-03-05:00", timezone="America/New_York"
)
MONTHS = dg.MonthlyPartitionsDefinition(start_date="2013-01-01", end_date="2013-06-01")
BOTH = dg.MultiPartitionsDefinition({"day": DAYS, "name": STATIC})


@dataclass(frozen=True)
class Kind:
    """A partitions definition, its columns, and a row's values for a key."""

    definition: Any
    expr: Any
    types: Mapping[str, pa.DataType]

    def keys(self) -> list[str]:
        return list(self.definition.get_partition_keys())

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
            day = _edges(DAYS, parts["day"], self.types["day"])
            return [(moment, parts["name"]) for moment in day]
        if isinstance(self.definition, dg.StaticPartitionsDefinition):
            return [(key,), (key,)]
        (type_,) = self.types.values()
        return [(moment,) for moment in _edges(self.definition, key, type_)]


def _edges(definition: Any, key: str, type_: pa.DataType) -> list[Any]:
    window = definition.time_window_for_partition_key(key)
    last = datetime.fromtimestamp(window.end.timestamp() - 1e-6, UTC).astimezone(window.end.tzinfo)
    if pa.types.is_date(type_):
        return [window.start.date(), last.date()]
    if type_.tz is not None:
        return [window.start.astimezone(UTC), last.astimezone(UTC)]
    return [window.start.replace(tzinfo=None), last.replace(tzinfo=None)]


KINDS = {
    "static": Kind(STATIC, "name", {"name": pa.string()}),
    "days as dates": Kind(DAYS, "day", {"day": pa.date32()}),
    "hours over a clock change": Kind(HOURS, "at", {"at": pa.timestamp("us", "UTC")}),
    "months as wall time": Kind(MONTHS, "at", {"at": pa.timestamp("us")}),
    "two dimensions": Kind(
        BOTH, {"day": "day", "name": "name"}, {"day": pa.date32(), "name": pa.string()}
    ),
}


def _write(place: Table | DeltaDataset, kind: Kind, keys: list[str], rows: pa.Table) -> None:
    scope = scope_of(kind.definition, keys, {"partition_expr": kind.expr})
    if isinstance(place, Table):
        place.write(rows, split=scope.divide, partitions=[key.place for key in scope.keys])
        return
    for batch in rows.to_batches():
        scope.check(batch)
    place.write(rows, where=scope.predicate(rows.schema))


def _read(place: Table | DeltaDataset, kind: Kind, keys: list[str], schema: pa.Schema) -> list[int]:
    scope = scope_of(kind.definition, keys, {"partition_expr": kind.expr})
    if isinstance(place, Table):
        found = place.read(partitions=[key.place for key in scope.keys])
    else:
        found = place.scan(where=scope.predicate(schema)).read_all()
    return sorted(found["tag"].to_pylist())


@pytest.mark.parametrize("kind", list(KINDS.values()), ids=list(KINDS))
@pytest.mark.parametrize("name", ["ncf", "parquet", "delta"])
@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_sets_of_keys_equal_one_key_at_a_time(name: Any, kind: Kind, data: st.DataObject) -> None:
    all_keys = kind.keys()
    subsets = st.lists(st.sampled_from(all_keys), min_size=1, max_size=6, unique=True)
    writes = data.draw(st.lists(subsets, min_size=1, max_size=4))
    oracle: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as folder:
        storage = Storage(folder)
        place = DeltaDataset(storage, "t") if name == "delta" else Table(storage, "t", name)
        for number, keys in enumerate(writes):
            tags = [100 * number + index for index in range(len(keys))]
            rows = kind.rows(keys, tags)
            _write(place, kind, keys, rows)
            oracle.update(zip(keys, tags, strict=True))
        for asked in [*data.draw(st.lists(subsets, min_size=1, max_size=3)), all_keys]:
            expected = sorted(oracle[key] for key in asked if key in oracle for _ in range(2))
            assert _read(place, kind, asked, rows.schema) == expected


@pytest.mark.parametrize("kind", list(KINDS.values()), ids=list(KINDS))
@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_rows_of_a_key_that_was_not_asked_for_are_refused(kind: Kind, data: st.DataObject) -> None:
    keys = data.draw(st.lists(st.sampled_from(kind.keys()), min_size=2, max_size=5, unique=True))
    scope = scope_of(kind.definition, keys[1:], {"partition_expr": kind.expr})
    (batch,) = kind.rows(keys, list(range(len(keys)))).combine_chunks().to_batches()
    with pytest.raises(PartitionError, match="none of the asked partitions"):
        list(scope.divide(batch))
