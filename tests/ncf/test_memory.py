"""Streams take the memory of a few row groups, however long they are."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

# Noise does not compress: a row group is 8 MB, raw and encoded alike.
MEASURE = """
import json, resource, sys
import numpy as np, pyarrow as pa
from neurolake_dagster import ncf

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

what, path, groups = sys.argv[1], sys.argv[2], int(sys.argv[3])
rows = 250_000
noise = np.random.default_rng(1)
schema = pa.schema([(name, pa.int64()) for name in "abcd"])

def batches(count):
    for _ in range(count):
        columns = [noise.integers(-(2**62), 2**62, rows) for _ in schema]
        yield pa.record_batch(columns, schema=schema)

def write(target, count):
    with ncf.NCFWriter(target, schema, row_group_size=rows) as writer:
        writer.write_reader(batches(count))

def read(target):
    with ncf.NCFFile(target) as file:
        return sum(batch.num_rows for batch in file.iter_batches())

write(path + ".warm", 1)
read(path + ".warm")
before = peak()
if what == "write":
    write(path, groups)
else:
    assert read(path) == groups * rows
print(json.dumps({"grown": peak() - before, "group": 4 * 8 * rows}))
"""


def measure(what: str, path: Path, groups: int) -> dict[str, Any]:
    command = [sys.executable, "-c", MEASURE, what, str(path), str(groups)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("what", ["write", "read"])
def test_a_stream_of_ten_times_the_rows_takes_the_same_memory(what: str, tmp_path: Path) -> None:
    short, long = tmp_path / "short.ncf", tmp_path / "long.ncf"
    if what == "read":
        measure("write", short, 4)
        measure("write", long, 40)
    few, many = measure(what, short, 4), measure(what, long, 40)
    # Three encoded row groups and a raw one; here all are of one size.
    assert many["grown"] <= 4 * many["group"]
    assert many["grown"] <= few["grown"] + many["group"]
