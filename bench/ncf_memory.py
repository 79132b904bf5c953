"""Peak memory of NCF streams at 1x and 10x rows: what a child process grows by.

``python -m bench.ncf_memory STEP SOURCE FILE GROUPS`` is one child. It maps a row group of lineitem
(SOURCE, an Arrow IPC file), reads all of it once so that it counts as there, notes its peak, then
streams: `write` writes GROUPS row groups of these rows to FILE, `read` iterates over FILE. It
prints the bytes that its peak grew by. `measure_memory` runs the children.
"""

import argparse
import json
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from neurolake_dagster import ncf

GROUP_ROWS = 1 << 20
FEW, MANY = 2, 20


@dataclass(frozen=True)
class Peak:
    """What a stream's process grew by, in bytes, beside the aim of issue 4."""

    what: str
    few: int
    many: int
    aim: int

    def render(self) -> str:
        """Return a row of the table."""
        cells = " | ".join(f"{value / 1e6:.0f}" for value in (self.few, self.many, self.aim))
        return f"| {self.what} | {cells} |"


def measure_memory(table: pa.Table, folder: Path) -> list[Peak]:
    """Stream FEW and MANY row groups of a table's rows, each in a process of its own."""
    source = folder / "group.arrow"
    group = table.slice(0, GROUP_ROWS)
    with pa.ipc.new_file(source, group.schema) as writer:
        writer.write_table(group)
    files = {count: folder / f"stream{count}.ncf" for count in (FEW, MANY)}
    written = {count: _grown("write", source, path, count) for count, path in files.items()}
    read = {count: _grown("read", source, path, count) for count, path in files.items()}
    stored = ncf.read_metadata(files[FEW]).row_groups[0]
    raw = sum(column.raw_bytes for column in stored.columns)
    aim = 3 * stored.compressed_bytes + raw
    return [
        Peak("streaming write; aim: 3 encoded row groups and a raw one", *written.values(), aim),
        Peak("iter_batches; aim: as at 1x, and a tenth", *read.values(), int(1.1 * read[FEW])),
    ]


def _grown(step: str, source: Path, path: Path, groups: int) -> int:
    """Return the median of three children: which thread holds what differs by 10 MB."""
    command = [sys.executable, "-m", "bench.ncf_memory", step, str(source), str(path), str(groups)]
    grown = [
        json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        for _ in range(3)
    ]
    return int(statistics.median(grown))


def _peak() -> int:
    """Return the process's peak; not ru_maxrss, which starts with that of its parent."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def _touch(table: pa.Table) -> None:
    for column in table.columns:
        for chunk in column.chunks:
            for buffer in chunk.buffers():
                if buffer is not None:
                    np.frombuffer(buffer, np.uint8)[::1024].sum()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("step", choices=("write", "read"))
    parser.add_argument("source", type=Path)
    parser.add_argument("file", type=Path)
    parser.add_argument("groups", type=int)
    given = parser.parse_args()
    with pa.memory_map(str(given.source)) as source:
        group = pa.ipc.open_file(source).read_all()
        _touch(group)
        before = _peak()
        if given.step == "write":
            with ncf.NCFWriter(given.file, group.schema) as writer:
                for _ in range(given.groups):
                    writer.write_table(group)
        else:
            with ncf.NCFFile(given.file) as file:
                rows = sum(batch.num_rows for batch in file.iter_batches())
            if rows != given.groups * GROUP_ROWS:
                raise AssertionError(f"{rows} rows read")
        print(json.dumps(_peak() - before))


if __name__ == "__main__":
    main()
