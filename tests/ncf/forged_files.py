"""Files of one column written by hand from SPEC.md: sound ones, and ones that break a rule each.

Every checksum in them is right: nothing but the reader's own checks is in the way.
"""

import struct
from typing import Any

import pyarrow as pa

from tests.ncf.forge import Parts, craft, raw

INT = pa.int64()
TEXT = pa.string()
ONES = bytes([1] * 8)


def ints(values: bytes) -> tuple[list[Any], bytes]:
    """Return an integer node of small values, and its one plane's bytes."""
    return [1, 0, 1, [[0, 1, 8, raw(0, len(values))]]], values


def packed(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}q", *values)


SOUND: dict[str, tuple[Parts, list[Any]]] = {
    "all null": (craft(INT, 3, [0]), [None] * 3),
    "bool": (craft(pa.bool_(), 3, [1, None, raw(0, 1)], b"\x05"), [True, False, True]),
    "bool nulls": (
        craft(pa.bool_(), 3, [1, [0, 1, raw(1, 1)], raw(0, 1)], b"\x05\x03"),
        [True, False, None],
    ),
    "constant": (craft(INT, 3, [2, None, [0, -7]]), [-7] * 3),
    "frame": (
        craft(INT, 3, [2, None, [1, 100, 10, [[0, 1, 8, raw(0, 3)]]]], b"\0\1\2"),
        [100, 110, 120],
    ),
    "frame of nibbles": (
        craft(INT, 3, [2, None, [1, -1, 1, [[0, 1, 4, raw(0, 2)]]]], b"\x21\x03"),
        [0, 1, 2],
    ),
    "frame of two planes": (
        craft(
            INT,
            2,
            [2, None, [1, 0, 1, [[0, 2, 8, raw(0, 4)], [4, 1, 1, raw(4, 1)]]]],
            b"\1\0\2\0\2",
        ),
        [1, 2 + 2**32],
    ),
    "frame of words": (
        craft(
            INT,
            2,
            [2, None, [1, 1, 3, [[0, 8, 8, raw(0, 16)]]]],
            b"\5" + bytes(6) + b"\x40" * 2 + bytes(7),
        ),
        [16 + 3 * 2**62 - 2**64, 1 + 3 * 64],
    ),
    "frame without planes": (craft(INT, 3, [2, None, [1, 5, 1, []]]), [5] * 3),
    "delta": (craft(INT, 4, [2, None, [2, 10, 3, 1, []]]), [10, 13, 16, 19]),
    "delta with residuals": (
        craft(INT, 3, [2, None, [2, 10, -1, 2, [[0, 1, 2, raw(0, 1)]]]], b"\x0d"),
        [10, 11, 16],
    ),
    "delta twice": (craft(INT, 4, [2, None, [3, 1, 2, 1, []]]), [1, 3, 6, 10]),
    "runs": (
        craft(
            INT, 5, [2, None, [4, 2, [1, 2, 1, [[0, 1, 8, raw(0, 2)]]], [2, 7, 1, 1, []]]], b"\0\1"
        ),
        [7, 7, 8, 8, 8],
    ),
    "sparse": (
        craft(INT, 5, [2, [1, 3, raw(0, 1)], [2, 1, 1, 1, []]], b"\x12"),
        [None, 1, None, None, 2],
    ),
    "decimals": (
        craft(pa.float64(), 3, [3, None, [1, 2, [2, 100, 25, 1, []], None]]),
        [1.0, 1.25, 1.5],
    ),
    "decimals with exceptions": (
        craft(
            pa.float64(),
            3,
            [3, None, [1, 0, [0, 4], [1, [0, [0, 1]], [0, struct.pack("<d", -0.5)]]]],
        ),
        [4.0, -0.5, 4.0],
    ),
    "float words": (
        craft(pa.float32(), 2, [3, None, [2, raw(0, 8)]], struct.pack("<2f", 0.5, -2)),
        [0.5, -2.0],
    ),
    "number table": (
        craft(
            INT,
            3,
            [6, None, 0, ints(b"\1\0\1")[0]],
            b"\1\0\1",
            ((2, [2, None, [2, 5, 90, 1, []]], b""),),
        ),
        [95, 5, 95],
    ),
    "table in the node": (
        craft(INT, 4, [17, [2, 1, [1]], packed(95, 5), ints(b"\1\0\0\1")[0]], b"\1\0\0\1"),
        [5, None, 95, 5],
    ),
    "table of floats in the node": (
        craft(
            pa.float32(),
            3,
            [17, None, struct.pack("<2f", 0.5, -2), ints(b"\1\0\1")[0]],
            b"\1\0\1",
        ),
        [-2.0, 0.5, -2.0],
    ),
    "few nulls": (
        craft(INT, 9, [2, [2, 3, [0, 7, 8]], [2, 1, 1, 1, []]]),
        [None, 2, 3, 4, 5, 6, 7, None, None],
    ),
    "text": (
        craft(TEXT, 3, [7, None, [1, 1, 1, [[0, 1, 1, raw(0, 1)]]], 4, raw(1, 4)], b"\2abcd"),
        ["a", "bc", "d"],
    ),
    "nibble text": (
        craft(TEXT, 2, [8, None, [0, 3], 6, [b"xyz", None, 6, raw(0, 3)]], b"\x10\x02\x21"),
        ["xyz", "xyz"],
    ),
    "nibble template": (
        craft(
            TEXT,
            2,
            [8, None, [0, 3], 6, [b"01", [b"?-?", [[0, 1], [2, 3]]], 4, raw(0, 2)]],
            b"\x10\x01",
        ),
        ["0-1", "1-0"],
    ),
    "text table": (
        craft(
            TEXT,
            3,
            [9, None, 0, ints(b"\1\1\0")[0]],
            b"\1\1\0",
            ((2, [7, None, [0, 2], 4, raw(0, 4)], b"noja"),),
        ),
        ["ja", "ja", "no"],
    ),
    "struct": (craft(pa.struct([("a", INT)]), 2, [10, None, [[2, None, [0, 1]]]]), [{"a": 1}] * 2),
    "list": (craft(pa.list_(INT), 2, [11, None, [0, 2], 4, [2, None, [0, 1]]]), [[1, 1]] * 2),
    "fixed list": (craft(pa.list_(INT, 2), 2, [12, None, [2, None, [0, 1]]]), [[1, 1]] * 2),
    "list view": (
        craft(pa.list_view(INT), 2, [13, None, [0, 1], 2, [2, None, [0, 1]]]),
        [[1]] * 2,
    ),
    "dictionary": (
        craft(
            pa.dictionary(pa.int8(), TEXT),
            2,
            [16, None, 0, [0, 0]],
            b"",
            ((1, [7, None, [0, 1], 1, raw(0, 1)], b"z"),),
        ),
        ["z", "z"],
    ),
    "dense union": (
        craft(
            pa.dense_union([pa.field("a", INT), pa.field("b", INT)]),
            2,
            [14, [2, 0, 1, 1, []], [[1, [2, None, [0, 5]]], [1, [2, None, [0, 6]]]]],
        ),
        [5, 6],
    ),
    "run ends": (
        craft(pa.run_end_encoded(pa.int32(), INT), 3, [15, 1, [0, 3], [2, None, [0, 9]]]),
        [9] * 3,
    ),
}

