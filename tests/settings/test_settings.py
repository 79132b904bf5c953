from pathlib import Path

import pytest

from neurolake_dagster.errors import SettingsError
from neurolake_dagster.settings import CacheSettings, SparkSettings, StorageSettings
from neurolake_dagster.settings.example import render_example

ROOT = Path(__file__).parents[2]


def test_arguments_win_over_both_environment_forms() -> None:
    weak = {"NEUROLAKE_SPARK_UI_PORT": "5001"}
    strong = weak | {"NEUROLAKE_SPARK__UI_PORT": "5002"}
    assert SparkSettings.load({}).ui_port == 4040
    assert SparkSettings.load(weak).ui_port == 5001
    assert SparkSettings.load(strong).ui_port == 5002
    assert SparkSettings.load(strong, ui_port=5003).ui_port == 5003


def test_empty_value_counts_as_not_set() -> None:
    assert SparkSettings.load({"NEUROLAKE_SPARK__UI_PORT": ""}).ui_port == 4040


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("NEUROLAKE_SPARK__EXECUTER_MEMORY", "NEUROLAKE_SPARK__EXECUTOR_MEMORY"),
        ("NEUROLAKE_SPARK__MASTERS", "NEUROLAKE_SPARK__MASTER"),
    ],
)
def test_unknown_name_is_refused_with_the_nearest(name: str, near: str) -> None:
    with pytest.raises(SettingsError, match=rf"{name}: no such setting; did you mean {near}\?"):
        SparkSettings.load({name: "1"})


def test_unknown_single_underscore_name_is_somebody_elses() -> None:
    assert SparkSettings.load({"NEUROLAKE_SPARK_HOME": "x"}) == SparkSettings.load({})


def test_all_problems_are_told_at_once() -> None:
    environment = {
        "NEUROLAKE_SPARK__EXECUTOR_MEMORY": "banana",
        "NEUROLAKE_SPARK__EXECUTOR_CORES": "33",
        "NEUROLAKE_SPARK__LOG_LEVEL": "LOUD",
        "NEUROLAKE_SPARK__NOPE": "1",
    }
    with pytest.raises(SettingsError) as told:
        SparkSettings.load(environment, compression_codec="rar")
    message = str(told.value)
    assert message.startswith("5 settings are wrong: ")
    for part in ("'banana'", "33", "'LOUD'", "NEUROLAKE_SPARK__NOPE", "compression_codec", "zstd"):
        assert part in message


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("driver_memory", "2 gb"),
        ("sql_autoBroadcastJoinThreshold", "-2"),
        ("memory_fraction", 1.0),
        ("ui_port", 80),
        ("dynamic_allocation_initial_executors", 11),
        ("serializer", "pickle"),
        ("remote", "http://host"),
        ("s3_access_key", "alone"),
    ],
)
def test_wrong_value_is_refused_by_name(option: str, value: object) -> None:
    with pytest.raises(SettingsError, match=option):
        SparkSettings.load({}, **{option: value})


def test_extra_configs_keep_the_case_of_their_keys() -> None:
    environment = {"NEUROLAKE_SPARK__EXTRA_CONFIGS": '{"spark.sql.caseSensitive": "true"}'}
    assert SparkSettings.load(environment).extra_configs == {"spark.sql.caseSensitive": "true"}


def test_settings_are_immutable() -> None:
    with pytest.raises(ValueError, match="frozen"):
        SparkSettings.load({}).ui_port = 4041  # type: ignore[misc]


def test_secrets_are_in_no_text() -> None:
    environment = {
        "NEUROLAKE_STORAGE__ACCESS_KEY": "hidden-1",
        "NEUROLAKE_STORAGE__SECRET_KEY": "hidden-2",
    }
    settings = StorageSettings.load(environment)
    assert settings.secret_key is not None
    assert settings.secret_key.get_secret_value() == "hidden-2"
    assert "hidden" not in f"{settings!r} {settings} {settings.model_dump_json()}"
    with pytest.raises(SettingsError) as told:
        StorageSettings.load(environment | {"NEUROLAKE_STORAGE__SECRET_KEY": ""})
    assert "hidden" not in str(told.value)


@pytest.mark.parametrize(
    ("arguments", "tls"),
    [
        ({}, True),
        ({"endpoint": "localhost:9000"}, False),
        ({"endpoint": "https://s3.example"}, True),
        ({"endpoint": "http://s3.example"}, False),
        ({"endpoint": "s3.example", "secure": True}, True),
    ],
    ids=["aws", "bare", "https", "http", "secure"],
)
def test_tls_follows_the_endpoint(arguments: dict[str, object], tls: bool) -> None:
    assert StorageSettings.load({}, **arguments).uses_tls is tls


def test_tls_is_never_silently_dropped() -> None:
    with pytest.raises(SettingsError, match="contradicts the endpoint's scheme https"):
        StorageSettings.load({}, endpoint="https://s3.example", secure=False)


def test_a_bucket_is_the_root_unless_that_is_set() -> None:
    bucket = {"NEUROLAKE_STORAGE__DATA_BUCKET": "lake"}
    assert StorageSettings.load(bucket).root == "s3://lake"
    assert StorageSettings.load(bucket, root="s3://other/x").root == "s3://other/x"
    rooted = bucket | {"NEUROLAKE_STORAGE_ROOT": "data/shop"}
    assert StorageSettings.load(rooted).root == "data/shop"
    with pytest.raises(SettingsError, match="TEMP_BUCKET"):
        StorageSettings.load({"NEUROLAKE_STORAGE__TEMP_BUCKET": "x"})


def test_root_takes_folders_and_buckets_only() -> None:
    assert StorageSettings.load({}, root="s3://bucket/x").is_s3
    with pytest.raises(SettingsError, match="scheme 'gs'"):
        StorageSettings.load({}, root="gs://bucket/x")


def test_cache_folder_comes_from_the_environment() -> None:
    assert CacheSettings.load({"NEUROLAKE_CACHE__DIR": "/c"}).dir == Path("/c")


def test_example_file_lists_every_name() -> None:
    """Regenerate it by `python -m neurolake_dagster.settings.example > .env.example`."""
    assert (ROOT / ".env.example").read_text() == render_example()
