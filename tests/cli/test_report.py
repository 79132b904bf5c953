"""`neurolake report` where Dagster has nothing, and where it has much."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from click.testing import CliRunner

from neurolake_dagster.cli import main
from neurolake_dagster.cli.report import collect_facts


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as found:
        yield found


def materialize(instance: dg.DagsterInstance, partition: str, rows: int) -> None:
    instance.report_runless_asset_event(
        dg.AssetMaterialization(
            "daily", partition=partition, metadata={"dagster/partition_row_count": rows}
        )
    )


@pytest.mark.parametrize("command", [("report",), ("run", "convert_flights")])
@pytest.mark.parametrize(
    ("home", "words"),
    [
        ("", "not set"),
        ("home", "'home', expected an absolute path"),
        ("{}/dagster.yaml", "is a file, expected a folder"),
        ("{}", "holds no instance: "),
    ],
    ids=["unset", "relative", "a file", "wrong dagster.yaml"],
)
def test_an_instance_that_is_not_there_is_one_error(
    home: str,
    words: str,
    command: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Dagster's traceback was shown, and `run` left a folder below the working directory."""
    (tmp_path / "dagster.yaml").write_text("telemetri: {}\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DAGSTER_HOME", home.format(tmp_path))
    result = CliRunner().invoke(main, list(command))
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: DAGSTER_HOME: ")
    assert words in result.stderr
    assert not (tmp_path / "home").exists()


def test_a_report_makes_no_instance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "home"))
    result = CliRunner().invoke(main, ["report"])
    assert result.stderr.startswith(f"Error: DAGSTER_HOME: there is no folder {tmp_path / 'home'}")
    assert not (tmp_path / "home").exists()


def test_each_partition_counts_however_many_there_are(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of those materialized before the last thousand times nothing was told."""
    monkeypatch.setattr("neurolake_dagster.cli.report.PAGE_EVENTS", 10)
    for number in range(3):
        materialize(instance, f"p{number}", 7)
    for _ in range(20):
        materialize(instance, "often", 1)
    (facts,) = collect_facts(instance)
    assert (facts.partition_count, facts.row_count) == (4, 22)
