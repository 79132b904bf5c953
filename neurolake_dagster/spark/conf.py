"""Settings as Spark's own keys.

Owns the table from option to Spark keys, and which value an option has that was not set: the
storage's, the profile's, or its default. Starts nothing.
"""

import os
import re
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from neurolake_dagster.errors import SettingsError
from neurolake_dagster.settings import SparkSettings, StorageSettings
from neurolake_dagster.settings.checks import default_tls, scheme_tls
from neurolake_dagster.settings.redaction import REDACTED
from neurolake_dagster.spark.jvm import DELTA_LOG, DELTA_LOG_JAR
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
    "driver_host": "spark.driver.host",
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
    "python": "spark.pyspark.python",
}
LOOPBACK = "127.0.0.1"
S3A = "spark.hadoop.fs.s3a."
S3_KEYS: dict[str, str] = {
    "s3_endpoint": f"{S3A}endpoint",
    "s3_access_key": f"{S3A}access.key",
    "s3_secret_key": f"{S3A}secret.key",
    "s3_session_token": f"{S3A}session.token",
    "s3_region": f"{S3A}endpoint.region",
    "s3_path_style_access": f"{S3A}path.style.access",
    "s3_ssl_enabled": f"{S3A}connection.ssl.enabled",
    "s3_max_connections": f"{S3A}connection.maximum",
    "s3_multipart_threshold": f"{S3A}multipart.threshold",
    "s3_multipart_size": f"{S3A}multipart.size",
    "s3_fast_upload_buffer": f"{S3A}fast.upload.buffer",
}
SECRETS = ("s3_access_key", "s3_secret_key", "s3_session_token")
# What Hadoop takes for one bucket alone, and what it is called here.
BUCKET_KEYS: dict[str, str] = {
    "endpoint": "endpoint",
    "access.key": "access_key",
    "secret.key": "secret_key",
    "session.token": "session_token",
    "endpoint.region": "region",
    "connection.ssl.enabled": "secure",
}
_OF_BUCKET = re.compile(rf"{re.escape(S3A)}bucket\.(.+)\.({'|'.join(map(re.escape, BUCKET_KEYS))})")
# The keys of an option that stand for more than its value, when it is on.
SWITCHES: dict[str, dict[str, str]] = {
    "dynamic_allocation_enabled": {"spark.dynamicAllocation.shuffleTracking.enabled": "true"},
    "delta_enabled": {
        "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
        "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
    },
    "s3_enabled": {
        f"{S3A}impl": "org.apache.hadoop.fs.s3a.S3AFileSystem",
        "spark.hadoop.fs.s3.impl": "org.apache.hadoop.fs.s3a.S3AFileSystem",
    },
}
DELTA_LOGS = "spark.delta.logStore."
# In the local profile a dead endpoint is told in seconds; a job on a cluster survives a throttled
# or restarting store by S3A's own minutes of retries.
IMPATIENCE: dict[str, str] = {
    f"{S3A}attempts.maximum": "3",
    f"{S3A}retry.limit": "2",
    # The least that S3A takes.
    f"{S3A}connection.establish.timeout": "15s",
}
MACHINE_CREDENTIALS = "software.amazon.awssdk.auth.credentials.DefaultCredentialsProvider"
# TCP between the JVM and its Python workers waits 40 ms for an acknowledgement at a task's start.
WORKERS: dict[str, str] = {"spark.python.unix.domain.socket.enabled": "true"}
# Codecs that Spark's own blocks (shuffle, broadcast) can use as well.
BLOCK_CODECS = ("zstd", "snappy", "lz4")
ALWAYS: dict[str, str] = {
    "spark.ui.showConsoleProgress": "false",
    # Arrow carries rows between the JVM and Python; DataFrames of Arrow data need it.
    "spark.sql.execution.arrow.pyspark.enabled": "true",
    # Spark 4.2 hands batches of columns to workers of `udf` without the types that these wait for:
    # over NCF and over Parquet such a query never ends.
    "spark.sql.execution.arrow.pythonUDF.columnarInput.enabled": "false",
    "spark.sql.sources.useV1SourceList": "avro,csv,json,kafka,orc,parquet,text",
    # Spark's default, INT96, has no statistics, and other readers take it for nanoseconds.
    "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
    "spark.redaction.regex": REDACTED,
    "spark.sql.redaction.options.regex": f"{REDACTED}|url",
}
Origin = Literal["field", "environment", "storage", "profile", "default"]


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The value of one option, where it came from, and the Spark keys it sets."""

    option: str
    value: object
    origin: Origin
    keys: dict[str, str]


def choose(settings: SparkSettings, storage: StorageSettings) -> list[Choice]:
    """Decide every option: what is set, then the storage's, then the profile's, then defaults."""
    unset = settings.unset_values()
    inherited = _inherited(settings, storage)
    found = []
    for name in SparkSettings.model_fields:
        value: object = getattr(settings, name)
        origin: Origin = settings.origin(name)
        if origin == "default" and name in inherited:
            value, origin = inherited[name]
        elif origin == "default" and name in unset:
            value, origin = unset[name], "profile"
        found.append(
            Choice(option=name, value=value, origin=origin, keys=_keys(settings, name, value))
        )
    return found


def build_conf(settings: SparkSettings, storage: StorageSettings) -> dict[str, str]:
    """Translate settings to Spark's keys and values; `extra_configs` win over all others."""
    conf = dict(ALWAYS)
    for choice in choose(settings, storage):
        conf |= choice.keys
    if settings.delta_enabled and settings.is_local:
        # Delta reads its log with 50 partitions by default: 26 s more on a laptop.
        conf["spark.databricks.delta.snapshotPartitions"] = "2"
    if settings.s3_enabled:
        conf[f"{S3A}threads.max"] = str(storage.max_concurrency)
        if f"{S3A}session.token" in conf:
            provider = "org.apache.hadoop.fs.s3a.TemporaryAWSCredentialsProvider"
            conf[f"{S3A}aws.credentials.provider"] = provider
        elif f"{S3A}access.key" not in conf:
            # S3A's own list passes over profiles and web identities.
            conf[f"{S3A}aws.credentials.provider"] = MACHINE_CREDENTIALS
        if settings.profile_in_force == "local":
            conf |= IMPATIENCE
    if settings.is_local:
        if _is_umask_private():
            conf |= WORKERS
        if _can_preload(settings):
            conf["spark.python.daemon.module"] = "neurolake_dagster.spark.daemon"
    if conf.get("spark.driver.host") == LOOPBACK:
        conf["spark.driver.bindAddress"] = LOOPBACK
    return conf | settings.extra_configs


