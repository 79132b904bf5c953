"""Every option against a real session: what the running Spark says, not what we told it."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from neurolake_dagster.settings import CacheSettings, SparkSettings
from neurolake_dagster.spark import find_jars

pytestmark = [pytest.mark.spark, pytest.mark.slow]

SECRETS = ("hidden-id", "hidden-key", "hidden-token", "hidden-extra")
S3A = "spark.hadoop.fs.s3a."
# Option, value that is not its default wherever a session can show another, and by Spark key what
# must run. {folder} is the test's own.
PROOFS: list[tuple[str, str, dict[str, str]]] = [
    ("master", "local[2]", {"spark.master": "local[2]"}),
    ("profile", "production", {"profile": "production"}),
    ("python", "{folder}/python", {"spark.pyspark.python": "{folder}/python"}),
    ("driver_host", "localhost", {"spark.driver.host": "localhost"}),
    ("neurolake_ncf_enabled", "true", {"format ncf": "true"}),
    (
        "delta_enabled",
        "true",
        {
            "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
            "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
        },
    ),
    (
        "s3_enabled",
        "true",
        {
            f"{S3A}impl": "org.apache.hadoop.fs.s3a.S3AFileSystem",
            "spark.hadoop.fs.s3.impl": "org.apache.hadoop.fs.s3a.S3AFileSystem",
        },
    ),
    ("event_log_dir", "{folder}/events", {"spark.eventLog.dir": "{folder}/events"}),
    ("warehouse_dir", "{folder}/warehouse", {"spark.sql.warehouse.dir": "file:{folder}/warehouse"}),
    ("jars", "{jars}", {}),
    ("app_name", "Proof", {"spark.app.name": "Proof"}),
    ("executor_memory", "3g", {"spark.executor.memory": "3g"}),
    ("executor_memory_overhead", "700m", {"spark.executor.memoryOverhead": "700m"}),
    ("executor_cores", "3", {"spark.executor.cores": "3"}),
    ("executor_instances", "2", {"spark.executor.instances": "2"}),
    ("driver_memory", "900m", {"spark.driver.memory": "900m"}),
    ("driver_memory_overhead", "300m", {"spark.driver.memoryOverhead": "300m"}),
    ("driver_cores", "3", {"spark.driver.cores": "3"}),
    ("driver_max_result_size", "700m", {"spark.driver.maxResultSize": "700m"}),
    ("dynamic_allocation_enabled", "false", {"spark.dynamicAllocation.enabled": "false"}),
    ("dynamic_allocation_min_executors", "2", {"spark.dynamicAllocation.minExecutors": "2"}),
    ("dynamic_allocation_max_executors", "7", {"spark.dynamicAllocation.maxExecutors": "7"}),
    (
        "dynamic_allocation_initial_executors",
        "3",
        {"spark.dynamicAllocation.initialExecutors": "3"},
    ),
    ("aqe_enabled", "false", {"spark.sql.adaptive.enabled": "false"}),
    (
        "aqe_coalesce_partitions_enabled",
        "false",
        {"spark.sql.adaptive.coalescePartitions.enabled": "false"},
    ),
    (
        "aqe_coalesce_partitions_min_partition_size",
        "2mb",
        {"spark.sql.adaptive.coalescePartitions.minPartitionSize": "2mb"},
    ),
    ("aqe_skew_join_enabled", "false", {"spark.sql.adaptive.skewJoin.enabled": "false"}),
    (
        "aqe_skew_join_skewed_partition_factor",
        "6.5",
        {"spark.sql.adaptive.skewJoin.skewedPartitionFactor": "6.5"},
    ),
    (
        "aqe_skew_join_skewed_partition_threshold",
        "128mb",
        {"spark.sql.adaptive.skewJoin.skewedPartitionThresholdInBytes": "128mb"},
    ),
    ("shuffle_partitions", "11", {"spark.sql.shuffle.partitions": "11"}),
    ("shuffle_compress", "false", {"spark.shuffle.compress": "false"}),
    (
        "compression_codec",
        "snappy",
        {
            "spark.sql.parquet.compression.codec": "snappy",
            "spark.io.compression.codec": "snappy",
        },
    ),
    (
        "serializer",
        "org.apache.spark.serializer.JavaSerializer",
        {"spark.serializer": "org.apache.spark.serializer.JavaSerializer"},
    ),
    (
        "neurolake_cache_enabled",
        "false",
        {"spark.sql.inMemoryColumnarStorage.compressed": "false"},
    ),
    (
        "neurolake_pushdown_enabled",
        "false",
        {
            "spark.sql.parquet.filterPushdown": "false",
            "spark.sql.python.filterPushdown.enabled": "false",
        },
    ),
    (
        "neurolake_vectorized_reader",
        "false",
        {"spark.sql.parquet.enableVectorizedReader": "false"},
    ),
    ("s3_endpoint", "minio:9000", {f"{S3A}endpoint": "minio:9000"}),
    ("s3_access_key", "hidden-id", {f"{S3A}access.key": "hidden-id"}),
    ("s3_secret_key", "hidden-key", {f"{S3A}secret.key": "hidden-key"}),
    ("s3_session_token", "hidden-token", {f"{S3A}session.token": "hidden-token"}),
    ("s3_region", "eu-9", {f"{S3A}endpoint.region": "eu-9"}),
    ("s3_path_style_access", "false", {f"{S3A}path.style.access": "false"}),
    ("s3_ssl_enabled", "false", {f"{S3A}connection.ssl.enabled": "false"}),
    ("s3_max_connections", "33", {f"{S3A}connection.maximum": "33"}),
    ("s3_multipart_threshold", "99m", {f"{S3A}multipart.threshold": "99m"}),
    ("s3_multipart_size", "9m", {f"{S3A}multipart.size": "9m"}),
    ("s3_fast_upload_buffer", "array", {f"{S3A}fast.upload.buffer": "array"}),
    ("sql_autoBroadcastJoinThreshold", "5mb", {"spark.sql.autoBroadcastJoinThreshold": "5mb"}),
    ("sql_files_maxPartitionBytes", "64mb", {"spark.sql.files.maxPartitionBytes": "64mb"}),
    ("log_level", "ERROR", {"spark.log.level": "ERROR"}),
    ("ui_enabled", "true", {"spark.ui.enabled": "true"}),
    ("ui_port", "4747", {"spark.ui.port": "4747"}),
    ("speculation_enabled", "false", {"spark.speculation": "false"}),
    ("memory_fraction", "0.5", {"spark.memory.fraction": "0.5"}),
    ("memory_storage_fraction", "0.4", {"spark.memory.storageFraction": "0.4"}),
    ("event_log_enabled", "true", {"spark.eventLog.enabled": "true"}),
    ("session_timezone", "Europe/Berlin", {"spark.sql.session.timeZone": "Europe/Berlin"}),
    (
        "extra_configs",
        '{"spark.sql.caseSensitive": "true", "spark.my.Secret": "hidden-extra"}',
        {"spark.sql.caseSensitive": "true", "spark.my.Secret": "hidden-extra"},
    ),
]
# Options that no session of its own process shows, and where they are proven.
ELSEWHERE = {"remote": "test_remote.py", "teardown": "test_session.py"}
SCRIPT = """
import json, sys, threading, urllib.request
import psutil
from neurolake_dagster.resources import SparkResource
from neurolake_dagster.spark.effective import running_value

