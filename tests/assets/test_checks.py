"""The proofs of conversions, run by Dagster against tables on disk."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from neurolake_dagster.assets.checks import build_parity_checks, dataset_of
from neurolake_dagster.definitions import defs
from neurolake_dagster.resources import StorageResource

SOURCE, TARGET = dg.AssetKey(["ncf", "t"]), dg.AssetKey(["parquet", "t"])
ROWS = pa.table({"name": ["a", None], "km": [1, 2]})
CHECKS = build_parity_checks(SOURCE, TARGET)


@pytest.fixture
def storage(tmp_path: Path) -> StorageResource:
    """Where source and target hold the same rows."""
    resource = StorageResource(root=str(tmp_path))
    for key in (SOURCE, TARGET):
        dataset_of(key, resource).write(ROWS.to_reader())
    return resource


def run(storage: StorageResource, selection: dg.AssetSelection) -> Iterator[tuple[str, bool, str]]:
    """Run some checks as a job of their own; each one's name, outcome and description."""
    result = (
        dg.Definitions(
            assets=[dg.AssetSpec(SOURCE), dg.AssetSpec(TARGET)],
            asset_checks=[CHECKS],
            jobs=[dg.define_asset_job("prove", selection=selection)],
            resources={"storage": storage},
        )
        .resolve_job_def("prove")
        .execute_in_process(raise_on_error=False)
    )
    for check in result.get_asset_check_evaluations():
        yield check.check_name, check.passed, check.description or ""


def test_equal_tables_pass_all_checks(storage: StorageResource) -> None:
    found = list(run(storage, dg.AssetSelection.checks_for_assets(TARGET)))
    assert [(name, passed) for name, passed, _ in found] == [
        ("row_count", True),
        ("schema", True),
        ("nulls", True),
        ("digest", True),
    ]


def test_a_file_with_other_columns_fails_the_schema_check(
    storage: StorageResource, tmp_path: Path
) -> None:
    """All checks passed: the log's schema was compared with the log's."""
    (file,) = (tmp_path / "parquet" / "t").glob("*.parquet")
    km = ROWS["km"].cast(pa.string())
    pq.write_table(ROWS.set_column(1, "km", km).append_column("extra", km), file)
    found = {
        name: (passed, text)
        for name, passed, text in run(storage, dg.AssetSelection.checks_for_assets(TARGET))
    }
    assert [name for name, (passed, _) in found.items() if not passed] == ["schema"]
    text = found["schema"][1]
    assert str(file) in text
    assert "with columns 'km' int64, got" in text
    assert text.endswith("with columns 'km' string, 'extra' string")


def test_one_check_runs_alone(storage: StorageResource) -> None:
    """The four could only run together."""
    key = dg.AssetCheckKey(TARGET, "digest")
    assert list(run(storage, dg.AssetSelection.checks(key))) == [("digest", True, "")]


def test_the_ui_runs_each_check_by_itself() -> None:
    """It asked for a materialization of the asset: what must run with a check is only itself."""
    graph = defs.resolve_asset_graph()
    for key in graph.asset_check_keys:
        assert graph.get_execution_set_asset_and_check_keys(key) == {key}
