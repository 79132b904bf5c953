import os
import sys
from pathlib import Path

import pytest

from neurolake_dagster.errors import SettingsError
from neurolake_dagster.settings import SparkSettings, StorageSettings
from neurolake_dagster.spark.conf import (
    KEYS,
    MACHINE_CREDENTIALS,
    S3_KEYS,
    SWITCHES,
    Choice,
    bucket_options,
    build_conf,
    choose,
    jar_conf,
    launch_environment,
    s3_options,
)
from neurolake_dagster.spark.effective import as_table, planned
from neurolake_dagster.storage import StorageOptions

S3A = "spark.hadoop.fs.s3a."
KEYS_OF_STORAGE = {"access_key": "id", "secret_key": "hidden"}


def conf(storage: dict[str, object] | None = None, /, **options: object) -> dict[str, str]:
    return build_conf(*settings_of(storage, options))


def settings_of(
    storage: dict[str, object] | None, options: dict[str, object]
) -> tuple[SparkSettings, StorageSettings]:
    return SparkSettings.load({}, **options), StorageSettings.load({}, **storage or {})


def options_of(storage: dict[str, object], /, **options: object) -> StorageOptions:
    return s3_options(*settings_of(storage, options))


def chosen(storage: dict[str, object] | None = None, /, **options: object) -> dict[str, Choice]:
    return {one.option: one for one in choose(*settings_of(storage, options))}


def test_cluster_gets_the_published_defaults() -> None:
    found = conf(master="spark://host:7077")
    assert found["spark.executor.memory"] == "4g"
    assert found["spark.executor.memoryOverhead"] == "1g"
    assert found["spark.driver.memory"] == "2g"
    assert found["spark.dynamicAllocation.enabled"] == "true"
    assert found["spark.dynamicAllocation.shuffleTracking.enabled"] == "true"
    assert found["spark.sql.shuffle.partitions"] == "200"
    assert "spark.databricks.delta.snapshotPartitions" not in found


def test_local_master_follows_the_machine_unless_set() -> None:
    assert conf(master="local[3]")["spark.sql.shuffle.partitions"] == "3"
    assert conf(master="local[3]")["spark.dynamicAllocation.enabled"] == "false"
    assert conf(master="local[3]", shuffle_partitions=7)["spark.sql.shuffle.partitions"] == "7"
    assert conf(master="local[3]", driver_memory="3g")["spark.driver.memory"] == "3g"


def test_s3_options_inherit_from_the_storage() -> None:
    storage = {"endpoint": "https://minio:9000", "region": "eu-1", **KEYS_OF_STORAGE}
    found = conf(storage, s3_region="us-2")
    prefix = "spark.hadoop.fs.s3a."
    assert found[f"{prefix}endpoint"] == "minio:9000"
    assert found[f"{prefix}connection.ssl.enabled"] == "true"
    assert found[f"{prefix}access.key"] == "id"
    assert found[f"{prefix}secret.key"] == "hidden"
    assert found[f"{prefix}endpoint.region"] == "us-2"
    assert found[f"{prefix}multipart.threshold"] == "52428800"
    own = conf(storage, s3_access_key="own", s3_secret_key="other")
    assert own[f"{prefix}access.key"] == "own"


def test_keys_and_token_are_inherited_as_one() -> None:
    """Spark's own keys went with the storage's session token, which S3 refuses."""
    storage = {**KEYS_OF_STORAGE, "session_token": "theirs"}
    inherited = conf(storage)
    assert inherited[f"{S3A}session.token"] == "theirs"
    assert "Temporary" in inherited[f"{S3A}aws.credentials.provider"]
    own = conf(storage, s3_access_key="own", s3_secret_key="other")
    assert not {f"{S3A}session.token", f"{S3A}aws.credentials.provider"} & own.keys()
    options = options_of(storage, s3_access_key="own", s3_secret_key="other")
    assert (options.access_key, options.session_token) == ("own", None)


def test_a_bucket_has_options_of_its_own_as_for_s3a() -> None:
    """The format ncf looked for it in the store of all others, where Parquet and Delta did not."""
    own = {
        "bucket.my.b.endpoint": "other:1",
        "bucket.my.b.access.key": "own",
        "bucket.my.b.secret.key": "other",
        "bucket.my.b.endpoint.region": "eu-1",
        "bucket.b.connection.ssl.enabled": "true",
    }
    storage = {"endpoint": "minio:9000", "session_token": "theirs", **KEYS_OF_STORAGE}
    extras = {f"{S3A}{name}": value for name, value in own.items()}
    found = bucket_options(*settings_of(storage, {"extra_configs": extras}))
    keys = {"access_key": "own", "secret_key": "other"}
    assert found["my.b"] == StorageOptions(endpoint="other:1", region="eu-1", **keys)
    keys = {**KEYS_OF_STORAGE, "session_token": "theirs"}
    assert found["b"] == StorageOptions(endpoint="minio:9000", secure=True, **keys)
    assert found.keys() == {"my.b", "b"}


