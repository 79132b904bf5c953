"""Settings in metadata: forms that YAML and Dagster give, and what is refused."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest

from neurolake_dagster.errors import SettingsError, TableError
from neurolake_dagster.io_managers import LakeIOManager, NCFIOManager
from neurolake_dagster.resources import SparkResource, StorageResource
from neurolake_dagster.settings import SparkSettings, StorageSettings
from tests.io_managers.test_io_managers import failure, instance, metadata_of, run, stored

__all__ = ["instance"]
ROWS = pa.table({"id": [1, 2, 3], "name": ["a", "b", "c"]})
KEYS = dg.StaticPartitionsDefinition(["a", "b"])


@pytest.fixture
def manager(tmp_path: Path) -> NCFIOManager:
    """What the settings mean is one for all formats."""
    return NCFIOManager(storage=StorageResource(root=str(tmp_path)))


@dg.asset
def made() -> pa.Table:
    return ROWS


def told(manager: NCFIOManager, instance: dg.DagsterInstance, asset: Any, **options: Any) -> str:
    """Why a run of an asset fails."""
    return str(failure(run([asset], manager, instance, raise_on_error=False, **options)))


def asset(**metadata: Any) -> Any:
    @dg.asset(name="made", metadata=metadata)
    def found() -> pa.Table:
        return ROWS

    return found


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ({"columns": "id"}, {"id": [1, 2, 3]}),
        ({"columns": dg.MetadataValue.json(["id"]), "where": [["id", ">", 2]]}, {"id": [3]}),
        ({"columns": ["id"], "where": ["id", "<", 2]}, {"id": [1]}),
        ({"columns": ["id"], "where": dg.MetadataValue.text("id = 2")}, {"id": [2]}),
        ({"columns": ["id"], "where": [[["id", "=", 1]], [["name", "=", "c"]]]}, {"id": [1, 3]}),
        ({"columns": ["id"], "version": dg.MetadataValue.int(0)}, {"id": [1, 2, 3]}),
        ({"columns": "id", "as_of": dg.MetadataValue.timestamp(datetime(2100, 1, 1, tzinfo=UTC))},
         {"id": [1, 2, 3]}),
        ({"columns": "id", "as_of": "2100-01-01"}, {"id": [1, 2, 3]}),
    ],
)  # fmt: skip
def test_an_input_takes_the_forms_that_yaml_and_dagster_give(
    manager: NCFIOManager,
    instance: dg.DagsterInstance,
    metadata: dict[str, Any],
    expected: dict[str, Any],
) -> None:
    """`"id"` was read as the columns i and d, lists of lists and metadata values raised."""
    seen: list[Any] = []

    @dg.asset(ins={"made": dg.AssetIn(metadata=metadata)})
    def used(made: pa.Table) -> None:
        seen.append(made.to_pydict())

    assert run([made, used], manager, instance).success
    assert seen == [expected]


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ({"column": ["id"]}, "'column' is not known; did you mean columns"),
        ({"colums": ["id"]}, "'colums' is not known; did you mean columns"),
        ({"wher": "id > 1"}, "'wher' is not known; did you mean where"),
        ({"allow_missing_partition": True}, "did you mean allow_missing_partitions"),
        ({"version": "abc"}, "version 'abc', expected a whole number"),
        ({"as_of": 5}, "as_of 5, expected a time"),
        ({"columns": {"id": 1}}, "columns {'id': 1}, expected a column or a list"),
        ({"where": 5}, "where 5, expected text or a list"),
        ({"version": 0, "as_of": "2100-01-01"}, "expected one of them"),
    ],
)
def test_an_input_refuses_what_it_cannot_mean(
    manager: NCFIOManager, instance: dg.DagsterInstance, metadata: dict[str, Any], expected: str
) -> None:
    @dg.asset(ins={"made": dg.AssetIn(metadata=metadata)})
    def used(made: pa.Table) -> None: ...

    assert run([made], manager, instance).success
    found = run([made, used], manager, instance, selection=[used], raise_on_error=False)
    assert expected in str(failure(found))
    assert "input 'made'" in str(failure(found))


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ({"modes": "append"}, "'modes' is not known; did you mean mode?"),
        ({"Merge_Key": "id"}, "did you mean merge_keys?"),
        ({"partiton_expr": "id"}, "did you mean partition_expr?"),
        ({"merge_predicate": "s.id = t.id"}, "did you mean merge_keys?"),
        ({"mode": "append", "write_mode": "overwrite"}, "are the same setting"),
        ({"merge_keys": ["id"]}, "merge_keys mean nothing in mode 'overwrite'"),
        ({"mode": "append", "when_matched": "delete"}, "when_matched mean nothing"),
        ({"mode": "Overwrite"}, "mode 'Overwrite', expected one of"),
        ({"pii_columns": 5}, "pii_columns 5, expected a column"),
        ({"column_descriptions": "id"}, "expected a dict"),
    ],
)
def test_an_output_refuses_what_it_cannot_mean(
    manager: NCFIOManager, instance: dg.DagsterInstance, metadata: dict[str, Any], expected: str
) -> None:
    assert expected in told(manager, instance, asset(**metadata))
    assert not manager.table("made").exists()


def test_names_that_are_not_like_ours_are_the_users(
    manager: NCFIOManager, instance: dg.DagsterInstance
) -> None:
    assert run([asset(model="gpt", owner="me", columns=7, partition_key="x")], manager, instance)
    assert stored(manager, "made").num_rows == 3


def test_a_run_may_overwrite_what_is_merged_otherwise(
    manager: NCFIOManager, instance: dg.DagsterInstance
) -> None:
    @dg.asset(name="made", metadata={"mode": "merge", "merge_keys": ["id"]})
    def merged(context: dg.AssetExecutionContext) -> pa.Table:
        if context.run.tags.get("fresh"):
            context.add_output_metadata({"write_mode": "overwrite"})
        return ROWS.slice(0, 1)

    assert run([made], manager, instance).success
    assert run([merged], manager, instance).success
    assert stored(manager, "made").num_rows == 3
    assert run([merged], manager, instance, tags={"fresh": "yes"}).success
    assert stored(manager, "made").num_rows == 1


def test_partition_columns_may_be_metadata_values_of_the_definition_alone(
    manager: NCFIOManager, instance: dg.DagsterInstance
) -> None:
    @dg.asset(partitions_def=KEYS, metadata={"partition_expr": dg.MetadataValue.text("name")})
    def parts(context: dg.AssetExecutionContext) -> pa.Table:
        if context.run.tags.get("other"):
            context.add_output_metadata({"partition_expr": "id"})
        return ROWS.slice(0, 1)

    assert run([parts], manager, instance, partition_key="a").success
    assert "belong to none" in told(manager, instance, parts, partition_key="b")
    other = told(manager, instance, parts, partition_key="a", tags={"other": "yes"})
    assert "expected it there alone" in other


@pytest.mark.parametrize("kind", [NCFIOManager, LakeIOManager])
def test_a_manager_of_an_unknown_mode_is_refused_when_it_is_made(kind: Any, tmp_path: Path) -> None:
    storage = StorageResource(root=str(tmp_path))
    with pytest.raises(TableError, match="mode 'nope', expected one of"):
        kind(storage=storage, mode="nope")
    assert kind(storage=storage, mode=dg.EnvVar("MODE")).mode == "MODE"


@pytest.mark.parametrize("kind", [NCFIOManager, LakeIOManager])
@pytest.mark.parametrize("wrong", [None, "data", Path("data"), StorageSettings()], ids=str)
def test_a_manager_without_a_storage_resource_is_refused_when_it_is_made(
    kind: Any, wrong: object
) -> None:
    """It was made, and the first asset ended in `'str' object has no attribute 'storage'`."""
    with pytest.raises(SettingsError, match="expected a StorageResource; give it storage="):
        kind(storage=wrong)


@pytest.mark.parametrize("kind", [NCFIOManager, LakeIOManager])
def test_storage_and_spark_may_be_configured_at_launch(
    instance: dg.DagsterInstance, tmp_path: Path, kind: Any
) -> None:
    """Pydantic refused a SparkResource, and one for such a storage."""
    storage = StorageResource.configure_at_launch()
    spark = SparkResource.configure_at_launch(storage=storage)
    told: list[tuple[str, object]] = []

    class Told(kind):  # type: ignore[misc]
        def handle_output(self, context: dg.OutputContext, obj: Any) -> None:
            told.append((self.spark.app_name, self.spark.storage.root))
            super().handle_output(context, obj)

    defs = dg.Definitions(
        assets=[dg.asset(name="made", io_manager_key="io")(lambda: ROWS)],
        resources={"storage": storage, "spark": spark, "io": Told(storage=storage, spark=spark)},
    )
    given = {"storage": {"root": str(tmp_path)}, "spark": {"app_name": "large"}}
    config = {"resources": {name: {"config": fields} for name, fields in given.items()}}
    job = defs.resolve_implicit_global_asset_job_def()
    assert job.execute_in_process(run_config=config, instance=instance).success
    assert list((tmp_path / "made").glob("*.ncf"))
    assert told == [("large", str(tmp_path))]


@pytest.mark.parametrize("wrong", ["auto", SparkSettings(), {}], ids=["text", "settings", "dict"])
@pytest.mark.parametrize("kind", [NCFIOManager, LakeIOManager])
def test_what_is_no_spark_resource_is_refused(tmp_path: Path, kind: Any, wrong: object) -> None:
    with pytest.raises(SettingsError, match=r"spark is a .*, expected a SparkResource; give it"):
        kind(storage=StorageResource(root=str(tmp_path)), spark=wrong)


def test_a_format_that_is_not_known_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="format 'orc', expected one of"):
        LakeIOManager(storage=StorageResource(root=str(tmp_path)), format="orc")


@pytest.mark.parametrize("value", ["mail", ["mail"], dg.MetadataValue.json(["mail"])], ids=str)
@pytest.mark.parametrize("by", ["definition", "run"])
def test_columns_about_persons_are_shown_nowhere(
    manager: NCFIOManager, instance: dg.DagsterInstance, value: Any, by: str
) -> None:
    """The text "mail" was taken for the columns m, a, i and l; the run's word was not read."""

    @dg.asset(metadata={"pii_columns": value if by == "definition" else ["id"]})
    def people(context: dg.AssetExecutionContext) -> pa.Table:
        if by == "run":
            context.add_output_metadata({"pii_columns": value})
        return pa.table({"mail": ["ann@x"], "id": [7]})

    assert run([people], manager, instance).success
    found = metadata_of(instance, "people")
    assert [record.data for record in found["preview"].records] == [{"id": 7}]
    assert "ann@x" not in str(found["statistics"].records)


@pytest.mark.parametrize("value", ["Mail", ["MAIL"], ["mial"], ["id", "mial"]], ids=str)
def test_a_persons_column_is_hidden_in_any_spelling(
    manager: NCFIOManager, instance: dg.DagsterInstance, value: Any
) -> None:
    """A misspelt name hid nothing: the mails were in the preview and the statistics."""

    @dg.asset(metadata={"pii_columns": value})
    def people() -> pa.Table:
        return pa.table({"mail": ["ann@x"], "id": [7]})

    assert run([people], manager, instance).success
    found = metadata_of(instance, "people")
    assert "ann@x" not in str(found)
    is_known = "mial" not in value
    assert ("pii_columns ['mial']: no such columns" in str(found.get("pii_told"))) != is_known
