from pathlib import Path

import pytest

from neurolake_dagster.errors import SettingsError
from neurolake_dagster.settings import CacheSettings, SparkSettings, StorageSettings
from neurolake_dagster.settings.checks import same_value
from neurolake_dagster.settings.example import render_example
from neurolake_dagster.settings.profiles import CLUSTER, EXECUTORS

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


def test_broken_rules_are_told_with_wrong_values() -> None:
    """Rules between fields were checked only once every single value was right."""
    options = {"dynamic_allocation_min_executors": 11, "s3_access_key": "alone"}
    with pytest.raises(SettingsError) as told:
        SparkSettings.load({}, driver_memory="banana", **options)
    message = str(told.value)
    assert message.startswith("3 settings are wrong: driver_memory: ")
    assert "expected min <= initial <= max, got 11, 10, 10" in message
    assert "s3_access_key, s3_secret_key: expected both or neither" in message


def test_a_rule_about_a_wrong_value_is_not_told() -> None:
    with pytest.raises(SettingsError) as told:
        SparkSettings.load(
            {}, dynamic_allocation_max_executors="x", dynamic_allocation_initial_executors=11
        )
    assert "min <= initial" not in str(told.value)


@pytest.mark.parametrize("form", ["NEUROLAKE_SPARK_", "NEUROLAKE_SPARK__"])
def test_a_problem_is_told_under_the_name_that_was_used(form: str) -> None:
    environment = {f"{form}EXECUTOR_MEMORY": "banana", f"{form}S3_ACCESS_KEY": "hidden"}
    with pytest.raises(SettingsError) as told:
        SparkSettings.load(environment)
    assert f"{form}EXECUTOR_MEMORY: expected a size" in str(told.value)
    assert f"{form}S3_ACCESS_KEY, NEUROLAKE_SPARK__S3_SECRET_KEY: expected both" in str(told.value)
    assert "hidden" not in str(told.value)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("driver_memory", "2 gb"),
        ("driver_memory", "1bb"),
        ("driver_memory", "400m"),
        ("executor_memory", "0"),
        ("driver_max_result_size", "1k"),
        ("sql_files_maxPartitionBytes", "0"),
        ("sql_files_maxPartitionBytes", "٣"),
        ("sql_autoBroadcastJoinThreshold", "8192p"),  # Spark counts in 64 bits
        ("shuffle_partitions", 1 << 31),  # and in 32 bits
        ("executor_instances", 1 << 31),
        ("aqe_skew_join_skewed_partition_factor", float("inf")),
        ("s3_multipart_size", "1k"),
        ("s3_multipart_threshold", "4m"),
        ("s3_fast_upload_buffer", "banana"),
        ("session_timezone", "Mars/Phobos"),
        ("session_timezone", "+19:00"),
        ("session_timezone", "Europe"),
        ("master", "banana"),
        ("master", "local[0]"),
        ("master", "spark://host"),
        ("sql_autoBroadcastJoinThreshold", "-2"),
        ("memory_fraction", 1.0),
        ("ui_port", 80),
        ("dynamic_allocation_initial_executors", 11),
        ("serializer", "pickle"),
        ("remote", "http://host"),
        ("remote", "sc://host/token=t"),
        ("remote", "sc://host:65536"),
        ("remote", "sc://[::1]:0/"),
        ("s3_access_key", "alone"),
        ("s3_session_token", "alone"),
        ("s3_endpoint", "ftp://host"),
        ("s3_endpoint", "https://id:key@host"),
    ],
)
def test_wrong_value_is_refused_by_name(option: str, value: object) -> None:
    with pytest.raises(SettingsError, match=option):
        SparkSettings.load({}, **{option: value})


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        ("1024m", "1G", True),
        ("True", "true", True),
        ("dynamic", "DYNAMIC", True),
        (None, None, True),
        (None, "", False),
        ("file:/data/W", "file:/data/w", False),
        ("aB3/x", "Ab3/x", False),
    ],
)
def test_the_same_value_is_one_that_spark_reads_alike(
    one: str | None, other: str | None, is_same: bool
) -> None:
    """A second session ran in the warehouse of the first, of the same name in another case."""
    assert same_value(one, other) == is_same


