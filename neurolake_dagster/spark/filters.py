"""Filters that Spark pushes down: exactly as Arrow expressions, and against statistics.

Owns Spark's meaning of a comparison (nulls, NaN as the largest number). What it cannot answer
exactly it leaves to Spark.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql.datasource import (
    EqualTo,
    Filter,
    GreaterThan,
    GreaterThanOrEqual,
    In,
    IsNotNull,
    IsNull,
    LessThan,
    LessThanOrEqual,
    Not,
    StringStartsWith,
)

from neurolake_dagster.errors import TableError
from neurolake_dagster.tables.conditions import (
    Compare,
    IsNull as IsNothing,
    Joined,
    OneOf,
    Predicate,
)
from neurolake_dagster.tables.literals import Test, settle
from neurolake_dagster.tables.predicate import read_predicate

_COMPARISONS: dict[type[Filter], str] = {
    EqualTo: "==",
    GreaterThan: ">",
    GreaterThanOrEqual: ">=",
    LessThan: "<",
    LessThanOrEqual: "<=",
}


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """What is known of a column's values in some rows.

    Parameters
    ----------
    low, high
        Enclose all values but nulls and NaN; None where not known, or where there is none.
    null_count
        None: not known.
    may_have_nan
        Whether NaN can be among them.
    """

    row_count: int
    low: Any
    high: Any
    null_count: int | None
    may_have_nan: bool


@dataclass(frozen=True, kw_only=True)
class Term:
    """One condition on one column; several are joined by *and*.

    Parameters
    ----------
    operator
        A comparison, ``in``, ``starts``, ``null`` or ``valid``.
    values
        Arrow scalars of the column's type; none for ``null`` and ``valid``.
    """

    column: str
    operator: str
    values: tuple[Any, ...] = ()
    is_negated: bool = False
    is_float: bool = False

    def expression(self) -> pc.Expression:
        """The term on Arrow columns; keeps exactly the rows that Spark would keep."""
        column = pc.field(self.column)
        found = self._plain(column)
        if not self.is_negated:
            return found
        return ~found if self.operator in ("null", "valid") else ~found & column.is_valid()

    def may_match(self, bounds: Bounds, values: Sequence[Any] | None = None) -> bool:
        """Whether any row can pass, judged by bounds alone.

        Parameters
        ----------
        values
            The term's values in the form that the bounds have; None: as Python values.
        """
        nulls, rows = bounds.null_count, bounds.row_count
        if self.operator in ("null", "valid"):
            wants_null = (self.operator == "null") != self.is_negated
            return nulls is None or (nulls > 0 if wants_null else nulls < rows)
        if nulls is not None and nulls == rows:
            return False
        if bounds.low is None or bounds.high is None or self.is_negated:
            return True
        if self.operator in (">", ">=") and bounds.may_have_nan:
            return True
        asked = [one.as_py() for one in self.values] if values is None else values
        try:
            return self._overlaps(bounds.low, bounds.high, asked)
        except TypeError:
            return True

    def _plain(self, column: pc.Expression) -> pc.Expression:
        if self.operator == "null":
            return column.is_null()
        if self.operator == "valid":
            return column.is_valid()
        if self.operator == "in":
            kind = self.values[0].type
            # Arrow tells the two zeros apart here, though not in comparisons.
            zero = self.is_float and any(one.as_py() == 0 for one in self.values)
            zeros = (pa.scalar(0.0, kind), pa.scalar(-0.0, kind)) if zero else ()
            return column.isin(pa.array([*self.values, *zeros], kind))
        value = self.values[0]
        if self.operator == "starts":
            return pc.starts_with(column, value.as_py())
        if self.operator == "==":
            return column == value
        if self.operator == "<":
            return column < value
        if self.operator == "<=":
            return column <= value
        found = column > value if self.operator == ">" else column >= value
        # For Spark NaN is larger than every number.
        return found | pc.is_nan(column) if self.is_float else found

    def _overlaps(self, low: Any, high: Any, values: Sequence[Any]) -> bool:
        first = values[0]
        match self.operator:
            case "==" | "in":
                return any(low <= value <= high for value in values)
            case "<":
                return bool(low < first)
            case "<=":
                return bool(low <= first)
            case ">":
                return bool(high > first)
            case ">=":
                return bool(high >= first)
            case _:
                return bool(high >= first) and bool(low[: len(first)] <= first)


def read_where(where: str, types: Mapping[str, pa.DataType]) -> tuple[Term, ...]:
    """Read conditions that are joined by ``AND``, as `neurolake_dagster.tables.predicate` has them.

    NaN is Spark's, above all numbers; in `tables` it fulfils no condition.

    Parameters
    ----------
    types
        Of the columns that are read, by name.

    Raises
    ------
    TableError
        If a part is no comparison, ``IN`` or ``IS NULL`` of such a column.
    """
    return tuple(_terms(read_predicate(where), types))


def _terms(part: Predicate, types: Mapping[str, pa.DataType]) -> Iterator[Term]:
    match part:
        case Joined(operator="AND", parts=parts):
            for one in parts:
                yield from _terms(one, types)
        case Compare(operator=operator) if operator != "!=":
            sign = "==" if operator == "=" else operator
            yield _term(part.column, sign, (part.value,), types)
        case OneOf(is_negated=False):
            yield _term(part.column, "in", part.values, types)
        case IsNothing():
            yield _term(part.column, "valid" if part.is_negated else "null", (), types)
        case _:
            raise TableError(
                f"where: {part.text()}: expected comparisons, IN and IS NULL joined by AND; "
                "use .where(...) of the DataFrame for the rest"
            )


def _term(
    column: str, operator: str, values: Sequence[Any], types: Mapping[str, pa.DataType]
) -> Term:
    kind = types.get(column)
    if kind is None:
        raise TableError(f"where: no column {column!r} is read; expected one of {list(types)!r}")
    sign = "=" if operator in ("==", "in") else operator
    try:
        tests = [settle(pa.field(column, kind), sign, value) for value in values]
    except TableError as exc:
        raise TableError(f"where: {exc}") from exc
    found = [test for test in tests if isinstance(test, Test) and test.operator == sign]
    if len(found) < len(tests):
        raise TableError(f"where: {column!r} ({kind}) {operator} {list(values)!r}: no such value")
    return Term(
        column=column,
        operator=operator,
        values=tuple(test.value for test in found),
        is_float=pa.types.is_floating(kind),
    )


def read_filter(asked: Filter, types: Mapping[str, pa.DataType]) -> Term | None:
    """Translate one of Spark's filters; None if it cannot be answered exactly here.

    Parameters
    ----------
    types
        Of the columns, by name.
    """
    if isinstance(asked, Not):
        inner = read_filter(asked.child, types)
        if inner is None or inner.is_negated:
            return None
        return Term(
            column=inner.column,
            operator=inner.operator,
            values=inner.values,
            is_negated=True,
            is_float=inner.is_float,
        )
    path: tuple[str, ...] = getattr(asked, "attribute", ())
    kind = types.get(path[0]) if len(path) == 1 else None
    if kind is None:
        return None
    operator, raw = _operation(asked)
    if operator is None or (operator == "starts" and not pa.types.is_string(kind)):
        return None
    values = _scalars(raw, kind)
    if values is None or (operator == "in" and not values):
        return None
    return Term(
        column=path[0],
        operator=operator,
        values=values,
        is_float=pa.types.is_floating(kind),
    )


def _operation(asked: Filter) -> tuple[str | None, tuple[Any, ...]]:
    if isinstance(asked, IsNull):
        return "null", ()
    if isinstance(asked, IsNotNull):
        return "valid", ()
    if isinstance(asked, In):
        return "in", tuple(asked.value)
    if isinstance(asked, StringStartsWith):
        return "starts", (asked.value,)
    operator = _COMPARISONS.get(type(asked))
    return operator, (getattr(asked, "value", None),)


def _scalars(raw: tuple[Any, ...], kind: pa.DataType) -> tuple[Any, ...] | None:
    """The values in the column's own type; None if one is null, NaN, or does not fit."""
    if pa.types.is_nested(kind):
        return () if not raw else None
    if any(value is None or (isinstance(value, float) and math.isnan(value)) for value in raw):
        return None
    try:
        scalars = tuple(pa.scalar(value, kind) for value in raw)
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        return None
    # A value that changed on its way into the type would compare differently.
    unchanged = all(one.as_py() == value for one, value in zip(scalars, raw, strict=True))
    return scalars if unchanged else None
