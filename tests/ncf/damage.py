"""Damages an NCF file in many ways and reads each: run as a process under a memory limit.

``python -m tests.ncf.damage CAMPAIGN FILE [--count N] [--seed N] [--unverified]`` reads FILE once,
limits its own address space to what it has then plus 2 GiB, and prints one JSON object: outcomes
by name, and the first faults. A fault is anything but a refusal by our own error or an unchanged
table (forgeries and ``--unverified``: or a table that passes full validation).
"""

import argparse
import json
import random
import resource
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from neurolake_dagster.errors import NCFError
from neurolake_dagster.ncf import NCFFile, read_table
from tests.ncf.forge import assemble, forge, padding_positions
from tests.ncf.forged_files import BOMBS, FORGED

HEADROOM_BYTES = 2 << 30
SLOWEST_S = 20
Case = tuple[str, bytes]


def flips(good: bytes, count: int, seed: int) -> Iterator[Case]:
    """Change one byte at a time: `count` places spread evenly, 0 is every one."""
    chance = random.Random(seed)
    step = max(1, len(good) // count) if count else 1
    padding = set(padding_positions(good))
    for position in range(chance.randrange(step), len(good), step):
        bad = bytearray(good)
        change = chance.randrange(1, 256)
        bad[position] ^= change
        where = "padding" if position in padding else "byte"
        yield f"{where} {position} ^ 0x{change:02x}", bytes(bad)


def truncations(good: bytes, count: int, seed: int) -> Iterator[Case]:
    """Cut the file: `count` lengths spread evenly, 0 is every one."""
    step = max(1, len(good) // count) if count else 1
    for length in range(seed % step, len(good), step):
        yield f"first {length} bytes", good[:length]


def swaps(good: bytes, count: int, seed: int) -> Iterator[Case]:
    """Swap two ranges of one length, as misplaced parts of an upload are."""
    chance = random.Random(seed)
    for _ in range(count):
        length = chance.choice((64, 512, 4096, len(good) // 4))
        first = chance.randrange(0, max(1, len(good) - 2 * length))
        second = chance.randrange(first + length, max(first + length + 1, len(good) - length))
        bad = bytearray(good)
        bad[first : first + length] = good[second : second + length]
        bad[second : second + length] = good[first : first + length]
        if bytes(bad) != good:
            yield f"swap {length} bytes at {first} and {second}", bytes(bad)


def mutations(good: bytes, count: int, seed: int) -> Iterator[Case]:
    """Apply one to four random edits; more of them near the end, where the structure lies."""
    for index in range(count):
        chance = random.Random(seed * 1_000_003 + index)
        bad = bytearray(good)
        for _ in range(chance.randint(1, 4)):
            _edit(bad, chance)
        if bytes(bad) != good:
            yield f"mutation {index} of seed {seed}", bytes(bad)


def _edit(bad: bytearray, chance: random.Random) -> None:
    tail = min(len(bad), 2048)
    at = (
        len(bad) - chance.randrange(tail) - 1
        if chance.random() < 0.4
        else chance.randrange(len(bad))
    )
    length = chance.choice((1, 1, 2, 4, 8, 40, 300))
    kind = chance.randrange(6)
    if kind == 0:
        bad[at] ^= 1 << chance.randrange(8)
    elif kind == 1:
        bad[at : at + length] = bytes(chance.randrange(256) for _ in bad[at : at + length])
    elif kind == 2:
        bad[at : at + length] = bytes([chance.choice((0, 0x7F, 0x80, 0xFF))]) * len(
            bad[at : at + length]
        )
    elif kind == 3 and len(bad) > length + 1:
        del bad[at : at + length]
    elif kind == 4:
        bad[at:at] = chance.randbytes(length)
    else:
        source = chance.randrange(len(bad))
        bad[at : at + length] = bad[source : source + length]


def forgeries(good: bytes, count: int, seed: int) -> Iterator[Case]:
    """Change structure and bytes behind right checksums: they cannot help here."""
    for index in range(count):
        name, bad = forge(good, random.Random(seed * 1_000_003 + index))
        if bad != good:
            yield f"forgery {index} of seed {seed}: {name}", bad


def bombs(good: bytes, count: int, seed: int) -> Iterator[Case]:
    """Give the files that ask for gigabytes, and those that break one rule each."""
    for name, parts in [*BOMBS.items(), *FORGED.items()]:
        yield name, assemble(parts)


CAMPAIGNS: dict[str, Callable[[bytes, int, int], Iterator[Case]]] = {
    "flips": flips,
    "truncations": truncations,
    "swaps": swaps,
    "mutations": mutations,
    "forgeries": forgeries,
    "bombs": bombs,
}


class Hang(BaseException):
    """A read took longer than any should."""


def outcome(bad: bytes, good: pa.Table, *, verify: bool, exact: bool, whole: bool = True) -> str:
    """Read damaged bytes; name what happened, `FAULT ...` for what must not.

    Zone maps are read by filters only: where the table is the same, `whole` has the file
    verified, which reads every byte that has a meaning.
    """
    try:
        table = read_table(bad, verify=verify)
        if whole:
            look_around(bad, table, verify=verify)
        if exact and same(table, good):
            if whole:
                NCFFile(bad).verify()
            return "unchanged"
    except NCFError as exc:
        return type(exc).__name__
    except Hang:
        return f"FAULT hangs over {SLOWEST_S} s"
    except BaseException as exc:  # noqa: BLE001 - whatever else it is, it is the finding
        return f"FAULT {type(exc).__name__}: {exc}"[:300]
    if exact:
        return "FAULT another table"
    try:
        # A right checksum vouches for the text being UTF-8, as its writer checked it.
        table.validate(full=not verify)
    except pa.ArrowException as exc:
        return f"FAULT invalid table: {exc}"[:300]
    return "valid table"


def look_around(bad: bytes, table: pa.Table, *, verify: bool) -> None:
    """Use the rest of the reader: metadata, batches, a filter per column, single rows."""
    with NCFFile(bad, verify=verify) as file:
        repr(file.metadata)
        assert sum(len(batch) for batch in file.iter_batches(1000)) == len(table)
        places = random.Random(len(bad)).sample(range(table.num_columns), min(3, table.num_columns))
        for name in {table.schema.names[place] for place in places}:
            if not pa.types.is_union(table.schema.field(name).type):
                file.read([name], filters=pc.field(name).is_valid())
        if len(table) > 32:
            file.take([0, len(table) - 1]).validate()


def same(left: pa.Table, right: pa.Table) -> bool:
    """Compare by bytes of the IPC stream: NaN payloads and nulls count, chunking does not."""
    if left.schema != right.schema or left.num_rows != right.num_rows:
        return False
    return _stream(left) == _stream(right)


def _stream(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table.combine_chunks())
    return bytes(sink.getvalue())


def _alarm(_: int, __: FrameType | None) -> None:
    raise Hang


def limit_memory() -> None:
    """Allow `HEADROOM_BYTES` of address space more than the process has now."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + HEADROOM_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def run(cases: Iterator[Case], good: pa.Table, *, verify: bool, exact: bool) -> dict[str, Any]:
    """Read every case; return outcomes, faults and seconds."""
    outcomes: Counter[str] = Counter()
    faults: list[str] = []
    signal.signal(signal.SIGALRM, _alarm)
    started = time.perf_counter()
    for name, bad in cases:
        signal.alarm(SLOWEST_S)
        whole = not name.startswith("padding")
        found = outcome(bad, good, verify=verify, exact=exact, whole=whole)
        signal.alarm(0)
        outcomes[found.split()[0]] += 1
        if found.startswith("FAULT"):
            faults.append(f"{name}: {found}")
    seconds = round(time.perf_counter() - started, 1)
    return {"outcomes": dict(outcomes), "faults": faults[:20], "seconds": seconds}


def campaign(
    name: str, file: Path, *, count: int = 0, seed: int = 1, verify: bool = True, limit_s: int = 250
) -> dict[str, Any]:
    """Run a campaign in a process of its own and return what it printed."""
    command = [sys.executable, "-m", "tests.ncf.damage", name, str(file)]
    command += ["--count", str(count), "--seed", str(seed)]
    command += [] if verify else ["--unverified"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=limit_s, check=False)
    assert done.returncode == 0, f"exit code {done.returncode}\n{done.stderr[-3000:]}"
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def main() -> None:
    """Run one campaign as the module's docstring says."""
    parser = argparse.ArgumentParser()
    parser.add_argument("campaign", choices=CAMPAIGNS)
    parser.add_argument("file", type=Path)
    parser.add_argument("--count", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--unverified", action="store_true")
    given = parser.parse_args()
    raw = given.file.read_bytes()
    good = read_table(raw)
    same(good, good)
    limit_memory()
    cases = CAMPAIGNS[given.campaign](raw, given.count, given.seed)
    exact = given.campaign != "forgeries" and not given.unverified
    print(json.dumps(run(cases, good, verify=not given.unverified, exact=exact)))


if __name__ == "__main__":
    main()
