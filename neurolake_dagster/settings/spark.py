"""``NEUROLAKE_SPARK__*``: every option of a Spark session, typed and validated.

Owns names, types, bounds and the cluster's defaults; what a profile has instead is
`neurolake_dagster.settings.profiles`'. Which Spark key an option reaches is
`neurolake_dagster.spark.conf`'s.
"""

from collections.abc import Iterator
from typing import Any, ClassVar, Literal

from pydantic import (
    Field,
    SecretStr,
    ValidationInfo,
    field_serializer,
    field_validator,
    model_validator,
)

from neurolake_dagster.settings.checks import (
    CHECKS,
    MOVED,
    REMOTES,
    flat_configs,
    is_loopback,
    scheme_tls,
    take_extras,
)
from neurolake_dagster.settings.environment import Broken, Settings
from neurolake_dagster.settings.profiles import EXECUTORS, Profile, unset_values
from neurolake_dagster.settings.redaction import shown_configs, shown_remote

Codec = Literal["zstd", "snappy", "gzip", "lz4", "brotli", "none", "uncompressed"]
LogLevel = Literal["ALL", "DEBUG", "ERROR", "FATAL", "INFO", "OFF", "TRACE", "WARN"]
Serializer = Literal[
    "org.apache.spark.serializer.KryoSerializer", "org.apache.spark.serializer.JavaSerializer"
]


# Spark counts in 32 bits.
MOST = (1 << 31) - 1


