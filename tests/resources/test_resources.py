import importlib.util
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.remote_representation.external_data import RepositorySnap

from neurolake_dagster.errors import SettingsError
from neurolake_dagster.resources import SourceResource, SparkResource, StorageResource
from neurolake_dagster.resources.processes import PRELOADED
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
    assert set(fields) == set(SparkSettings.model_fields)
    assert all(field.description for field in fields.values())


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


def test_extra_configs_take_env_vars_and_keep_case(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_TOKEN", "t")
    seen = []

    @dg.asset
    def uses(spark: SparkResource) -> None:
        seen.append(spark.settings().extra_configs)

    spark = SparkResource(extra_configs={"spark.my.camelCase": dg.EnvVar("MY_TOKEN")})
    assert dg.materialize([uses], resources={"spark": spark}).success
    assert seen == [{"spark.my.camelCase": "t"}]


def test_source_folder_is_the_field_then_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert SourceResource().path is None
    monkeypatch.setenv("NEUROLAKE_SOURCES__DIR", "/env")
    assert SourceResource().path == Path("/env")
    assert SourceResource(directory=str(tmp_path)).path == tmp_path


@pytest.mark.parametrize("name", PRELOADED)
def test_what_step_processes_are_forked_with_exists(name: str) -> None:
    """Python leaves out what it cannot import here without a word."""
    assert importlib.util.find_spec(name) is not None
