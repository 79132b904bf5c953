"""Conversions as assets, materialized by Dagster."""

from pathlib import Path

import dagster as dg
import pyarrow as pa
import pytest
from deltalake import DeltaTable

from neurolake_dagster.assets.checks import dataset_of
from neurolake_dagster.assets.conversions import build_conversion
from neurolake_dagster.io_managers import LakeIOManager
from neurolake_dagster.resources import StorageResource
from neurolake_dagster.tables import Table

SOURCE = dg.AssetKey(["parquet", "t"])


@pytest.mark.parametrize("kind", ["ncf", "delta"])
def test_a_conversions_commit_names_its_run(tmp_path: Path, kind: str) -> None:
    """The history had an empty run for it, and one for what IO managers wrote."""
    storage = StorageResource(root=str(tmp_path))
    dataset_of(SOURCE, storage).write(pa.table({"x": [1]}).to_reader())
    result = dg.materialize(
        [build_conversion(SOURCE, dg.AssetKey([kind, "t"]))],
        resources={"storage": storage, f"{kind}_io_manager": LakeIOManager(storage=storage)},
    )
    if kind == "delta":
        info = DeltaTable(tmp_path / "delta" / "t").history(1)[0]
    else:
        info = dict(Table(storage.storage(), "ncf/t", "ncf").history()[0].info)
    assert info["dagster/run_id"] == result.run_id
