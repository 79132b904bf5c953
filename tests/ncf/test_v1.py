"""NCF v1 files read to what the original writer put in them."""

import base64
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from neurolake_dagster.errors import NCFCorruptError, NCFVersionError, NotNCFError
from neurolake_dagster.ncf import NCFFile, read_schema, read_table
from tests.ncf.v1_files import (
    NAMES,
    block,
    column_entry,
    expected,
    fixture,
    frame,
    group,
    one_column,
    stored_column,
    v1_file,
)


def dump(values: Any, protocol: int = 4) -> bytes:
    import pickle  # noqa: TID251 - writes what the original writer wrote, loads nothing

    return pickle.dumps(values, protocol=protocol)


def objects(*values: object) -> np.ndarray:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def as_json(value: object, kind: pa.DataType) -> object:
    """Word a value as the fixtures' JSON does."""
    if value is None:
        return None
    if isinstance(value, float) and not np.isfinite(value):
        return {np.inf: "Infinity", -np.inf: "-Infinity"}.get(value, "NaN")
    if pa.types.is_timestamp(kind):
        return pd.Timestamp(value).value
    if isinstance(value, bytes):
        return {"b64": base64.b64encode(value).decode()}
    return str(value) if pa.types.is_date(kind) or pa.types.is_decimal(kind) else value


@pytest.mark.parametrize("verify", [True, False], ids=["verified", "unverified"])
@pytest.mark.parametrize("name", NAMES)
def test_fixture_reads_to_its_expected_values(name: str, verify: bool) -> None:
    table = read_table(fixture(name), verify=verify)
    want = expected(name)
    assert table.column_names == want["column_order_in_file"]
    for column in table.column_names:
        kind = table.schema.field(column).type
        got = [as_json(value, kind) for value in table[column].to_pylist()]
        slots = want["columns"][column].get("zero_length_slots", ())
        values = want["columns"][column]["values"]
        assert got == [None if i in slots else value for i, value in enumerate(values)]


def test_labels_come_as_field_metadata() -> None:
    field = read_schema(fixture("groups_pii")).field("email")
    assert field.metadata[b"ncf.semantic"] == b"pii_email"
    assert field.metadata[b"ncf.pii"] == b"true"
    assert field.metadata[b"ncf.description"] == b"contact address"
    assert not read_schema(fixture("groups_pii")).field("user_id").nullable


def test_columns_are_read_in_the_order_asked() -> None:
    table = read_table(fixture("groups_pii"), columns=["lat", "email"])
    assert table.column_names == ["lat", "email"]
    assert table["email"].to_pylist() == ["a@x.org", "b@x.org", "c@x.org"]


def test_the_same_functions_read_v1_with_filters_and_in_batches() -> None:
    import pyarrow.compute as pc

    table = read_table(fixture("basic_mixed"), columns=["name"], filters=pc.field("id") > 1)
    assert table.to_pydict() == {"name": ["bob", "åsa", None, "東京"]}
    with NCFFile(fixture("basic_mixed")) as file:
        assert file.num_rows == 5
        assert sum(batch.num_rows for batch in file.iter_batches()) == 5


PICKLES = {
    "pandas missing": (objects(pd.Timestamp(5, unit="s"), pd.NaT, pd.NA), pa.timestamp("s")),
    "pandas zone": (objects(pd.Timestamp("2024-01-02", tz="Europe/Berlin")), "Europe/Berlin"),
    "pandas utc": (objects(pd.Timestamp("2024-01-02", tz="UTC")), "UTC"),
    "zoneinfo": (objects(datetime(2024, 7, 2, tzinfo=ZoneInfo("Asia/Tokyo")), None), "Asia/Tokyo"),
    "offset": (objects(datetime(2024, 7, 2, tzinfo=timezone(timedelta(hours=-9.5)))), "-09:30"),
    "numpy scalars": (objects(np.bool_(True), None), pa.bool_()),
    "numpy days": (np.array(["2024-01-02", "NaT"], "M8[D]"), pa.date32()),
    "numpy ms": (np.array(["2024-01-02", "NaT"], "M8[ms]"), pa.timestamp("ms")),
    "big endian": (np.array([1, -2], ">i4"), pa.int32()),
    "bytes": (np.array([b"ab", b"c"]), pa.binary()),
    "text": (np.array(["å", "bc"]), pa.string()),
    "booleans": (np.array([True, False]), pa.bool_()),
    "with NaN": (objects(True, float("nan")), pa.bool_()),
    "decimals": (objects(Decimal("1E+3"), Decimal("0.25")), pa.decimal128(6, 2)),
    "wide decimal": (objects(Decimal("1" * 40)), pa.decimal256(40, 0)),
    "large integers": (objects(2**63, 1), pa.uint64()),
    "all null": (objects(None, None), pa.bool_()),
}


@pytest.mark.parametrize("protocol", [4, 5])
@pytest.mark.parametrize("name", PICKLES)
def test_what_the_writer_pickled_is_read(name: str, protocol: int) -> None:
    values, kind = PICKLES[name]
    column = read_table(one_column("boolean", dump(values, protocol), len(values)))["c"]
    if isinstance(kind, str):
        assert column.type.tz == kind
    else:
        assert column.type == kind
    want = [None if pd.isna(value) else value for value in values.tolist()]
    if pa.types.is_timestamp(kind if isinstance(kind, pa.DataType) else pa.null()):
        want = [None if v is None else pd.Timestamp(v) for v in want]
    got = column.to_pylist()
    assert [str(value) for value in got] == [str(value) for value in want] or got == want


def test_strings_of_no_bytes_read_as_null() -> None:
    payload = b"".join(n.to_bytes(4, "little") for n in (3, 0, 1, 1, 3)) + b"abc"
    table = read_table(one_column("string", frame(payload), 3, 1))
    assert table["c"].to_pylist() == ["a", None, "bc"]
    assert b"null" in table.schema.metadata[b"ncf.v1.zero_length_strings"]


def test_a_schema_with_column_groups_is_read() -> None:
    """The original reader refused its own writer's integer map keys."""
    schema = {"columns": [column_entry("c", "int8")], "column_groups": {0: ["c"]}}
    table = read_table(v1_file(schema, group([stored_column("c", b"\x05")]), 1))
    assert table.to_pydict() == {"c": [5]}


def look_alike(tail: bytes) -> bytes:
    head = b"NCF\x01\x01\0\0\0" + b"".join(n.to_bytes(8, "little") for n in (64, 99, 120, 150, 3))
    return head + tail + block({"columns": []}) + bytes(200)


def test_look_alikes_are_named() -> None:
    with pytest.raises(NCFCorruptError, match="Rust writer"):
        read_table(look_alike(bytes(16)))
    with pytest.raises(NCFCorruptError, match=r"v1\.1 optimized"):
        read_table(look_alike(b"\x01\x02\x03\x04" * 4))


def test_other_files_and_versions_are_told_apart() -> None:
    with pytest.raises(NotNCFError):
        read_table(b"PAR1" + bytes(100))
    with pytest.raises(NCFVersionError):
        read_table(b"NCF\x01\x02\0\0\0" + bytes(100))