@pytest.mark.parametrize(
    ("option", "value", "taken"),
    [
        ("driver_memory", "2gb", "2g"),  # Java's -Xmx takes one letter
        ("executor_memory", "2048", "2048m"),
        ("executor_memory", "1073741824b", "1048576k"),
        ("executor_memory_overhead", "0", "0"),
        ("driver_max_result_size", "0", "0"),
        ("s3_multipart_threshold", "64mb", "64m"),  # so does Hadoop
        ("s3_multipart_size", "8388608b", "8388608"),
        ("sql_files_maxPartitionBytes", "64mb", "64mb"),
        ("sql_autoBroadcastJoinThreshold", "-1", "-1"),
        ("session_timezone", "GMT+1", "GMT+1"),
        ("session_timezone", "+05:30", "+05:30"),
        ("master", "local[2,3]", "local[2,3]"),
        ("master", "spark://a:7077,b:7077", "spark://a:7077,b:7077"),
        ("master", "k8s://https://api:6443", "k8s://https://api:6443"),
        ("remote", "sc://host:443/;token=t;use_ssl=true", "sc://host:443/;token=t;use_ssl=true"),
    ],
)
def test_right_value_is_taken_in_a_form_that_works(option: str, value: str, taken: str) -> None:
    assert getattr(SparkSettings.load({}, **{option: value}), option) == taken


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"dynamic_allocation_max_executors": 1}, (1, 1, 1)),
        ({"profile": "production", "dynamic_allocation_max_executors": 5}, (2, 5, 5)),
        ({"profile": "production", "dynamic_allocation_max_executors": 2}, (2, 2, 2)),
        ({"profile": "production", "dynamic_allocation_min_executors": 40}, (40, 40, 50)),
        ({"profile": "production", "dynamic_allocation_initial_executors": 20}, (2, 20, 50)),
    ],
)
def test_what_is_set_bounds_what_is_not(
    options: dict[str, object], found: tuple[int, int, int]
) -> None:
    """A profile's 10 initial executors stayed above a maximum of 5 that was set."""
    settings = SparkSettings.load({}, master="yarn", **options)
    unset = settings.unset_values()
    assert tuple(unset.get(name, getattr(settings, name)) for name in EXECUTORS) == found


def test_more_executors_than_a_profile_allows_are_refused() -> None:
    options = {"profile": "production", "dynamic_allocation_min_executors": 51}
    with pytest.raises(SettingsError, match="got 51, 50, 50"):
        SparkSettings.load({}, **options)


def test_the_clusters_profile_is_the_defaults() -> None:
    defaults = SparkSettings.load({}, master="yarn")
    assert {name: getattr(defaults, name) for name in EXECUTORS} == CLUSTER
    assert defaults.unset_values() == {}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"spark.my.password": "hidden', "expected a JSON object, got what JSON cannot read"),
        ('["hidden"]', "expected a JSON object, got another kind (list)"),
        ('{"spark.a": {"b": null}, "spark.c": ["hidden"]}', "spark.a.b (NoneType)', 'spark.c"),
    ],
    ids=["broken", "a list", "values"],
)
def test_wrong_extra_configs_are_told_without_their_text(text: str, told: str) -> None:
    with pytest.raises(SettingsError) as error:
        SparkSettings.load({"NEUROLAKE_SPARK_EXTRA_CONFIGS": text})
    assert str(error.value).startswith("NEUROLAKE_SPARK_EXTRA_CONFIGS: ")
    assert told in str(error.value)
    assert "hidden" not in str(error.value)


def test_wrong_jars_are_told_without_their_text() -> None:
    with pytest.raises(SettingsError, match="JARS: expected a JSON list") as error:
        SparkSettings.load({"NEUROLAKE_SPARK__JARS": "hidden.jar"})
    assert "hidden" not in str(error.value)


def test_extra_configs_are_text_whatever_json_has() -> None:
    text = '{"spark": {"a": {"on": true}, "b": 3}, "spark.c": 0.5}'
    found = SparkSettings.load({"NEUROLAKE_SPARK__EXTRA_CONFIGS": text}).extra_configs
    assert found == {"spark.a.on": "true", "spark.b": "3", "spark.c": "0.5"}


def test_extra_configs_may_say_where_spark_runs() -> None:
    extras = {"spark.master": "local[3]", "spark.x": "1"}
    settings = SparkSettings.load({}, extra_configs=extras)
    assert (settings.master, settings.extra_configs) == ("local[3]", {"spark.x": "1"})
    with pytest.raises(SettingsError, match=r"spark\.master contradicts master; drop one"):
        SparkSettings.load({}, extra_configs=extras, master="yarn")


