"""The Spark session as a Dagster resource.

Owns the resource's fields, one per option of `neurolake_dagster.settings.SparkSettings`, and
laziness: no JVM before the session is asked for.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import Field

from neurolake_dagster.errors import SettingsError
from neurolake_dagster.resources.fields import refuse_unknown, require_resource
from neurolake_dagster.resources.secrets import hide, reveal
from neurolake_dagster.resources.steps import watch_step
from neurolake_dagster.resources.storage import StorageResource
from neurolake_dagster.settings import SparkSettings, StorageSettings
from neurolake_dagster.settings.checks import flat_configs, take_extras
from neurolake_dagster.settings.redaction import is_secret, shown_remote
from neurolake_dagster.spark import Effective, effective, get_session, stop_session

if TYPE_CHECKING:
    from pyspark import SparkContext
    from pyspark.sql import SparkSession

SECRETS = ("s3_access_key", "s3_secret_key", "s3_session_token")


def _option(name: str) -> Any:
    """The field of one option: unset, described as in the settings."""
    option = SparkSettings.model_fields[name]
    default = "" if option.default is None else f" Default: {option.default}"
    extra: dict[str, Any] | None = {"dagster__is_secret": True} if name in SECRETS else None
    return Field(
        default=None,
        description=f"{option.description}{default}",
        repr=name not in SECRETS,
        json_schema_extra=extra,
    )


class SparkResource(dg.ConfigurableResource["SparkResource"]):
    """A Spark session, started when it is first asked for.

    Usable where `dagster_pyspark.PySparkResource` is, `spark_config` included. A field that is
    not set comes from ``NEUROLAKE_SPARK__*``, then from the default; on a local master memory,
    cores and shuffle partitions follow the machine. S3 settings that are not set are those of
    `storage`: give it wherever the storage is given in code, so that assets and IO managers have
    one session.
    """

    master: str | None = _option("master")
    remote: str | None = _option("remote")
    profile: str | None = _option("profile")
    teardown: str | None = _option("teardown")
    python: str | None = _option("python")
    app_name: str | None = _option("app_name")
    executor_memory: str | None = _option("executor_memory")
    executor_memory_overhead: str | None = _option("executor_memory_overhead")
    executor_cores: int | None = _option("executor_cores")
    executor_instances: int | None = _option("executor_instances")
    driver_memory: str | None = _option("driver_memory")
    driver_memory_overhead: str | None = _option("driver_memory_overhead")
    driver_cores: int | None = _option("driver_cores")
    driver_host: str | None = _option("driver_host")
    driver_max_result_size: str | None = _option("driver_max_result_size")
    dynamic_allocation_enabled: bool | None = _option("dynamic_allocation_enabled")
    dynamic_allocation_min_executors: int | None = _option("dynamic_allocation_min_executors")
    dynamic_allocation_max_executors: int | None = _option("dynamic_allocation_max_executors")
    dynamic_allocation_initial_executors: int | None = _option(
        "dynamic_allocation_initial_executors"
    )
    aqe_enabled: bool | None = _option("aqe_enabled")
    aqe_coalesce_partitions_enabled: bool | None = _option("aqe_coalesce_partitions_enabled")
    aqe_coalesce_partitions_min_partition_size: str | None = _option(
        "aqe_coalesce_partitions_min_partition_size"
    )
    aqe_skew_join_enabled: bool | None = _option("aqe_skew_join_enabled")
    aqe_skew_join_skewed_partition_factor: float | None = _option(
        "aqe_skew_join_skewed_partition_factor"
    )
    aqe_skew_join_skewed_partition_threshold: str | None = _option(
        "aqe_skew_join_skewed_partition_threshold"
    )
    shuffle_partitions: int | None = _option("shuffle_partitions")
    shuffle_compress: bool | None = _option("shuffle_compress")
    compression_codec: str | None = _option("compression_codec")
    serializer: str | None = _option("serializer")
    neurolake_ncf_enabled: bool | None = _option("neurolake_ncf_enabled")
    neurolake_cache_enabled: bool | None = _option("neurolake_cache_enabled")
    neurolake_pushdown_enabled: bool | None = _option("neurolake_pushdown_enabled")
    neurolake_vectorized_reader: bool | None = _option("neurolake_vectorized_reader")
    s3_enabled: bool | None = _option("s3_enabled")
    s3_endpoint: str | None = _option("s3_endpoint")
    s3_access_key: str | None = _option("s3_access_key")
    s3_secret_key: str | None = _option("s3_secret_key")
    s3_session_token: str | None = _option("s3_session_token")
    s3_region: str | None = _option("s3_region")
    s3_path_style_access: bool | None = _option("s3_path_style_access")
    s3_ssl_enabled: bool | None = _option("s3_ssl_enabled")
    s3_max_connections: int | None = _option("s3_max_connections")
    s3_multipart_threshold: str | None = _option("s3_multipart_threshold")
    s3_multipart_size: str | None = _option("s3_multipart_size")
    s3_fast_upload_buffer: str | None = _option("s3_fast_upload_buffer")
    sql_autoBroadcastJoinThreshold: str | None = _option("sql_autoBroadcastJoinThreshold")  # noqa: N815
    sql_files_maxPartitionBytes: str | None = _option("sql_files_maxPartitionBytes")  # noqa: N815
    delta_enabled: bool | None = _option("delta_enabled")
    log_level: str | None = _option("log_level")
    ui_enabled: bool | None = _option("ui_enabled")
    ui_port: int | None = _option("ui_port")
    speculation_enabled: bool | None = _option("speculation_enabled")
    memory_fraction: float | None = _option("memory_fraction")
    memory_storage_fraction: float | None = _option("memory_storage_fraction")
    event_log_enabled: bool | None = _option("event_log_enabled")
    event_log_dir: str | None = _option("event_log_dir")
    session_timezone: str | None = _option("session_timezone")
    warehouse_dir: str | None = _option("warehouse_dir")
    jars: list[str] | None = _option("jars")
    extra_configs: dict[str, str] | None = _option("extra_configs")

    storage: dg.ResourceDependency[StorageResource | None] = Field(
        default=None,  # type: ignore[arg-type]  # Dagster types no default
        description="Whose S3 settings hold where Spark's own are not set. Unset: those of the "
        "IO manager that asks, else of the environment.",
    )
    spark_config: dict[str, Any] | None = Field(
        default=None,
        description="Spark keys as dagster_pyspark's resources take them, also nested; becomes "
        "part of extra_configs, which win.",
    )

    def __init__(self, **data: Any) -> None:
        refuse_unknown(type(self), data)
        require_resource(type(self), StorageResource, storage=data.get("storage"))
        super().__init__(**_hidden(_with_extras(data)))

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        for name, value in super().__repr_args__():
            is_address = name == "remote" and isinstance(value, str)
            yield name, shown_remote(value) if is_address else value

    def settings(self) -> SparkSettings:
        """The fields, completed from the environment and checked.

        Raises
        ------
        SettingsError
        """
        return SparkSettings.load(
            **{name: reveal(name, getattr(self, name)) for name in SparkSettings.model_fields}
        )

    def teardown_after_execution(self, context: dg.InitResourceContext) -> None:  # noqa: ARG002
        """Stop the session after a run, where that is the policy; a warm server stays."""
        if self.settings().teardown == "stop":
            stop_session()

    def session(
        self, storage: StorageResource | None = None, *, force_recreate: bool = False
    ) -> "SparkSession":
        """The session of this process; started now if there is none.

        Parameters
        ----------
        storage
            Whose S3 settings the session inherits, if the resource has no `storage` of its own;
            None is the environment's.
        force_recreate
            Stop a running session and its JVM first.

        Raises
        ------
        SettingsError, JavaNotFoundError, JarsNotFoundError, SessionConflictError
        """
        session = get_session(self.settings(), self._lender(storage), force_recreate=force_recreate)
        watch_step(session)
        return session

    def effective(self, storage: StorageResource | None = None) -> list[Effective]:
        """Every option as asked, as the session runs with it, and where it came from."""
        settings, lender = self.settings(), self._lender(storage)
        return effective(get_session(settings, lender), settings, lender)

    @property
    def spark_session(self) -> "SparkSession":
        """The session of this process; started now if there is none."""
        return self.session()

    @property
    def spark_context(self) -> "SparkContext":
        """Its context; classic sessions only."""
        return self.spark_session.sparkContext

    def _lender(self, storage: StorageResource | None) -> StorageSettings:
        return (self.storage or storage or StorageResource()).settings()


def _with_extras(data: dict[str, Any]) -> dict[str, Any]:
    """The fields with all Spark keys in flat `extra_configs`, but for those that have a field."""
    given = dict(data)
    extras: dict[str, str] = {}
    for name in ("spark_config", "extra_configs"):
        configs = given.pop(name, None) or {}
        try:
            extras |= flat_configs(_with_env_vars(configs))
        except (ValueError, AttributeError) as exc:
            raise SettingsError(f"{name}: {exc}") from None
    return take_extras(given | {"extra_configs": extras}) if extras else given


def _with_env_vars(configs: dict[str, Any]) -> dict[str, Any]:
    """Dagster's form of `EnvVar` in run config as `EnvVar`: it resolves none in nested dicts."""
    return {
        key: value
        if not isinstance(value, dict)
        else dg.EnvVar(value["env"])
        if value.keys() == {"env"}
        else _with_env_vars(value)
        for key, value in configs.items()
    }


def _hidden(data: dict[str, Any]) -> dict[str, Any]:
    """The fields with references in place of plain secrets."""
    found = {name: hide(value) if name in SECRETS else value for name, value in data.items()}
    remote = found.get("remote")
    if isinstance(remote, str) and shown_remote(remote) != remote:
        found["remote"] = hide(remote, shown_remote(remote))
    extras = found.get("extra_configs")
    if isinstance(extras, dict):
        found["extra_configs"] = {
            key: hide(value)
            if not isinstance(value, dg.EnvVar) and is_secret(key, value)
            else value
            for key, value in extras.items()
        }
    return found