@pytest.mark.parametrize(
    ("storage", "options", "tls", "origin"),
    [
        ({}, {}, True, "default"),
        ({"endpoint": "minio:9000"}, {}, False, "default"),
        ({"endpoint": "https://minio:9000"}, {}, True, "storage"),
        ({"endpoint": "minio:9000", "secure": True}, {}, True, "storage"),
        ({"endpoint": "minio:9000"}, {"s3_endpoint": "https://other"}, True, "field"),
        ({"endpoint": "https://minio:9000"}, {"s3_endpoint": "other:9000"}, True, "storage"),
        ({"endpoint": "https://minio:9000"}, {"s3_endpoint": "http://other"}, False, "field"),
        ({"endpoint": "minio:9000"}, {"s3_ssl_enabled": True}, True, "field"),
        ({}, {"s3_endpoint": "minio:9000"}, False, "default"),
        ({"endpoint": "minio:9000"}, {"profile": "production"}, True, "profile"),
        ({"endpoint": "http://minio:9000"}, {"profile": "production"}, False, "storage"),
        ({"endpoint": "minio", "secure": False}, {"profile": "production"}, False, "storage"),
        ({}, {"profile": "production", "s3_ssl_enabled": False}, False, "field"),
    ],
)
def test_tls_is_decided_once_for_s3a_and_ncf(
    storage: dict[str, object], options: dict[str, object], tls: bool, origin: str
) -> None:
    """An endpoint's https was dropped, and production's TLS overrode what was set."""
    found = conf(storage, **options)[f"{S3A}connection.ssl.enabled"]
    assert found == str(tls).lower()
    ncf = options_of(storage, **options)
    assert ncf.secure is tls
    assert ncf.endpoint_url.startswith("https://" if tls else "http://")
    assert chosen(storage, **options)["s3_ssl_enabled"].origin == origin


@pytest.mark.parametrize(
    ("storage", "options"),
    [
        ({}, {"s3_endpoint": "https://minio", "s3_ssl_enabled": False}),
        ({}, {"s3_endpoint": "http://minio", "s3_ssl_enabled": True}),
        ({"endpoint": "https://minio"}, {"s3_ssl_enabled": False}),
    ],
)
def test_tls_is_never_dropped_or_faked(
    storage: dict[str, object], options: dict[str, object]
) -> None:
    with pytest.raises(SettingsError, match=r"s3_ssl_enabled.* contradicts"):
        conf(storage, **options)


def test_without_keys_s3a_takes_what_the_machine_has() -> None:
    """S3A's own providers pass over profiles, which Arrow's side of a table read."""
    provider = f"{S3A}aws.credentials.provider"
    assert conf()[provider] == MACHINE_CREDENTIALS
    assert provider not in conf({"access_key": "a", "secret_key": "s"})
    assert conf(extra_configs={provider: "theirs"})[provider] == "theirs"


def test_only_the_local_profile_gives_up_on_s3_early() -> None:
    """Jobs on a cluster gave up on a throttled store after seconds."""
    keys = {f"{S3A}attempts.maximum", f"{S3A}retry.limit", f"{S3A}connection.establish.timeout"}
    assert keys <= conf(master="local[2]").keys()
    assert not keys & conf(master="yarn").keys()
    assert not keys & conf(master="local[2]", profile="production").keys()


def test_inheritance_changes_no_object() -> None:
    storage = StorageSettings.load({}, **KEYS_OF_STORAGE)
    settings = SparkSettings.load({})
    before = storage.model_dump(), settings.model_dump()
    build_conf(settings, storage)
    assert (storage.model_dump(), settings.model_dump()) == before


def test_switches_leave_no_keys() -> None:
    found = conf(s3_enabled=False, delta_enabled=False)
    assert not [key for key in found if "s3" in key or "delta" in key or "extensions" in key]


def test_extra_configs_win_and_keep_their_case() -> None:
    found = conf(extra_configs={"spark.sql.caseSensitive": "true", "spark.app.name": "mine"})
    assert found["spark.sql.caseSensitive"] == "true"
    assert found["spark.app.name"] == "mine"


def test_every_option_reaches_spark() -> None:
    elsewhere = {"master", "remote", "profile", "teardown", "neurolake_ncf_enabled", "jars"}
    found = set(KEYS) | set(S3_KEYS) | set(SWITCHES) | elsewhere | {"extra_configs"}
    assert found == set(SparkSettings.model_fields)


def test_profiles() -> None:
    production = conf(master="spark://host:7077", profile="production")
    assert production["spark.executor.memory"] == "16g"
    assert production["spark.driver.memory"] == "8g"
    assert production["spark.dynamicAllocation.maxExecutors"] == "50"
    assert production["spark.eventLog.enabled"] == "true"
    assert production["spark.hadoop.fs.s3a.connection.ssl.enabled"] == "true"
    assert production["spark.sql.shuffle.partitions"] == "500"
    assert conf(profile="production", executor_memory="9g")["spark.executor.memory"] == "9g"
    assert conf(master="local[2]", profile="cluster")["spark.sql.shuffle.partitions"] == "200"