resource = SparkResource()
found = []
threads = [threading.Thread(target=lambda: found.append(resource.spark_session)) for _ in range(32)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
# The main thread's too: what follows runs in a thread that did not start it.
spark = resource.spark_session
children = psutil.Process().children(recursive=True)
keys = json.loads(sys.argv[1])
api = f"{spark.sparkContext.uiWebUrl}/api/v1/applications/{spark.sparkContext.applicationId}"
with urllib.request.urlopen(f"{api}/environment") as answer:
    page = answer.read().decode()
runtime = spark.sparkContext._jvm.java.lang.Runtime.getRuntime()
print(json.dumps({
    "running": {key: running_value(spark, key) for key in keys},
    "effective": {one.option: [one.asked, one.running, one.origin, one.fits]
                  for one in resource.effective()},
    "ui": spark.sparkContext.uiWebUrl,
    "page": page,
    "sessions": [len(found), len({id(one) for one in [*found, spark]})],
    "jvms": [one.cmdline() for one in children if "java" in one.name()],
    "heap": runtime.maxMemory(),
    "tasks": spark.sparkContext.defaultParallelism,
    "threads": running_value(spark, "spark.hadoop.fs.s3a.threads.max"),
    "python": spark.sparkContext.parallelize([0]).map(
        lambda _: __import__("os").environ.get("PROOF_PYTHON")).first(),
    "jar": spark._jvm.Thread.currentThread().getContextClassLoader()
        .getResource("proof.txt") is not None,
    "table": spark.sql("create table kept using parquet as select 1 as k").count(),
    "log": spark.sparkContext._jvm.org.apache.logging.log4j.LogManager
        .getRootLogger().getLevel().toString(),
    "formats": spark.range(1).write.format("ncf").mode("overwrite").save(sys.argv[2]),
}))
"""


@pytest.fixture(scope="module")
def proof(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a session of its own process says that was started with all options changed."""
    folder = tmp_path_factory.mktemp("proof")
    (folder / "python").write_text(f'#!/bin/sh\nPROOF_PYTHON=own exec {sys.executable} "$@"\n')
    (folder / "python").chmod(0o755)
    with zipfile.ZipFile(folder / "proof.jar", "w") as jar:
        jar.writestr("proof.txt", "here")
    cache = CacheSettings.load().dir.absolute()
    jars = json.dumps([str(jar) for jar in [*find_jars(cache), folder / "proof.jar"]])
    options = {
        f"NEUROLAKE_SPARK__{name.upper()}": value.replace("{folder}", str(folder)).replace(
            "{jars}", jars
        )
        for name, value, _ in PROOFS
    }
    options["NEUROLAKE_CACHE__DIR"] = str(cache)
    options["NEUROLAKE_STORAGE__MAX_CONCURRENCY"] = "7"
    keys = [key for _, _, keys in PROOFS for key in keys]
    found = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(keys), str(folder / "table")],
        env=os.environ | options,
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=250,
    )
    assert found.returncode == 0, found.stderr
    result: dict[str, Any] = json.loads(found.stdout.splitlines()[-1])
    return result | {"folder": folder, "stderr": found.stderr}


