"""Partitions in real runs: what is refused, what is missing, what each one is told."""

from datetime import datetime
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest

from neurolake_dagster.io_managers.base import LakehouseIOManager
from neurolake_dagster.io_managers.partitions import scope_of
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
    return pa.table({"k": list(context.partition_keys)})


@pytest.mark.parametrize("mode", ["overwrite", "append"])
def test_a_dict_whose_values_have_rows_of_other_keys_is_refused(
    manager: LakehouseIOManager, instance: dg.DagsterInstance, mode: str
) -> None:
    """NCF and Parquet wrote a's rows as b's."""
    assert run_range(made(of_run), manager, instance, "a", "b").success
    swapped = {"a": pa.table({"k": ["b"]}), "b": pa.table({"k": ["a"]})}
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
