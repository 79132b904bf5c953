"""Builds NCF v1 files byte by byte, the honest and the forged, for the tests."""

import hashlib
import json
from pathlib import Path
from typing import Any

import msgpack
import pyarrow as pa

FIXTURES = Path(__file__).parent / "fixtures" / "v1"
NAMES = ("basic_mixed", "groups_pii", "numeric_500", "raw_strings", "typed_pickled")


def fixture(name: str) -> bytes:
    return (FIXTURES / f"{name}.ncf").read_bytes()


def expected(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((FIXTURES / f"{name}.json").read_text())
    return loaded


def column_entry(name: str, data_type: str) -> dict[str, Any]:
    return {
        "name": name,
        "data_type": data_type,
        "nullable": True,
        "semantic_type": "unknown",
        "description": None,
        "contains_pii": False,
        "column_group": None,
    }


def frame(payload: bytes) -> bytes:
    return bytes(pa.Codec("zstd").compress(payload))


def block(value: object) -> bytes:
    packed = msgpack.packb(value)
    return len(packed).to_bytes(4, "little") + packed


def stored_column(name: str, stored: bytes, compression: int = 0, size: int | None = None) -> bytes:
    size = len(stored) if size is None else size
    return name.encode() + b"\0" + size.to_bytes(8, "little") + bytes([compression]) + stored


def group(columns: list[bytes], number: int = 0) -> bytes:
    return number.to_bytes(4, "little") + len(columns).to_bytes(4, "little") + b"".join(columns)


def v1_file(
    schema: object, data: bytes, row_count: int, *, header: dict[int, int] | None = None
) -> bytes:
    """Join the parts; `header` overrides u32 values by their byte offset, then all is signed."""
    schema_block, stats_block = block(schema), block({})
    stats_at = 68 + len(schema_block)
    data_at = stats_at + len(stats_block)
    footer_at = data_at + len(data)
    words = [68, stats_at, 0, data_at, footer_at]
    head = bytearray(b"NCF\x01\x01\0\0\0" + b"".join(w.to_bytes(4, "little") for w in words))
    head += row_count.to_bytes(8, "little") + bytes(16) + bytes(16)
    for offset, word in (header or {}).items():
        head[offset : offset + 4] = word.to_bytes(4, "little")
    body = bytes(head) + schema_block + stats_block + data
    places = {"header": 8, "schema": 68, "stats": stats_at, "data": data_at, "footer": footer_at}
    index = b"".join(
        name.encode().ljust(16, b"\0") + at.to_bytes(8, "little") for name, at in places.items()
    )
    digest = hashlib.sha256(body).digest()
    return body + b"NCFE\x01\0\0\0\x02" + digest + (5).to_bytes(4, "little") + index


def one_column(data_type: str, payload: bytes, row_count: int, compression: int = 0) -> bytes:
    schema = {"table_name": "t", "columns": [column_entry("c", data_type)]}
    return v1_file(schema, group([stored_column("c", payload, compression)]), row_count)
