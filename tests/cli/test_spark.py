"""`neurolake spark effective`: asked against running, and where each value came from."""

import json
from typing import Any

import pytest
from click.testing import CliRunner
from pyspark.sql import SparkSession

from neurolake_dagster.cli import main
from neurolake_dagster.settings import SparkSettings


def effective(*arguments: str) -> dict[str, dict[str, Any]]:
    found = CliRunner().invoke(main, ["spark", "effective", "--json", *arguments])
    assert found.exit_code == 0, found.output
    return {row["option"]: row for row in json.loads(found.stdout)}


@pytest.mark.parametrize(
    ("profile", "memory", "partitions"),
    [("cluster", "2g", "200"), ("production", "8g", "500"), ("local", None, None)],
)
def test_a_plan_of_each_profile_starts_no_session(
    profile: str, memory: str | None, partitions: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    # With it any start of a JVM fails.
    monkeypatch.setenv("JAVA_HOME", "/nowhere")
    monkeypatch.setenv("NEUROLAKE_SPARK__EXECUTOR_CORES", "3")
    rows = effective("--planned", "--profile", profile)
    assert set(rows) == set(SparkSettings.model_fields)
    assert rows["executor_cores"]["origin"] == "environment"
    assert rows["executor_cores"]["running"] == {"spark.executor.cores": "3"}
    if memory is not None:
        assert rows["driver_memory"]["running"] == {"spark.driver.memory": memory}
        assert rows["shuffle_partitions"]["running"] == {"spark.sql.shuffle.partitions": partitions}
    else:
        assert rows["driver_memory"]["origin"] == "profile"


def test_the_table_names_options_values_and_origins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEUROLAKE_SPARK__S3_ACCESS_KEY", "hidden-id")
    monkeypatch.setenv("NEUROLAKE_SPARK__S3_SECRET_KEY", "hidden-key")
    found = CliRunner().invoke(main, ["spark", "effective", "--planned"])
    assert found.exit_code == 0, found.output
    lines = {line.split()[0]: line for line in found.stdout.splitlines() if line[0] != " "}
    assert lines["option"].split() == ["option", "asked", "from", "running"]
    assert "environment" in lines["s3_secret_key"]
    assert "hidden" not in found.stdout


@pytest.mark.parametrize("seconds", ["0", "-5"])
def test_a_server_that_would_end_at_once_is_refused(seconds: str) -> None:
    found = CliRunner().invoke(main, ["spark", "start", "--idle-timeout", seconds])
    assert found.exit_code != 0
    assert "x>=1" in found.output


@pytest.mark.spark
def test_values_are_those_of_the_running_session(
    spark: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"MASTER": "local[2]", "UI_ENABLED": "false", "APP_NAME": "tests"}.items():
        monkeypatch.setenv(f"NEUROLAKE_SPARK__{name}", value)
    rows = effective()
    application = {"spark.app.name": spark.conf.get("spark.app.name")}
    assert rows["app_name"]["running"] == application == {"spark.app.name": "tests"}
    assert [name for name, row in rows.items() if not row["fits"]] == []