def is_local(settings: SparkSettings) -> bool:
    """Whether driver and executors are one process on this machine."""
    return settings.is_local


def workers_python(settings: SparkSettings) -> str | None:
    """The Python that workers are to run; None leaves it to the cluster."""
    found = settings.python or os.environ.get("PYSPARK_PYTHON")
    # On this machine it must be this Python: another one lacks this package and pyarrow.
    return found or (_this_python() if settings.is_here else None)


def _this_python() -> str:
    """Return this Python in one spelling, however it was called: servers are compared by it."""
    found = Path(sys.prefix).resolve() / "bin" / "python3"
    return str(found) if found.exists() else sys.executable


def _can_preload(settings: SparkSettings) -> bool:
    """Whether workers may be forked from `daemon`: they run this Python, and forks are safe."""
    python = Path(workers_python(settings) or "")
    is_ours = python.is_absolute() and python.parent.resolve() == Path(_this_python()).parent
    # macOS's own libraries do not survive a fork.
    return is_ours and sys.platform == "linux"


def _is_umask_private() -> bool:
    """Whether nobody else may write to a new file, and so get into a new socket."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask & 0o022 == 0o022


def launch_environment(settings: SparkSettings) -> dict[str, str]:
    """The variables that a JVM of these settings is launched with."""
    python = workers_python(settings)
    found = {"PYSPARK_DRIVER_PYTHON": sys.executable, "PYSPARK_PYTHON": python or "python3"}
    if settings.is_here and settings.driver_host in (None, LOOPBACK, "localhost"):
        # What Spark serves listens here; on a real cluster executors have to reach the driver.
        found["SPARK_LOCAL_IP"] = os.environ.get("SPARK_LOCAL_IP", LOOPBACK)
    return found


def as_text(value: object) -> str:
    """A value as Spark's configuration writes it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def s3_options(settings: SparkSettings, storage: StorageSettings) -> StorageOptions:
    """How S3 is reached: Spark's own options, and the storage's where they are not set.

    The only place that decides it, for S3A and for the format ncf. The keys and their token are
    taken together, from one of the two.

    Raises
    ------
    SettingsError
        If `s3_ssl_enabled` contradicts the scheme of the storage's endpoint.
    """
    owner: tuple[SparkSettings | StorageSettings, str] = (
        (storage, "") if settings.s3_access_key is None else (settings, "s3_")
    )
    keys = {
        name: secret.get_secret_value()
        for name in ("access_key", "secret_key", "session_token")
        if (secret := getattr(owner[0], owner[1] + name)) is not None
    }
    region = settings.s3_region or storage.region
    secure = _tls(settings, storage)[0]
    endpoint = _without_scheme(settings.s3_endpoint or storage.endpoint)
    if endpoint is None and not secure:
        # Without an endpoint, AWS is reached by TLS.
        endpoint = f"s3.{region}.amazonaws.com"
    return StorageOptions(endpoint=endpoint, region=region, secure=secure, **keys)


