"""One manager, three formats: the asset decides."""

from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pyarrow as pa
import pytest

from neurolake_dagster.io_managers import LakeIOManager
from neurolake_dagster.resources import StorageResource
from tests.io_managers.test_io_managers import failure, instance, run

__all__ = ["instance"]
TABLE = pa.table({"id": [1, 2]})


def test_formats_come_from_metadata_key_and_config(
    instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    manager: Any = LakeIOManager(storage=StorageResource(root=str(tmp_path)), format="parquet")
    seen: list[Any] = []

    @dg.asset(key=["ncf", "one"])
    def by_key() -> pa.Table:
        return TABLE

    @dg.asset(key=["ncf", "two"], metadata={"format": "delta"})
    def by_metadata() -> pa.Table:
        return TABLE

    @dg.asset
    def by_config() -> pa.Table:
        return TABLE

    @dg.asset(
        ins={
            "one": dg.AssetIn(["ncf", "one"]),
            "two": dg.AssetIn(["ncf", "two"]),
            "three": dg.AssetIn("by_config"),
        }
    )
    def used(one: pa.Table, two: pl.DataFrame, three: pa.Table) -> None:
        seen.extend([one.num_rows, two.height, three.num_rows])

    assert run([by_key, by_metadata, by_config, used], manager, instance).success
    assert seen == [2, 2, 2]
    assert list((tmp_path / "ncf" / "one").glob("*.ncf"))
    assert (tmp_path / "ncf" / "two" / "_delta_log").is_dir()
    assert list((tmp_path / "by_config").glob("*.parquet"))


def test_an_unknown_format_is_refused(instance: dg.DagsterInstance, tmp_path: Path) -> None:
    manager: Any = LakeIOManager(storage=StorageResource(root=str(tmp_path)))

    @dg.asset(metadata={"format": "orc"})
    def made() -> pa.Table:
        return TABLE

    result = run([made], manager, instance, raise_on_error=False)
    assert "format 'orc', expected one of ('ncf', 'parquet', 'delta')" in str(failure(result))


def test_a_format_of_a_run_is_refused(instance: dg.DagsterInstance, tmp_path: Path) -> None:
    """It was left out: the run wrote another format than it said."""
    manager: Any = LakeIOManager(storage=StorageResource(root=str(tmp_path)))

    @dg.asset
    def made(context: dg.AssetExecutionContext) -> pa.Table:
        context.add_output_metadata({"format": "delta"})
        return TABLE

    result = run([made], manager, instance, raise_on_error=False)
    assert "format is 'delta' for this run, but NCFIOManager" in str(failure(result))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("new", ["ncf", "parquet", "delta"])
@pytest.mark.parametrize("old", ["ncf", "parquet", "delta"])
@pytest.mark.parametrize("mode", ["overwrite", "append"])
def test_a_folder_is_of_one_format(
    instance: dg.DagsterInstance, tmp_path: Path, old: str, new: str, mode: str
) -> None:
    """Delta's and ours lay in one folder: plain readers saw both, and a vacuum deleted one."""
    manager: Any = LakeIOManager(storage=StorageResource(root=str(tmp_path)))

    def made(form: str) -> Any:
        return dg.asset(name="made", metadata={"format": form, "mode": mode})(lambda: TABLE)

    assert run([made(old)], manager, instance).success
    files = sorted(tmp_path.rglob("*"))
    result = run([made(new)], manager, instance, raise_on_error=False)
    assert result.success == (old == new)
    if old != new:
        assert "holds" in str(failure(result))
        assert sorted(tmp_path.rglob("*")) == files
