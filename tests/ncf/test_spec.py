"""SPEC.md says enough: a second reader, written from it alone, finds the same values."""

import io
from typing import Any

import pyarrow as pa
import pytest

from neurolake_dagster import ncf
from tests.ncf import spec_reader
from tests.ncf.every_type import every_type
from tests.ncf.forge import assemble, explode
from tests.ncf.forged_files import SOUND

_VIEWS = {
    "halffloat": pa.int16(),
    "date32[day]": pa.int32(),
    "time32[ms]": pa.int32(),
    "decimal32(7, 2)": pa.int32(),
    "decimal64(15, 3)": pa.int64(),
    "decimal128(30, 4)": pa.binary(16),
    "decimal256(70, 0)": pa.binary(32),
    "month_day_nano_interval": pa.binary(16),
}


def physical(column: pa.ChunkedArray) -> list[Any]:
    """Return the values as the spec's reader does: integers and bytes, not dates and decimals."""
    if isinstance(column.type, pa.BaseExtensionType):
        column = column.cast(column.type.storage_type)
    kind = column.type
    if pa.types.is_union(kind):
        return [
            (chunk.type_codes[row].as_py(), chunk[row].as_py())
            for chunk in column.chunks
            for row in range(len(chunk))
        ]
    view = _VIEWS.get(str(kind), pa.int64() if pa.types.is_temporal(kind) else None)
    if view is None:
        return list(column.to_pylist())
    return [value for chunk in column.chunks for value in chunk.view(view).to_pylist()]


def assert_spec_reads(data: bytes, table: pa.Table) -> None:
    found = spec_reader.read(data)
    assert list(found) == table.column_names
    for name, values in found.items():
        want = physical(table[name])
        if pa.types.is_decimal128(table[name].type):
            want = [None if v is None else int.from_bytes(v, "little", signed=True) for v in want]
            values = [
                int.from_bytes(v, "little", signed=True) if isinstance(v, bytes) else v
                for v in values
            ]
        assert repr(values) == repr(want), name


@pytest.mark.parametrize("compression", ["zstd", "fast", "archive", "none"])
@pytest.mark.parametrize("rows", [1, 60, 2000])
def test_the_spec_reader_reads_every_type(rows: int, compression: str) -> None:
    sink, table = io.BytesIO(), every_type(rows)
    ncf.write_table(table, sink, row_group_size=1200, page_rows=700, compression=compression)
    assert_spec_reads(sink.getvalue(), table)


@pytest.mark.parametrize("name", SOUND)
def test_the_spec_reader_reads_files_written_by_hand(name: str) -> None:
    parts, values = SOUND[name]
    found = spec_reader.read(assemble(parts))["c"]
    assert [value[1] if "union" in name else value for value in found] == values


def test_a_file_taken_apart_goes_together_to_the_same_bytes() -> None:
    sink = io.BytesIO()
    ncf.write_table(every_type(60), sink, row_group_size=40, page_rows=16)
    assert assemble(explode(sink.getvalue())) == sink.getvalue()
