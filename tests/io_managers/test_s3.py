"""All IO managers on a real S3 server: formats by partitioning, failures told soon."""

import subprocess
import sys
import time
from contextlib import closing
from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from neurolake_dagster.io_managers.base import LakehouseIOManager
from neurolake_dagster.resources import StorageResource
from neurolake_dagster.spark import find_java
from tests.io_managers.test_io_managers import (
    DAYS,
    MANAGERS,
    failure,
    instance,
    metadata_of,
    run,
    run_range,
    stored,
)
from tests.s3_server import S3Server, open_client

__all__ = ["instance"]
pytestmark = [
    pytest.mark.filterwarnings("ignore:Parameter `backfill_policy`:dagster.BetaWarning"),
]
REGIONS = dg.MultiPartitionsDefinition(
    {"day": DAYS, "region": dg.StaticPartitionsDefinition(["eu/west", "us"])}
)


def s3_storage(server: S3Server, prefix: str, **changes: Any) -> StorageResource:
    asked: dict[str, Any] = {
        "root": f"s3://{server.bucket}/{prefix}",
        "endpoint": server.endpoint,
        "access_key": server.access_key,
        "secret_key": server.secret_key,
        "region": server.region,
    }
    return StorageResource(**(asked | changes))


@pytest.fixture(params=list(MANAGERS))
def manager(
    request: pytest.FixtureRequest, tmp_path: Path, s3_server: S3Server
) -> LakehouseIOManager:
    return MANAGERS[request.param](storage=s3_storage(s3_server, tmp_path.name))


def test_a_table_is_written_read_and_overwritten(
    manager: LakehouseIOManager, instance: dg.DagsterInstance
) -> None:
    seen: list[int] = []

    @dg.asset(key=["raw", "big"])
    def made() -> pa.RecordBatchReader:
        batch = pa.record_batch({"x": range(100_000), "text": [f"{i}" for i in range(100_000)]})
        return pa.RecordBatchReader.from_batches(batch.schema, iter([batch] * 12))

    @dg.asset(ins={"made": dg.AssetIn(["raw", "big"], metadata={"columns": ["x"]})})
    def used(made: pl.DataFrame) -> None:
        seen.append(made.height)

    for _ in range(2):
        assert run([made, used], manager, instance).success
    assert seen == [1_200_000, 1_200_000]
    event = instance.get_latest_materialization_event(dg.AssetKey(["raw", "big"]))
    assert event is not None
    assert event.asset_materialization is not None
    uri = event.asset_materialization.metadata["dagster/uri"].value
    assert uri == manager.dataset_storage().uri("raw/big")
    assert uri.startswith("s3://lake/")


def test_large_files_go_up_in_parts_and_come_back(
    manager: LakehouseIOManager, instance: dg.DagsterInstance, s3_server: S3Server
) -> None:
    """Compressed, no other test's files were larger than one part of an upload."""
    noise = np.random.default_rng(1).bytes(24 << 20)
    kind, buffers = pa.binary(1 << 10), [None, pa.py_buffer(noise)]
    rows = pa.FixedSizeBinaryArray.from_buffers(kind, 24 << 10, buffers)
    table = pa.table({"noise": rows.cast(pa.binary())})

    @dg.asset
    def large() -> pa.RecordBatchReader:
        return table.to_reader(1 << 10)

    seen: list[pa.Table] = []

    @dg.asset
    def used(large: pa.Table) -> None:
        seen.append(large)

    assert run([large, used], manager, instance).success
    assert seen[0].sort_by("noise").equals(table.sort_by("noise"))
    with closing(open_client(s3_server)) as client:
        prefix = manager.dataset_storage().root.split("/", 3)[3]
        found = client.list_objects_v2(Bucket=s3_server.bucket, Prefix=f"{prefix}/large/")
    parts = {
        entry["Size"]: entry["ETag"].strip('"').rpartition("-")[2] for entry in found["Contents"]
    }
    # An upload in parts has their number behind its hash.
    assert int(parts[max(parts)]) >= 3


