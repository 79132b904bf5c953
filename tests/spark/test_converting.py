"""Conversions by Spark: what is read and written, and what the result tells of it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from neurolake_dagster import ncf
from neurolake_dagster.errors import StorageNotFoundError, TableError
from neurolake_dagster.spark import FileConversion, convert_ncf_to_parquet, convert_parquet_to_ncf
from neurolake_dagster.storage import Storage
from neurolake_dagster.tables import Table
from tests.s3_server import S3Server

pytestmark = pytest.mark.spark
ROWS = pa.table({"id": range(1000), "k": [i % 3 for i in range(1000)]})


def table_at(folder: Path) -> Table:
    return Table(Storage(str(folder.parent)), folder.name, "ncf")


def bytes_below(folder: Path, suffix: str) -> int:
    return sum(path.stat().st_size for path in folder.rglob(f"*.{suffix}"))


def test_parquet_to_ncf_and_back(spark: SparkSession, tmp_path: Path) -> None:
    pq.write_to_dataset(ROWS, tmp_path / "in", partition_cols=["k"])
    there = convert_parquet_to_ncf(str(tmp_path / "in"), str(tmp_path / "ncf"), spark=spark)
    assert isinstance(there, FileConversion)
    assert (there.source, there.target) == (str(tmp_path / "in"), str(tmp_path / "ncf"))
    assert (there.row_count, there.source_files) == (1000, 3)
    assert there.target_bytes == table_at(tmp_path / "ncf").snapshot().bytes
    assert there.source_bytes == bytes_below(tmp_path / "in", "parquet")
    assert there.size_ratio == there.target_bytes / there.source_bytes
    assert there.seconds > 0
    back = convert_ncf_to_parquet(
        str(tmp_path / "ncf"), str(tmp_path / "out"), spark=spark, columns=["id"]
    )
    assert back.row_count == 1000
    assert back.source_bytes == there.target_bytes
    assert back.target_bytes == bytes_below(tmp_path / "out", "parquet")
    assert pq.read_table(tmp_path / "out").sort_by("id").equals(ROWS.select(["id"]))


def test_a_dot_in_a_name_is_no_path(spark: SparkSession, tmp_path: Path) -> None:
    """The chosen columns were looked for inside others."""
    pq.write_table(pa.table({"a.b": [1], "c": [2]}), tmp_path / "in.parquet")
    source, target = str(tmp_path / "in.parquet"), str(tmp_path / "ncf")
    convert_parquet_to_ncf(source, target, spark=spark, columns=["a.b"])
    assert table_at(tmp_path / "ncf").read().to_pydict() == {"a.b": [1]}


@pytest.mark.parametrize("convert", [convert_parquet_to_ncf, convert_ncf_to_parquet])
def test_modes(spark: SparkSession, tmp_path: Path, convert: object) -> None:
    source, target = tmp_path / "in", str(tmp_path / "out")
    source.mkdir()
    pq.write_table(ROWS, source / "rows.parquet")
    ncf.write_table(ROWS, source / "rows.ncf")

    def run(mode: str) -> FileConversion:
        name = "parquet" if convert is convert_parquet_to_ncf else "ncf"
        return convert(f"{source}/rows.{name}", target, spark=spark, mode=mode)  # type: ignore[operator]

    assert run("errorifexists").row_count == 1000
    for mode in ("errorifexists", "error"):
        with pytest.raises(TableError, match="exists already"):
            run(mode)
    assert run("append").row_count == 2000
    assert run("ignore").row_count == 2000
    assert run("overwrite").row_count == 1000
    with pytest.raises(TableError, match="mode 'upsert', expected one of"):
        run("upsert")


def test_globs_and_partitions(spark: SparkSession, tmp_path: Path) -> None:
    for number in range(3):
        part = tmp_path / f"day={number}"
        part.mkdir()
        pq.write_table(ROWS.slice(number * 100, 100), part / "rows.parquet")
        ncf.write_table(ROWS.slice(number * 100, 100), part / "rows.ncf")
    there = convert_parquet_to_ncf(
        f"{tmp_path}/day=[01]/*.parquet", f"{tmp_path}/ncf", spark=spark, partition_by=["k"]
    )
    assert (there.row_count, there.source_files) == (200, 2)
    places = table_at(tmp_path / "ncf").snapshot().partitions
    assert sorted(dict(place)["k"] for place in places) == ["0", "1", "2"]
    back = convert_ncf_to_parquet(
        f"{tmp_path}/day=*/rows.ncf", f"{tmp_path}/out", spark=spark, partition_by=["k"]
    )
    assert (back.row_count, back.source_files) == (300, 3)
    assert {path.name for path in (tmp_path / "out").glob("k=*")} == {"k=0", "k=1", "k=2"}
    with pytest.raises(StorageNotFoundError):
        convert_ncf_to_parquet(f"{tmp_path}/none*", f"{tmp_path}/out2", spark=spark)
    assert not (tmp_path / "out2").exists()


@pytest.mark.parametrize("convert", [convert_parquet_to_ncf, convert_ncf_to_parquet])
@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"columns": []}, "columns: expected at least one name"),
        ({"columns": "id"}, "columns: expected a list of names, got the text 'id'"),
        ({"partition_by": "id"}, "partition_by: expected a list of names, got the text 'id'"),
    ],
    ids=["no columns", "a text as columns", "a text as partitions"],
)
def test_wrong_arguments_are_told(
    spark: SparkSession, tmp_path: Path, convert: object, arguments: dict[str, object], told: str
) -> None:
    """No columns were no rows one way and all columns the other; texts were taken by letters."""
    pq.write_table(ROWS, tmp_path / "in.parquet")
    ncf.write_table(ROWS, tmp_path / "in.ncf")
    suffix = "parquet" if convert is convert_parquet_to_ncf else "ncf"
    with pytest.raises(TableError, match=told):
        convert(f"{tmp_path}/in.{suffix}", f"{tmp_path}/out", spark=spark, **arguments)  # type: ignore[operator]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("convert", [convert_parquet_to_ncf, convert_ncf_to_parquet])
@pytest.mark.parametrize("mode", ["overwrite", "append", "errorifexists"])
def test_one_side_does_not_lie_in_the_other(
    spark: SparkSession, tmp_path: Path, convert: object, mode: str
) -> None:
    """An overwrite emptied the folder that it was about to read."""
    folder = tmp_path / "above" / "in"
    folder.mkdir(parents=True)
    suffix = "parquet" if convert is convert_parquet_to_ncf else "ncf"
    (pq if suffix == "parquet" else ncf).write_table(ROWS, folder / f"rows.{suffix}")
    (tmp_path / "link").symlink_to(folder)
    glob = f"{folder}/*.{suffix}"
    single = f"{folder}/rows.{suffix}"
    places = [(f"{folder}/", f"file:{folder}"), (single, single), (glob, str(folder))]
    places += [(str(folder), str(folder.parent)), (str(folder), f"{folder}/new")]
    places += [(str(folder), f"{tmp_path}/link"), (str(folder), f"{folder}/../in")]
    for source, target in places:
        with pytest.raises(TableError, match="expected a target apart from the source"):
            convert(source, target, spark=spark, mode=mode)  # type: ignore[operator]
    assert [path.name for path in folder.iterdir()] == [f"rows.{suffix}"]
    assert convert(single, f"{folder}2", spark=spark).row_count == 1000  # type: ignore[operator]


def test_no_rows_in_partitions(spark: SparkSession, tmp_path: Path) -> None:
    """It failed after it had written: no file told the schema."""
    ncf.write_table(ROWS.slice(0, 0), tmp_path / "in.ncf")
    found = convert_ncf_to_parquet(
        f"{tmp_path}/in.ncf", f"{tmp_path}/out", spark=spark, partition_by=["k"]
    )
    assert (found.row_count, found.target_files, found.target_bytes) == (0, 0, 0)


S3_SCRIPT = """
import json, sys
from neurolake_dagster.errors import StorageError
from neurolake_dagster.spark import (
    convert_ncf_to_parquet, convert_parquet_to_ncf, get_spark_session)
