"""Opening a table with a long log: the project's issue 6 asks for 0.5 s at 10,000 commits.

Part of ``python -m bench.io`` (``--only log``). The commits are real entries with their
checkpoints; the files that they name are not there, since opening a table reads none.
"""

import tempfile
import time

import pyarrow as pa

from neurolake_dagster.storage import Storage
from neurolake_dagster.tables import Table
from neurolake_dagster.tables.entry import Entry
from neurolake_dagster.tables.snapshot import DataFile

COMMITS = 10_000
COLUMNS = 20
MOST_SECONDS = 0.5


def grow(table: Table, commits: int, mode: str) -> None:
    """Commit files that are not there, each in a version of its own."""
    state = table.snapshot()
    bounds = state.files[0].bounds
    for number in range(state.version + 1, state.version + 1 + commits):
        file = DataFile(path=f"part-{number:032x}.ncf", bytes=1, row_count=1, bounds=bounds)
        entry = Entry(
            version=number, format="ncf", operation=mode, token=str(number), added=(file,),
            transaction=f"a run of some name/{number}/step.result",
            removed=tuple(old.path for old in state.files) if mode == "overwrite" else (),
        )  # fmt: skip
        _, state = table.log.put(entry, state)


def measure_log(rounds: int) -> list[str]:
    """The best seconds of opening the newest version, of appends and of overwrites."""
    lines = [
        f"Opening an NCF table of {COMMITS:,} commits, {COLUMNS} columns.",
        "",
        "| commits | files | open s |",
        "|---|---|---|",
    ]
    for mode in ("append", "overwrite"):
        with tempfile.TemporaryDirectory() as folder:
            table = Table(Storage(folder), "t", "ncf")
            table.write(pa.table({f"c{number}": [1] for number in range(COLUMNS)}))
            grow(table, COMMITS, mode)
            best = float("inf")
            for _ in range(rounds):
                started = time.perf_counter()
                found = Table(Storage(folder), "t", "ncf").snapshot()
                best = min(best, time.perf_counter() - started)
        aim = "" if best < MOST_SECONDS else f" (aim {MOST_SECONDS})"
        lines.append(f"| {mode} | {len(found.files):,} | {best:.3f}{aim} |")
    return lines
