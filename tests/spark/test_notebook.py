"""The two functions for notebooks, on the run's one session."""

import pytest
from pyspark.sql import SparkSession

from neurolake_dagster.errors import SessionConflictError, SettingsError
from neurolake_dagster.resources import SparkResource
from neurolake_dagster.spark import get_spark_config, get_spark_session


def test_config_is_the_environments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEUROLAKE_SPARK__SHUFFLE_PARTITIONS", "12")
    monkeypatch.setenv("NEUROLAKE_SPARK_APP_NAME", "notebook")
    found = get_spark_config()
    assert (found.shuffle_partitions, found.app_name) == (12, "notebook")
    monkeypatch.setenv("NEUROLAKE_SPARK__SHUFFLE_PARTITIONS", "many")
    with pytest.raises(SettingsError, match="NEUROLAKE_SPARK__SHUFFLE_PARTITIONS"):
        get_spark_config()


def test_wrong_options_are_refused_before_anything_starts() -> None:
    with pytest.raises(SettingsError, match="no such setting; did you mean shuffle_partitions"):
        get_spark_session({"shuffle_partition": 3})
    with pytest.raises(SettingsError, match="driver_memory"):
        get_spark_session({"driver_memory": "banana"})


@pytest.mark.spark
def test_session_is_the_resources(
    spark: SparkSession, spark_resource: SparkResource, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"master": "local[2]", "ui_enabled": False, "app_name": "tests"}
    assert get_spark_session(options) is spark
    assert get_spark_session(spark_resource.settings()) is spark
    for name, value in options.items():
        monkeypatch.setenv(f"NEUROLAKE_SPARK__{name.upper()}", str(value))
    assert get_spark_session() is spark


@pytest.mark.spark
def test_options_give_a_session_of_their_own(
    spark: SparkSession, spark_resource: SparkResource
) -> None:
    options = {"master": "local[2]", "ui_enabled": False, "app_name": "tests"}
    other = get_spark_session(options | {"shuffle_partitions": 9})
    assert other is not spark
    assert other.conf.get("spark.sql.shuffle.partitions") == "9"
    with pytest.raises(SessionConflictError, match=r"spark\.driver\.memory"):
        get_spark_session(options | {"driver_memory": "777m"})
