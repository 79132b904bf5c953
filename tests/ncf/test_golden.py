"""Files of every format version and encoding, as they were written then, read as they were."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from neurolake_dagster import ncf
from tests.ncf.forge import explode
from tests.ncf.test_spec import assert_spec_reads

FOLDER = Path(__file__).parent / "golden"
GOLDEN = sorted(FOLDER.glob("*/*.ncf"))


def expected(path: Path) -> pa.Table:
    with pa.ipc.open_file(path.with_suffix(".arrow")) as file:
        return file.read_all()


def assert_same(found: pa.ChunkedArray, want: pa.ChunkedArray) -> None:
    """Compare valid slots bit for bit; what lies in null ones means nothing."""
    assert found.type == want.type
    if pa.types.is_floating(want.type):
        words = {16: pa.int16(), 32: pa.int32(), 64: pa.int64()}[want.type.bit_width]
        found, want = (
            pa.chunked_array([chunk.view(words) for chunk in column.chunks], words)
            for column in (found, want)
        )
    assert found.equals(want) or found.to_pylist() == want.to_pylist()


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_a_golden_file_reads_as_it_was(path: Path) -> None:
    table = ncf.read_table(path)
    want = expected(path)
    assert table.schema.equals(want.schema, check_metadata=True)
    assert table.num_rows == want.num_rows
    for name in want.column_names:
        assert_same(table[name], want[name])
    ncf.NCFFile(path).verify()


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_the_spec_reader_reads_it_too(path: Path) -> None:
    assert_spec_reads(path.read_bytes(), expected(path))


def nodes() -> Iterator[Any]:
    for path in GOLDEN:
        for group in explode(path.read_bytes()).groups:
            for chunk in group:
                for part in (*chunk.meta[1], *chunk.meta[2]):
                    yield part[3]


# Where an array node has its integer node, its validity and its children.
INTEGERS = {2: 2, 4: 2, 6: 3, 7: 2, 8: 2, 9: 3, 11: 2, 13: 2, 14: 1, 15: 2, 16: 3, 17: 3}
CHILD = {11: 4, 12: 2, 13: 4, 15: 3}


def details(node: Any) -> Iterator[tuple[str, Any]]:
    """Yield what an array node uses, and the nodes in it."""
    kind = node[0]
    yield "array", kind
    if kind not in (0, 14, 15):
        yield "validity", None if node[1] is None else node[1][0]
    if kind in INTEGERS:
        yield from integer_details(node[INTEGERS[kind]])
    if kind == 3:
        yield from float_details(node[2])
    if kind == 5:
        yield "transposed", node[2]
    if kind == 8:
        yield "template", node[4][1] is not None
    children = [node[CHILD[kind]]] if kind in CHILD else node[2] if kind == 10 else []
    for child in [child for _, child in node[2]] if kind == 14 else children:
        yield from details(child)


def integer_details(node: Any) -> Iterator[tuple[str, Any]]:
    yield "integer", node[0]
    if node[0] in (1, 2, 3):
        for _, width, bits, stream in node[-1]:
            yield from (("width", width), ("bits", bits), ("codec", stream[0]))
    if node[0] in (1, 2):
        yield "gcd", node[-2] > 1
    if node[0] == 4:
        yield from integer_details(node[2])
        yield from integer_details(node[3])


def float_details(node: Any) -> Iterator[tuple[str, Any]]:
    yield "float", node[0]
    if node[0] < 2:
        yield from integer_details(node[1 + node[0]])
    if node[0] == 1 and node[3] is not None:
        yield from (("positions", node[3][1][0]), ("exceptions", node[3][2][0]))


EVERYTHING: dict[str, set[Any]] = {
    "array": set(range(18)),
    "validity": {None, 0, 1, 2},
    "transposed": {0, 1},
    "template": {False, True},
    "integer": set(range(5)),
    "width": {1, 2, 4, 8},
    "bits": {1, 2, 4, 8},
    "codec": {0, 1},
    "gcd": {False, True},
    "float": set(range(3)),
    "positions": {0, 1},
    "exceptions": {0, 1},
}


def test_the_golden_files_hold_every_node_and_form() -> None:
    found: dict[str, set[Any]] = {what: set() for what in EVERYTHING}
    for node in nodes():
        for what, value in details(node):
            found[what].add(value)
    assert found == EVERYTHING


def test_a_golden_file_keeps_what_it_says_of_itself() -> None:
    with ncf.NCFFile(FOLDER / "2.0" / "notes.ncf") as file:
        notes = ncf.column_notes(file.schema.field("mail"))
        metadata = file.metadata
        rows = file.read(filters=[("mail", "in", ["someone7@example.org"])])["id"].to_pylist()
    assert (notes.semantic, notes.pii) == ("pii_email", True)
    assert notes.description == "where to write"
    assert metadata.sorting_columns == (("id", False, False), ("mail", True, True))
    assert metadata.format_version == "2.0"
    assert rows == [21, 22, 23]