def test_a_given_key_takes_no_token_of_the_environment() -> None:
    environment = {
        "NEUROLAKE_STORAGE__ACCESS_KEY": "theirs",
        "NEUROLAKE_STORAGE__SECRET_KEY": "theirs",
        "NEUROLAKE_STORAGE__SESSION_TOKEN": "theirs",
    }
    assert StorageSettings.load(environment).session_token is not None
    own = StorageSettings.load(environment, access_key="own", secret_key="own")
    assert own.session_token is None


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
    ("remote", "shown"),
    [
        ("sc://host:443/;token=hidden;x-cluster=hidden", "sc://host:443/***"),
        ("sc://host/", "sc://host"),
        ("sc://host:15002", "sc://host:15002"),
        ("auto", "auto"),
    ],
)
def test_a_remotes_token_is_in_no_text(remote: str, shown: str) -> None:
    settings = SparkSettings.load({}, remote=remote)
    assert settings.remote == remote
    assert f"remote={shown!r}" in repr(settings)
    texts = f"{settings!r} {settings} {settings.model_dump()} {settings.model_dump_json()}"
    assert "hidden" not in texts


@pytest.mark.parametrize(
    "remote",
    [
        *("http://h/;token=hidden", "sc://h;token=hidden", "sc://u:hidden@h/", "h;t=hidden"),
        "sc://h/;token=hidden==",  # pyspark refuses it, and shows it
    ],
)
def test_a_wrong_remote_is_told_without_its_token(remote: str) -> None:
    with pytest.raises(SettingsError, match="remote: expected sc://host:port") as error:
        SparkSettings.load({}, remote=remote)
    assert "hidden" not in str(error.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("spark.hadoop.fs.azure.account.key.a.blob.core.windows.net", "hidden"),
        ("spark.hadoop.fs.azure.sas.container.account", "hidden"),
        ("spark.hadoop.fs.azure.account.oauth2.client.secret", "hidden"),
        ("spark.hadoop.fs.s3a.encryption.key", "hidden"),
        ("spark.my.apiKey", "hidden"),
        ("spark.my.Password", "hidden"),
        ("spark.kafka.sasl.jaas.config", "hidden"),
        ("spark.my.proxy", "http://user:hidden@proxy:3128"),
    ],
)
def test_secrets_among_extra_configs_are_in_no_text(key: str, value: str) -> None:
    settings = SparkSettings.load({}, extra_configs={key: value, "spark.shown": "seen"})
    texts = f"{settings!r} {settings} {settings.model_dump()} {settings.model_dump_json()}"
    assert "seen" in texts
    assert "hidden" not in texts


@pytest.mark.parametrize("key", ["spark.ssl.keyStore", "spark.sql.keyed", "spark.kansas.city"])
def test_other_keys_are_shown(key: str) -> None:
    assert "seen" in repr(SparkSettings.load({}, extra_configs={key: "seen"}))


@pytest.mark.parametrize(
    ("arguments", "tls"),
    [
        ({}, True),
        ({"endpoint": "localhost:9000"}, False),
        ({"endpoint": "https://s3.example"}, True),
        ({"endpoint": "http://s3.example"}, False),
        ({"endpoint": "s3.example", "secure": True}, True),
        ({"endpoint": "s3.eu-1.amazonaws.com"}, True),
    ],
    ids=["aws", "bare", "https", "http", "secure", "aws by name"],
)
def test_tls_follows_the_endpoint(arguments: dict[str, object], tls: bool) -> None:
    assert StorageSettings.load({}, **arguments).uses_tls is tls


def test_tls_is_never_silently_dropped() -> None:
    with pytest.raises(
        SettingsError, match=r"secure.*: False contradicts the scheme of https://s3\.example"
    ):
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
    with pytest.raises(SettingsError, match="scheme 'gs'"):
        StorageSettings.load({}, root="gs://bucket/x")


def test_cache_folder_comes_from_the_environment() -> None:
    assert CacheSettings.load({"NEUROLAKE_CACHE__DIR": "/c"}).dir == Path("/c")


def test_example_file_lists_every_name() -> None:
    """Regenerate it by `python -m neurolake_dagster.settings.example > .env.example`."""
    assert (ROOT / ".env.example").read_text() == render_example()


def test_example_file_lists_the_members_of_closed_sets() -> None:
    text = render_example()
    for words in ("keep, stop", "local, cluster, production", "disk, array, bytebuffer"):
        assert f"(one of {words})" in " ".join(text.replace("\n# ", " ").split())
