"""The README's promises: its example runs as it stands, its commands and paths exist."""

import re
from pathlib import Path

import dagster as dg
import pyarrow as pa
import pytest

from neurolake_dagster.io_managers import DeltaIOManager
from neurolake_dagster.resources import StorageResource

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_the_example_project_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    module: dict[str, dg.Definitions] = {}
    exec(compile(blocks("python")[0], "README.md", "exec"), module)
    job = module["defs"].resolve_implicit_global_asset_job_def()
    assert job.execute_in_process().success
    shop = DeltaIOManager(storage=StorageResource(root="data/shop"))
    rows = shop.load_input(
        dg.build_input_context(
            asset_key=dg.AssetKey("large_orders"), dagster_type=dg.PythonObjectDagsterType(pa.Table)
        )
    )
    assert rows["id"].to_pylist() == [1]


def test_the_first_block_comes_within_60_words() -> None:
    assert len(README.split("```sh")[0].split()) <= 60
    assert "make demo" in blocks("sh")[0]
    assert "make test" in blocks("sh")[0]


@pytest.mark.parametrize(
    "target", sorted(set(re.findall(r"(?:`|^)make ([a-z0-9-]+)", README, re.MULTILINE)))
)
def test_every_make_target_named_exists(target: str) -> None:
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(([^)#:]+)\)", README))))
def test_every_file_linked_exists(link: str) -> None:
    assert (ROOT / link).exists()
