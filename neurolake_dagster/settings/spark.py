"""``NEUROLAKE_SPARK__*``: every option of a Spark session, typed and validated.

Owns names, types, bounds and the cluster's defaults. Which Spark key an option reaches is
`neurolake_dagster.spark.conf`'s; what a local machine gets instead of an unset cluster default
is there too.
"""

import re
from typing import ClassVar, Literal, Self

from pydantic import Field, SecretStr, field_validator, model_validator

from neurolake_dagster.settings.environment import Settings

SIZE = re.compile(r"\d+[bkmgtp]?b?", re.IGNORECASE)
SIZES = (
    "executor_memory",
    "executor_memory_overhead",
    "driver_memory",
    "driver_memory_overhead",
    "driver_max_result_size",
    "aqe_coalesce_partitions_min_partition_size",
    "aqe_skew_join_skewed_partition_threshold",
    "s3_multipart_threshold",
    "s3_multipart_size",
    "sql_files_maxPartitionBytes",
)
REMOTES = ("auto", "start")
CODECS = ("zstd", "snappy", "gzip", "lz4", "brotli", "none", "uncompressed")
LOG_LEVELS = ("ALL", "DEBUG", "ERROR", "FATAL", "INFO", "OFF", "TRACE", "WARN")
SERIALIZERS = (
    "org.apache.spark.serializer.KryoSerializer",
    "org.apache.spark.serializer.JavaSerializer",
)


