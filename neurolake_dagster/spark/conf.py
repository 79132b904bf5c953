"""Settings as Spark's own keys.

Owns the table from option to Spark key, and what a local master gets instead of a cluster's
default where an option was not set. Starts nothing.
"""

import os
from pathlib import Path

import psutil

from neurolake_dagster.settings import SparkSettings, StorageSettings
from neurolake_dagster.storage import StorageOptions

# Option -> Spark key, where the value is handed on as it is.
KEYS: dict[str, str] = {
    "app_name": "spark.app.name",
    "executor_memory": "spark.executor.memory",
    "executor_memory_overhead": "spark.executor.memoryOverhead",
    "executor_cores": "spark.executor.cores",
    "executor_instances": "spark.executor.instances",
    "driver_memory": "spark.driver.memory",
    "driver_memory_overhead": "spark.driver.memoryOverhead",
    "driver_cores": "spark.driver.cores",
    "driver_max_result_size": "spark.driver.maxResultSize",
    "dynamic_allocation_enabled": "spark.dynamicAllocation.enabled",
    "dynamic_allocation_min_executors": "spark.dynamicAllocation.minExecutors",
    "dynamic_allocation_max_executors": "spark.dynamicAllocation.maxExecutors",
    "dynamic_allocation_initial_executors": "spark.dynamicAllocation.initialExecutors",
    "aqe_enabled": "spark.sql.adaptive.enabled",
    "aqe_coalesce_partitions_enabled": "spark.sql.adaptive.coalescePartitions.enabled",
    "aqe_coalesce_partitions_min_partition_size": (
        "spark.sql.adaptive.coalescePartitions.minPartitionSize"
    ),
    "aqe_skew_join_enabled": "spark.sql.adaptive.skewJoin.enabled",
    "aqe_skew_join_skewed_partition_factor": "spark.sql.adaptive.skewJoin.skewedPartitionFactor",
    "aqe_skew_join_skewed_partition_threshold": (
        "spark.sql.adaptive.skewJoin.skewedPartitionThresholdInBytes"
    ),
    "shuffle_partitions": "spark.sql.shuffle.partitions",
    "shuffle_compress": "spark.shuffle.compress",
    "compression_codec": "spark.sql.parquet.compression.codec",
    "serializer": "spark.serializer",
    "neurolake_cache_enabled": "spark.sql.inMemoryColumnarStorage.compressed",
    "neurolake_pushdown_enabled": "spark.sql.parquet.filterPushdown",
    "neurolake_vectorized_reader": "spark.sql.parquet.enableVectorizedReader",
    "sql_autoBroadcastJoinThreshold": "spark.sql.autoBroadcastJoinThreshold",
    "sql_files_maxPartitionBytes": "spark.sql.files.maxPartitionBytes",
    "log_level": "spark.log.level",
    "ui_enabled": "spark.ui.enabled",
    "ui_port": "spark.ui.port",
    "speculation_enabled": "spark.speculation",
    "memory_fraction": "spark.memory.fraction",
    "memory_storage_fraction": "spark.memory.storageFraction",
    "event_log_enabled": "spark.eventLog.enabled",
    "event_log_dir": "spark.eventLog.dir",
    "session_timezone": "spark.sql.session.timeZone",
    "warehouse_dir": "spark.sql.warehouse.dir",
}
# Codecs that Spark's own blocks (shuffle, broadcast) can use as well.
BLOCK_CODECS = ("zstd", "snappy", "lz4")
ALWAYS: dict[str, str] = {
    "spark.ui.showConsoleProgress": "false",
    # Arrow carries rows between the JVM and Python; DataFrames of Arrow data need it.
    "spark.sql.execution.arrow.pyspark.enabled": "true",
    "spark.sql.sources.useV1SourceList": "avro,csv,json,kafka,orc,parquet,text",
    "spark.redaction.regex": "(?i)secret|password|token|access[._]?key|credential",
    "spark.sql.redaction.options.regex": "(?i)url|secret|password|token|access[._]?key",
}
GIB = 1 << 30


def build_conf(settings: SparkSettings, storage: StorageSettings) -> dict[str, str]:
    """Translate settings to Spark's keys and values.

    Precedence: `extra_configs`, then a set option, then what fits a local master, then the
    option's default. S3 options that are not set inherit from `storage`.
    """
    local = local_values(settings) if is_local(settings) else {}
    values = {name: getattr(settings, name) for name in KEYS}
    values |= {name: value for name, value in local.items() if is_unset(settings, name)}
    conf = dict(ALWAYS)
    conf |= {KEYS[name]: as_text(value) for name, value in values.items() if value is not None}
    if settings.dynamic_allocation_enabled:
        conf["spark.dynamicAllocation.shuffleTracking.enabled"] = "true"
    if settings.compression_codec in BLOCK_CODECS:
        conf["spark.io.compression.codec"] = settings.compression_codec
    conf["spark.sql.python.filterPushdown.enabled"] = as_text(settings.neurolake_pushdown_enabled)
    if settings.delta_enabled:
        conf |= _delta_conf(settings)
    if settings.s3_enabled:
        conf |= _s3_conf(settings, storage)
    if is_local(settings):
        conf |= {"spark.driver.host": "127.0.0.1", "spark.driver.bindAddress": "127.0.0.1"}
    return conf | settings.extra_configs


