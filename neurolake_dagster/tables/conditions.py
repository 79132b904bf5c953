"""Conditions on rows: on Arrow columns, and as SQL.

Owns what a condition means, in every engine the same. NaN is no number: as null it fulfils no
comparison, nor the opposite of one. (SQL has it above all numbers, and Arrow beside them; but
files are skipped by statistics that leave it out.)
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.compute as pc

from neurolake_dagster.errors import TableError
from neurolake_dagster.tables.literals import Literal_, Test, not_nan_sql, settle, sql_value
from neurolake_dagster.tables.sql import quoted_column, quoted_text

OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "=": lambda column, value: column == value,
    "!=": lambda column, value: column != value,
    "<": lambda column, value: column < value,
    "<=": lambda column, value: column <= value,
    ">": lambda column, value: column > value,
    ">=": lambda column, value: column >= value,
}
_OPPOSITE = {"=": "!=", "!=": "=", "<": ">=", ">=": "<", ">": "<=", "<=": ">"}
_NEVER = "1 = 0"


class Predicate(Protocol):
    """A condition on rows; null counts as not fulfilled, and so does NaN."""

    def expression(self, schema: pa.Schema) -> pc.Expression:
        """The condition on Arrow columns.

        Raises
        ------
        TableError
            If a column is unknown, or a literal does not compare with its values.
        """

    def columns(self) -> tuple[str, ...]:
        """The columns it looks at."""

    def sql(self, schema: pa.Schema) -> str:
        """The condition for deltalake's engine, by `spark_sql` for Spark; may raise too."""

    def text(self) -> str:
        """The condition in the form that `read_predicate` reads."""

    def opposite(self) -> "Predicate":
        """The condition's contrary; rows with null or NaN fulfil neither."""


@dataclass(frozen=True)
class Compare:
    """A column against one literal."""

    column: str
    operator: str
    value: Literal_

    def expression(self, schema: pa.Schema) -> pc.Expression:
        """The condition on Arrow columns."""
        field, column = _field(schema, self.column), pc.field(self.column)
        test = settle(field, self.operator, self.value)
        if isinstance(test, bool):
            return column.is_valid() if test else pc.scalar(False)
        value = test.value
        wider = _wider(value.type)
        if wider != value.type:
            column, value = column.cast(wider), value.cast(wider)
        if test.operator == "!=" and _is_float(field):
            return (column < value) | (column > value)
        return OPERATORS[test.operator](column, value)

    def columns(self) -> tuple[str, ...]:
        """The columns it looks at."""
        return (self.column,)

    def sql(self, schema: pa.Schema) -> str:
        """The condition in SQL."""
        test = settle(_field(schema, self.column), self.operator, self.value)
        name = quoted_column(self.column)
        if isinstance(test, bool):
            return f"{name} IS NOT NULL" if test else _NEVER
        return test.sql(name)

    def text(self) -> str:
        """The condition in our own language."""
        return f"{quoted_column(self.column)} {self.operator} {_rendered(self.value)}"

    def opposite(self) -> Predicate:
        """The other side."""
        return Compare(self.column, _OPPOSITE[self.operator], self.value)


