"""Values of assets outside of a run, by `dg.Definitions.load_asset_value`."""

from datetime import date

import dagster as dg
import polars as pl
import pyarrow as pa
import pytest

from neurolake_dagster.io_managers.base import LakehouseIOManager
from tests.io_managers.test_io_managers import daily, instance, manager, run_range

__all__ = ["instance", "manager"]
pytestmark = [
    pytest.mark.filterwarnings("ignore:Parameter `backfill_policy`:dagster.BetaWarning"),
]


def test_partitions_are_loaded_without_a_run(
    manager: LakehouseIOManager, instance: dg.DagsterInstance
) -> None:
    """There is no step to ask for its partitions, which was an error."""
    events = daily()
    assert run_range(events, manager, instance, "2013-01-01", "2013-01-02").success
    defs = dg.Definitions(assets=[events], resources={"io_manager": manager})
    day = defs.load_asset_value(
        "events", python_type=pa.Table, instance=instance, partition_key="2013-01-02"
    )
    assert isinstance(day, pa.Table)
    assert day.to_pylist() == [{"day": date(2013, 1, 2), "value": 2}]
    whole = defs.load_asset_value("events", python_type=pl.DataFrame, instance=instance)
    assert isinstance(whole, pl.DataFrame)
    assert sorted(whole["value"]) == [1, 2]


def test_a_dict_of_partitions_is_loaded_without_a_run(
    manager: LakehouseIOManager, instance: dg.DagsterInstance
) -> None:
    events = daily()
    assert run_range(events, manager, instance, "2013-01-01", "2013-01-02").success
    defs = dg.Definitions(assets=[events], resources={"io_manager": manager})
    loader = defs.get_repository_def().get_asset_value_loader(instance=instance)
    found = loader.load_asset_value(
        "events",
        python_type=dict[str, pa.Table],
        partition_key_range=dg.PartitionKeyRange("2013-01-01", "2013-01-02"),
    )
    assert isinstance(found, dict)
    assert {key: rows["value"].to_pylist() for key, rows in found.items()} == {
        "2013-01-01": [1],
        "2013-01-02": [2],
    }
