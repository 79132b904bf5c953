"""Takes an NCF v2 file apart and puts it together with right checksums, whatever was changed.

Written from SPEC.md alone, on purpose: it shares no code with the package. A size, offset or
hash that is `AUTO` is made to fit; any other value is written as it is.
"""

import random
import struct
import zlib
from dataclasses import dataclass, field
from typing import Any

import msgpack
import pyarrow as pa
import xxhash

AUTO = None
HEADER = struct.Struct("<4sHHI")
TAIL = struct.Struct("<QIIQHHI")
INTERESTING = (
    0, 1, 2, 3, 7, 8, 15, 16, 63, 64, 127, 128, 255, 256, 32767, 65535, 65536, 2**24, 2**24 + 1,
    2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**53, 2**63 - 1, 2**63, 2**64 - 1, -1, -2, -128, -(2**31),
    -(2**63),
)  # fmt: skip
STRANGE = (None, True, False, 1.5, float("nan"), "x", b"", b"abc", [], {}, [[]], {"a": 1}, "\x00")


@dataclass
class Chunk:
    """One column of one row group: bytes and meta `[rows, tables, pages]`.

    The second and third item of a table's or page's entry (size, hash) are `AUTO`; so are the
    first four of `entry`, the footer's `[offset, bytes, meta bytes, meta hash, ...]`.
    """

    bodies: list[bytes]
    meta: Any
    entry: list[Any]
    meta_bytes: bytes | None = None
    # Chunks are written in the order of where they were.
    offset: int = 0


@dataclass
class Parts:
    """A whole file."""

    header: dict[str, int]
    groups: list[list[Chunk]]
    zones: list[Any]
    sections: dict[str, bytes]
    footer: dict[Any, Any]
    tail: dict[str, int] = field(default_factory=dict)
    footer_bytes: bytes | None = None


def craft(
    kind: pa.DataType,
    rows: int,
    node: Any,
    body: bytes = b"",
    tables: tuple[tuple[int, Any, bytes], ...] = (),
) -> Parts:
    """Make a file of one column "c" in one page, its node written by hand.

    `tables` are (rows, node, bytes).
    """
    entries = [[count, AUTO, AUTO, tree] for count, tree, _ in tables]
    meta = [rows, entries, [[rows, AUTO, AUTO, node]]]
    nulls = 0
    if node == [0]:
        nulls = rows
    elif isinstance(node, list) and len(node) > 2 and isinstance(node[1], list) and node[0] != 14:
        nulls = node[1][1]
    entry = [AUTO, AUTO, AUTO, AUTO, 0, ["by hand"], [nulls, None, None, None, 0]]
    footer = {
        "schema": pa.schema([("c", kind)]).serialize().to_pybytes(),
        "rows": rows,
        "row_groups": [[rows, []]],
        "sorting": [],
        "features": [],
        "writer": "by hand",
        "metadata": {},
    }
    chunk = Chunk([*(raw for _, _, raw in tables), body], meta, entry)
    return Parts({"major": 2, "minor": 1, "flags": 0}, [[chunk]], [None], {}, footer)


def raw(offset: int, size: int) -> list[int]:
    """Return a stream stored as it is."""
    return [0, offset, size, size]


def explode(data: bytes) -> Parts:
    """Take a sound file apart."""
    _, major, minor, flags = HEADER.unpack_from(data)
    offset, size, raw_size, *_ = TAIL.unpack_from(data, len(data) - 40)
    raw = pa.Codec("zstd").decompress(data[offset : offset + size], raw_size)
    footer = msgpack.unpackb(raw)
    groups = [[_chunk(data, entry) for entry in columns] for _, columns in footer["row_groups"]]
    zones = [
        None if zone is None else msgpack.unpackb(data[zone[0] : zone[0] + zone[1]])
        for zone in footer["zones"]
    ]
    sections = {name: data[at : at + size] for name, at, size, _ in footer["sections"]}
    return Parts({"major": major, "minor": minor, "flags": flags}, groups, zones, sections, footer)