def test_every_option_has_a_proof() -> None:
    assert {name for name, _, _ in PROOFS} | ELSEWHERE.keys() == set(SparkSettings.model_fields)


@pytest.mark.parametrize(("option", "value", "keys"), PROOFS, ids=[one[0] for one in PROOFS])
def test_option_runs(proof: dict[str, Any], option: str, value: str, keys: dict[str, str]) -> None:
    _asked, running, origin, fits = proof["effective"][option]
    # What is no key of Spark's, only the resource tells.
    found = {key: proof["running"][key] or running[key] for key in keys}
    assert found == {
        key: one.replace("{folder}", str(proof["folder"])) for key, one in keys.items()
    }
    assert (origin, fits) == ("environment", True)


def test_options_do_what_they_say(proof: dict[str, Any]) -> None:
    assert 800 << 20 <= proof["heap"] <= 900 << 20
    assert proof["ui"].endswith(":4747")
    assert proof["log"] == "ERROR"
    assert (proof["tasks"], proof["python"]) == (2, "own")
    assert proof["threads"] == "7"
    assert proof["jar"]
    assert "proof.jar" in proof["effective"]["jars"][1]["spark.jars"]
    folder: Path = proof["folder"]
    assert list((folder / "events").iterdir())
    assert list((folder / "table").glob("*.ncf"))
    assert list((folder / "warehouse" / "kept").glob("*.parquet"))


def test_32_threads_start_one_session_once(proof: dict[str, Any]) -> None:
    assert proof["sessions"] == [32, 1]
    assert len(proof["jvms"]) == 1


def test_secrets_are_redacted_everywhere(proof: dict[str, Any]) -> None:
    events = "".join(
        path.read_text(errors="replace")
        for path in (proof["folder"] / "events").rglob("*")
        if path.is_file()
    )
    assert "fs.s3a.secret.key" in proof["page"]
    # Every user of a machine can read the command lines of its processes.
    (command,) = proof["jvms"]
    assert "spark.driver.memory=900m" in command
    texts = [
        " ".join(command),
        proof["page"],
        json.dumps(proof["effective"]),
        proof["stderr"],
        events,
    ]
    for secret in SECRETS:
        assert not [text for text in texts if secret in text]
