"""The digest of rows on their way: what it sees, and what it does not."""

import numpy as np
import pyarrow as pa
import pytest

from neurolake_dagster.io_managers.row_digest import RowDigests

ROWS = 3005
NUMBERS = np.arange(ROWS) % 1000
NULLS = np.arange(ROWS) % 7 == 3
TWICE = np.repeat(np.arange(ROWS), 2)


def digest(rows: pa.Table, batch_rows: int = ROWS) -> str:
    found = RowDigests(rows.schema, 1)
    for batch in rows.to_batches(max_chunksize=batch_rows):
        found.update(batch, [0], np.array([0, batch.num_rows]))
    return found.results()[0]


def build(values: np.ndarray) -> dict[str, pa.Array]:
    numbers = pa.array(values, mask=NULLS)
    texts = numbers.cast(pa.string())
    return {
        "int64": numbers,
        "bool": pa.array(values > 500, mask=NULLS),
        "timestamp": numbers.cast(pa.timestamp("us", "UTC")),
        "decimal": numbers.cast(pa.decimal128(30, 2)),
        "half": pa.array(values.astype("f2"), mask=NULLS),
        "text": texts,
        "dense text": pa.array(values).cast(pa.string()),
        "view in struct": pa.StructArray.from_arrays([texts.cast(pa.string_view())], ["x"]),
        "dictionary": texts.dictionary_encode(),
        "view": texts.cast(pa.string_view()),
        "list": pa.ListArray.from_arrays(np.arange(ROWS + 1, dtype="i4"), texts),
        "pairs": pa.FixedSizeListArray.from_arrays(numbers.take(TWICE), 2),
        "map": pa.MapArray.from_arrays(np.arange(ROWS + 1, dtype="i4"), pa.array(values), texts),
        "struct": pa.StructArray.from_arrays([numbers], ["x"], mask=pa.array(NULLS)),
        "no bytes": pa.array([b""] * ROWS, pa.binary(0), mask=NULLS),
        "map of views": pa.array(
            [
                None if is_null else [(1, str(value))]
                for value, is_null in zip(values.tolist(), NULLS, strict=True)
            ],
            pa.map_(pa.int8(), pa.string_view()),
        ),
        "fixed bytes": pa.array([b"%05d" % value for value in values], pa.binary(5), mask=NULLS),
        "null": pa.nulls(ROWS),
    }


COLUMNS = build(NUMBERS)


@pytest.mark.parametrize("name", COLUMNS)
def test_batches_do_not_matter(name: str) -> None:
    """Rows that came in other batches had another data version, and triggered what is below."""
    rows = pa.table({name: COLUMNS[name]})
    assert {digest(rows, size) for size in (7, 999)} == {digest(rows)}


@pytest.mark.parametrize("name", COLUMNS)
def test_rows_beside_others_have_the_digest_that_they_have_alone(name: str) -> None:
    rows = pa.table({name: COLUMNS[name]})
    found = RowDigests(rows.schema, 4)
    for batch in rows.to_batches(max_chunksize=601):
        found.update(batch, [2, 0], np.array([0, 400, batch.num_rows]))
    starts = range(0, ROWS, 601)
    alone = [[(at + 400, 201) for at in starts], [], [(at, 400) for at in starts], []]
    parts = [[rows.slice(*one) for one in some] or [rows[:0]] for some in alone]
    assert found.results() == [digest(pa.concat_tables(some)) for some in parts]


@pytest.mark.parametrize("name", COLUMNS)
def test_rows_beside_a_slice_do_not_matter(name: str) -> None:
    column = COLUMNS[name].slice(3, 13)
    alone = pa.concat_arrays([column.slice(0, 0), column])
    assert digest(pa.table({name: column})) == digest(pa.table({name: alone}))


@pytest.mark.parametrize("name", [name for name in COLUMNS if name not in ("null", "no bytes")])
def test_one_other_value_matters(name: str) -> None:
    other = NUMBERS.copy()
    other[2000] = 999 - other[2000]
    assert digest(pa.table({name: build(other)[name]})) != digest(pa.table({name: COLUMNS[name]}))


def test_layouts_notes_and_bytes_under_nulls_do_not_matter() -> None:
    dense, other = NUMBERS.copy(), NUMBERS.copy()
    other[NULLS] = 77
    valid = COLUMNS["int64"].buffers()[0]
    columns = [
        pa.Array.from_buffers(pa.int64(), ROWS, [valid, pa.py_buffer(values)])
        for values in (dense, other)
    ]
    tables = [pa.table({"n": column, "t": COLUMNS["text"]}) for column in columns]
    tables.append(tables[0].set_column(1, "t", COLUMNS["dictionary"]))
    tables.append(tables[0].replace_schema_metadata({"pandas": "{}"}))
    assert len({digest(rows) for rows in tables}) == 1


def test_bytes_under_nested_nulls_do_not_matter() -> None:
    """Rows with other bytes there had another data version."""
    gone, numbers = pa.array([True, False]), [pa.array([n, 5]) for n in (1, 2)]
    structs = [pa.StructArray.from_arrays([one], ["x"], mask=gone) for one in numbers]
    lists = [pa.ListArray.from_arrays(pa.array([0, 1, 2]), one, mask=gone) for one in numbers]
    for arrays in (structs, lists):
        assert len({digest(pa.table({"x": one})) for one in arrays}) == 1


def test_padded_buffers_are_cut() -> None:
    """Arrow's files and streams pad to 8 bytes."""
    rows = pa.table({"x": pa.array([b"abc", b"def", b"ghi"], pa.binary(3))})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as stream:
        stream.write_table(rows)
    assert digest(pa.ipc.open_stream(sink.getvalue()).read_all()) == digest(rows)


def test_where_nulls_are_matters() -> None:
    some, others = pa.table({"n": [0, None]}), pa.table({"n": [None, 0]})
    assert len({digest(some), digest(others), digest(pa.table({"n": [0, 0]}))}) == 3


TEXTS = pa.array(["a", None, "", "ü"] * 3)
LISTS = pa.array([["a", None], None, [], ["b"]] * 3)
FORMS: dict[str, list[pa.Array]] = {
    "text": [
        TEXTS,
        TEXTS.cast(pa.large_string()),
        TEXTS.cast(pa.string_view()),
        TEXTS.dictionary_encode(),
        pa.chunked_array([TEXTS.cast(pa.large_string()).dictionary_encode()]),
    ],
    "bytes": [TEXTS.cast(type_) for type_ in (pa.binary(), pa.large_binary(), pa.binary_view())],
    "list": [
        LISTS,
        LISTS.cast(pa.large_list(pa.large_string())),
        pa.array(LISTS.to_pylist(), pa.list_view(pa.string())),
        LISTS.cast(pa.list_(pa.field("element", pa.string_view(), nullable=True))),
    ],
    "struct": [
        pa.StructArray.from_arrays([one, two], ["t", "l"])
        for one, two in (
            (TEXTS, LISTS),
            (TEXTS.dictionary_encode(), LISTS.cast(pa.large_list(pa.large_string()))),
        )
    ],
}


@pytest.mark.parametrize("name", FORMS)
def test_forms_of_one_type_are_the_same(name: str) -> None:
    """Equal rows of polars and of pyarrow had two data versions in one and the same table."""
    assert len({digest(pa.table({"x": one})) for one in FORMS[name]}) == 1


def test_text_is_not_bytes_and_a_list_no_text() -> None:
    arrays = [TEXTS, TEXTS.cast(pa.binary()), LISTS, LISTS.cast(pa.list_(pa.binary()))]
    assert len({digest(pa.table({"x": one})) for one in arrays}) == 4
