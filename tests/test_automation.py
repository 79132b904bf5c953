"""The sensor starts one run per new or changed source file, and none for what it knows."""

import os
import time
from pathlib import Path

import dagster as dg
import pytest

from neurolake_dagster.automation import SETTLED_S, every_morning, new_source_file
from neurolake_dagster.resources import SourceResource


def drop(
    folder: Path, name: str, text: str = "carrier,name\nUA,United\n", age_s: float = 60
) -> None:
    path = folder / name
    path.write_text(text)
    moment = time.time() - age_s
    os.utime(path, (moment, moment))


def tick(folder: Path, cursor: str | None = None) -> dg.SensorResult | dg.SkipReason:
    context = dg.build_sensor_context(
        cursor=cursor, resources={"sources": SourceResource(directory=str(folder))}
    )
    result = new_source_file(context)
    assert isinstance(result, dg.SensorResult | dg.SkipReason)
    return result


def launched(result: dg.SensorResult | dg.SkipReason) -> tuple[str, str]:
    """The one run's files and the new cursor."""
    assert isinstance(result, dg.SensorResult)
    assert result.run_requests is not None
    (request,) = result.run_requests
    assert result.cursor is not None
    return request.tags["neurolake/source_files"], result.cursor


def test_a_new_file_starts_one_run(tmp_path: Path) -> None:
    drop(tmp_path, "airlines.csv")
    files, cursor = launched(tick(tmp_path))
    assert files == "airlines.csv"
    assert isinstance(tick(tmp_path, cursor), dg.SkipReason)


def test_a_changed_file_starts_another_run(tmp_path: Path) -> None:
    drop(tmp_path, "airlines.csv")
    drop(tmp_path, "weather.csv")
    _, cursor = launched(tick(tmp_path))
    drop(tmp_path, "weather.csv", "origin\n", age_s=30)
    assert launched(tick(tmp_path, cursor))[0] == "weather.csv"


def test_a_file_that_is_put_back_starts_another_run(tmp_path: Path) -> None:
    """Its run key was the first run's, which Dagster takes for the same run."""
    keys, cursor = [], None
    for name in ("airlines", "airlines-new", "airlines", "airlines-new"):
        drop(tmp_path, f"{name}.csv", name)
        os.utime(tmp_path / f"{name}.csv", (1_000_000, 1_000_000))
        (tmp_path / f"{name}.csv").replace(tmp_path / "airlines.csv")
        result = tick(tmp_path, cursor)
        assert isinstance(result, dg.SensorResult)
        assert result.run_requests is not None
        keys += [request.run_key for request in result.run_requests]
        cursor = result.cursor
    assert len(set(keys)) == 4


@pytest.mark.parametrize(
    ("name", "age_s"),
    [("notes.txt", 60), ("airlines.csv", SETTLED_S / 5)],
    ids=["another file", "a file still being copied"],
)
def test_other_and_unfinished_files_are_left_alone(tmp_path: Path, name: str, age_s: float) -> None:
    drop(tmp_path, name, age_s=age_s)
    assert isinstance(tick(tmp_path), dg.SkipReason)


def test_the_schedule_runs_the_main_job_each_morning() -> None:
    assert every_morning.cron_schedule == "0 6 * * *"
    assert every_morning.job_name == "convert_flights"