class SparkSettings(Settings):
    """The options of a Spark session. Sizes are words such as ``512m`` or ``4g``."""

    group: ClassVar[str] = "SPARK"
    credentials: ClassVar[tuple[str, str, str]] = (
        "s3_access_key",
        "s3_secret_key",
        "s3_session_token",
    )

    master: str = Field(
        default="local[*]",
        description="Where Spark runs: local[N] or local[*] in this process, spark://host:port, "
        "yarn, or k8s://...",
    )
    remote: str | None = Field(
        default=None,
        description="Spark Connect server instead of a Spark of this process: "
        "sc://host:port/;token=...; auto for the warm server of `neurolake spark start` where it "
        "runs with the same settings; start to start that one too. Unset: no server.",
    )
    profile: Profile | None = Field(
        default=None,
        description="Which defaults hold for options that are not set: local fits this machine, "
        "cluster is what is listed here, production is for 50 executors and more. "
        "Unset: local on a local master, else cluster.",
    )
    teardown: Literal["keep", "stop"] = Field(
        default="keep",
        description="What becomes of the session after a run: keep it for the process's next "
        "run, or stop it and its JVM.",
    )
    python: str | None = Field(
        default=None,
        description="Python command of the workers. Unset: PYSPARK_PYTHON, else this Python on a "
        "local or loopback master, else the cluster's python3.",
    )
    app_name: str = Field(
        default="NeuroLake", description="Name of the application in Spark's UI and logs."
    )
    executor_memory: str = Field(
        default="4g", description="Heap of each executor; a number alone is MiB."
    )
    executor_memory_overhead: str = Field(
        default="1g",
        description="Memory of each executor beside its heap, for Python workers and buffers; a "
        "number alone is MiB.",
    )
    executor_cores: int = Field(
        default=4, ge=1, le=32, description="Cores, so also tasks at once, of each executor."
    )
    executor_instances: int | None = Field(
        default=None,
        ge=1,
        le=MOST,
        description="Number of executors where they are not allocated dynamically. "
        "Unset: Spark's own choice.",
    )
    driver_memory: str = Field(
        default="2g",
        description="Heap of the driver; a number alone is MiB. Local profile: a quarter of this "
        "machine's memory, 1 to 4 GiB.",
    )
    driver_memory_overhead: str = Field(
        default="512m",
        description="Memory of the driver beside its heap, on yarn and k8s; a number alone is MiB.",
    )
    driver_cores: int = Field(
        default=2, ge=1, le=16, description="Cores of the driver, on yarn and k8s."
    )
    driver_host: str | None = Field(
        default=None,
        description="Host name or address under which executors reach the driver. Unset: "
        "127.0.0.1 on a local or loopback master, else what Spark finds for this machine.",
    )
    driver_max_result_size: str = Field(
        default="2g",
        description="Largest result that an action may bring to the driver; 0 for no limit. Local "
        "profile: 1g.",
    )
    dynamic_allocation_enabled: bool = Field(
        default=True,
        description="Add and remove executors by load, with shuffle tracking. Local profile: "
        "false.",
    )
    dynamic_allocation_min_executors: int = Field(
        default=1, ge=0, le=MOST, description="Fewest executors of dynamic allocation."
    )
    dynamic_allocation_max_executors: int = Field(
        default=10, ge=1, le=MOST, description="Most executors of dynamic allocation."
    )
    dynamic_allocation_initial_executors: int = Field(
        default=2,
        ge=1,
        le=MOST,
        description="Executors that dynamic allocation begins with; unset, it follows a smaller "
        "maximum or a larger minimum.",
    )
    aqe_enabled: bool = Field(
        default=True,
        description="Adaptive query execution: plans change by the sizes seen while a query runs.",
    )
    aqe_coalesce_partitions_enabled: bool = Field(
        default=True, description="Merge small shuffle partitions (adaptive query execution)."
    )
    aqe_coalesce_partitions_min_partition_size: str = Field(
        default="1mb",
        description="Smallest shuffle partition that merging may leave; a number alone is bytes.",
    )
    aqe_skew_join_enabled: bool = Field(
        default=True,
        description="Split join partitions that are much larger than others (adaptive query "
        "execution).",
    )
    aqe_skew_join_skewed_partition_factor: float = Field(
        default=5.0,
        ge=1,
        allow_inf_nan=False,
        description="A join partition is skewed from so many times the median size, if the "
        "threshold is passed too.",
    )
    aqe_skew_join_skewed_partition_threshold: str = Field(
        default="256mb",
        description="A join partition is skewed from this size, if the factor is passed too; a "
        "number alone is bytes.",
    )
    shuffle_partitions: int = Field(
        default=200,
        ge=1,
        le=MOST,
        description="Partitions of a shuffle; 2 to 3 a core. Local profile: one a core, at "
        "least 2.",
    )
    shuffle_compress: bool = Field(default=True, description="Compress the files of shuffles.")
    compression_codec: Codec = Field(
        default="zstd",
        description="Codec of the Parquet files that Spark writes, and of its shuffle blocks "
        "where it can be theirs (zstd, snappy, lz4).",
    )
    serializer: Serializer = Field(
        default="org.apache.spark.serializer.KryoSerializer",
        description="Java class that serializes objects between Spark's JVMs.",
    )
    neurolake_ncf_enabled: bool = Field(
        default=True, description="Offer NCF as the format ncf of Spark's readers and writers."
    )
    neurolake_cache_enabled: bool = Field(
        default=True, description="Compress the tables that Spark caches in memory."
    )
    neurolake_pushdown_enabled: bool = Field(
        default=True, description="Push the filters of a query into Parquet and NCF."
    )
    neurolake_vectorized_reader: bool = Field(
        default=True, description="Read Parquet in batches of columns, not row by row."
    )
    s3_enabled: bool = Field(
        default=True, description="Let Spark read and write s3a:// and s3://, with the jars."
    )
    s3_endpoint: str | None = Field(
        default=None,
        description="S3-compatible store for Spark: host:port or http(s)://host:port. Unset: the "
        "storage's endpoint.",
    )
    s3_access_key: SecretStr | None = Field(
        default=None,
        description="S3 access key for Spark, with s3_secret_key. Unset: the storage's keys and "
        "session token.",
    )
    s3_secret_key: SecretStr | None = Field(
        default=None, description="S3 secret key for Spark, with s3_access_key."
    )
    s3_session_token: SecretStr | None = Field(
        default=None,
        description="S3 session token of s3_access_key, where that is a temporary one.",
    )
    s3_region: str | None = Field(
        default=None, description="S3 region for Spark. Unset: the storage's region."
    )
    s3_path_style_access: bool = Field(
        default=True,
        description="Name the S3 bucket in the path (host/bucket), not in the host (bucket.host).",
    )
    s3_ssl_enabled: bool | None = Field(
        default=None,
        description="Reach S3 by TLS. Unset: by the endpoint's scheme, else as the storage, else "
        "true in the production profile and for AWS.",
    )
    s3_max_connections: int = Field(
        default=100, ge=1, le=1000, description="Connections to S3 that are open at once."
    )
    s3_multipart_threshold: str | None = Field(
        default=None,
        description="Spark uploads to S3 in parts from this size, at least 5m; a number alone is "
        "bytes. Unset: the storage's multipart_threshold.",
    )
    s3_multipart_size: str = Field(
        default="64m",
        description="Size of one part of an upload to S3, at least 5m; a number alone is bytes.",
    )
    s3_fast_upload_buffer: Literal["disk", "array", "bytebuffer"] = Field(
        default="disk",
        description="Where parts of an upload to S3 wait: on disk, in the heap (array) or in "
        "memory beside it (bytebuffer).",
    )
    sql_autoBroadcastJoinThreshold: str = Field(  # noqa: N815  # the option's published name
        default="10mb",
        description="Largest table that a join sends whole to every executor, in bytes where a "
        "number stands alone; -1 for never. Local profile: 32mb.",
    )
    sql_files_maxPartitionBytes: str = Field(  # noqa: N815  # the option's published name
        default="128mb",
        description="Most bytes of files that one task reads; a number alone is bytes.",
    )
    delta_enabled: bool = Field(
        default=True, description="Let Spark read and write Delta: its extension, catalog and jars."
    )
    log_level: LogLevel = Field(default="WARN", description="Log level of Spark's JVM.")
    ui_enabled: bool = Field(default=True, description="Serve Spark's own UI.")
    ui_port: int = Field(
        default=4040,
        ge=1024,
        le=65535,
        description="Port of Spark's UI; the next free one where it is taken.",
    )
    speculation_enabled: bool = Field(
        default=True,
        description="Start slow tasks a second time elsewhere and take the first result. Local "
        "profile: false.",
    )
    memory_fraction: float = Field(
        default=0.6,
        gt=0,
        lt=1,
        description="Share of the heap for Spark's work and its cached tables.",
    )
    memory_storage_fraction: float = Field(
        default=0.5,
        ge=0,
        lt=1,
        description="Share of memory_fraction's memory in which cached tables are never evicted.",
    )
    event_log_enabled: bool = Field(
        default=False,
        description="Keep the events of each application for Spark's history server. Production "
        "profile: true.",
    )
    event_log_dir: str | None = Field(
        default=None,
        description="Folder or URI of the event logs. Unset: /tmp/spark-events.",
    )
    session_timezone: str = Field(
        default="UTC",
        description="Time zone of the SQL session, such as UTC, Europe/Berlin or +01:00.",
    )
    warehouse_dir: str | None = Field(
        default=None,
        description="Folder or URI of the tables that Spark's catalog manages. Unset: "
        "spark-warehouse in the working directory.",
    )
    jars: list[str] | None = Field(
        default=None,
        description="Jar files instead of those that `neurolake jars` resolves for Delta and S3.",
    )
    extra_configs: dict[str, str] = Field(
        default={},
        description="Any other Spark keys with their values; stronger than all options here. "
        "Objects in it are joined by dots.",
    )

    @model_validator(mode="before")
    @classmethod
    def _take_extras(cls, values: dict[str, Any]) -> dict[str, Any]:
        try:
            return take_extras(values)
        except ValueError:
            # Told by the field's own validator.
            return values

    @field_validator("extra_configs", mode="before")
    @classmethod
    def _check_extras(cls, value: Any) -> Any:
        return flat_configs(value) if isinstance(value, dict) else value

    @field_validator(*CHECKS)
    @classmethod
    def _check(cls, value: str | None, info: ValidationInfo) -> str | None:
        assert info.field_name is not None
        return None if value is None else CHECKS[info.field_name](value)

    @field_serializer("remote", "extra_configs")
    def _hide(self, value: Any, info: Any) -> Any:
        return self.shown(info.field_name, value)

    def shown(self, name: str, value: Any) -> Any:
        """A field's value as people may see it."""
        if name == "remote" and isinstance(value, str):
            return shown_remote(value)
        return shown_configs(value) if name == "extra_configs" else value

    def broken_rules(self) -> Iterator[Broken]:
        """Which rules between the fields do not hold."""
        unset = self.unset_values()
        low, first, high = (int(unset.get(name, getattr(self, name))) for name in EXECUTORS)
        if not low <= first <= high:
            yield Broken(
                fields=EXECUTORS,
                message=f"expected min <= initial <= max, got {low}, {first}, {high}",
            )
        if (self.s3_access_key is None) != (self.s3_secret_key is None):
            message = "expected both or neither, got one"
            yield Broken(fields=self.credentials[:2], message=message)
        elif self.s3_session_token is not None and self.s3_access_key is None:
            message = "expected with s3_access_key and s3_secret_key, got alone"
            yield Broken(fields=self.credentials[2:], message=message)
        for key in MOVED.keys() & self.extra_configs.keys():
            message = f"{key} contradicts {MOVED[key]}; drop one"
            yield Broken(fields=("extra_configs", MOVED[key]), message=message)
        tls = scheme_tls(self.s3_endpoint)
        if None not in (tls, self.s3_ssl_enabled) and tls != self.s3_ssl_enabled:
            yield Broken(
                fields=("s3_ssl_enabled", "s3_endpoint"),
                message=f"{self.s3_ssl_enabled} contradicts the scheme of {self.s3_endpoint}; "
                "drop one",
            )

    @property
    def is_local(self) -> bool:
        """Whether driver and executors are one process on this machine, or its warm server's."""
        return self.remote in (None, *REMOTES) and self.master.startswith("local")

    @property
    def is_here(self) -> bool:
        """Whether all of Spark runs on this machine: local, or with a master on loopback."""
        return self.is_local or (self.remote in (None, *REMOTES) and is_loopback(self.master))

    @property
    def profile_in_force(self) -> Profile:
        """The profile that is set, else the one that fits the master."""
        return self.profile or ("local" if self.is_local else "cluster")

    def unset_values(self) -> dict[str, Any]:
        """What options are that nobody set, where that is not their own default."""
        given = {name: getattr(self, name) for name in self.model_fields_set}
        return unset_values(self.profile_in_force, self.master, given)