def padding_positions(data: bytes) -> set[int]:
    """Return the places of the zero bytes that align chunks: the only ones without a meaning."""
    offset, size, raw_size, *_ = TAIL.unpack_from(data, len(data) - 40)
    footer = msgpack.unpackb(pa.Codec("zstd").decompress(data[offset : offset + size], raw_size))
    used = set(range(16)) | set(range(offset, len(data)))
    ranges = [entry[:2] for _, columns in footer["row_groups"] for entry in columns]
    ranges += [zone[:2] for zone in footer["zones"] if zone is not None]
    ranges += [section[1:3] for section in footer["sections"]]
    for at, length in ranges:
        used |= set(range(at, at + length))
    return set(range(len(data))) - used


def _chunk(data: bytes, entry: list[Any]) -> Chunk:
    offset, size, meta_size = entry[:3]
    meta = msgpack.unpackb(data[offset + size - meta_size : offset + size])
    bodies, at = [], offset
    for part in (*meta[1], *meta[2]):
        bodies.append(data[at : at + part[1]])
        at += part[1]
        part[1] = part[2] = AUTO
    return Chunk(bodies, meta, [AUTO, AUTO, AUTO, AUTO, *entry[4:]], offset=offset)


def assemble(parts: Parts) -> bytes:
    """Write the file; every hash and checksum is right unless it was set."""
    head = HEADER.pack(
        b"NCF\x02", parts.header["major"], parts.header["minor"], parts.header["flags"]
    )
    out = bytearray(head + zlib.crc32(head).to_bytes(4, "little"))
    footer = dict(parts.footer)
    columns = [_write_group(out, group) for group in parts.groups]
    if isinstance(footer.get("row_groups"), list) and len(footer["row_groups"]) == len(columns):
        rows = [
            group[0] if isinstance(group, list) and group else 0 for group in footer["row_groups"]
        ]
        footer["row_groups"] = [[n, c] for n, c in zip(rows, columns, strict=True)]
    footer.setdefault("forged_zones", None)
    forged_zones = footer.pop("forged_zones")
    zones = [None if zone is None else _write_range(out, _pack(zone)) for zone in parts.zones]
    footer["zones"] = zones if forged_zones is None else forged_zones
    footer["sections"] = footer.pop("forged_sections", None) or [
        [name, *_write_range(out, body)] for name, body in parts.sections.items()
    ]
    raw = _pack(footer) if parts.footer_bytes is None else parts.footer_bytes
    body = bytes(pa.Codec("zstd", compression_level=3).compress(raw))
    tail = {
        "offset": len(out), "size": len(body), "raw": len(raw),
        "hash": xxhash.xxh3_64_intdigest(body), "major": 2,
        "minor": parts.header["minor"], "flags": 0,
    } | parts.tail  # fmt: skip
    out += body
    packed = TAIL.pack(*tail.values())
    return bytes(out + packed + zlib.crc32(packed).to_bytes(4, "little") + b"2FCN")


def _pack(value: object) -> bytes:
    packed: bytes = msgpack.packb(value)
    return packed


def _write_range(out: bytearray, body: bytes) -> list[int]:
    at = len(out)
    out += body
    return [at, len(body), xxhash.xxh3_64_intdigest(body)]


def _write_group(out: bytearray, group: list[Chunk]) -> list[list[Any]]:
    entries: list[list[Any]] = [[]] * len(group)
    for index in sorted(range(len(group)), key=lambda i: group[i].offset):
        entries[index] = _write_chunk(out, group[index])
    return entries


def _write_chunk(out: bytearray, chunk: Chunk) -> list[Any]:
    out += bytes(-len(out) % 64)
    offset = len(out)
    for body in chunk.bodies:
        out += body
    raw = chunk.meta_bytes if chunk.meta_bytes is not None else _pack(_signed_meta(chunk))
    out += raw
    found = [offset, len(out) - offset, len(raw), xxhash.xxh3_64_intdigest(raw)]
    given = chunk.entry[:4]
    return [f if g is AUTO else g for f, g in zip(found, given, strict=True)] + chunk.entry[4:]


