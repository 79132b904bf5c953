"""The predicate language: one meaning on Arrow, in DuckDB's and deltalake's SQL."""

from datetime import date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from neurolake_dagster.errors import TableError
from neurolake_dagster.tables.predicate import read_predicate

ROWS = pa.table(
    {
        "id": pa.array([1, 2, 3, 4, None], pa.int32()),
        "day": [date(2013, 1, day) for day in (1, 2, 3, 4, 5)],
        "at": pa.array([datetime(2013, 1, day, 5) for day in (1, 2, 3, 4, 5)], pa.timestamp("us")),
        "my name": ["a", "O'Neil", None, "d", "e"],
        "ok": [True, False, None, True, False],
        "x": [0.5, 1.5, 2.5, None, 4.5],
    }
)
CASES: list[tuple[Any, list[int | None]]] = [
    ("id = 1", [1]),
    ("id <> 1 AND id <= 3", [2, 3]),
    ("day >= '2013-01-02' and day < DATE '2013-01-04'", [2, 3]),
    ("at > TIMESTAMP '2013-01-04 00:00:00'", [4, None]),
    ("`my name` = 'O''Neil'", [2]),
    ('"my name" IS NULL or ok = true', [1, 3, 4]),
    ("not (id in (1, 2))", [3, 4]),
    ("id NOT IN (1, 2) OR x BETWEEN 4 AND 5", [3, 4, None]),
    ("id IS NOT NULL AND NOT ok = TRUE", [2]),
    ("x > 1 and (id = 2 or id = 3)", [2, 3]),
    ("x >= 1.5e0", [2, 3, None]),
    ([("id", "in", [1, 4]), ("ok", "==", True)], [1, 4]),
    ([[("id", "<", 2)], [("day", ">", date(2013, 1, 4))]], [1, None]),
]


@pytest.mark.parametrize(("where", "expected"), CASES, ids=[str(case[0]) for case in CASES])
def test_a_predicate_means_the_same_in_arrow_and_in_sql(
    where: Any, expected: list[int | None], tmp_path: Path
) -> None:
    predicate = read_predicate(where)
    assert ROWS.filter(predicate.expression(ROWS.schema))["id"].to_pylist() == expected
    write_deltalake(str(tmp_path), ROWS)
    found = pa.table(DeltaTable(str(tmp_path)).scan(predicate=predicate.sql()))
    assert sorted(found["id"].to_pylist(), key=str) == sorted(expected, key=str)


@pytest.mark.parametrize(
    ("where", "told"),
    [
        ("id = ", "expected a literal, got 'the end'"),
        ("id = 1 2", "expected the end, got '2'"),
        ("id ! 1", "'! 1' is not understood"),
        ("= 1", "expected a column"),
        ("id LIKE 'a'", "expected one of"),
        ("id not 3", "expected IN or BETWEEN"),
        ("(id = 1", "expected ')'"),
        ("", "expected a column"),
        ([], "empty"),
        ([("id", "~", 1)], "operator"),
        ([("id", "=")], "expected (column, operator, value)"),
    ],
)
def test_what_is_not_understood_is_named(where: Any, told: str) -> None:
    with pytest.raises(TableError) as caught:
        read_predicate(where)
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("where", "told"), [("nope = 1", "no column 'nope'"), ("day = 'soon'", "is no date32")]
)
def test_what_does_not_fit_the_columns_is_named(where: str, told: str) -> None:
    with pytest.raises(TableError, match=told):
        read_predicate(where).expression(ROWS.schema)
