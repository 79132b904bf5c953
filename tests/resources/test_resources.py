import subprocess
import sys
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.remote_representation.external_data import RepositorySnap
from dagster_pyspark import PySparkResource
from pyspark.sql import DataFrame, SparkSession

from neurolake_dagster.errors import SettingsError
from neurolake_dagster.io_managers import LakeIOManager, ParquetIOManager
from neurolake_dagster.resources import SourceResource, SparkResource, StorageResource
from neurolake_dagster.settings import SparkSettings

SECRET = "never-to-be-read"


def snapshot_of(**resources: object) -> str:
    """What a code location sends to Dagster's UI, as it is serialized; no public way to it."""
    definitions = dg.Definitions(assets=[plain], resources=resources)
    snap = RepositorySnap.from_def(definitions.get_repository_def())
    return dg.serialize_value(snap)


@dg.asset
def plain() -> int:
    return 1


def test_spark_resource_has_a_field_for_every_option() -> None:
    fields = SparkResource.model_fields
    assert set(fields) == set(SparkSettings.model_fields) | {"storage", "spark_config"}
    assert all(field.description for field in fields.values())


@pytest.mark.parametrize(
    ("kind", "wrong", "near"),
    [
        (StorageResource, "rot", "root"),
        (SparkResource, "executor_memry", "executor_memory"),
        (SourceResource, "dir", "directory"),
        (ParquetIOManager, "mod", "mode"),
        (LakeIOManager, "formt", "format"),
    ],
)
def test_a_field_that_there_is_not_is_refused(kind: Any, wrong: str, near: str) -> None:
    """Dagster leaves it out: tables lay below the default root, in the default format."""
    with pytest.raises(SettingsError, match=f"{kind.__name__}: no field '{wrong}'.*mean {near}?"):
        kind(**{wrong: "x"})


def test_unset_fields_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEUROLAKE_SPARK__UI_PORT", "5050")
    monkeypatch.setenv("NEUROLAKE_STORAGE__ROOT", "/tables")
    assert SparkResource().settings().ui_port == 5050
    assert SparkResource(ui_port=6060).settings().ui_port == 6060
    assert StorageResource().storage().root == "/tables"
    assert StorageResource(root="/other").storage().root == "/other"


def test_wrong_environment_is_told_when_used(monkeypatch: pytest.MonkeyPatch) -> None:
    resource = SparkResource()
    monkeypatch.setenv("NEUROLAKE_SPARK__EXECUTER_CORES", "2")
    with pytest.raises(SettingsError, match="did you mean NEUROLAKE_SPARK__EXECUTOR_CORES"):
        resource.settings()


def test_plain_secrets_reach_the_settings_and_no_text() -> None:
    storage = StorageResource(root="s3://b/p", access_key="id", secret_key=SECRET)
    spark = SparkResource(s3_access_key="id", s3_secret_key=SECRET)
    assert storage.storage().options.secret_key == SECRET
    found = spark.settings().s3_secret_key
    assert found is not None
    assert found.get_secret_value() == SECRET
    texts = [repr(storage), repr(spark), repr(storage.storage()), repr(spark.settings())]
    snapshot = snapshot_of(storage=storage, spark=spark)
    assert "s3://b/p" in snapshot
    assert SECRET not in "".join([*texts, snapshot])


def test_secrets_from_env_vars_resolve_in_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_SECRET", SECRET)
    seen = []

    @dg.asset
    def uses(storage: StorageResource) -> None:
        seen.append(storage.storage().options.secret_key)

    storage = StorageResource(root="s3://b/p", access_key="id", secret_key=dg.EnvVar("MY_SECRET"))
    assert dg.materialize([uses], resources={"storage": storage}).success
    assert seen == [SECRET]
    assert storage.storage().options.secret_key == SECRET


def test_a_remotes_token_reaches_the_settings_and_no_text() -> None:
    """The token stood in the resource's repr and in what Dagster sends to its UI."""
    remote = f"sc://host:443/;token={SECRET}"
    spark = SparkResource(remote=remote)
    assert spark.settings().remote == remote
    snapshot = snapshot_of(spark=spark)
    assert "sc://host:443/***" in snapshot
    assert "remote='sc://host:443/***'" in repr(spark)
    assert SECRET not in f"{spark!r} {spark} {snapshot} {spark.settings()!r}"


def test_plain_secrets_among_spark_keys_reach_the_settings_and_no_text() -> None:
    key = "spark.hadoop.fs.azure.account.key.lake.dfs.core.windows.net"
    spark = SparkResource(extra_configs={key: SECRET}, spark_config={"my": {"password": SECRET}})
    assert spark.settings().extra_configs == {key: SECRET, "my.password": SECRET}
    snapshot = snapshot_of(spark=spark)
    assert key in snapshot
    assert SECRET not in f"{spark!r} {spark} {snapshot}"


def test_a_secret_of_another_process_is_told() -> None:
    """It was a bare KeyError."""
    spark = SparkResource(extra_configs={"spark.my.token": "neurolake-secret:0123"})
    with pytest.raises(SettingsError, match=r"spark\.my\.token: its secret .* dg\.EnvVar"):
        spark.settings()


