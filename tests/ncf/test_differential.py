"""NCF against pyarrow: random projections and predicates, the same rows.

Pruning by statistics must never drop a row that matches: NaN, -0.0, nulls, unsigned, truncated
text bounds, decimals and timestamps are in the data on purpose.
"""

import random
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from neurolake_dagster import ncf

ROWS = 3000
EPOCH = datetime(2024, 1, 1, tzinfo=UTC)


def holed(values: list[Any], chance: random.Random, share: float) -> list[Any]:
    return [None if chance.random() < share else value for value in values]


def random_table(seed: int) -> pa.Table:
    """Columns whose order follows the rows in part, so that pages differ in their bounds."""
    chance = random.Random(seed)
    base = [index // 40 * 7 + chance.randrange(60) for index in range(ROWS)]
    floats = [
        chance.choice((float("nan"), -0.0, 0.0, float("inf"))) if chance.random() < 0.1 else v / 8
        for v in base
    ]
    long = "x" * 40
    return pa.table(
        {
            "row": pa.array(range(ROWS), pa.int64()),
            "i": pa.array(holed(base, chance, 0.1), pa.int32()),
            "u": pa.array(holed([2**63 + v for v in base], chance, 0.1), pa.uint64()),
            "f": pa.array(holed(floats, chance, 0.1), pa.float64()),
            "s": pa.array(holed([f"{long}{v:05d}é" for v in base], chance, 0.1)),
            "c": pa.array([f"{long[:31]}{'éüÿż'[v % 4]}{v:04d}" for v in base]),
            "w": pa.array(holed([f"w{v % 17}" for v in base], chance, 0.5)),
            "d": pa.array([date(2024, 1, 1) + timedelta(v) for v in base]),
            "t": pa.array([EPOCH + timedelta(minutes=v) for v in base], pa.timestamp("us", "UTC")),
            "m": pa.array(
                holed([Decimal(v - 200) / 100 for v in base], chance, 0.1), pa.decimal128(12, 2)
            ),
            "b": pa.array(holed([v % 3 == 0 for v in base], chance, 0.1)),
        }
    )


@pytest.fixture(scope="module", params=[1, 2, 3])
def pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[pa.Table, Path]:
    table = random_table(request.param)
    path = tmp_path_factory.mktemp("differential") / "t.ncf"
    ncf.write_table(table, path, row_group_size=700, page_rows=100)
    return table, path


def predicate(chance: random.Random, table: pa.Table, depth: int = 0) -> pc.Expression:
    if depth < 2 and chance.random() < 0.5:
        left, right = predicate(chance, table, depth + 1), predicate(chance, table, depth + 1)
        return chance.choice([lambda: left & right, lambda: left | right, lambda: ~left])()
    name = chance.choice(table.column_names[1:])
    field = pc.field(name)
    value = table[name][chance.randrange(ROWS)]
    if not value.is_valid or chance.random() < 0.1:
        return field.is_null() if chance.random() < 0.5 else field.is_valid()
    if chance.random() < 0.2:
        others = [table[name][chance.randrange(ROWS)].as_py() for _ in range(3)]
        present = [item for item in others if item is not None]
        return field.isin(pa.array(present, table.schema.field(name).type))
    operator = chance.choice(["__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__"])
    result: pc.Expression = getattr(field, operator)(value)
    return result


def rows_of(table: pa.Table) -> list[int]:
    return sorted(table["row"].to_pylist())


@pytest.mark.parametrize("seed", range(40))
def test_filters_keep_the_rows_pyarrow_keeps(seed: int, pair: tuple[pa.Table, Path]) -> None:
    table, path = pair
    chance = random.Random(seed)
    expression = predicate(chance, table)
    columns = ["row", *chance.sample(table.column_names[1:], chance.randrange(4))]
    got = ncf.read_table(path, columns=columns, filters=expression)
    want = table.filter(expression).select(columns)
    assert rows_of(got) == rows_of(want), expression
    assert got.schema == want.schema


@pytest.mark.parametrize("seed", range(10))
def test_scans_keep_the_rows_pyarrow_keeps(seed: int, pair: tuple[pa.Table, Path]) -> None:
    table, path = pair
    expression = predicate(random.Random(1000 + seed), table)
    with ncf.NCFFile(path) as file:
        got = file.scan(columns=["row"], filters=expression).read_all()
    assert rows_of(got) == rows_of(table.filter(expression)), expression


def test_float_bounds_hold_signed_zero_and_nan(tmp_path: Path) -> None:
    values = np.array([-0.0] * 10 + [float("nan")] * 10 + [1.0] * 10)
    table = pa.table({"row": np.arange(30), "f": values})
    ncf.write_table(table, tmp_path / "z.ncf", row_group_size=10, page_rows=5)
    for expression in (pc.field("f") == 0.0, pc.field("f") != 1.0, ~(pc.field("f") <= 1.0)):
        got = ncf.read_table(tmp_path / "z.ncf", filters=expression)
        assert rows_of(got) == rows_of(table.filter(expression)), expression


LATER = EPOCH + timedelta(minutes=250)
OTHER_SETS = {
    "wider floats": ("g", pa.array([0.1, 20.3, 100.7])),
    "wider integers": ("i", pa.array([7, 500, 2**40])),
    "another zone": (
        "t",
        pa.array([LATER], pa.timestamp("us", "Asia/Tokyo")),
    ),
    "another unit": ("t", pa.array([LATER], pa.timestamp("ns", "UTC"))),
    "a null among them": ("g", pa.array([0.1, None])),
    "other decimals": ("m", pa.array([Decimal("-1.500")], pa.decimal128(12, 3))),
}


@pytest.mark.parametrize("page_rows", [100, 4000])
@pytest.mark.parametrize("name", OTHER_SETS)
def test_a_set_of_another_type_finds_the_rows_pyarrow_finds(
    name: str, page_rows: int, tmp_path: Path
) -> None:
    """0.1 is no value of float32, and its page was left out, though Arrow finds 0.1 there."""
    table = random_table(1)
    base = np.arange(ROWS) // 40
    table = table.append_column("g", pa.array(base + 0.1, pa.float32()))
    column, values = OTHER_SETS[name]
    ncf.write_table(table, tmp_path / "t.ncf", row_group_size=4000, page_rows=page_rows)
    expression = pc.field(column).isin(values)
    want = rows_of(table.filter(expression))
    assert rows_of(ncf.read_table(tmp_path / "t.ncf", filters=expression)) == want
    assert want or "decimals" in name


def test_a_cast_that_a_bound_fails_rules_no_page_out(tmp_path: Path) -> None:
    table = pa.table({"row": [0, 1], "u": pa.array([2**63 + 5, 2**64 - 1], pa.uint64())})
    ncf.write_table(table, tmp_path / "u.ncf")
    low = pc.field("u").cast(pa.int64(), safe=False) < 20
    assert rows_of(ncf.read_table(tmp_path / "u.ncf", filters=low)) == [0, 1]
