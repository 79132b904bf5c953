"""A second reader of NCF v2, written from SPEC.md alone and as plainly as it can be.

It shares no code with the package and checks nothing but hashes: it proves that SPEC.md says
enough. Values come as Python lists, physical ones: integers of dates, times and decimals, tuples
of (type code, value) for unions, raw bytes for fixed-width types.
"""

import struct
import zlib
from collections.abc import Callable
from typing import Any

import msgpack
import pyarrow as pa
import xxhash

Node = Any


class Part:
    """A table or page: its streams, and how to get the tables before it."""

    def __init__(self, body: bytes, table: Callable[[int, pa.DataType], list[Any]]) -> None:
        self.body, self.table = body, table

    def stream(self, node: Node) -> bytes:
        codec, offset, stored, size = node
        data = self.body[offset : offset + stored]
        found = data if codec == 0 else bytes(pa.Codec("zstd").decompress(data, size))
        assert len(found) == size
        return found

    def bits(self, node: Node, n: int) -> list[int]:
        raw = self.stream(node)
        assert len(raw) == (n + 7) // 8
        return [raw[i // 8] >> (i % 8) & 1 for i in range(n)]


def read(data: bytes) -> dict[str, list[Any]]:
    """Return the columns of a file by name."""
    assert data[:4] == b"NCF\x02"
    assert zlib.crc32(data[:12]) == int.from_bytes(data[12:16], "little")
    offset, size, raw_size, digest, major, _, flags, crc = struct.unpack("<QIIQHHII", data[-40:-4])
    assert zlib.crc32(data[-40:-8]) == crc
    assert (data[-4:], major, flags) == (b"2FCN", 2, 0)
    body = data[offset : offset + size]
    assert offset + size == len(data) - 40
    assert xxhash.xxh3_64_intdigest(body) == digest
    footer = msgpack.unpackb(bytes(pa.Codec("zstd").decompress(body, raw_size)))
    schema = pa.ipc.read_schema(pa.py_buffer(footer["schema"]))
    columns: list[list[Any]] = [[] for _ in schema]
    for rows, entries in footer["row_groups"]:
        for field, entry, values in zip(schema, entries, columns, strict=True):
            found = read_chunk(data, entry, field.type)
            assert len(found) == rows
            values += found
    return dict(zip(schema.names, columns, strict=True))


def read_chunk(data: bytes, entry: Node, kind: pa.DataType) -> list[Any]:
    offset, size, meta_size, digest = entry[:4]
    meta = data[offset + size - meta_size : offset + size]
    assert xxhash.xxh3_64_intdigest(meta) == digest
    rows, tables, pages = msgpack.unpackb(meta)
    parts = []
    for part in (*tables, *pages):
        body = data[offset : offset + part[1]]
        assert xxhash.xxh3_64_intdigest(body) == part[2]
        parts.append(body)
        offset += part[1]

    def table(number: int, kind: pa.DataType) -> list[Any]:
        return array(Part(parts[number], table), tables[number][3], kind, tables[number][0])

    values = []
    for page, body in zip(pages, parts[len(tables) :], strict=True):
        values += array(Part(body, table), page[3], kind, page[0])
    assert len(values) == rows
    return values


def array(part: Part, node: Node, kind: pa.DataType, n: int) -> list[Any]:
    """Section 6.1."""
    if isinstance(kind, pa.BaseExtensionType):
        kind = kind.storage_type
    code = node[0]
    if code == 0:
        if pa.types.is_union(kind):
            return [(kind.type_codes[0], None)] * n
        return [None] * n
    if code in _ARRAYS:
        return _ARRAYS[code](part, node, kind, n)
    valid, stored = validity(part, node[1], n)
    if code == 1:
        values = [bool(bit) for bit in part.bits(node[2], n)]
    elif code == 2:
        values = [unsigned(v, kind) for v in integers(part, node[2], stored, kind.bit_width)]
    elif code == 3:
        values = floats(part, node[2], stored, kind.bit_width // 8)
    elif code == 4:
        values = integers(part, node[2], stored, 64)
    elif code == 5:
        values = wide(part, node, kind.bit_width // 8, n)
    elif code in (6, 17):
        table = part.table(node[2], kind) if code == 6 else own_table(node[2], kind)
        values = [table[place] for place in integers(part, node[3], stored, 64)]
    else:
        values = _VALUES[code](part, node, kind, n)
    if stored == n:
        return [value if ok else None for value, ok in zip(values, valid, strict=True)]
    present = iter(values)
    return [next(present) if ok else None for ok in valid]


def validity(part: Part, node: Node, n: int) -> tuple[list[int], int]:
    """Section 6.2: which rows are valid, and how many values are stored."""
    if node is None:
        return [1] * n, n
    mode, nulls, where = node
    if mode == 2:
        assert where == sorted(set(where))
        assert len(where) == nulls
        return [int(row not in where) for row in range(n)], n
    valid = part.bits(where, n)
    assert valid.count(0) == nulls
    return valid, n if mode == 0 else n - nulls


def own_table(raw: bytes, kind: pa.DataType) -> list[Any]:
    """Kind 17: the values of kind 6's table, one after the other."""
    width = kind.bit_width // 8
    if pa.types.is_float32(kind) or pa.types.is_float64(kind):
        return list(struct.unpack(f"<{len(raw) // width}{'f' if width == 4 else 'd'}", raw))
    words = [raw[at : at + width] for at in range(0, len(raw), width)]
    return [unsigned(int.from_bytes(word, "little", signed=True), kind) for word in words]


def unsigned(value: int, kind: pa.DataType) -> int:
    return value % (1 << kind.bit_width) if pa.types.is_unsigned_integer(kind) else value


def wide(part: Part, node: Node, width: int, n: int) -> list[bytes]:
    raw = part.stream(node[3])
    if node[2]:
        return [raw[i :: n or 1] for i in range(n)]
    return [raw[i * width : (i + 1) * width] for i in range(n)]


def texts(part: Part, node: Node, kind: pa.DataType, n: int) -> list[Any]:
    lengths = integers(part, node[2], n, 64)
    assert sum(lengths) == node[3]
    body = part.stream(node[4]) if node[0] == 7 else nibbles(part, node[4], lengths)
    return cut(body, lengths, kind)


def cut(body: bytes, lengths: list[int], kind: pa.DataType) -> list[Any]:
    found, at = [], 0
    is_text = (
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    )
    for length in lengths:
        raw = body[at : at + length]
        found.append(raw.decode() if is_text else raw)
        at += length
    return found


def nibbles(part: Part, node: Node, lengths: list[int]) -> bytes:
    alphabet, template, kept_bytes, stream = node
    raw = part.stream(stream)
    kept = bytes(alphabet[raw[i // 2] >> (4 * (i % 2)) & 15] for i in range(kept_bytes))
    if template is None:
        return kept
    row, ranges = template
    out, at = bytearray(), 0
    for _ in lengths:
        text = bytearray(row)
        for start, stop in ranges:
            text[start:stop] = kept[at : at + stop - start]
            at += stop - start
        out += text
    return bytes(out)


def text_table(part: Part, node: Node, kind: pa.DataType, n: int) -> list[Any]:
    table = part.table(node[2], kind)
    return [table[place] for place in integers(part, node[3], n, 64)]


def structs(part: Part, node: Node, kind: pa.DataType, n: int) -> list[Any]:
    fields = [kind.field(i) for i in range(kind.num_fields)]
    columns = [array(part, c, f.type, n) for c, f in zip(node[2], fields, strict=True)]
    names = [field.name for field in fields]
    return (
        [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
        if columns
        else [{}] * n
    )


def lists(part: Part, node: Node, kind: pa.DataType, n: int) -> list[Any]:
    lengths = integers(part, node[2], n, 64)
    assert sum(lengths) == node[3]
    is_map = pa.types.is_map(kind)
    child = pa.struct([kind.key_field, kind.item_field]) if is_map else kind.value_type
    values = array(part, node[4], child, node[3])
    if is_map:
        values = [tuple(pair.values()) for pair in values]
    found, at = [], 0
    for length in lengths:
        found.append(values[at : at + length])
        at += length
    return found


def fixed_lists(part: Part, node: Node, kind: pa.DataType, n: int) -> list[Any]:
    size = kind.list_size
    values = array(part, node[2], kind.value_type, n * size)
    return [values[i * size : (i + 1) * size] for i in range(n)]


def unions(part: Part, node: Node, kind: pa.DataType, n: int) -> list[Any]:
    codes = integers(part, node[1], n, 8)
    children = [
        array(part, child, kind.field(i).type, rows) for i, (rows, child) in enumerate(node[2])
    ]
    by_code = dict(zip(kind.type_codes, children, strict=True))
    if kind.mode == "sparse":
        return [(code, by_code[code][row]) for row, code in enumerate(codes)]
    rests = {code: iter(child) for code, child in by_code.items()}
    return [(code, next(rests[code])) for code in codes]


def run_ends(part: Part, node: Node, kind: pa.DataType, n: int) -> list[Any]:
    lengths = integers(part, node[2], node[1], 64)
    assert sum(lengths) == n
    values = array(part, node[3], kind.value_type, node[1])
    return [value for value, k in zip(values, lengths, strict=True) for _ in range(k)]


def dictionary(part: Part, node: Node, kind: pa.DataType, n: int) -> list[Any]:
    table = part.table(node[2], kind.value_type)
    return [table[place] for place in integers(part, node[3], n, 64)]


_ARRAYS = {14: unions, 15: run_ends}
_VALUES = {
    7: texts,
    8: texts,
    9: text_table,
    10: structs,
    11: lists,
    12: fixed_lists,
    13: lists,
    16: dictionary,
}


def integers(part: Part, node: Node, n: int, bits: int) -> list[int]:
    """Section 6.3."""
    half = 1 << (bits - 1)

    def wrap(value: int) -> int:
        return (value + half) % (2 * half) - half

    code = node[0]
    if code == 0:
        return [wrap(node[1])] * n
    if code == 1:
        _, base, gcd, stored = node
        return [wrap(base + gcd * r) for r in planes(part, stored, n)]
    if code == 2:
        _, first, base, gcd, stored = node
        values = [first]
        for r in planes(part, stored, n - 1):
            values.append(values[-1] + base + gcd * r)
    elif code == 3:
        _, first, delta, base, stored = node
        values = [first, first + delta]
        for r in planes(part, stored, n - 2):
            delta += base + r
            values.append(values[-1] + delta)
    else:
        assert code == 4
        lengths = integers(part, node[2], node[1], 64)
        firsts = integers(part, node[3], node[1], 64)
        values = [value for value, k in zip(firsts, lengths, strict=True) for _ in range(k)]
        assert len(values) == n
    return [wrap(value) for value in values]


def planes(part: Part, stored: Node, n: int) -> list[int]:
    values = [0] * n
    for byte, width, bits, stream in stored:
        raw = part.stream(stream)
        for i in range(n):
            if bits == 8:
                piece = int.from_bytes(raw[i * width : (i + 1) * width], "little")
            else:
                piece = raw[i * bits // 8] >> (i * bits % 8) & ((1 << bits) - 1)
            values[i] |= piece << (8 * byte)
    return values


def floats(part: Part, node: Node, n: int, width: int) -> list[float]:
    """Section 6.4."""
    letter = "d" if width == 8 else "f"
    if node[0] == 2:
        return list(struct.unpack(f"<{n}{letter}", part.stream(node[1])))
    if node[0] == 0:
        words = struct.pack(
            f"<{n}{'q' if width == 8 else 'i'}", *integers(part, node[1], n, 8 * width)
        )
        return list(struct.unpack(f"<{n}{letter}", words))
    _, exponent, stored, exceptions = node
    values = [
        float(i) / 10.0**exponent if exponent else float(i) for i in integers(part, stored, n, 64)
    ]
    if width == 4:
        values = list(struct.unpack(f"<{n}f", struct.pack(f"<{n}f", *values)))
    if exceptions is not None:
        count, (how, where), (many, what) = exceptions
        if how == 0:
            places = integers(part, where, count, 64)
        else:
            places = [i for i, bit in enumerate(part.bits(where, n)) if bit]
        raw = part.stream(what) if many else what * count
        for place, value in zip(places, struct.unpack(f"<{count}{letter}", raw), strict=True):
            values[place] = value
    return values
