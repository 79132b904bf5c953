"""What the IO managers add to the bare libraries: time, requests, memory.

``python -m bench.io [--rounds N] [--only NAME ...]`` measures, on NCF, Parquet and Delta:

- *overhead*: writing and reading a 300 MB table (TPC-H lineitem) through an IO manager in a real
  materialization, against the library's own call, by turns in one process;
- *partitions*: 200 partitions in a single run, against writing the same rows as 200 bare files;
- *requests*: what a read of one of 1,000 partitions asks of an S3 server, counted by a proxy;
- *log*: opening a table of 10,000 commits (`bench.long_log`);
- *memory*: the peak of a process that streams a `RecordBatchReader` of 1x and 10x the rows.

Output: tables on the terminal and in ``bench/out/io.md``.
"""

import argparse
import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from operator import truediv
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable, WriterProperties, write_deltalake

from bench.long_log import measure_log
from bench.ncf import OUT, load
from bench.proxy import Counted, counting_proxy
from neurolake_dagster import ncf
from neurolake_dagster.io_managers import DeltaIOManager, NCFIOManager, ParquetIOManager
from neurolake_dagster.resources import StorageResource
from neurolake_dagster.storage.server import start_s3_server, stop_s3_server

TABLE_BYTES = 300e6
PARTITIONS = 200
STORED_PARTITIONS = 1000
STREAMED_ROWS = 1_000_000
BATCH_ROWS = 65_536
# Single turns differ by a tenth with the machine's other work, whichever of the two they are of.
LEAST_SECONDS = 30.0

# The aims of the project's issue 6.
MOST_OVERHEAD = 0.10
MOST_SECONDS_BEYOND_BYTES = 2.0

MANAGERS: dict[str, type[dg.ConfigurableIOManager]] = {
    "ncf": NCFIOManager,
    "parquet": ParquetIOManager,
    "delta": DeltaIOManager,
}


def write_bare_ncf(table: pa.Table, path: Path) -> None:
    ncf.write_table(table, path)


def write_bare_parquet(table: pa.Table, path: Path) -> None:
    pq.write_table(table, path, compression="zstd")


def write_bare_delta(table: pa.Table, path: Path) -> None:
    properties = WriterProperties(compression="ZSTD", compression_level=3)
    write_deltalake(str(path), table, writer_properties=properties)


BARE_WRITES: dict[str, Callable[[pa.Table, Path], None]] = {
    "ncf": write_bare_ncf,
    "parquet": write_bare_parquet,
    "delta": write_bare_delta,
}
BARE_READS: dict[str, Callable[[Path], pa.Table]] = {
    "ncf": ncf.read_table,
    "parquet": pq.read_table,
    "delta": lambda path: DeltaTable(str(path)).to_pyarrow_table(),
}


class Watch:
    """The seconds that an IO manager's last write and read took."""

    write = 0.0
    read = 0.0


def timed_manager(name: str, storage: StorageResource, watch: Watch) -> dg.ConfigurableIOManager:
    """The IO manager of a format, with a stop watch at its two doors."""

    class Timed(MANAGERS[name]):  # type: ignore[misc]
        def handle_output(self, context: dg.OutputContext, obj: Any) -> None:
            start = time.perf_counter()
            super().handle_output(context, obj)
            watch.write = time.perf_counter() - start

        def load_input(self, context: dg.InputContext) -> Any:
            start = time.perf_counter()
            found = super().load_input(context)
            watch.read = time.perf_counter() - start
            return found

    return Timed(storage=storage)


def materialize(
    name: str, storage: StorageResource, assets: list[Any], **options: Any
) -> tuple[float, float]:
    """Run assets; the seconds of the last write and read."""
    watch = Watch()
    dg.materialize(
        assets,
        resources={"io_manager": timed_manager(name, storage, watch)},
        run_config={"loggers": {"console": {"config": {"log_level": "ERROR"}}}},
        **options,
    )
    return watch.write, watch.read


def timed(action: Callable[[], Any]) -> float:
    gc.collect()
    start = time.perf_counter()
    result = action()
    seconds = time.perf_counter() - start
    del result
    return seconds