FRAME = [1, 0, 1, [[0, 1, 8, raw(0, 3)]]]
HALF = pa.list_(INT, 2**20)
FORGED: dict[str, Parts] = {
    # 4: row counts
    "negative rows": craft(INT, -3, [0]),
    "page of 2**24 + 1 rows": craft(INT, 2**24 + 1, [0]),
    "page of 2**62 rows": craft(INT, 2**62, [0]),
    # 5: ranges
    "stream past the page": craft(INT, 3, [2, None, [1, 0, 1, [[0, 1, 8, raw(1, 3)]]]], b"abc"),
    "stream far past the page": craft(
        INT, 3, [2, None, [1, 0, 1, [[0, 1, 8, raw(2**63, 3)]]]], b"abc"
    ),
    "stream of negative offset": craft(
        INT, 3, [2, None, [1, 0, 1, [[0, 1, 8, raw(-1, 3)]]]], b"abc"
    ),
    # 6: what a node may make of few bytes
    "runs of runs of runs": craft(
        INT, 3, [2, None, [4, 1, [0, 3], [4, 1, [0, 1], [4, 1, [0, 1], [0, 1]]]]]
    ),
    # 7: streams and parameters
    "raw sizes differ": craft(INT, 3, [2, None, [1, 0, 1, [[0, 1, 8, [0, 0, 2, 3]]]]], b"abc"),
    "too short for the rows": craft(INT, 4, [2, None, FRAME], b"abc"),
    "too long for the rows": craft(INT, 2, [2, None, FRAME], b"abc"),
    "unknown codec": craft(INT, 3, [2, None, [1, 0, 1, [[0, 1, 8, [2, 0, 3, 3]]]]], b"abc"),
    "no zstd frame": craft(INT, 3, [2, None, [1, 0, 1, [[0, 1, 8, [1, 0, 3, 3]]]]], b"abc"),
    "planes overlap": craft(
        INT, 2, [2, None, [1, 0, 1, [[0, 2, 8, raw(0, 4)], [1, 1, 8, raw(0, 2)]]]], b"abcd"
    ),
    "planes descend": craft(
        INT, 2, [2, None, [1, 0, 1, [[2, 1, 8, raw(0, 2)], [0, 1, 8, raw(0, 2)]]]], b"abcd"
    ),
    "plane past byte 8": craft(INT, 1, [2, None, [1, 0, 1, [[8, 1, 8, raw(0, 1)]]]], b"a"),
    "plane of width 3": craft(INT, 1, [2, None, [1, 0, 1, [[0, 3, 8, raw(0, 3)]]]], b"abc"),
    "plane of width a list": craft(INT, 1, [2, None, [1, 0, 1, [[0, [], 8, raw(0, 3)]]]], b"abc"),
    "plane of 3 bits": craft(INT, 1, [2, None, [1, 0, 1, [[0, 1, 3, raw(0, 1)]]]], b"a"),
    "wide plane of 1 bit": craft(INT, 8, [2, None, [1, 0, 1, [[0, 2, 1, raw(0, 1)]]]], b"a"),
    "gcd of 0": craft(INT, 3, [2, None, [1, 0, 0, []]]),
    "gcd below 0": craft(INT, 3, [2, None, [1, 0, -1, []]]),
    "exponent of 19": craft(pa.float64(), 3, [3, None, [1, 19, [0, 1], None]]),
    "exponent of -1": craft(pa.float64(), 3, [3, None, [1, -1, [0, 1], None]]),
    "constant past int64": craft(INT, 3, [2, None, [0, 2**64 - 1]]),
    "constant of text": craft(INT, 3, [2, None, [0, "1"]]),
    "constant of a float": craft(INT, 3, [2, None, [0, 1.0]]),
    "delta of no rows": craft(pa.list_(INT), 1, [11, None, [0, 0], 0, [2, None, [2, 1, 1, 1, []]]]),
    "second delta of one row": craft(INT, 1, [2, None, [3, 1, 1, 1, []]]),
    "unknown array node": craft(INT, 3, [99]),
    "unknown integer node": craft(INT, 3, [2, None, [9, 0]]),
    "node of another type": craft(INT, 3, [1, None, raw(0, 1)], b"\5"),
    "node is a map": craft(INT, 3, {"0": 1}),
    "node is nil": craft(INT, 3, None),
    "alphabet of 17": craft(
        TEXT, 1, [8, None, [0, 2], 2, [b"abcdefghijklmnopq", None, 2, raw(0, 1)]], b"a"
    ),
    "template of another length": craft(
        TEXT, 1, [8, None, [0, 3], 3, [b"ab", [b"aa", [[0, 1]]], 1, raw(0, 1)]], b"\0"
    ),
    "template ranges overlap": craft(
        TEXT, 1, [8, None, [0, 3], 3, [b"ab", [b"aaa", [[0, 2], [1, 3]]], 4, raw(0, 2)]], b"\0\0"
    ),
    # 8: across structures
    "code past the table": craft(INT, 3, [6, None, 0, [0, 2]], b"", ((2, [2, None, [0, 1]], b""),)),
    "code below the table": craft(
        INT, 3, [6, None, 0, [0, -1]], b"", ((2, [2, None, [0, 1]], b""),)
    ),
    "text code past the table": craft(
        TEXT, 3, [9, None, 0, [0, 1]], b"", ((1, [7, None, [0, 1], 1, raw(0, 1)], b"z"),)
    ),
    "many text codes past the table": craft(
        TEXT,
        8192,
        [9, None, 0, [1, 0, 1, [[0, 1, 2, raw(0, 2048)]]]],
        b"\xe4" * 2048,
        ((3, [7, None, [0, 1], 3, raw(0, 3)], b"xyz"),),
    ),
    "last text code past the table": craft(
        TEXT,
        8194,
        [9, None, 0, [1, 0, 1, [[0, 1, 2, raw(0, 2049)]]]],
        b"\0" * 2048 + b"\x0c",
        ((3, [7, None, [0, 1], 3, raw(0, 3)], b"xyz"),),
    ),
    "code past the table in the node": craft(
        INT, 3, [17, None, packed(1, 2), ints(b"\0\1\2")[0]], b"\0\1\2"
    ),
    "code below the table in the node": craft(INT, 3, [17, None, packed(1, 2), [0, -1]]),
    "table in the node of no values": craft(INT, 3, [17, None, b"", [0, 0]]),
    "table in the node of half a value": craft(INT, 3, [17, None, packed(1, 2)[:12], [0, 0]]),
    "table in the node of 257 values": craft(INT, 3, [17, None, bytes(257 * 8), [0, 0]]),
    "table in the node is a list": craft(INT, 3, [17, None, [1, 2], [0, 0]]),
    "table of text in the node": craft(TEXT, 3, [17, None, b"abcd", [0, 0]]),
    "no such table": craft(INT, 3, [6, None, 1, [0, 0]], b"", ((2, [2, None, [0, 1]], b""),)),
    "table of itself": craft(INT, 3, [6, None, 0, [0, 0]], b"", ((2, [6, None, 0, [0, 0]], b""),)),
    "text table with nulls": craft(TEXT, 3, [9, None, 0, [0, 0]], b"", ((1, [0], b""),)),
    "dictionary index past the end": craft(
        pa.dictionary(pa.int8(), INT), 2, [16, None, 0, [0, 1]], b"", ((1, [2, None, [0, 1]], b""),)
    ),
    "dictionary index below 0": craft(
        pa.dictionary(pa.int8(), INT),
        2,
        [16, None, 0, [0, -1]],
        b"",
        ((1, [2, None, [0, 1]], b""),),
    ),
    "run of no rows": craft(INT, 3, [2, None, [4, 2, [2, 0, 3, 1, []], [0, 1]]]),
    "runs too few": craft(INT, 5, [2, None, [4, 2, [0, 2], [0, 1]]]),
    "runs too many": craft(INT, 3, [2, None, [4, 2, [0, 2], [0, 1]]]),
    "runs that wrap around": craft(INT, 3, [2, None, [4, 3, [2, 2**62, 2**62, 1, []], [0, 1]]]),
    "more runs than rows": craft(INT, 3, [2, None, [4, 4, [0, 1], [0, 1]]]),
    "lengths below 0": craft(TEXT, 2, [7, None, [2, -1, 5, 1, []], 3, raw(0, 3)], b"abc"),
    "lengths too long": craft(TEXT, 2, [7, None, [0, 2], 3, raw(0, 3)], b"abc"),
    "lengths too short": craft(TEXT, 2, [7, None, [0, 1], 3, raw(0, 3)], b"abc"),
    "lengths that wrap around": craft(TEXT, 4, [7, None, [1, 2**30, 1, []], 0, raw(0, 0)]),
    "frame lengths that wrap around": craft(
        TEXT,
        4,
        [7, None, [1, 0, 1, [[0, 4, 8, raw(0, 16)]]], 4, raw(16, 4)],
        struct.pack("<4I", 2**31, 2**31, 2, 2) + b"abcd",
    ),
    "text past 2 GiB": craft(TEXT, 1, [7, None, [0, 2**31], 2**31, raw(0, 3)], b"abc"),
    "list rows past the child": craft(pa.list_(INT), 2, [11, None, [0, 2], 3, [2, None, [0, 1]]]),
    "struct of too few children": craft(pa.struct([("a", INT)]), 2, [10, None, []]),
    "nulls miscounted": craft(INT, 3, [2, [0, 2, raw(0, 1)], [0, 1]], b"\x03"),
    "as many nulls as rows": craft(INT, 3, [2, [0, 3, raw(0, 1)], [0, 1]], b"\x00"),
    "validity after the last row": craft(INT, 3, [2, [0, 1, raw(0, 1)], [0, 1]], b"\x83"),
    "validity of another mode": craft(INT, 3, [2, [3, 1, raw(0, 1)], [0, 1]], b"\x03"),
    "fewer null rows than nulls": craft(INT, 3, [2, [2, 2, [1]], [0, 1]]),
    "null row past the rows": craft(INT, 3, [2, [2, 1, [3]], [0, 1]]),
    "null row below the rows": craft(INT, 3, [2, [2, 1, [-1]], [0, 1]]),
    "null rows twice": craft(INT, 3, [2, [2, 2, [1, 1]], [0, 1]]),
    "null rows descend": craft(INT, 3, [2, [2, 2, [2, 1]], [0, 1]]),
    "null rows are a stream": craft(INT, 9, [2, [2, 4, raw(0, 2)], [0, 1]], b"\x03\0"),
    "exception past the rows": craft(
        pa.float64(), 3, [3, None, [1, 0, [0, 4], [1, [0, [0, 3]], [0, ONES]]]]
    ),
    "exception below the rows": craft(
        pa.float64(), 3, [3, None, [1, 0, [0, 4], [1, [0, [0, -1]], [0, ONES]]]]
    ),
    "exceptions do not ascend": craft(
        pa.float64(), 3, [3, None, [1, 0, [0, 4], [2, [0, [0, 1]], [0, ONES]]]]
    ),
    "more exceptions than rows": craft(
        pa.float64(), 3, [3, None, [1, 0, [0, 4], [4, [0, [2, 0, 1, 1, []]], [0, ONES]]]]
    ),
    "exceptions miscounted": craft(
        pa.float64(), 3, [3, None, [1, 0, [0, 4], [2, [1, raw(0, 1)], [0, ONES]]]], b"\1"
    ),
    "union code not in the type": craft(
        pa.dense_union([pa.field("a", INT)]), 2, [14, [0, 1], [[2, [2, None, [0, 1]]]]]
    ),
    "union child rows differ": craft(
        pa.dense_union([pa.field("a", INT)]), 2, [14, [0, 0], [[1, [2, None, [0, 1]]]]]
    ),
    "run ends too few": craft(
        pa.run_end_encoded(pa.int16(), INT), 3, [15, 1, [0, 2], [2, None, [0, 1]]]
    ),
    "run ends past int16": craft(
        pa.run_end_encoded(pa.int16(), INT), 40000, [15, 1, [0, 40000], [2, None, [0, 1]]]
    ),
}

# Small files that would take gigabytes: read under a memory limit only.
BOMBS: dict[str, Parts] = {
    "constant table of 2**31 - 1": craft(
        INT, 3, [6, None, 0, [0, 0]], b"", ((2**31 - 1, [2, None, [0, 1]], b""),)
    ),
    "list of 2**31 - 1 constants": craft(
        pa.list_(INT), 1, [11, None, [0, 2**31 - 1], 2**31 - 1, [2, None, [0, 1]]]
    ),
    "fixed list of 2**20 each": craft(HALF, 2**20, [12, None, [2, None, [0, 1]]]),
    "null fixed lists of 2**20 each": craft(HALF, 2**20, [0]),
    "text of one long table entry": craft(
        TEXT,
        2**23,
        [9, None, 0, [0, 0]],
        b"",
        ((1, [7, None, [0, 4096], 4096, raw(0, 4096)], b"x" * 4096),),
    ),
    "frame that promises 2**40": craft(
        pa.binary(),
        1,
        [7, None, [0, 2**30], 2**30, [1, 0, 13, 2**30]],
        b"\x28\xb5\x2f\xfd\xe0" + (2**40).to_bytes(8, "little"),
    ),
}