def bucket_options(settings: SparkSettings, storage: StorageSettings) -> dict[str, StorageOptions]:
    """How those buckets are reached that `extra_configs` tell apart, by name: as S3A does it.

    The keys and their token are taken together here too.
    """
    told: dict[str, dict[str, str]] = {}
    for key, value in settings.extra_configs.items():
        found = _OF_BUCKET.fullmatch(key)
        if found is not None:
            told.setdefault(found[1], {})[BUCKET_KEYS[found[2]]] = value
    base = s3_options(settings, storage)
    return {bucket: with_own(base, own) for bucket, own in told.items()}


def with_own(base: StorageOptions, own: dict[str, str]) -> StorageOptions:
    """The options of a bucket: its own, by the names of `BUCKET_KEYS`, and the rest of `base`."""
    texts = {name: value for name, value in own.items() if name != "secure"}
    token: dict[str, Any] = {"session_token": None} if "access_key" in own else {}
    secure = own["secure"] == "true" if "secure" in own else base.secure
    return replace(base, **{**token, **texts}, secure=secure)


def jar_conf(jars: list[Path], settings: SparkSettings) -> dict[str, str]:
    """Keys for jars that lie on disk, with those of `extra_configs`; nothing is to be resolved.

    With Delta's log on S3 among them, Delta uses it, unless `extra_configs` name another.
    """
    found = [*map(_jar_address, jars), *_extra_jars(settings)]
    conf = {"spark.jars": ",".join(found)} if found else {}
    is_told = any(key.startswith(DELTA_LOGS) for key in settings.extra_configs)
    if not is_told and any(jar.name.startswith(DELTA_LOG_JAR) for jar in jars):
        conf |= {f"{DELTA_LOGS}{scheme}.impl": DELTA_LOG for scheme in ("s3", "s3a")}
    return conf


def _jar_address(jar: Path) -> str:
    """A jar as Spark's list takes it: commas divide that, and what follows a # is no path."""
    return jar.absolute().as_uri() if {",", "#"} & set(str(jar)) else str(jar)


def static_facts(settings: SparkSettings) -> dict[str, str]:
    """What a Spark is started with beside its keys: the master, and jars that were given."""
    jars = [*(settings.jars or ()), *_extra_jars(settings)]
    return {"spark.master": settings.master, **({"spark.jars": ",".join(jars)} if jars else {})}


