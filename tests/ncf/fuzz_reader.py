"""Fuzz target of the NCF reader: ``python tests/ncf/fuzz_reader.py [libFuzzer flags] [corpus]``.

The first byte of an input says what the rest is: 0 a whole file; 1 the seed of a forgery of a file
with every type; else a type, a row count, a node and its bytes, put into a file whose checksums are
right, so that the fuzzer reaches what lies behind them. Anything but a refusal by our own error, or
a table that Arrow calls valid, is a crash, kept in ``.cache/fuzz``. ``-max_total_time=60`` bounds
the run. Without a corpus folder a temporary one is filled with the sound files.
"""

import io
import random
import sys
import tempfile
import warnings
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1]))

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import atheris

with atheris.instrument_imports(include=["neurolake_dagster"]):
    from neurolake_dagster.errors import NCFError
    from neurolake_dagster.ncf import NCFFile, write_table

import msgpack  # noqa: E402 - the reader must be imported instrumented, before all else
import pyarrow as pa  # noqa: E402
import pyarrow.compute as pc  # noqa: E402

from tests.ncf.every_type import every_type  # noqa: E402
from tests.ncf.forge import assemble, craft, forge  # noqa: E402
from tests.ncf.forged_files import BOMBS, FORGED, SOUND  # noqa: E402

LIMIT_BYTES = 256 << 20
MODES = 8
FINDINGS = HERE.parents[1] / ".cache" / "fuzz"


def every_type_file() -> bytes:
    sink = io.BytesIO()
    write_table(every_type(8), sink)
    return sink.getvalue()


GOOD = every_type_file()
KINDS = [field.type for field in every_type(1).schema]


def crafted(data: bytes) -> bytes:
    """Put a node and its bytes into a file: u8 type, u16 rows, u16 node bytes, node, bytes."""
    kind = KINDS[data[0] % len(KINDS)]
    rows = int.from_bytes(data[1:3], "little")
    length = int.from_bytes(data[3:5], "little")
    try:
        node = msgpack.unpackb(data[5 : 5 + length], strict_map_key=False)
        return assemble(craft(kind, rows, node, data[5 + length :]))
    except (ValueError, TypeError, LookupError, OverflowError, msgpack.UnpackException):
        return data


def seed_of(kind: pa.DataType, rows: int, node: object, body: bytes) -> bytes | None:
    """Return the input that `crafted` makes this file of."""
    if kind not in KINDS or not 0 <= rows < 1 << 16:
        return None
    packed = msgpack.packb(node)
    head = bytes([2, KINDS.index(kind)]) + rows.to_bytes(2, "little")
    return head + len(packed).to_bytes(2, "little") + packed + body


def fill_corpus(folder: Path) -> None:
    """Write the seeds: whole files, and the nodes written by hand."""
    files = [GOOD, *(p.read_bytes() for p in sorted(HERE.glob("fixtures/v1/*.ncf")))]
    files += [p.read_bytes() for p in sorted(HERE.glob("golden/**/*.ncf"))]
    seeds = [b"\0" + file for file in files] + [b"\1" + bytes([i]) for i in range(16)]
    for parts in [pair[0] for pair in SOUND.values()] + [*FORGED.values(), *BOMBS.values()]:
        chunk = parts.groups[0][0]
        page = chunk.meta[2][0]
        schema = pa.ipc.read_schema(pa.py_buffer(parts.footer["schema"]))
        seed = seed_of(schema.field(0).type, page[0], page[3], chunk.bodies[-1])
        if seed is not None:
            seeds.append(seed)
    for number, seed in enumerate(seeds):
        (folder / f"seed{number:04d}").write_bytes(seed)


def read_one(data: bytes) -> None:
    """Read one input; every way to fail but our own is a finding."""
    if len(data) < 8:
        return
    mode, body = data[0] % MODES, data[1:]
    if mode == 1:
        body = forge(GOOD, random.Random(body))[1]
    elif mode > 1:
        body = crafted(body)
    try:
        with NCFFile(body, decode_limit_bytes=LIMIT_BYTES) as file:
            table = file.read(use_threads=False)
            repr(file.metadata)
            assert sum(len(b) for b in file.iter_batches(1000, use_threads=False)) == len(table)
            for column in list(table.schema)[:2]:
                # Of several columns of one name none can be asked for.
                is_single = table.column_names.count(column.name) == 1
                if is_single and not pa.types.is_union(column.type):
                    file.read([column.name], filters=pc.field(column.name).is_valid())
            if len(table) > 32:
                file.take([0, len(table) - 1]).validate()
    except NCFError:
        return
    table.validate()


def main() -> None:
    """Hand over to libFuzzer, with the sound files as seeds where no corpus is given."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = list(sys.argv)
        if all(argument.startswith("-") for argument in arguments[1:]):
            fill_corpus(Path(folder))
            arguments += [folder, "-max_len=65536"]
        if not any(argument.startswith("-artifact_prefix") for argument in arguments):
            FINDINGS.mkdir(parents=True, exist_ok=True)
            arguments.append(f"-artifact_prefix={FINDINGS}/")
        atheris.Setup(arguments, read_one)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
