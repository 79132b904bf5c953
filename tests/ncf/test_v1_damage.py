"""Damaged, forged and malicious v1 files are refused: one error each, and nothing is run."""

import os
from pathlib import Path

import numpy as np
import pytest

from neurolake_dagster.errors import NCFCorruptError, NCFError
from neurolake_dagster.ncf import read_table
from tests.ncf.test_v1 import dump, objects
from tests.ncf.v1_files import (
    NAMES,
    column_entry,
    fixture,
    frame,
    group,
    one_column,
    stored_column,
    v1_file,
)


@pytest.mark.parametrize("name", ["typed_pickled", "groups_pii"])
def test_every_flipped_byte_is_refused(name: str) -> None:
    good = fixture(name)
    for position in range(len(good)):
        bad = bytearray(good)
        bad[position] ^= 0x41
        with pytest.raises(NCFError):
            read_table(bytes(bad))


@pytest.mark.parametrize("name", ["typed_pickled", "raw_strings"])
def test_flipped_bytes_without_verification_break_nothing(name: str) -> None:
    good, refused = fixture(name), 0
    for position in range(len(good)):
        bad = bytearray(good)
        bad[position] ^= 0xFF
        try:
            read_table(bytes(bad), verify=False).validate(full=True)
        except NCFError:
            refused += 1
    assert refused > len(good) // 4


@pytest.mark.parametrize("name", NAMES)
def test_every_truncation_is_refused(name: str) -> None:
    good = fixture(name)
    for length in range(0, len(good), 1 if len(good) < 4000 else 7):
        with pytest.raises(NCFError):
            read_table(good[:length], verify=False)


class Call:
    """Pickles to a call of a function that must never be made."""

    def __init__(self, function: object, *arguments: object) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return self.function, self.arguments