root, endpoint, access_key, secret_key = sys.argv[1:]
keys = {"s3_endpoint": endpoint, "s3_access_key": access_key, "s3_secret_key": secret_key}
spark = get_spark_session({"master": "local[2]", "ui_enabled": False, **keys})
spark.range(1000).selectExpr("id", "id % 3 as k").repartition(2).write.parquet(f"{root}/in")
there = convert_parquet_to_ncf(f"{root}/in", f"{root}/ncf", spark=spark)
again = convert_parquet_to_ncf(f"{root}/i*/*.parquet", f"{root}/ncf", spark=spark, mode="append")
back = convert_ncf_to_parquet(f"{root}/nc*", f"{root}/out", spark=spark, partition_by=["k"])
try:
    convert_parquet_to_ncf(f"{root}/in", "s3a://no-such-bucket/ncf", spark=spark)
    refused = ""
except StorageError as error:
    refused = type(error).__name__
print(json.dumps([
    [one.row_count, one.source_files, one.target_bytes > 0, one.source_bytes] for one in
    (there, again, back)] + [there.target_bytes, again.target_bytes, refused]))
"""


@pytest.mark.slow
def test_on_s3_the_sessions_own_keys_hold(s3_server: S3Server, tmp_path: Path) -> None:
    """Sizes were asked by the environment's storage: it failed after the data was written."""
    environment = {
        **os.environ,
        "NEUROLAKE_STORAGE__ENDPOINT": "127.0.0.1:1",
        "NEUROLAKE_STORAGE__ACCESS_KEY": "another",
        "NEUROLAKE_STORAGE__SECRET_KEY": "another",
    }
    root = f"s3a://{s3_server.bucket}/converting"
    keys = [s3_server.endpoint, s3_server.access_key, s3_server.secret_key]
    found = subprocess.run(
        [sys.executable, "-c", S3_SCRIPT, root, *keys],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=250,
    )
    assert found.returncode == 0, found.stderr[-3000:]
    there, again, back, first, second, refused = json.loads(found.stdout.splitlines()[-1])
    assert there[:3] == [1000, 2, True]
    assert again[:3] == [2000, 2, True]
    assert back[0] == 2000
    assert back[3] == second > first
    assert refused
