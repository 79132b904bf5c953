"""Lineitem SF1 in Spark: NCF against Spark's own Parquet, side by side in one session."""

import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pyarrow.parquet as pq
from pyspark.sql import DataFrame, SparkSession

from bench.ncf import CACHE, load
from neurolake_dagster import ncf
from neurolake_dagster.resources import SparkResource
from neurolake_dagster.storage import Storage
from neurolake_dagster.tables import Table

MASTER = "local[2]"
DECIMALS, PLAIN = ["l_extendedprice", "l_discount"], ["l_partkey", "l_shipdate"]
Row = tuple[str, float, float, float | None]  # what, ours, the other's, the aim for their ratio


def bench_scan(folder: Path) -> list[Row]:
    """Scan and write lineitem."""
    source = prepare(CACHE / "spark")
    spark = SparkResource(master=MASTER, ui_enabled=False, driver_memory="3g").spark_session
    return [*scan_rows(spark, source), *write_rows(spark, source, folder)]


def scan_rows(spark: SparkSession, source: Path) -> list[Row]:
    def ours(columns: list[str] | None, where: str | None) -> DataFrame:
        reader = spark.read.format("ncf")
        if columns is not None:
            reader = reader.option("columns", json.dumps(columns))
        if where is not None:
            reader = reader.option("where", where)
        return reader.load(str(source / "lineitem.ncf"))

    def other(columns: list[str] | None, where: str | None) -> DataFrame:
        rows = spark.read.parquet(str(source / "parquet"))
        rows = rows if columns is None else rows.select(*columns)
        return rows if where is None else rows.where(where)

    def scan(build: Callable[[], DataFrame]) -> None:
        build().write.format("noop").mode("overwrite").save()

    top = other(["l_orderkey"], None).selectExpr("max(l_orderkey)").collect()[0][0]
    narrow = f"l_orderkey > {int(top * 0.99)}"
    expected, found = other(None, narrow).count(), ours(None, narrow).count()
    if expected != found:
        raise AssertionError(f"the filter keeps {found} rows of NCF, {expected} of Parquet")
    cases: list[tuple[str, list[str] | None, str | None, float]] = [
        ("full scan", None, None, 1.5),
        ("two columns (integer, date)", PLAIN, None, 1.1),
        ("two columns (decimals)", DECIMALS, None, 1.1),
        ("where keeping 1 % of a sorted column", None, narrow, 0.5),
    ]
    rows: list[Row] = []
    for what, columns, where, aim in cases:
        frames = (partial(build, columns, where) for build in (other, ours))
        its, mine = best_of(6, *(partial(scan, frame) for frame in frames))
        rows.append((f"lineitem SF1, {what}: NCF / Spark's Parquet", mine, its, aim))
    return rows


def write_rows(spark: SparkSession, source: Path, folder: Path) -> list[Row]:
    def write(form: str) -> Callable[[], None]:
        rows = spark.read.parquet(str(source / "parquet"))
        writer = rows.write.format(form).mode("overwrite")
        writer = writer.option("compression", "zstd") if form == "parquet" else writer
        return lambda: writer.save(str(folder / form))

    # The JVM compiles what both run for three turns.
    mine, its = best_of(6, write("ncf"), write("parquet"))
    held = Table(Storage(str(folder)), "ncf", "ncf").snapshot().bytes / 1e6
    parquet = sum(path.stat().st_size for path in (folder / "parquet").glob("*.parquet")) / 1e6
    return [
        ("lineitem SF1, write: NCF / Spark's Parquet zstd", mine, its, 1.25),
        ("lineitem SF1, MB of files: NCF / Spark's Parquet zstd", held, parquet, 0.85),
    ]


def best_of(rounds: int, *actions: Callable[[], None]) -> list[float]:
    """The best seconds of each action, run in turns."""
    times: list[list[float]] = [[] for _ in actions]
    for _ in range(rounds):
        for kept, action in zip(times, actions, strict=True):
            started = time.perf_counter()
            action()
            kept.append(time.perf_counter() - started)
    return [min(one) for one in times]


def prepare(folder: Path) -> Path:
    """Lineitem as one Parquet file (zstd) and as one NCF file, row groups of a million rows."""
    if not (folder / "done").exists():
        (folder / "parquet").mkdir(parents=True, exist_ok=True)
        table = load("lineitem")
        path = folder / "parquet" / "lineitem.parquet"
        pq.write_table(table, path, compression="zstd", row_group_size=1 << 20)
        ncf.write_table(table, folder / "lineitem.ncf")
        (folder / "done").touch()
    return folder
