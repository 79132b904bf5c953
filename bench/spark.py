"""The warm server and NCF in Spark, against what they replace; each pair side by side in one run.

``python -m bench.spark [part ...]``: ``start`` (second process to first result), ``chain`` (four
assets by ``dagster job execute``), ``delta`` (write, count, merge), ``scan`` (lineitem SF1 from
NCF and from Parquet, by Spark). Parts take 1 to 4 minutes each. Output: a table on the terminal,
and ``bench/out/spark.md`` with the newest figures of every part.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from bench.ncf import CACHE, OUT, ROOT, load
from neurolake_dagster import ncf
from neurolake_dagster.settings import CacheSettings

BIN = Path(sys.executable).parent
MASTER = "local[2]"
Row = tuple[str, float, float, float]  # what, ours, the other's, the aim for their ratio
DECIMALS, PLAIN = ["l_extendedprice", "l_discount"], ["l_partkey", "l_shipdate"]
FIRST_RESULT = """
import sys
if sys.argv[1] == "stock":
    from pyspark.sql import SparkSession
    spark = SparkSession.builder.master(sys.argv[2]).getOrCreate()
else:
    from neurolake_dagster.spark import get_spark_session
    spark = get_spark_session({"remote": "auto" if sys.argv[1] == "warm" else None})
assert spark.range(1000).selectExpr("sum(id)").collect()[0][0] == 499500
"""
DELTA = """
import json, sys, time
from neurolake_dagster.resources import SparkResource
kind, folder = sys.argv[1:]
defaults = {"spark.databricks.delta.snapshotPartitions": "50"}
options = {"shuffle_partitions": 200, "extra_configs": defaults} if kind == "stock" else {}
if kind == "warm":
    options["remote"] = "auto"
else:
    options["ui_enabled"] = False
spark = SparkResource(**options).spark_session
spark.range(10).count()
seconds = []
for turn in range(3):
    table = f"{folder}-{turn}"
    started = time.perf_counter()
    rows = spark.range(100_000).selectExpr("id", "id % 100 as k", "cast(id as string) as name")
    rows.write.format("delta").save(table)
    assert spark.read.format("delta").load(table).count() == 100_000
    spark.sql(f'''merge into delta.`{table}` t
        using (select id + 50000 as id, 1L as k, 'new' as name from range(100000)) s on t.id = s.id
        when matched then update set * when not matched then insert *''')
    seconds.append(time.perf_counter() - started)
    assert spark.read.format("delta").load(table).count() == 150_000