class SparkSettings(Settings):
    """The options of a Spark session. Sizes are words such as ``512m`` or ``4g``."""

    group: ClassVar[str] = "SPARK"

    master: str = Field(
        default="local[*]", description="Spark master: local[N], spark://host:port, yarn, k8s://..."
    )
    remote: str | None = Field(
        default=None,
        description="Spark Connect endpoint, sc://host:port; or auto for the warm server of "
        "`neurolake spark start` where it runs with the same settings; or start to start it too.",
    )
    profile: Literal["local", "cluster", "production"] | None = Field(
        default=None,
        description="Defaults of what is not set: local (by this machine), cluster, or production. "
        "Unset: by the master.",
    )
    teardown: Literal["keep", "stop"] = Field(
        default="keep",
        description="The session after a run: keep it for the process's next one, or stop it.",
    )
    app_name: str = Field(default="NeuroLake", description="Name of the application.")
    executor_memory: str = Field(default="4g", description="Heap of an executor.")
    executor_memory_overhead: str = Field(default="1g", description="Its memory beside the heap.")
    executor_cores: int = Field(default=4, ge=1, le=32, description="Cores of an executor.")
    executor_instances: int | None = Field(
        default=None, ge=1, description="Fixed number of executors."
    )
    driver_memory: str = Field(default="2g", description="Heap of the driver.")
    driver_memory_overhead: str = Field(default="512m", description="Its memory beside the heap.")
    driver_cores: int = Field(default=2, ge=1, le=16, description="Cores of the driver.")
    driver_max_result_size: str = Field(default="2g", description="Largest collected result.")
    dynamic_allocation_enabled: bool = Field(
        default=True, description="Add and remove executors by load (with shuffle tracking)."
    )
    dynamic_allocation_min_executors: int = Field(default=1, ge=0, description="At least so many.")
    dynamic_allocation_max_executors: int = Field(default=10, ge=1, description="At most so many.")
    dynamic_allocation_initial_executors: int = Field(
        default=2, ge=1, description="So many at the start."
    )
    aqe_enabled: bool = Field(default=True, description="Adaptive query execution.")
    aqe_coalesce_partitions_enabled: bool = Field(
        default=True, description="Merge small shuffle partitions."
    )
    aqe_coalesce_partitions_min_partition_size: str = Field(
        default="1mb", description="Smallest partition after merging."
    )
    aqe_skew_join_enabled: bool = Field(default=True, description="Split skewed join partitions.")
    aqe_skew_join_skewed_partition_factor: float = Field(
        default=5.0, ge=1, description="Skewed from this multiple of the median size."
    )
    aqe_skew_join_skewed_partition_threshold: str = Field(
        default="256mb", description="And from this size."
    )
    shuffle_partitions: int = Field(default=200, ge=1, description="Partitions of a shuffle.")
    shuffle_compress: bool = Field(default=True, description="Compress shuffle files.")
    compression_codec: str = Field(default="zstd", description="Codec of Parquet files.")
    serializer: str = Field(default=SERIALIZERS[0], description="Serializer class.")
    neurolake_ncf_enabled: bool = Field(default=True, description="Register the format ncf.")
    neurolake_cache_enabled: bool = Field(
        default=True, description="Compress cached tables in memory."
    )
    neurolake_pushdown_enabled: bool = Field(
        default=True, description="Push filters into Parquet and NCF."
    )
    neurolake_vectorized_reader: bool = Field(
        default=True, description="Spark's vectorized Parquet reader."
    )
    s3_enabled: bool = Field(default=True, description="S3A settings and jars.")
    s3_endpoint: str | None = Field(default=None, description="Unset: the storage's.")
    s3_access_key: SecretStr | None = Field(default=None, description="Unset: the storage's.")
    s3_secret_key: SecretStr | None = Field(default=None, description="Unset: the storage's.")
    s3_session_token: SecretStr | None = Field(default=None, description="Unset: the storage's.")
    s3_region: str | None = Field(default=None, description="Unset: the storage's.")
    s3_path_style_access: bool = Field(default=True, description="Bucket in the path.")
    s3_ssl_enabled: bool | None = Field(default=None, description="TLS. Unset: the storage's.")
    s3_max_connections: int = Field(default=100, ge=1, le=1000, description="Connections to S3.")
    s3_multipart_threshold: str | None = Field(
        default=None, description="Multipart uploads from this size. Unset: the storage's."
    )
    s3_multipart_size: str = Field(default="64m", description="Size of a part.")
    s3_fast_upload_buffer: str = Field(
        default="disk", description="Where parts wait for upload: disk, array or bytebuffer."
    )
    sql_autoBroadcastJoinThreshold: str = Field(  # noqa: N815  # the option's published name
        default="10mb", description="Broadcast tables up to this size; -1 for never."
    )
    sql_files_maxPartitionBytes: str = Field(  # noqa: N815  # the option's published name
        default="128mb", description="Largest input partition."
    )
    delta_enabled: bool = Field(default=True, description="Delta's extension, catalog and jars.")
    log_level: str = Field(default="WARN", description="Log level of the JVM.")
    ui_enabled: bool = Field(default=True, description="Spark's own UI.")
    ui_port: int = Field(default=4040, ge=1024, le=65535, description="Its first port to try.")
    speculation_enabled: bool = Field(default=True, description="Start slow tasks twice.")
    memory_fraction: float = Field(
        default=0.6, gt=0, lt=1, description="Share of the heap for execution and storage."
    )
    memory_storage_fraction: float = Field(
        default=0.5, ge=0, lt=1, description="Share of that which is safe from eviction."
    )
    event_log_enabled: bool = Field(default=False, description="Write event logs.")
    event_log_dir: str | None = Field(default=None, description="Where to.")
    session_timezone: str = Field(default="UTC", description="Time zone of the SQL session.")
    warehouse_dir: str | None = Field(default=None, description="Folder of managed tables.")
    jars: list[str] | None = Field(
        default=None, description="Jar files to use instead of the resolved ones (JSON list)."
    )
    extra_configs: dict[str, str] = Field(
        default={}, description="Any other Spark keys, merged last (JSON object)."
    )

    @field_validator(*SIZES)
    @classmethod
    def _check_size(cls, value: str | None) -> str | None:
        if value is not None and not SIZE.fullmatch(value):
            raise ValueError(f"expected a size such as 512m or 4g, got {value!r}")
        return value

    @field_validator("sql_autoBroadcastJoinThreshold")
    @classmethod
    def _check_threshold(cls, value: str) -> str:
        if value != "-1":
            cls._check_size(value)
        return value

    @field_validator("compression_codec")
    @classmethod
    def _check_codec(cls, value: str) -> str:
        return _one_of(value, CODECS)

    @field_validator("log_level")
    @classmethod
    def _check_log_level(cls, value: str) -> str:
        return _one_of(value, LOG_LEVELS)

    @field_validator("serializer")
    @classmethod
    def _check_serializer(cls, value: str) -> str:
        return _one_of(value, SERIALIZERS)

    @field_validator("remote")
    @classmethod
    def _check_remote(cls, value: str | None) -> str | None:
        if value is not None and value not in REMOTES and not value.startswith("sc://"):
            raise ValueError(f"expected sc://host:port, auto or start, got {value!r}")
        return value

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        low, first, high = (
            self.dynamic_allocation_min_executors,
            self.dynamic_allocation_initial_executors,
            self.dynamic_allocation_max_executors,
        )
        if not low <= first <= high:
            raise ValueError(
                "dynamic_allocation_min_executors, dynamic_allocation_initial_executors and "
                "dynamic_allocation_max_executors: expected min <= initial <= max, got "
                f"{low}, {first}, {high}"
            )
        if (self.s3_access_key is None) != (self.s3_secret_key is None):
            raise ValueError("s3_access_key and s3_secret_key: expected both or neither, got one")
        return self


def _one_of(value: str, known: tuple[str, ...]) -> str:
    if value not in known:
        raise ValueError(f"expected one of {', '.join(known)}, got {value!r}")
    return value