def is_local(settings: SparkSettings) -> bool:
    """Whether driver and executors are one process on this machine."""
    return settings.remote is None and settings.master.startswith("local")


def is_unset(settings: SparkSettings, name: str) -> bool:
    """Whether an option has its default because nobody set it."""
    return name not in settings.model_fields_set


def local_values(settings: SparkSettings) -> dict[str, object]:
    """What fits this machine, for options that are not set.

    A quarter of the memory (1 to 4 GiB) and one shuffle partition per core. Spark's default of
    200 partitions makes small local jobs 2 to 10 times slower.
    """
    memory = psutil.virtual_memory().total // 4
    heap = min(max(memory, GIB), 4 * GIB) // (1 << 20)
    return {
        "driver_memory": f"{heap}m",
        "driver_max_result_size": "1g",
        "shuffle_partitions": max(2, local_cores(settings.master)),
        "dynamic_allocation_enabled": False,
        "speculation_enabled": False,
        "sql_autoBroadcastJoinThreshold": "32mb",
    }


def local_cores(master: str) -> int:
    """Threads of a local master: ``local[4]`` is 4, ``local[*]`` is every core."""
    inner = master.removeprefix("local").strip("[]").split(",")[0]
    if inner == "*":
        return os.cpu_count() or 1
    return int(inner) if inner.isdigit() else 1


def as_text(value: object) -> str:
    """A value as Spark's configuration writes it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _delta_conf(settings: SparkSettings) -> dict[str, str]:
    conf = {
        "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
        "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
    }
    if is_local(settings):
        # Delta reads its log with 50 partitions by default: 26 s more on a laptop.
        conf["spark.databricks.delta.snapshotPartitions"] = "2"
    return conf


def s3_options(settings: SparkSettings, storage: StorageSettings) -> StorageOptions:
    """How S3 is reached: Spark's own options, and the storage's where they are not set."""
    access = settings.s3_access_key or storage.access_key
    secret = settings.s3_secret_key or storage.secret_key
    token = settings.s3_session_token or storage.session_token
    tls = storage.uses_tls if settings.s3_ssl_enabled is None else settings.s3_ssl_enabled
    return StorageOptions(
        endpoint=_without_scheme(settings.s3_endpoint or storage.endpoint),
        access_key=access.get_secret_value() if access else None,
        secret_key=secret.get_secret_value() if secret else None,
        session_token=token.get_secret_value() if token else None,
        region=settings.s3_region or storage.region,
        secure=tls,
    )


def _s3_conf(settings: SparkSettings, storage: StorageSettings) -> dict[str, str]:
    """S3A's keys."""
    options = s3_options(settings, storage)
    values: dict[str, object | None] = {
        "impl": "org.apache.hadoop.fs.s3a.S3AFileSystem",
        "endpoint": options.endpoint,
        "endpoint.region": options.region,
        "access.key": options.access_key,
        "secret.key": options.secret_key,
        "session.token": options.session_token,
        "path.style.access": settings.s3_path_style_access,
        "connection.ssl.enabled": options.secure,
        "connection.maximum": settings.s3_max_connections,
        "multipart.threshold": settings.s3_multipart_threshold or storage.multipart_threshold,
        "multipart.size": settings.s3_multipart_size,
        "fast.upload.buffer": settings.s3_fast_upload_buffer,
        "threads.max": storage.max_concurrency,
        # A dead endpoint is told in seconds, not after a minute of retries.
        "attempts.maximum": 3,
        "retry.limit": 2,
        "connection.establish.timeout": "5s",
    }
    if options.session_token is not None:
        values["aws.credentials.provider"] = (
            "org.apache.hadoop.fs.s3a.TemporaryAWSCredentialsProvider"
        )
    keys = {
        f"spark.hadoop.fs.s3a.{key}": as_text(value)
        for key, value in values.items()
        if value is not None
    }
    return keys | {"spark.hadoop.fs.s3.impl": "org.apache.hadoop.fs.s3a.S3AFileSystem"}


def _without_scheme(endpoint: str | None) -> str | None:
    return endpoint.split("://")[-1] if endpoint else None


def jar_conf(jars: list[Path]) -> dict[str, str]:
    """Key for jars that lie on disk; a session so started resolves nothing."""
    return {"spark.jars": ",".join(str(jar) for jar in jars)} if jars else {}