def _extra_jars(settings: SparkSettings) -> list[str]:
    jars = settings.extra_configs.get("spark.jars")
    return [jars] if jars else []


def explicit_keys(settings: SparkSettings, storage: StorageSettings) -> set[str]:
    """The keys whose values somebody has set, in code or environment."""
    chosen = [one for one in choose(settings, storage) if one.origin in ("field", "environment")]
    options = {one.option for one in chosen}
    facts = {"master": "spark.master", "jars": "spark.jars"}
    found = {key for one in chosen for key in one.keys}
    found |= {key for option, key in facts.items() if option in options}
    return found | settings.extra_configs.keys()


def _tls(settings: SparkSettings, storage: StorageSettings) -> tuple[bool, Origin]:
    """Whether S3 is reached by TLS, and who says so."""
    asked = settings.s3_ssl_enabled
    if asked is not None:
        lent = None if settings.s3_endpoint else scheme_tls(storage.endpoint)
        if lent not in (None, asked):
            raise SettingsError(
                f"s3_ssl_enabled: {asked} contradicts the storage's endpoint {storage.endpoint}; "
                "drop one, or give Spark an s3_endpoint of its own"
            )
        return asked, settings.origin("s3_ssl_enabled")
    by_scheme = scheme_tls(settings.s3_endpoint)
    if by_scheme is not None:
        return by_scheme, settings.origin("s3_endpoint")
    if storage.asked_tls is not None:
        return storage.asked_tls, "storage"
    by_profile = settings.unset_values().get("s3_ssl_enabled")
    if by_profile is not None:
        return bool(by_profile), "profile"
    return default_tls(settings.s3_endpoint or storage.endpoint), "default"


def _inherited(
    settings: SparkSettings, storage: StorageSettings
) -> dict[str, tuple[object, Origin]]:
    """What options are by their surroundings: the machine's, and for S3 the storage's."""
    found: dict[str, tuple[object, Origin]] = {}
    python = workers_python(settings)
    if python is not None:
        found["python"] = python, "default"
    if settings.is_here:
        found["driver_host"] = LOOPBACK, "default"
    if not settings.s3_enabled:
        return found
    options = s3_options(settings, storage)
    lent = {
        "s3_endpoint": options.endpoint,
        "s3_access_key": options.access_key,
        "s3_secret_key": options.secret_key,
        "s3_session_token": options.session_token,
        "s3_region": options.region,
        "s3_multipart_threshold": storage.multipart_threshold,
    }
    found |= {name: (value, "storage") for name, value in lent.items() if value is not None}
    return found | {"s3_ssl_enabled": _tls(settings, storage)}


def _keys(settings: SparkSettings, name: str, value: object) -> dict[str, str]:
    """The Spark keys that one option sets."""
    if value is None or (name.startswith("s3_") and not settings.s3_enabled):
        return {}
    keys = dict(SWITCHES.get(name, {})) if value is True else {}
    if name in SECRETS and not isinstance(value, str):
        value = getattr(settings, name).get_secret_value()
    if name == "s3_endpoint":
        value = _without_scheme(str(value))
    if name == "warehouse_dir" and settings.is_here and not re.match(r"\w+:", str(value)):
        # As Spark writes it, so that what runs can be compared with it.
        value = f"file:{Path(str(value)).absolute()}"
    key = KEYS.get(name) or S3_KEYS.get(name)
    if key is not None:
        keys[key] = as_text(value)
    if name == "compression_codec" and value in BLOCK_CODECS:
        keys["spark.io.compression.codec"] = as_text(value)
    if name == "neurolake_pushdown_enabled":
        keys["spark.sql.python.filterPushdown.enabled"] = as_text(value)
    return keys


def _without_scheme(endpoint: str | None) -> str | None:
    return endpoint.split("://")[-1].rstrip("/") if endpoint else None
