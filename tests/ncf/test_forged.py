"""Files whose checksums are right and whose structure is not: each rule of SPEC.md, one by one.

The files are written by hand from SPEC.md (`forge`), so the sound ones also prove that it says
enough to write a file that the reader takes.
"""

import math
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from neurolake_dagster.errors import NCFCorruptError, NCFError, NCFVersionError
from neurolake_dagster.ncf import read_schema, read_table
from tests.ncf.forge import Parts, assemble, craft, raw
from tests.ncf.forged_files import FORGED, INT, SOUND


@pytest.mark.parametrize("name", SOUND)
def test_a_file_written_by_hand_reads(name: str) -> None:
    parts, values = SOUND[name]
    table = read_table(assemble(parts))
    table.validate(full=True)
    assert table["c"].to_pylist() == values


@pytest.mark.parametrize("name", FORGED)
def test_a_forged_node_is_refused(name: str) -> None:
    with pytest.raises(NCFCorruptError) as caught:
        read_table(assemble(FORGED[name]))
    assert caught.value.row_group in (0, None)
    assert "Traceback" not in str(caught.value)


def good() -> Parts:
    return craft(INT, 3, [2, None, [1, 0, 1, [[0, 1, 8, raw(0, 3)]]]], b"abc")


def edited(**changes: Any) -> bytes:
    """Assemble the good file with `entry_N`, `tail_X`, `header_X` or footer keys replaced."""
    parts = good()
    for key, value in changes.items():
        where, _, name = key.partition("_")
        if where == "entry":
            parts.groups[0][0].entry[int(name)] = value
        elif where == "tail":
            parts.tail[name] = value
        elif where == "header":
            parts.header[name] = value
        elif where == "page":
            parts.groups[0][0].meta[2][0][int(name)] = value
        elif where == "meta":
            parts.groups[0][0].meta[int(name)] = value
        else:
            parts.footer[key] = value
    return assemble(parts)


EDITS: dict[str, dict[str, Any]] = {
    "footer elsewhere": {"tail_offset": 20},
    "footer past the end": {"tail_offset": 2**63},
    "footer larger": {"tail_size": 2**32 - 1},
    "footer inflates to more": {"tail_raw": 2**32 - 1},
    "footer inflates to another size": {"tail_raw": 100},
    "footer hash": {"tail_hash": 1},
    "chunk before the header's end": {"entry_0": 8},
    "chunk past the end": {"entry_0": 2**62},
    "chunk of negative offset": {"entry_0": -64},
    "chunk too large": {"entry_1": 2**40},
    "chunk of no bytes": {"entry_1": 0},
    "chunk end wraps around": {"entry_0": 2**64 - 64, "entry_1": 128},
    "meta larger than the chunk": {"entry_2": 2**31},
    "meta of no bytes": {"entry_2": 0},
    "meta hash": {"entry_3": 0},
    "meta rows": {"meta_0": 4},
    "meta pages": {"meta_2": []},
    "meta tables": {"meta_1": None},
    "page rows too many": {"page_0": 4},
    "page rows below 0": {"page_0": -3},
    "page larger than the chunk": {"page_1": 2**40},
    "page smaller": {"page_1": 1},
    "page of negative size": {"page_1": -1},
    "page hash": {"page_2": 5},
    "rows in all": {"rows": 4},
    "rows in all below 0": {"rows": -1},
    "rows of another type": {"rows": "3"},
    "row group of no rows": {"rows": 0, "row_groups": [[0, []]]},
    "schema is no message": {"schema": b"abc"},
    "schema is text": {"schema": "abc"},
    "schema of two columns": {
        "schema": pa.schema([("c", INT), ("d", INT)]).serialize().to_pybytes()
    },
    "zone past the end": {"forged_zones": [[2**40, 10, 0]]},
    "zone over the chunk": {"forged_zones": [[64, 10, 0]]},
    "too many zones": {"forged_zones": [None, None]},
    "section past the end": {"forged_sections": [["x", 2**40, 10, 0]]},
    "section name": {"forged_sections": [[5, 64, 10, 0]]},
    "sorting": {"sorting": [["c", 1, 0]]},
    "metadata": {"metadata": {"a": 1}},
    "writer": {"writer": None},
    "features": {"features": None},
}


