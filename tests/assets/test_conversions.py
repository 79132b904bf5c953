"""Conversions as assets, materialized by Dagster."""

from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pyarrow as pa
import pytest
from deltalake import DeltaTable

from neurolake_dagster.assets.checks import build_parity_checks, dataset_of
from neurolake_dagster.assets.conversions import build_conversion
from neurolake_dagster.errors import ConversionError
from neurolake_dagster.io_managers import LakeIOManager
from neurolake_dagster.resources import StorageResource
from neurolake_dagster.tables import Table

SOURCE = dg.AssetKey(["parquet", "t"])


def convert(storage: StorageResource, kind: str) -> dg.AssetMaterialization:
    """Run the conversion of `SOURCE` and its proof; the materialization of the target."""
    target = dg.AssetKey([kind, "t"])
    conversion = build_conversion(SOURCE, target)
    result = dg.materialize(
        [dg.AssetSpec(SOURCE), conversion, build_parity_checks(SOURCE, target)],
        resources={"storage": storage, f"{kind}_io_manager": LakeIOManager(storage=storage)},
    )
    assert all(check.passed for check in result.get_asset_check_evaluations())
    (told,) = result.asset_materializations_for_node(conversion.node_def.name)
    return told


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


@pytest.mark.parametrize("kind", ["ncf", "delta"])
def test_a_conversions_data_version_is_that_of_its_rows(tmp_path: Path, kind: str) -> None:
    """It was another one with each run: whatever lay below a conversion ran again."""
    storage = StorageResource(root=str(tmp_path))
    versions = []
    for rows in (
        pa.table({"x": [1, 2]}),
        pa.table({"x": [1, 2]}),
        pa.table({"x": [1, 3]}),
        pa.table({"y": [1, 3]}),
        pa.table({"y": pa.array([1, 3], pa.int32())}),
    ):
        dataset_of(SOURCE, storage).write(rows.to_reader())
        versions.append((convert(storage, kind).tags or {})["dagster/data_version"])
    assert versions[0] == versions[1]
    assert len(set(versions)) == 4


def test_rows_without_columns_are_proven_equal(tmp_path: Path) -> None:
    """The check failed in Dagster, which takes no table without rows and schema."""
    storage = StorageResource(root=str(tmp_path))
    dataset_of(SOURCE, storage).write(pa.table({}).to_reader())
    assert convert(storage, "ncf").metadata["dagster/row_count"].value == 0


@pytest.mark.parametrize("key", [["csv", "t"], ["ncf"]], ids=["another format", "no dataset"])
@pytest.mark.parametrize("build", [build_conversion, build_parity_checks])
def test_a_key_that_names_no_format_is_refused(
    build: Callable[..., object], key: list[str]
) -> None:
    """A target's was a bare KeyError, a source's came up with the run."""
    expected = r"expected \[format, dataset\], the format one of \('parquet', 'ncf', 'delta'\)"
    for pair in ((SOURCE, dg.AssetKey(key)), (dg.AssetKey(key), SOURCE)):
        with pytest.raises(ConversionError, match=expected):
            build(*pair)