print(json.dumps(seconds))
"""


def run(*command: str, **settings: str) -> tuple[float, str]:
    """Run a command; its seconds and what it printed."""
    options = {
        "NEUROLAKE_SPARK__MASTER": MASTER,
        "NEUROLAKE_SPARK__LOG_LEVEL": "ERROR",
        "NEUROLAKE_CACHE__DIR": str(CacheSettings.load().dir.absolute()),
        "SPARK_LOCAL_IP": "127.0.0.1",
        "PYTHONPATH": str(ROOT),
        **settings,
    }
    started = time.perf_counter()
    found = subprocess.run(
        command, env=os.environ | options, capture_output=True, text=True, check=False
    )
    seconds = time.perf_counter() - started
    if found.returncode:
        raise RuntimeError(f"{' '.join(command)[:200]}: {found.stderr[-2000:]}")
    return seconds, found.stdout


@contextmanager
def warm_server() -> Iterator[None]:
    """A warm server that has answered once."""
    run(str(BIN / "neurolake"), "spark", "start")
    try:
        run(sys.executable, "-c", FIRST_RESULT, "warm", MASTER)
        yield
    finally:
        run(str(BIN / "neurolake"), "spark", "stop")


def bench_start(_folder: Path) -> list[Row]:
    def first(kind: str) -> float:
        return min(run(sys.executable, "-c", FIRST_RESULT, kind, MASTER)[0] for _ in range(3))

    with warm_server():
        warm = first("warm")
    return [
        ("second process to first result: warm server / classic", warm, first("classic"), 0.15),
        ("the same / a bare pyspark session, no jars", warm, first("stock"), 0.15),
    ]


def bench_chain(folder: Path) -> list[Row]:
    def execute(chain: str, job: str) -> float:
        home = folder / f"home-{chain}-{job}"
        home.mkdir(exist_ok=True)
        command = [str(BIN / "dagster"), "job", "execute", "-m", f"bench.chains.{chain}", "-j", job]
        data = str(folder / f"data-{chain}-{job}")
        return run(*command, DAGSTER_HOME=str(home), NEUROLAKE_STORAGE__ROOT=data)[0]

    with warm_server():
        ours = min(execute("ours", "chain") for _ in range(2))
        ours_inside = execute("ours", "in_process")
    stock, inside = execute("stock", "chain"), execute("stock", "in_process")
    return [
        ("4 assets, multiprocess: warm server / stock dagster_pyspark", ours, stock, 0.25),
        ("the same / stock in one process", ours, inside, 0.5),
        ("in one process: warm server / stock", ours_inside, inside, 0.5),
    ]


def bench_delta(folder: Path) -> list[Row]:
    def three(kind: str) -> list[float]:
        out = run(sys.executable, "-c", DELTA, kind, str(folder / kind))[1]
        return [float(seconds) for seconds in json.loads(out)]

    with warm_server():
        warm = three("warm")
    ours, stock = three("ours"), three("stock")
    return [
        (
            "Delta write + count + merge, first in a JVM: ours / its settings",
            ours[0],
            stock[0],
            0.6,
        ),
        ("the same, best of 3", min(ours), min(stock), 0.6),
        ("the same, first of a process on the warm server", warm[0], stock[0], 0.6),
    ]


def bench_scan(folder: Path) -> list[Row]:
    from neurolake_dagster.resources import SparkResource

    source = prepare(CACHE / "spark")
    spark = SparkResource(master=MASTER, ui_enabled=False, driver_memory="3g").spark_session
    top = spark.read.parquet(str(source / "parquet")).selectExpr("max(l_orderkey)").first()[0]
    narrow = f"l_orderkey > {int(top * 0.99)}"

    def ours(columns: list[str] | None = None, **options: str) -> Any:
        if columns is not None:
            options["columns"] = json.dumps(columns)
        return spark.read.format("ncf").options(**options).load(str(source / "lineitem.ncf"))

    def other() -> Any:
        return spark.read.parquet(str(source / "parquet"))

    def scan(frame: Any) -> None:
        frame.write.format("noop").mode("overwrite").save()

    def write(form: str) -> Callable[[], None]:
        writer = other().write.format(form).option("compression", "zstd").mode("overwrite")
        return lambda: writer.save(str(folder / form))

    expected, found = other().where(narrow).count(), ours(where=narrow).count()
    if expected != found:
        raise AssertionError(f"the filter keeps {found} rows of NCF, {expected} of Parquet")
    pairs: list[tuple[str, Callable[[], None], Callable[[], None], float, int]] = [
        ("full scan", lambda: scan(ours()), lambda: scan(other()), 1.5, 3),
        (
            "two columns (integer, date)",
            lambda: scan(ours(PLAIN)),
            lambda: scan(other().select(*PLAIN)),
            1.1,
            4,
        ),
        (
            "two columns (decimals)",
            lambda: scan(ours(DECIMALS)),
            lambda: scan(other().select(*DECIMALS)),
            1.1,
            4,
        ),
        (
            "where keeping 1 % of a sorted column",
            lambda: scan(ours(where=narrow)),
            lambda: scan(other().where(narrow)),
            0.5,
            4,
        ),
        ("write", write("ncf"), write("parquet"), 1.25, 2),
    ]
    rows: list[Row] = []
    for what, mine, its, aim, rounds in pairs:
        a, b = best_of(mine, its, rounds)
        rows.append((f"lineitem SF1, {what}: NCF / Spark's Parquet", a, b, aim))
    sizes = [size(folder / form, f".{form}") for form in ("ncf", "parquet")]
    rows.append(("lineitem SF1, MB of files: NCF / Spark's Parquet zstd", *sizes, 0.85))
    return rows


def best_of(mine: Callable[[], None], its: Callable[[], None], rounds: int) -> tuple[float, float]:
    """The best seconds of each, in turns."""
    times: list[list[float]] = [[], []]
    for _ in range(rounds):
        for kept, action in zip(times, (mine, its), strict=True):
            started = time.perf_counter()
            action()
            kept.append(time.perf_counter() - started)
    return min(times[0]), min(times[1])


def prepare(folder: Path) -> Path:
    """Lineitem as one Parquet file of Spark's kind (zstd) and as one NCF file, sorted alike."""
    if not (folder / "done").exists():
        (folder / "parquet").mkdir(parents=True, exist_ok=True)
        table = load("lineitem")
        path = folder / "parquet" / "lineitem.parquet"
        pq.write_table(table, path, compression="zstd", row_group_size=1 << 20)
        ncf.write_table(table, folder / "lineitem.ncf")
        (folder / "done").touch()
    return folder


def size(folder: Path, suffix: str) -> float:
    return sum(path.stat().st_size for path in folder.rglob(f"*{suffix}")) / 1e6


PARTS: dict[str, Callable[[Path], list[Row]]] = {
    "start": bench_start,
    "chain": bench_chain,
    "delta": bench_delta,
    "scan": bench_scan,
}


def render(results: dict[str, list[Row]]) -> str:
    lines = [
        f"pyspark {MASTER}, {platform.machine()}, {os.cpu_count()} cores, pyarrow {pa.__version__}",
        "",
        "| what | ours, s | other, s | ratio | aim |",
        "|---|---|---|---|---|",
    ]
    for part in PARTS:
        for what, ours, other, aim in results.get(part, []):
            lines.append(f"| {what} | {ours:.2f} | {other:.2f} | {ours / other:.2f} | {aim:.2f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", default=list(PARTS), metavar="part")
    parts = parser.parse_args().parts
    OUT.mkdir(parents=True, exist_ok=True)
    kept = OUT / "spark.json"
    results: dict[str, list[Row]] = json.loads(kept.read_text()) if kept.exists() else {}
    for part in parts:
        print(f"measuring {part} ...", file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory(dir=OUT) as name:
            results[part] = PARTS[part](Path(name))
        kept.write_text(json.dumps(results))
    text = render(results)
    (OUT / "spark.md").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