@pytest.mark.parametrize("name", EDITS)
def test_a_forged_place_is_refused(name: str) -> None:
    with pytest.raises(NCFCorruptError):
        read_table(edited(**EDITS[name]))


def test_the_unedited_file_reads() -> None:
    assert read_table(edited())["c"].to_pylist() == [97, 98, 99]


def test_chunks_that_overlap_are_refused() -> None:
    parts = good()
    parts.footer["schema"] = pa.schema([("c", INT), ("d", INT)]).serialize().to_pybytes()
    parts.groups[0].append(good().groups[0][0])
    parts.zones.append(None)
    read_table(assemble(parts))
    parts.groups[0][1].entry[0] = 64
    with pytest.raises(NCFCorruptError, match="two chunks"):
        read_table(assemble(parts))


def nested_msgpack(depth: int, claim: int) -> bytes:
    return (b"\xdd" + claim.to_bytes(4, "big")) * depth


@pytest.mark.parametrize(
    "body",
    [
        nested_msgpack(1000, 2**20),
        nested_msgpack(300, 1500),
        b"\x91" * 5000,
        b"\x90" * 3_000_000,
        b"\xdf\xff\xff\xff\xff" * 100,
        b"\xc6\xff\xff\xff\xff",
        b"\xdb\x7f\xff\xff\xff",
        b"\xc7\x03\x01abc",
        b"\x81\x01\x02",
        b"\x83",
        b"\xc1",
        b"",
    ],
    ids=lambda body: f"{body[:5].hex()}x{len(body)}",
)
def test_forged_msgpack_is_refused(body: bytes) -> None:
    for where in ("footer", "meta"):
        parts = good()
        if where == "footer":
            parts.footer_bytes = body
        else:
            parts.groups[0][0].meta_bytes = body
        with pytest.raises(NCFError):
            read_table(assemble(parts))


def test_wrong_statistics_crash_nothing() -> None:
    for stats in ([0, None, 500, 400, 1], [3, 3, b"\xff", 1.5, 0], [0, 0, math.nan, -math.inf, 1]):
        data = edited(entry_6=stats)
        assert read_table(data)["c"].to_pylist() == [97, 98, 99]
        assert read_table(data, filters=pc.field("c") > 97).num_rows in (0, 2)


def test_a_column_name_that_is_not_utf8_is_refused() -> None:
    parts = good()
    named = pa.schema([("cafe", INT)]).serialize().to_pybytes()
    parts.footer["schema"] = named.replace(b"cafe", b"caf\xe9")
    with pytest.raises(NCFCorruptError, match="utf-8"):
        read_schema(assemble(parts))


def test_an_unknown_section_is_skipped() -> None:
    parts = good()
    parts.sections["future.index"] = b"whatever"
    assert read_table(assemble(parts)).num_rows == 3


def test_an_unknown_footer_key_is_skipped() -> None:
    assert read_table(edited(future=[1, 2])).num_rows == 3


def test_an_unknown_feature_is_refused_by_name() -> None:
    with pytest.raises(NCFVersionError, match=r"int\.delta9"):
        read_table(edited(features=["int.delta9"]))


def test_a_higher_minor_version_is_read() -> None:
    data = edited(header_minor=7, tail_minor=7)
    assert read_table(data).num_rows == 3


@pytest.mark.parametrize("where", ["header", "tail"])
@pytest.mark.parametrize("change", [{"major": 3}, {"major": 1}, {"flags": 1}])
def test_another_major_version_or_flag_is_refused(where: str, change: dict[str, int]) -> None:
    with pytest.raises(NCFVersionError):
        read_table(edited(**{f"{where}_{key}": value for key, value in change.items()}))


def test_an_unknown_encoding_hurts_only_the_columns_that_have_it() -> None:
    parts = good()
    parts.footer["schema"] = pa.schema([("c", INT), ("d", INT)]).serialize().to_pybytes()
    parts.groups[0].append(craft(INT, 3, [77, "new"], b"abc").groups[0][0])
    parts.zones.append(None)
    data = assemble(parts)
    assert read_schema(data).names == ["c", "d"]
    assert read_table(data, columns=["c"])["c"].to_pylist() == [97, 98, 99]
    with pytest.raises(NCFCorruptError, match="column 'd'"):
        read_table(data)
    parts.header["minor"] = 7
    with pytest.raises(NCFCorruptError, match=r"version 2\.7 is newer than this reader, update it"):
        read_table(assemble(parts))
