from neurolake_dagster.settings import SparkSettings, StorageSettings
from neurolake_dagster.spark.conf import KEYS, S3_KEYS, SWITCHES, build_conf, choose

KEYS_OF_STORAGE = {"access_key": "id", "secret_key": "hidden"}


def conf(storage: dict[str, object] | None = None, /, **options: object) -> dict[str, str]:
    return build_conf(SparkSettings.load({}, **options), StorageSettings.load({}, **storage or {}))


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
    own = conf(storage, s3_access_key="own", s3_secret_key="other", s3_ssl_enabled=False)
    assert own[f"{prefix}access.key"] == "own"
    assert own[f"{prefix}connection.ssl.enabled"] == "false"


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