def measure_overhead(rounds: int) -> list[str]:
    whole = load("lineitem")
    table = whole.slice(0, int(whole.num_rows * TABLE_BYTES / whole.nbytes)).combine_chunks()
    del whole

    @dg.asset
    def source() -> pa.Table:
        return table

    @dg.asset
    def reader(source: pa.Table) -> None:
        if source.num_rows != table.num_rows:
            raise AssertionError("rows got lost")

    lines = [
        f"{table.num_rows:,} rows of lineitem, {table.nbytes / 1e6:.0f} MB in Arrow; best of "
        f"{rounds} turns and {LEAST_SECONDS:.0f} s. What is added: by the best, and by the mean of "
        "the same turns with its standard error.",
        "",
        "| format | bare write s | IO manager s | adds | bare read s | IO manager s | adds |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in MANAGERS:

        def write_bare(folder: str, name: str = name) -> float:
            return timed(lambda: BARE_WRITES[name](table, Path(folder, f"bare.{name}")))

        def write_ours(folder: str, name: str = name) -> float:
            return materialize(name, StorageResource(root=f"{folder}/lake"), [source])[0]

        def read_bare(folder: str, name: str = name) -> float:
            return timed(lambda: BARE_READS[name](Path(folder, f"bare.{name}")))

        def read_ours(folder: str, name: str = name) -> float:
            storage = StorageResource(root=f"{folder}/lake")
            return materialize(name, storage, [source, reader], selection=[reader])[1]

        writes = by_turns(rounds, in_new_folder(write_bare), in_new_folder(write_ours))
        with tempfile.TemporaryDirectory() as folder:
            write_bare(folder)
            write_ours(folder)
            # What is on its way to the disk takes time of whoever reads meanwhile.
            os.sync()
            reads = by_turns(rounds, partial(read_bare, folder), partial(read_ours, folder))
        cells = [
            f"{min(bare):.3f} | {min(ours):.3f} | {added(bare, ours)}"
            for bare, ours in (writes, reads)
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def by_turns(
    rounds: int, one: Callable[[], float], two: Callable[[], float]
) -> tuple[list[float], list[float]]:
    """The seconds of each turn, none of which finds the memory that the former used."""
    seconds: tuple[list[float], list[float]] = ([], [])
    while len(seconds[0]) < rounds or sum(seconds[0]) < LEAST_SECONDS:
        for which, action in sorted(enumerate((one, two)), reverse=len(seconds[0]) % 2 == 1):
            gc.collect()
            pa.default_memory_pool().release_unused()
            seconds[which].append(action())
    return seconds


def in_new_folder(action: Callable[[str], float]) -> Callable[[], float]:
    def started() -> float:
        with tempfile.TemporaryDirectory() as folder:
            return action(folder)

    return started


def added(bare: list[float], ours: list[float]) -> str:
    best = min(ours) / min(bare) - 1
    mean = sum(ours) / sum(bare) - 1
    # Of pairs, which were next to each other: what slows the machine for a while is in both.
    error = statistics.stdev(map(truediv, ours, bare)) / len(bare) ** 0.5
    return f"{against_aim(best)}, {against_aim(mean)} ± {error:.0%}"


def against_aim(share: float) -> str:
    return f"{share:+.0%}{'' if share <= MOST_OVERHEAD else f' (aim {MOST_OVERHEAD:+.0%})'}"


def events(rows: int, keys: int) -> pa.Table:
    generator = np.random.default_rng(7)
    names = pa.array([f"k{number:04}" for number in range(keys)])
    return pa.table(
        {
            "key": names.take(pa.array(np.repeat(np.arange(keys), rows // keys))),
            "amount": generator.normal(100, 15, rows // keys * keys).round(2),
            "count": generator.integers(0, 1000, rows // keys * keys),
        }
    )


def partitioned_asset(table: pa.Table, keys: int) -> tuple[dg.AssetsDefinition, list[str]]:
    names = [f"k{number:04}" for number in range(keys)]

    @dg.asset(
        name="events",
        partitions_def=dg.StaticPartitionsDefinition(names),
        backfill_policy=dg.BackfillPolicy.single_run(),
        metadata={"partition_expr": "key"},
    )
    def asset() -> pa.Table:
        return table

    return asset, names


def run_range(
    name: str, storage: StorageResource, asset: dg.AssetsDefinition, names: list[str]
) -> float:
    """The seconds of one write of all partitions in a single run."""
    tags = {
        "dagster/asset_partition_range_start": names[0],
        "dagster/asset_partition_range_end": names[-1],
    }
    write, _ = materialize(name, storage, [asset], tags=tags)
    return write


def measure_partitions(rounds: int) -> list[str]:
    table = events(2_000_000, PARTITIONS)
    asset, names = partitioned_asset(table, PARTITIONS)
    size = table.num_rows // PARTITIONS
    parts = [table.slice(i * size, size) for i in range(PARTITIONS)]
    lines = [
        f"{PARTITIONS} partitions, {table.num_rows:,} rows, in a single run.",
        "",
        "| format | 200 bare files s | IO manager s | beyond the bytes s |",
        "|---|---|---|---|",
    ]
    for name in MANAGERS:
        best = [float("inf"), float("inf")]
        for _ in range(rounds):
            with tempfile.TemporaryDirectory() as folder:
                write = BARE_WRITES["parquet" if name == "delta" else name]
                bare = timed(
                    lambda w=write, f=folder: [
                        w(part, Path(f, f"part-{i}")) for i, part in enumerate(parts)
                    ]
                )
                ours = run_range(name, StorageResource(root=f"{folder}/lake"), asset, names)
            best = [min(best[0], bare), min(best[1], ours)]
        beyond = best[1] - best[0]
        aim = "" if beyond <= MOST_SECONDS_BEYOND_BYTES else f" (aim {MOST_SECONDS_BEYOND_BYTES})"
        lines.append(f"| {name} | {best[0]:.2f} | {best[1]:.2f} | {beyond:.2f}{aim} |")
    return lines


def measure_requests() -> list[str]:
    asset, names = partitioned_asset(events(50_000, STORED_PARTITIONS), STORED_PARTITIONS)

    wanted = names[len(names) // 2]

    @dg.asset(name="reader", partitions_def=asset.partitions_def)
    def reader(events: pa.Table) -> None:
        if set(events["key"].to_pylist()) != {wanted}:
            raise AssertionError("rows of another partition")

    lines = [
        f"Reading 1 of {STORED_PARTITIONS:,} partitions on S3.",
        "",
        "| format | data files touched | requests for data | requests for the log | bytes read |",
        "|---|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory() as folder:
        server = start_s3_server(Path(folder))
        try:
            for name in MANAGERS:
                with counting_proxy(server.endpoint) as proxy:
                    storage = StorageResource(
                        root=f"s3://{server.bucket}/{name}",
                        endpoint=proxy.endpoint,
                        access_key=server.access_key,
                        secret_key=server.secret_key,
                    )
                    run_range(name, storage, asset, names)
                    proxy.take()
                    materialize(
                        name,
                        storage,
                        [asset, reader],
                        selection=[reader],
                        partition_key=names[len(names) // 2],
                    )
                    lines.append(f"| {name} | {requests_told(proxy.take())} |")
        finally:
            stop_s3_server(Path(folder))
    return lines


def requests_told(counted: Counted) -> str:
    """Files, data requests, log requests and bytes, as cells."""
    data = [path for _, path in counted.requests if path.endswith((".ncf", ".parquet"))]
    data = [path for path in data if "/_delta_log/" not in path]
    log = len(counted.requests) - len(data)
    return f"{len(set(data))} | {len(data)} | {log} | {counted.bytes_read:,}"


def stream(name: str, folder: str, act: str, times: int) -> None:
    """Write or read a stream in this process, and print its peak memory in bytes."""

    def batches() -> Iterator[pa.RecordBatch]:
        batch = events(BATCH_ROWS, 16).to_batches()[0]
        for _ in range(STREAMED_ROWS * times // BATCH_ROWS):
            yield batch

    @dg.asset
    def source() -> pa.RecordBatchReader:
        return pa.RecordBatchReader.from_batches(events(16, 16).schema, batches())

    @dg.asset
    def reader(source: pa.RecordBatchReader) -> None:
        if not sum(batch.num_rows for batch in source):
            raise AssertionError("rows got lost")

    storage = StorageResource(root=folder)
    selection = [source] if act == "write" else [reader]
    materialize(name, storage, [source, reader], selection=selection)
    # Not ru_maxrss: a process inherits that of the one that started it.
    status = Path("/proc/self/status").read_text()
    print(json.dumps(int(status.split("VmHWM:")[1].split()[0]) * 1024))


def measure_memory() -> list[str]:
    lines = [
        f"Peak of the process, MB, streaming {STREAMED_ROWS:,} rows and ten times as many.",
        "",
        "| format | write 1x | write 10x | read 1x | read 10x |",
        "|---|---|---|---|---|",
    ]
    for name in MANAGERS:
        found: dict[tuple[str, int], float] = {}
        for times in (1, 10):
            with tempfile.TemporaryDirectory() as folder:
                for act in ("write", "read"):
                    arguments = ["--stream", name, folder, act, str(times)]
                    done = subprocess.run(
                        [sys.executable, "-m", "bench.io", *arguments],
                        check=True,
                        capture_output=True,
                        text=True,
                    )
                    found[act, times] = json.loads(done.stdout.splitlines()[-1]) / 1e6
        lines.append(f"| {name} | {memory_cells(found)} |")
    return lines


def memory_cells(found: Mapping[tuple[str, int], float]) -> str:
    return " | ".join(f"{found[act, n]:.0f}" for act in ("write", "read") for n in (1, 10))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    measures = ("overhead", "partitions", "requests", "log", "memory")
    parser.add_argument("--rounds", type=int, default=16)
    parser.add_argument("--only", nargs="*", default=measures, choices=measures)
    parser.add_argument("--stream", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.stream:
        name, folder, act, times = options.stream
        stream(name, folder, act, int(times))
        return
    actions: dict[str, Callable[[], list[str]]] = {
        "overhead": lambda: measure_overhead(options.rounds),
        "partitions": lambda: measure_partitions(options.rounds),
        "requests": measure_requests,
        "log": lambda: measure_log(options.rounds),
        "memory": measure_memory,
    }
    OUT.mkdir(parents=True, exist_ok=True)
    warnings.simplefilter("ignore", dg.BetaWarning)
    lines = [f"pyarrow {pa.__version__}, {pa.cpu_count()} threads."]
    for name in options.only:
        print(f"measuring {name} ...", file=sys.stderr, flush=True)
        lines += ["", *actions[name]()]
    (OUT / "io.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