def test_every_choice_names_its_origin() -> None:
    settings = SparkSettings.load({"NEUROLAKE_SPARK__UI_PORT": "5000"}, app_name="mine")
    storage = StorageSettings.load({}, region="eu-1")
    origins = {choice.option: choice.origin for choice in choose(settings, storage)}
    assert origins["app_name"] == "field"
    assert origins["ui_port"] == "environment"
    assert origins["s3_region"] == "storage"
    assert origins["driver_memory"] == "profile"
    assert origins["executor_memory"] == "default"


@pytest.mark.parametrize(
    "master", ["local[2]", "spark://127.0.0.1:7077", "spark://localhost:7077,[::1]:7077"]
)
def test_a_spark_of_this_machine_stays_on_loopback(
    master: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYSPARK_PYTHON", raising=False)
    found = launch_environment(SparkSettings.load({}, master=master))
    assert found["SPARK_LOCAL_IP"] == "127.0.0.1"
    python = Path(found["PYSPARK_PYTHON"])
    assert python.parents[1] == Path(sys.prefix).resolve()
    assert python.samefile(sys.executable)
    keys = conf(master=master)
    assert keys["spark.driver.host"] == keys["spark.driver.bindAddress"] == "127.0.0.1"
    assert keys["spark.pyspark.python"] == str(python)
    monkeypatch.setattr(sys, "executable", sys.executable.replace("/bin/", "/./bin/"))
    assert conf(master=master) == keys, "another spelling is another server"


@pytest.mark.parametrize(
    "master",
    ["spark://host:7077", "spark://localhost:7077,host:7077", "yarn", "k8s://https://127.0.0.1:1"],
)
def test_a_clusters_driver_is_not_bound_to_loopback(
    master: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Executors on other hosts were told to reach the driver at 127.0.0.1."""
    monkeypatch.delenv("PYSPARK_PYTHON", raising=False)
    found = launch_environment(SparkSettings.load({}, master=master))
    assert "SPARK_LOCAL_IP" not in found
    assert found["PYSPARK_PYTHON"] == "python3"
    keys = {"spark.driver.host", "spark.driver.bindAddress", "spark.pyspark.python"}
    assert not keys & conf(master=master).keys()
    own = conf(master=master, driver_host="driver.lan", python="/opt/python")
    assert own["spark.driver.host"] == "driver.lan"
    assert own["spark.pyspark.python"] == "/opt/python"


@pytest.mark.parametrize(("mask", "expected"), [(0o022, "true"), (0o077, "true"), (0o002, None)])
def test_workers_have_sockets_that_others_of_the_machine_cannot_write_to(
    mask: int, expected: str | None
) -> None:
    """Unlike Spark's TCP, they ask for no secret."""
    former = os.umask(mask)
    try:
        found = conf().get("spark.python.unix.domain.socket.enabled")
        kept = os.umask(mask)
    finally:
        os.umask(former)
    assert (found, kept) == (expected, mask)


def test_the_workers_python_is_the_option_then_sparks_variable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PYSPARK_PYTHON", "/theirs")
    assert launch_environment(SparkSettings.load({}))["PYSPARK_PYTHON"] == "/theirs"
    own = SparkSettings.load({}, python="/own")
    assert launch_environment(own)["PYSPARK_PYTHON"] == "/own"


@pytest.mark.skipif(sys.platform != "linux", reason="forks after imports are safe on Linux only")
def test_workers_that_run_this_python_are_forked_from_our_daemon() -> None:
    key = "spark.python.daemon.module"
    here = conf(master="local[2]", python=str(Path(sys.prefix) / "bin" / "python"))
    assert here[key] == conf(master="local[2]")[key] == "neurolake_dagster.spark.daemon"
    assert key not in conf(master="local[2]", python="/opt/python")
    assert key not in conf(master="spark://there:7077", python="/opt/python")
    assert conf(master="local[2]", extra_configs={key: "own.daemon"})[key] == "own.daemon"


@pytest.mark.parametrize("profile", ["local", "cluster", "production"])
def test_a_profiles_options_can_be_shown_without_a_session(profile: str) -> None:
    options = {"profile": profile, "s3_access_key": "id", "s3_secret_key": "hidden"}
    rows = planned(*settings_of({}, options))
    assert [row.option for row in rows] == list(SparkSettings.model_fields)
    table = as_table(rows)
    lines = {line.split()[0]: line for line in table.splitlines() if not line.startswith(" ")}
    assert lines["profile"].split() == ["profile", profile, "field", "profile", "=", profile]
    assert "spark.shuffle.compress = true" in lines["shuffle_compress"]
    assert "*** (set)" in lines["s3_secret_key"]
    assert "hidden" not in table


@pytest.mark.parametrize(
    ("jar", "listed"),
    [
        ("/a b/ü.jar", "/a b/ü.jar"),
        ("/C#/x.jar", "file:///C%23/x.jar"),
        ("/a,b/x.jar", "file:///a%2Cb/x.jar"),
    ],
)
def test_jars_are_listed_so_that_spark_finds_them(jar: str, listed: str) -> None:
    """In a folder with a comma or a # no jar was found, so no format."""
    assert jar_conf([Path(jar)], SparkSettings.load({})) == {"spark.jars": listed}