@dataclass(frozen=True)
class OneOf:
    """A column against several literals: equal to one of them, or to none."""

    column: str
    values: tuple[Literal_, ...]
    is_negated: bool = False

    def expression(self, schema: pa.Schema) -> pc.Expression:
        """The condition on Arrow columns."""
        field = _field(schema, self.column)
        column, found = pc.field(self.column), self._found(field)
        wider = _wider(_value_type(field))
        plain = column if wider == field.type else column.cast(wider)
        values = pa.array([value.cast(wider) for value in found], wider)
        test = plain.isin(values) if found else pc.scalar(False)
        if not self.is_negated:
            return test
        # Arrow's isin is false for null, SQL's IN is null.
        known = column.is_valid()
        return ~test & (known & ~pc.is_nan(plain) if _is_float(field) else known)

    def columns(self) -> tuple[str, ...]:
        """The columns it looks at."""
        return (self.column,)

    def sql(self, schema: pa.Schema) -> str:
        """The condition in SQL."""
        field, name = _field(schema, self.column), quoted_column(self.column)
        found = ", ".join(map(sql_value, self._found(field)))
        if not self.is_negated:
            return f"{name} IN ({found})" if found else _NEVER
        test = f"{name} NOT IN ({found})" if found else f"{name} IS NOT NULL"
        return f"({test} AND {not_nan_sql(name, field.type)})" if _is_float(field) else test

    def text(self) -> str:
        """The condition in our own language."""
        word = "NOT IN" if self.is_negated else "IN"
        return f"{quoted_column(self.column)} {word} ({', '.join(map(_rendered, self.values))})"

    def opposite(self) -> Predicate:
        """None of them."""
        return OneOf(self.column, self.values, not self.is_negated)

    def _found(self, field: pa.Field) -> list[pa.Scalar]:
        """Those that the column can hold; both zeros of a float, for engines tell them apart."""
        tests = [settle(field, "=", value) for value in self.values]
        found = [test.value for test in tests if isinstance(test, Test)]
        if _is_float(field) and any(value.as_py() == 0 for value in found):
            found += [pa.scalar(0.0, field.type), pa.scalar(-0.0, field.type)]
        return found


@dataclass(frozen=True)
class IsNull:
    """A column without a value, or with one."""

    column: str
    is_negated: bool = False

    def expression(self, schema: pa.Schema) -> pc.Expression:
        """The condition on Arrow columns."""
        _field(schema, self.column)
        column = pc.field(self.column)
        return column.is_valid() if self.is_negated else column.is_null()

    def columns(self) -> tuple[str, ...]:
        """The columns it looks at."""
        return (self.column,)

    def sql(self, schema: pa.Schema) -> str:
        """The condition in SQL."""
        _field(schema, self.column)
        return self.text()

    def text(self) -> str:
        """The condition in our own language."""
        return f"{quoted_column(self.column)} IS {'NOT ' if self.is_negated else ''}NULL"

    def opposite(self) -> Predicate:
        """The other."""
        return IsNull(self.column, not self.is_negated)


@dataclass(frozen=True)
class Joined:
    """Several conditions, all (``AND``) or any (``OR``) of them."""

    operator: str
    parts: tuple[Predicate, ...]

    def expression(self, schema: pa.Schema) -> pc.Expression:
        """The condition on Arrow columns."""
        whole = self.parts[0].expression(schema)
        for part in self.parts[1:]:
            one = part.expression(schema)
            whole = whole & one if self.operator == "AND" else whole | one
        return whole

    def columns(self) -> tuple[str, ...]:
        """The columns it looks at."""
        return tuple(dict.fromkeys(name for part in self.parts for name in part.columns()))

    def sql(self, schema: pa.Schema) -> str:
        """The condition in SQL."""
        return "(" + f" {self.operator} ".join(part.sql(schema) for part in self.parts) + ")"

    def text(self) -> str:
        """The condition in our own language."""
        return "(" + f" {self.operator} ".join(part.text() for part in self.parts) + ")"

    def opposite(self) -> Predicate:
        """De Morgan's."""
        parts = tuple(part.opposite() for part in self.parts)
        return Joined("OR" if self.operator == "AND" else "AND", parts)


def _field(schema: pa.Schema, column: str) -> pa.Field:
    if column not in schema.names:
        raise TableError(f"predicate: no column {column!r}, expected one of {schema.names!r}")
    return schema.field(column)


def _value_type(field: pa.Field) -> pa.DataType:
    return field.type.value_type if pa.types.is_dictionary(field.type) else field.type


def _is_float(field: pa.Field) -> bool:
    return bool(pa.types.is_floating(_value_type(field)))


def _wider(type_: pa.DataType) -> pa.DataType:
    """The type that Arrow compares values of a type in: it lacks that for some."""
    if pa.types.is_float16(type_):
        return pa.float32()
    if pa.types.is_decimal32(type_) or pa.types.is_decimal64(type_):
        return pa.decimal128(type_.precision, type_.scale)
    return type_


def _rendered(value: Literal_) -> str:
    if isinstance(value, str):
        return quoted_text(value)
    if isinstance(value, float) and not math.isfinite(value):
        return f"'{value}'"
    return str(value).upper() if isinstance(value, bool) else str(value)
