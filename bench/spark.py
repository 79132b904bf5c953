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

import pyarrow as pa

from bench.ncf import OUT, ROOT
from bench.spark_scan import MASTER, Row, bench_scan
from neurolake_dagster.settings import CacheSettings

BIN = Path(sys.executable).parent
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
for turn in range(5):
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
        ours = min(execute("ours", "chain") for _ in range(6))
        ours_inside = min(execute("ours", "in_process") for _ in range(3))
    stock = execute("stock", "chain")
    inside = min(execute("stock", "in_process") for _ in range(3))
    return [
        ("4 assets, multiprocess: warm server / stock dagster_pyspark", ours, stock, 0.25),
        ("the same / stock in one process", ours, inside, 0.5),
        ("in one process: warm server / stock", ours_inside, inside, 0.5),
    ]


def bench_delta(folder: Path) -> list[Row]:
    def five(kind: str) -> list[float]:
        out = run(sys.executable, "-c", DELTA, kind, str(folder / kind))[1]
        return [float(seconds) for seconds in json.loads(out)]

    with warm_server():
        warm = five("warm")
    ours, stock = five("ours"), five("stock")
    return [
        (
            "Delta write + count + merge, first in a JVM: ours / its settings",
            ours[0],
            stock[0],
            0.6,
        ),
        ("the same, best of 5", min(ours), min(stock), 0.6),
        ("the same, first of a process on the warm server", warm[0], stock[0], 0.6),
    ]


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
            wanted = "" if aim is None else f"{aim:.2f}"
            lines.append(f"| {what} | {ours:.2f} | {other:.2f} | {ours / other:.2f} | {wanted} |")
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