@pytest.mark.parametrize(
    ("function", "argument", "named"),
    [
        (os.system, "touch {}", "posix.system"),
        (eval, "open({!r}, 'w')", "builtins.eval"),
        (getattr, "{}", "builtins.getattr"),
        (np.load, "{}", "numpy.load"),
        (__import__, "{}", "builtins.__import__"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_pickle_that_calls_is_refused_by_name(
    tmp_path: Path, function: object, argument: str, named: str
) -> None:
    mark = tmp_path / "ran"
    arguments = (argument.format(mark),) if function is not getattr else ("", argument)
    payload = dump(objects(Call(function, *arguments)))
    with pytest.raises(NCFCorruptError, match=rf"column 'c'.*{named}"):
        read_table(one_column("binary", payload, 1))
    assert not mark.exists()


ARRAY = dump(np.array([True, False, True]))
HEAD = b"\x80\x04"
FORGED = {
    "no array": dump([1, 2, 3]),
    "another length": dump(np.zeros(4, bool)),
    "two dimensions": dump(np.zeros((3, 1), bool)),
    "structured": dump(np.zeros(3, "i4,f8")),
    "complex": dump(np.zeros(3, "c16")),
    "boolean of 7": ARRAY.replace(b"\x01\x00\x01", b"\x01\x07\x01"),
    "mixed objects": dump(objects(1, "a", b"b")),
    "a set": dump(objects({1}, {2}, {3})),
    "a dictionary": dump(objects({}, {}, {})),
    "nested array": dump(objects(np.zeros(2), 1, 2)),
    "protocol 2": dump(np.zeros(3, bool), 2),
    "empty": b"",
    "stop only": b".",
    "memo without value": HEAD + b"h\x07.",
    "huge memo index": HEAD + b"Nr\xff\xff\xff\x7f.",
    "huge bytes": HEAD + b"\x8e" + b"\xff" * 7 + b"\x7f.",
    "huge bytearray": HEAD + b"\x96" + b"\xff" * 7 + b"\x7f.",
    "huge text": HEAD + b"X\xff\xff\xff\x7f.",
    "huge frame": HEAD + b"\x95" + b"\xff" * 7 + b"\x7f.",
    "persistent id": HEAD + b"Pid\n.",
    "extension": HEAD + b"\x82\x01.",
    "text global": HEAD + b"cposix\nsystem\n.",
    "instance": HEAD + b"(iposix\nsystem\n.",
    "deep nesting": HEAD + b"N" + b"\x85" * 4000 + b".",
    "deep unit": HEAD
    + b"\x8c\x1epandas._libs.tslibs.timestamps\x8c\x13_unpickle_timestamp\x93"
    + b"(K\x01NN"
    + b"N"
    + b"\x85" * 4000
    + b"tR.",
    "list of itself": HEAD + b"]\x94h\x00a.",
    "bare global": HEAD + b"\x8c\x08datetime\x8c\x04date\x93.",
    "dotted global": HEAD + b"\x8c\x08builtins\x8c\x0cgetattr.__x_\x93.",
    "date of day 77": dump(objects(None)).replace(
        b"Na", b"\x8c\x08datetime\x8c\x04date\x93C\x04\x07\xe9\x01\x4d\x85Ra"
    ),
    "zone outside": HEAD + b"\x8c\x04pytz\x8c\x02_p\x93\x8c\x0b../../../x/\x85R.",
}


@pytest.mark.parametrize("name", FORGED)
def test_a_forged_pickle_is_refused(name: str) -> None:
    with pytest.raises(NCFCorruptError, match="column 'c'"):
        read_table(one_column("boolean", FORGED[name], 3))


@pytest.mark.parametrize("rows", [20_000, pytest.param(2**40, marks=pytest.mark.slow)])
def test_a_pickle_that_only_pushes_is_stopped(rows: int) -> None:
    bomb = frame(HEAD + b"]" * 60_000_000 + b".")
    with pytest.raises(NCFCorruptError, match="opcodes"):
        read_table(one_column("boolean", bomb, rows, 1))


def words(*values: int) -> bytes:
    return b"".join(value.to_bytes(4, "little") for value in values)


STRINGS = {
    "count": words(4, 0, 1, 2, 3) + b"abc",
    "first offset": words(3, 1, 1, 2, 3) + b"abc",
    "backwards": words(3, 0, 2, 1, 3) + b"abc",
    "short of the text": words(3, 0, 1, 2, 2) + b"abc",
    "past the text": words(3, 0, 1, 2, 900) + b"abc",
    "wraps": words(3, 0, 1, 0xFFFFFFFF, 3) + b"abc",
    "not UTF-8": words(3, 0, 1, 2, 3) + b"a\xffc",
    "half a character": words(3, 0, 1, 2, 2) + b"\xc3\xa5",
    "no offsets": words(3),
}


@pytest.mark.parametrize("name", STRINGS)
def test_forged_strings_are_refused(name: str) -> None:
    with pytest.raises(NCFCorruptError, match="column 'c'"):
        read_table(one_column("string", STRINGS[name], 3))


@pytest.mark.parametrize("rows", [2, 4, 2**31, 2**63])
def test_a_forged_row_count_is_refused(rows: int) -> None:
    with pytest.raises(NCFCorruptError, match="column 'c'"):
        read_table(one_column("int32", bytes(12), rows))


def huge_frame(content_bytes: int) -> bytes:
    """Head of a zstd frame that promises `content_bytes`, and one block of one repeated byte."""
    return b"\x28\xb5\x2f\xfd\xe0" + content_bytes.to_bytes(8, "little") + b"\x02\x00\x10\x00"


@pytest.mark.parametrize("content_bytes", [2**33, 2**63, 2**64 - 1])
def test_a_frame_that_promises_too_much_is_refused(content_bytes: int) -> None:
    with pytest.raises(NCFCorruptError, match="beyond what is decoded"):
        read_table(one_column("int8", huge_frame(content_bytes), content_bytes, 1))


SCHEMA = {"columns": [column_entry("c", "int8")]}
ONE = stored_column("c", b"\x05")
SHAPES = {
    "no columns": ({"columns": None}, group([ONE])),
    "a list": ([1], group([ONE])),
    "unknown type": ({"columns": [column_entry("c", "map")]}, group([ONE])),
    "twice in schema": ({"columns": [column_entry("c", "int8")] * 2}, group([ONE])),
    "unlabelled": ({"columns": [{"name": "c"}]}, group([ONE])),
    "unknown column": (SCHEMA, group([stored_column("d", b"\x05")])),
    "stored twice": (SCHEMA, group([ONE, ONE])),
    "empty group": (SCHEMA, group([])),
    "many columns": (SCHEMA, words(0, 2**31) + ONE),
    "size past the end": (SCHEMA, group([stored_column("c", b"\x05", size=2**63)])),
    "unknown compression": (SCHEMA, group([stored_column("c", b"\x05", 2)])),
    "name without end": (SCHEMA, words(0, 1) + b"c" * 50),
    "no zstd frame": (SCHEMA, group([stored_column("c", b"\x05" * 9, 1)])),
}


@pytest.mark.parametrize("name", SHAPES)
def test_a_forged_structure_is_refused(name: str) -> None:
    schema, data = SHAPES[name]
    with pytest.raises(NCFCorruptError):
        read_table(v1_file(schema, data, 1))


WORDS = [(at, word) for at in (8, 12, 16, 20, 24) for word in (1, 69, 2**31, 2**32 - 1)]
PADDING = [(at, word) for at in (53, 57, 64) for word in (1, 2**31)]


@pytest.mark.parametrize(("offset", "word"), WORDS + PADDING)
def test_a_forged_header_with_a_right_checksum_is_refused(offset: int, word: int) -> None:
    with pytest.raises(NCFCorruptError):
        read_table(v1_file(SCHEMA, group([ONE]), 1, header={offset: word}))
