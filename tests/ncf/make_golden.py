"""Writes the golden files of this format version: ``python -m tests.ncf.make_golden``.

Run once per minor version, when its layout is final; files that are there are never replaced. For
each ``NAME.ncf`` there is ``NAME.arrow``, an Arrow IPC file of the same table.
"""

import math
import random
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa

from neurolake_dagster import ncf
from tests.ncf.every_type import extensions, nested, numbers, texts, times
from tests.ncf.forge import assemble
from tests.ncf.forged_files import SOUND

GOLDEN = Path(__file__).parent / "golden"
VERSION = "2.1"


def tables() -> dict[str, tuple[pa.Table, dict[str, Any]]]:
    """Return table and options of the writer by name."""
    rows, pages = 1500, {"row_group_size": 1200, "page_rows": 500}
    found: dict[str, tuple[pa.Table, dict[str, Any]]] = {
        "numbers": (pa.table(numbers(rows)), pages),
        "times": (pa.table(times(rows)), pages),
        "texts": (pa.table(texts(rows)), pages),
        "nested": (pa.table(nested(300)), {"row_group_size": 200, "page_rows": 90}),
        "extensions": (pa.table(extensions(100)), {"page_rows": 30}),
    }
    for profile in ("fast", "archive", "none"):
        found[f"texts-{profile}"] = (pa.table(texts(150)), {"compression": profile})
        found[f"numbers-{profile}"] = (pa.table(numbers(150)), {"compression": profile})
    floats = pa.array([index % 7 / 3 for index in range(2000)] + [None])
    found["few-floats"] = (pa.table({"few": floats, "single": floats.cast(pa.float32())}), {})
    few = pa.array(["red", "green", "blue"] * 2000 + [None])
    found["few-words"] = (pa.table({"few": few, "two": few.cast(pa.large_string())}), {})
    found["forms"] = (pa.table(forms(600)), {})
    found["no-rows"] = (pa.table(numbers(3)).slice(0, 0), {})
    found["no-columns"] = (pa.table({"x": [1, 2, 3]}).select([]), {})
    mail = pa.array([f"someone{index // 3}@example.org" for index in range(300)])
    found["notes"] = (
        pa.table({"id": pa.array(range(300)), "mail": mail}).replace_schema_metadata({"k": "v"}),
        {
            "row_group_size": 100,
            "sorting_columns": ["id", ("mail", True, True)],
            "bloom_filters": ["id", "mail"],
            "column_metadata": {
                "mail": {"semantic": "pii_email", "pii": True, "description": "where to write"}
            },
        },
    )
    return found


def forms(rows: int) -> dict[str, pa.Array]:
    """Return columns for the forms that the tables of every type do not take."""
    chance = random.Random(4)
    cents = [index % 91 / 100 for index in range(rows)]
    noise = [chance.random() for _ in range(rows)]
    small = [Decimal(index % 100) for index in range(rows)]
    return {
        "many exceptions": pa.array([noise[i] if i % 4 == 1 else v for i, v in enumerate(cents)]),
        "few exceptions": pa.array([noise[i] if i % 91 == 5 else v for i, v in enumerate(cents)]),
        "some not numbers": pa.array([math.nan if i % 4 == 1 else v for i, v in enumerate(cents)]),
        "transposed": pa.array(small, pa.decimal256(70, 0)),
    }


def publish(folder: Path, name: str, data: bytes) -> None:
    """Write the pair of files, unless it is there."""
    if (folder / f"{name}.ncf").exists():
        return
    (folder / f"{name}.ncf").write_bytes(data)
    table = ncf.read_table(data)
    options = pa.ipc.IpcWriteOptions(compression="zstd", unify_dictionaries=True)
    with pa.ipc.new_file(folder / f"{name}.arrow", table.schema, options=options) as writer:
        writer.write_table(table.combine_chunks())


def main() -> None:
    """Write what is missing."""
    folder = GOLDEN / VERSION
    folder.mkdir(parents=True, exist_ok=True)
    for name, (table, options) in tables().items():
        sink = pa.BufferOutputStream()
        ncf.write_table(table, sink, **options)
        if not same(ncf.read_table(sink.getvalue()), table, notes="column_metadata" not in options):
            raise AssertionError(f"{name} does not come back")
        publish(folder, name, bytes(sink.getvalue()))
    for name, (parts, values) in SOUND.items():
        data = assemble(parts)
        if ncf.read_table(data)["c"].to_pylist() != values:
            raise AssertionError(f"{name} does not read")
        publish(folder, f"hand-{name.replace(' ', '-')}", data)


def same(found: pa.Table, table: pa.Table, *, notes: bool) -> bool:
    """Whether a table came back, NaN included; its schema's metadata too, if `notes`."""
    equal_schemas = found.schema.equals(table.schema, check_metadata=notes)
    return equal_schemas and repr(found.to_pydict()) == repr(table.to_pydict())


if __name__ == "__main__":
    main()