def test_extra_configs_take_env_vars_at_any_depth_and_keep_case(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MY_TOKEN", SECRET)
    seen = []

    @dg.asset
    def uses(spark: SparkResource) -> None:
        seen.append(spark.settings().extra_configs)

    token = dg.EnvVar("MY_TOKEN")
    spark = SparkResource(
        extra_configs={"spark": {"my": {"camelCase": token}}, "spark.own": token, "spark.n": 3}
    )
    resolved = {"spark.my.camelCase": SECRET, "spark.own": SECRET, "spark.n": "3"}
    assert spark.settings().extra_configs == resolved
    assert dg.materialize([uses], resources={"spark": spark}).success
    assert seen == [resolved]
    assert SECRET not in f"{spark!r} {snapshot_of(spark=spark)}"


def test_env_vars_of_every_field_resolve_outside_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_REMOTE", f"sc://host/;token={SECRET}")
    monkeypatch.setenv("MY_CORES", "3")
    remote, cores = dg.EnvVar("MY_REMOTE"), dg.EnvVar.int("MY_CORES")
    settings = SparkResource(remote=remote, executor_cores=cores).settings()
    assert (settings.remote, settings.executor_cores) == (f"sc://host/;token={SECRET}", 3)
    absent = SparkResource(extra_configs={"spark.x": dg.EnvVar("ABSENT_ONE")})
    with pytest.raises(SettingsError, match=r"spark\.x: the environment has no ABSENT_ONE"):
        absent.settings()


def test_wrong_spark_keys_are_told_by_name() -> None:
    with pytest.raises(SettingsError, match=r"spark_config: .*spark\.a\.b \(list\)"):
        SparkResource(spark_config={"spark": {"a": {"b": [SECRET]}}})


def test_it_stands_in_for_the_stock_resource(monkeypatch: pytest.MonkeyPatch) -> None:
    """`spark_config` of dagster_pyspark's resources, in code and in run config."""
    monkeypatch.setenv("NEUROLAKE_SPARK__MASTER", "yarn")
    monkeypatch.setenv("MY_TOKEN", SECRET)
    seen: list[SparkSettings] = []

    @dg.asset
    def by_type(pyspark: PySparkResource) -> None:
        seen.append(pyspark.settings())  # type: ignore[attr-defined]

    @dg.asset(required_resource_keys={"pyspark"})
    def by_key(context: dg.AssetExecutionContext) -> None:
        seen.append(context.resources.pyspark.settings())

    config = {"spark.master": "local[2]", "spark.sql": {"shuffle": {"partitions": 7}}}
    stands_in = SparkResource(spark_config=config, extra_configs={"spark.x": "1"})
    assert dg.materialize([by_type, by_key], resources={"pyspark": stands_in}).success
    run_config = {"spark_config": {**config, "spark": {"my": {"token": {"env": "MY_TOKEN"}}}}}
    found = dg.materialize(
        [by_type],
        resources={"pyspark": SparkResource.configure_at_launch()},
        run_config={"resources": {"pyspark": {"config": run_config}}},
    )
    assert found.success
    assert [one.master for one in seen] == ["local[2]"] * 3
    extras = {"spark.sql.shuffle.partitions": "7"}
    assert seen[0].extra_configs == seen[1].extra_configs == extras | {"spark.x": "1"}
    assert seen[2].extra_configs == extras | {"spark.my.token": SECRET}


@pytest.mark.spark
def test_its_session_is_used_as_the_stock_one(
    spark: SparkSession, spark_resource: SparkResource
) -> None:
    @dg.asset
    def counted(pyspark: PySparkResource) -> int:
        session = pyspark.spark_session
        assert pyspark.spark_context is session.sparkContext
        assert session.conf.get("spark.sql.shuffle.partitions") == "6"
        return int(session.range(12).count())

    config = {
        "spark": {"master": "local[2]", "app.name": "tests", "ui": {"enabled": False}},
        "spark.sql.shuffle.partitions": 6,
    }
    stands_in = SparkResource(spark_config=config)
    result = dg.materialize([counted], resources={"pyspark": stands_in})
    assert result.output_for_node("counted") == 12


@pytest.mark.spark
def test_assets_and_io_managers_share_the_session_of_the_resources_storage(
    spark: SparkSession, tmp_path: Path
) -> None:
    """A storage given in code was the IO manager's only: its session and the asset's conflicted."""
    seen = []

    @dg.asset
    def numbers(spark: SparkResource) -> DataFrame:
        seen.append(spark.spark_session)
        return seen[0].range(3)

    @dg.asset
    def read(numbers: DataFrame) -> None:
        seen.append(numbers.sparkSession)

    # Its S3 settings differ from those that the run's session was started with.
    theirs = StorageResource(root=str(tmp_path), endpoint="http://127.0.0.1:1")
    own = {"master": "local[2]", "ui_enabled": False, "app_name": "tests"}
    ours = SparkResource(**own, storage=StorageResource())
    manager = ParquetIOManager(storage=theirs, spark=ours)
    resources = {"io_manager": manager, "spark": ours}
    assert dg.materialize([numbers, read], resources=resources).success
    assert seen[0] is spark
    assert seen[1].sparkContext is spark.sparkContext


def test_source_folder_is_the_field_then_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert SourceResource().path is None
    monkeypatch.setenv("NEUROLAKE_SOURCES__DIR", "/env")
    assert SourceResource().path == Path("/env")
    assert SourceResource(directory=str(tmp_path)).path == tmp_path


def test_what_step_processes_are_forked_with_is_there() -> None:
    """What cannot be imported is left out there without a word."""
    code = (
        "import gc, sys; from neurolake_dagster.preload import NAMES;"
        "print(gc.isenabled(), gc.get_freeze_count() > 0, *set(NAMES) - set(sys.modules))"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.split() == ["True", "True"]