def test_daily_ranges_replace_exactly_their_days(
    manager: LakehouseIOManager, instance: dg.DagsterInstance
) -> None:
    @dg.asset(
        partitions_def=DAYS,
        backfill_policy=dg.BackfillPolicy.single_run(),
        metadata={"partition_expr": "day"},
    )
    def events(context: dg.AssetExecutionContext) -> pl.DataFrame:
        days = [date.fromisoformat(key) for key in context.partition_keys]
        return pl.DataFrame({"day": days, "n": [day.day for day in days]})

    assert run_range(events, manager, instance, "2013-01-01", "2013-01-05").success
    assert run_range(events, manager, instance, "2013-01-04", "2013-01-06").success
    assert sorted(stored(manager, "events")["n"].to_pylist()) == [1, 2, 3, 4, 5, 6]
    assert metadata_of(instance, "events")["dagster/partition_row_count"] == 1


def test_multi_partitions_are_told_apart_by_both_columns(
    manager: LakehouseIOManager, instance: dg.DagsterInstance
) -> None:
    seen: list[list[int]] = []

    @dg.asset(
        partitions_def=REGIONS, metadata={"partition_expr": {"day": "day", "region": "region"}}
    )
    def sales(context: dg.AssetExecutionContext) -> pl.DataFrame:
        keys = context.partition_key.keys_by_dimension
        day = date.fromisoformat(keys["day"])
        return pl.DataFrame({"day": [day], "region": [keys["region"]], "n": [day.day]})

    @dg.asset(partitions_def=REGIONS)
    def used(sales: pa.Table) -> None:
        seen.append(sales["n"].to_pylist())

    for day, region in (("2013-01-01", "us"), ("2013-01-02", "us"), ("2013-01-01", "eu/west")):
        key = dg.MultiPartitionKey({"day": day, "region": region})
        assert run([sales], manager, instance, partition_key=key).success
    key = dg.MultiPartitionKey({"day": "2013-01-01", "region": "eu/west"})
    assert run([sales, used], manager, instance, selection=[used], partition_key=key).success
    assert seen == [[1]]
    assert sorted(stored(manager, "sales")["n"].to_pylist()) == [1, 1, 2]


def test_frames_of_all_formats_and_partitionings(s3_server: S3Server, tmp_path: Path) -> None:
    if find_java() is None:
        pytest.skip("no Java on this machine")
    root = f"s3://{s3_server.bucket}/{tmp_path.name}"
    keys = (s3_server.endpoint, s3_server.access_key, s3_server.secret_key)
    command = [sys.executable, "-m", "tests.io_managers.spark_on_s3", root, *keys]
    found = subprocess.run(command, capture_output=True, text=True, check=False, timeout=280)
    assert found.returncode == 0, found.stderr[-4000:]
    assert found.stdout.split("\n")[:3] == [f"{name} is right" for name in MANAGERS]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"secret_key": "wrong"}, "access"),
        ({"root": "s3://absent/x"}, "bucket"),
        ({"endpoint": "http://127.0.0.1:9"}, "answer"),
    ],
    ids=["wrong key", "missing bucket", "refused"],
)
@pytest.mark.parametrize("name", list(MANAGERS))
def test_an_unusable_store_is_told_soon(
    s3_server: S3Server,
    instance: dg.DagsterInstance,
    name: str,
    changes: dict[str, Any],
    told: str,
) -> None:
    manager = MANAGERS[name](storage=s3_storage(s3_server, "broken", **changes))

    @dg.asset
    def made() -> pa.Table:
        return pa.table({"x": [1]})

    started = time.monotonic()
    result = run([made], manager, instance, raise_on_error=False)
    assert time.monotonic() - started < 15
    assert "neurolake_dagster.errors.Storage" in str(failure(result))
    assert told in str(failure(result))
    assert s3_server.secret_key not in str(failure(result))