def _signed_meta(chunk: Chunk) -> Any:
    if not isinstance(chunk.meta, list) or len(chunk.meta) != 3:
        return chunk.meta
    rows, tables, pages = chunk.meta
    bodies = iter(chunk.bodies)
    return [rows, _signed(tables, bodies), _signed(pages, bodies)]


def _signed(entries: Any, bodies: Any) -> Any:
    if not isinstance(entries, list):
        return entries
    signed = []
    for entry in entries:
        body = next(bodies, b"")
        if isinstance(entry, list) and len(entry) == 4:
            rows, size, digest, node = entry
            size = len(body) if size is AUTO else size
            digest = xxhash.xxh3_64_intdigest(body) if digest is AUTO else digest
            signed.append([rows, size, digest, node])
        else:
            signed.append(entry)
    return signed


def forge(good: bytes, chance: random.Random) -> tuple[str, bytes]:
    """Change one to three things behind the checksums; name them."""
    parts = explode(good)
    names = [_forge_one(parts, chance) for _ in range(chance.choice((1, 1, 1, 2, 3)))]
    try:
        return ", ".join(names), assemble(parts)
    except (OverflowError, struct.error, ValueError, TypeError):
        # msgpack holds 64 bits only: what cannot be written is no case.
        return ", ".join(names), good


def _forge_one(parts: Parts, chance: random.Random) -> str:
    group = chance.choice(parts.groups)
    number = chance.randrange(len(group))
    chunk = group[number]
    where = f"column {number}"
    kind = chance.random()
    if kind < 0.55:
        return f"{where} meta {_change(chunk.meta, chance)}"
    if kind < 0.75 and chunk.bodies:
        page = chance.randrange(len(chunk.bodies))
        body = bytearray(chunk.bodies[page])
        for _ in range(chance.choice((1, 1, 4))):
            if body:
                body[chance.randrange(len(body))] = chance.randrange(256)
        if chance.random() < 0.2:
            body = body[: chance.randrange(len(body) + 1)]
        chunk.bodies[page] = bytes(body)
        return f"{where} body {page}"
    if kind < 0.85:
        return f"{where} entry {_change(chunk.entry, chance)}"
    if kind < 0.9 and any(parts.zones):
        index = chance.choice([i for i, zone in enumerate(parts.zones) if zone is not None])
        return f"zones {index} {_change(parts.zones[index], chance)}"
    return f"footer {_change(parts.footer, chance)}"


def _change(tree: Any, chance: random.Random) -> str:
    """Replace one value somewhere in a tree of lists and maps."""
    path = []
    while True:
        keys = list(tree) if isinstance(tree, dict) else list(range(len(tree)))
        if not keys:
            if isinstance(tree, list):
                tree.append(chance.choice(INTERESTING))
            return "/".join(path) + " appended"
        key = chance.choice(keys)
        path.append(str(key))
        below = tree[key]
        if isinstance(below, (list, dict)) and below and chance.random() < 0.93:
            tree = below
            continue
        tree[key] = _other(below, chance)
        return "/".join(path) + f" = {tree[key]!r:.60}"


def _other(value: Any, chance: random.Random) -> Any:
    kind = chance.random()
    if type(value) is int and kind < 0.8:
        near = (
            value + 1,
            value - 1,
            value * 2,
            value // 2,
            -value,
            value ^ (1 << chance.randrange(32)),
        )
        return chance.choice(near) if kind < 0.45 else chance.choice(INTERESTING)
    if isinstance(value, bytes) and value and kind < 0.7:
        body = bytearray(value)
        body[chance.randrange(len(body))] ^= 1 << chance.randrange(8)
        return bytes(body)
    if isinstance(value, list) and value and kind < 0.7:
        return chance.choice(([*value, value[-1]], value[:-1], value[::-1], [value], value[0]))
    return chance.choice(STRANGE + INTERESTING)
