"""Joined files hold the row groups of their sources, untouched."""

import io
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from neurolake_dagster import ncf
from neurolake_dagster.errors import NCFCorruptError, NotNCFError
from tests.ncf.every_type import every_type
from tests.ncf.forge import assemble, explode
from tests.ncf.test_spec import assert_spec_reads
from tests.ncf.v1_files import fixture


def written(table: pa.Table, **options: int) -> bytes:
    sink = io.BytesIO()
    ncf.write_table(table, sink, **options)
    return sink.getvalue()


def joined(*sources: bytes) -> bytes:
    sink = io.BytesIO()
    ncf.concat(list(sources), sink)
    return sink.getvalue()


def test_joined_files_read_as_their_rows_in_order(tmp_path: Path) -> None:
    tables = [every_type(50), every_type(7), every_type(1).slice(0, 0), every_type(2000)]
    parts = [written(table, row_group_size=900, page_rows=300) for table in tables]
    ncf.concat([parts[0], *parts[1:]], tmp_path / "all.ncf")
    data = (tmp_path / "all.ncf").read_bytes()
    found = ncf.read_table(data)
    assert found.num_rows == 2057
    assert_spec_reads(data, pa.concat_tables(tables).select(found.column_names))
    with ncf.NCFFile(data) as file:
        assert [group.num_rows for group in file.metadata.row_groups] == [50, 7, 900, 900, 200]
        file.verify()


def test_chunks_are_copied_byte_for_byte() -> None:
    one, two = written(every_type(30)), written(every_type(40))
    bodies = [
        chunk.bodies for part in (one, two) for group in explode(part).groups for chunk in group
    ]
    whole = explode(joined(one, two))
    assert [chunk.bodies for group in whole.groups for chunk in group] == bodies


def test_filters_prune_in_joined_files() -> None:
    parts = [
        written(pa.table({"n": range(at, at + 1000)}), row_group_size=500, page_rows=100)
        for at in (0, 1000, 2000)
    ]
    found = ncf.read_table(joined(*parts), filters=pc.field("n") == 1234)
    assert found.to_pydict() == {"n": [1234]}


def test_damage_in_a_source_stays_detectable() -> None:
    one, two = written(every_type(30)), bytearray(written(every_type(30)))
    two[100] ^= 1
    with pytest.raises(NCFCorruptError):
        ncf.read_table(joined(one, bytes(two)))


def test_other_schemas_and_formats_are_refused(tmp_path: Path) -> None:
    one = written(pa.table({"a": [1]}))
    path = tmp_path / "all.ncf"
    with pytest.raises(ValueError, match="schema"):
        ncf.concat([one, written(pa.table({"b": [1]}))], path)
    with pytest.raises(NotNCFError):
        ncf.concat([one, fixture("basic_mixed")], path)
    with pytest.raises(ValueError, match="no sources"):
        ncf.concat([], path)
    assert not list(tmp_path.iterdir())


def test_joined_files_keep_their_bloom_filters() -> None:
    tables = [pa.table({"id": range(at, at + 500), "x": range(500)}) for at in (0, 500, 1000)]
    sink = io.BytesIO()
    ncf.write_table(tables[1], sink, bloom_filters=["id"], row_group_size=250)
    data = joined(written(tables[0]), sink.getvalue(), written(tables[2]))
    sections = explode(data).footer["sections"]
    assert [name for name, *_ in sections] == ["bloom.0"]
    for row in (3, 501, 999, 1400):
        assert ncf.read_table(data, filters=[("id", "==", row)])["id"].to_pylist() == [row]
    ncf.NCFFile(data).verify()


@pytest.mark.parametrize(
    ("starts", "descending", "kept"),
    [
        ([0, 10], False, True),
        ([10, 0], False, False),
        ([10, 0], True, True),
        ([0, 4], False, False),
    ],
)
def test_joined_files_keep_the_order_that_their_bounds_prove(
    starts: list[int], descending: bool, kept: bool
) -> None:
    step = -1 if descending else 1
    tables = [pa.table({"a": list(range(at, at + 5))[::step]}) for at in starts]
    key = ("a", descending, False)
    data = joined(*(written(table, sorting_columns=[key]) for table in tables))
    assert ncf.read_metadata(data).sorting_columns == ((key,) if kept else ())


def test_an_order_by_a_column_that_is_not_there_is_not_kept() -> None:
    """It was proved by the bounds of the last column."""
    stated = []
    for at in (0, 10):
        parts = explode(written(pa.table({"a": range(at, at + 5)}), sorting_columns=["a"]))
        parts.footer["sorting"][0][0] = "b"
        stated.append(assemble(parts))
    assert ncf.read_metadata(joined(*stated)).sorting_columns == ()
