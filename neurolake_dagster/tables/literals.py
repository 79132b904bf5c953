"""A predicate's literals as values of a column: exactly, or as the number that they are.

Owns what a literal means beside a type, and its text in SQL. A number that an integer column
cannot hold (1.5, or 300 for int8) is still compared rightly; what does not compare with the
column's values at all, as a number with texts, is refused.
"""

import math
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from fractions import Fraction

import pyarrow as pa

from neurolake_dagster.errors import PredicateError
from neurolake_dagster.tables.sql import quoted_text

Literal_ = bool | int | float | Decimal | str

_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_DAY_S = 86_400
_TIME = re.compile(r"\d\d:\d\d(:\d\d(\.\d{1,9})?)?")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_BEYOND_LOW = {"=": False, "!=": True, "<": False, "<=": False, ">": True, ">=": True}
_BEYOND_HIGH = {"=": False, "!=": True, "<": True, "<=": True, ">": False, ">=": False}
# Between two neighbours: below it are the lower one and those before.
_BETWEEN: dict[str, bool | str] = {
    "=": False, "!=": True, "<": "<=", "<=": "<=", ">": ">", ">=": ">",
}  # fmt: skip


@dataclass(frozen=True)
class Test:
    """A comparison with a value that the column can hold."""

    operator: str
    value: pa.Scalar

    def sql(self, column: str) -> str:
        """The test as deltalake's engine takes it, and by `spark_sql` Spark; NaN passes none."""
        if pa.types.is_floating(self.value.type):
            return _float_sql(column, self.operator, self.value.as_py(), self.value.type)
        operator = "<>" if self.operator == "!=" else self.operator
        return f"{column} {operator} {sql_value(self.value)}"


def settle(field: pa.Field, operator: str, literal: Literal_) -> Test | bool:
    """What remains to be tested of a column's values.

    Parameters
    ----------
    operator
        ``=``, ``!=``, ``<``, ``<=``, ``>`` or ``>=``.

    Returns
    -------
    True where every value passes, False where none does; of nulls nothing is said.

    Raises
    ------
    PredicateError
        If the literal is of a kind that the column's values do not compare with.
    """
    type_ = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
    if pa.types.is_null(type_):
        return False
    exact = _steps(field.name, type_, literal)
    if exact is None:
        return Test(operator, _plain_value(field.name, type_, literal))
    step = math.floor(exact)
    if exact != step:
        between = _BETWEEN[operator]
        if isinstance(between, bool):
            return between
        operator = between
    low, high = _range(type_)
    if step < low:
        return _BEYOND_LOW[operator]
    if step > high:
        return _BEYOND_HIGH[operator]
    return Test(operator, _of_steps(step, type_))


def sql_value(value: pa.Scalar) -> str:
    """A column's value as deltalake's engine takes it, and by `spark_sql` Spark.

    Timestamps stay plain texts, which either casts to the column's own unit and zone; a
    typed literal is in nanoseconds for the one, and the other's session zone for the other.
    """
    type_ = value.type
    if pa.types.is_boolean(type_):
        return str(value.as_py()).upper()
    if pa.types.is_integer(type_):
        return str(value.as_py())
    if pa.types.is_decimal(type_):
        return f"CAST('{value.as_py()}' AS DECIMAL({type_.precision}, {type_.scale}))"
    if pa.types.is_floating(type_):
        return f"CAST('{value.as_py()!r}' AS {_float_name(type_)})"
    if pa.types.is_date(type_):
        return f"CAST('{value.as_py()}' AS DATE)"
    if pa.types.is_timestamp(type_):
        return f"'{_moment_text(value)}'"
    if _is_binary(type_):
        return f"X'{value.as_py().hex()}'"
    return quoted_text(str(value.as_py()))


def not_nan_sql(column: str, type_: pa.DataType) -> str:
    """That a float is a number, or null: a comparison, so that files are skipped by it."""
    return f"{column} <= CAST('Infinity' AS {_float_name(type_)})"


def _float_sql(column: str, operator: str, value: float, type_: pa.DataType) -> str:
    """SQL has NaN above all numbers, and deltalake's engine -0.0 below 0.0."""
    name = _float_name(type_)
    if value != 0:
        texts = [f"CAST('{value!r}' AS {name})"]
    elif operator in ("=", "!="):
        texts = [f"CAST('0.0' AS {name})", f"CAST('-0.0' AS {name})"]
    else:
        texts = [f"CAST('{'-0.0' if operator in ('<', '>=') else '0.0'}' AS {name})"]
    if operator in ("=", "!="):
        test = f"{column} {'IN' if operator == '=' else 'NOT IN'} ({', '.join(texts)})"
    else:
        test = f"{column} {operator} {texts[0]}"
    if operator in (">", ">=", "!="):
        return f"({test} AND {not_nan_sql(column, type_)})"
    return test


def _float_name(type_: pa.DataType) -> str:
    return "DOUBLE" if pa.types.is_float64(type_) else "FLOAT"


def _steps(column: str, type_: pa.DataType, literal: Literal_) -> Fraction | None:
    """The literal counted in the smallest steps of the type; None for types without steps."""
    if pa.types.is_integer(type_):
        return _number(column, type_, literal)
    if pa.types.is_decimal(type_):
        scale: int = type_.scale
        return _number(column, type_, literal) * Fraction(10) ** scale
    if pa.types.is_date(type_):
        return _seconds(column, type_, literal, has_zone=False) / _DAY_S
    if pa.types.is_timestamp(type_):
        seconds = _seconds(column, type_, literal, has_zone=type_.tz is not None)
        return seconds * _PER_SECOND[type_.unit]
    if pa.types.is_time(type_):
        return _time_of_day(column, type_, literal) * _PER_SECOND[type_.unit]
    return None


def _range(type_: pa.DataType) -> tuple[int, int]:
    if pa.types.is_decimal(type_):
        return 1 - 10**type_.precision, 10**type_.precision - 1
    if pa.types.is_unsigned_integer(type_):
        return 0, 2**type_.bit_width - 1
    bits = 32 if pa.types.is_date(type_) else type_.bit_width
    return -(2 ** (bits - 1)), 2 ** (bits - 1) - 1


def _of_steps(step: int, type_: pa.DataType) -> pa.Scalar:
    if pa.types.is_decimal(type_):
        digits = tuple(map(int, str(abs(step))))
        return pa.scalar(Decimal((int(step < 0), digits, -type_.scale)), type_)
    if pa.types.is_date64(type_):
        return pa.scalar(step * _DAY_S * 1000, pa.int64()).cast(type_)
    if pa.types.is_date32(type_):
        return pa.scalar(step, pa.int32()).cast(type_)
    if pa.types.is_timestamp(type_) or pa.types.is_time64(type_):
        return pa.scalar(step, pa.int64()).cast(type_)
    if pa.types.is_time32(type_):
        return pa.scalar(step, pa.int32()).cast(type_)
    return pa.scalar(step, type_)


def _plain_value(column: str, type_: pa.DataType, literal: Literal_) -> pa.Scalar:
    if pa.types.is_boolean(type_):
        if not isinstance(literal, bool):
            raise _unlike(column, type_, literal, "write TRUE or FALSE")
        return pa.scalar(literal)
    if pa.types.is_floating(type_):
        return pa.scalar(_float(column, type_, literal)).cast(type_)
    if isinstance(type_, pa.BaseExtensionType):
        raise _unlike(column, type_, literal, "filter the rows after they are read")
    if not isinstance(literal, str):
        hint = f"quote it: '{literal}'" if _is_text(type_) else ""
        raise _unlike(column, type_, literal, hint)
    if _is_text(type_):
        return pa.scalar(literal, pa.string())
    if _is_binary(type_):
        return pa.scalar(literal.encode(), pa.binary())
    try:
        return pa.scalar(literal).cast(type_)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError) as exc:
        raise _unlike(column, type_, literal) from exc


def _float(column: str, type_: pa.DataType, literal: Literal_) -> float:
    try:
        found = math.nan if isinstance(literal, bool) else float(literal)
    except (ValueError, OverflowError) as exc:
        raise _unlike(column, type_, literal) from exc
    if math.isnan(found):
        raise _unlike(column, type_, literal, "NaN equals nothing")
    return found


def _number(column: str, type_: pa.DataType, literal: Literal_) -> Fraction:
    try:
        # A float's own text, not the binary fraction behind it: 0.1 is meant.
        found = Decimal(str(literal))
    except InvalidOperation as exc:
        raise _unlike(column, type_, literal) from exc
    if isinstance(literal, bool) or not found.is_finite():
        raise _unlike(column, type_, literal)
    return Fraction(found)


def _seconds(column: str, type_: pa.DataType, literal: Literal_, *, has_zone: bool) -> Fraction:
    """Since 1970; a text without a zone is UTC beside a column with one."""
    if not isinstance(literal, str):
        raise _unlike(column, type_, literal, "write it as '2024-01-31 12:00:00'")
    for unit in ("us", "ns"):
        for zone in (None, "UTC"):
            try:
                moment = pa.scalar(literal).cast(pa.timestamp(unit, zone))
            except pa.ArrowInvalid:
                continue
            if zone and not has_zone:
                raise _unlike(column, type_, literal, "the column has no zone")
            return Fraction(moment.value, _PER_SECOND[unit])
    raise _unlike(column, type_, literal)


def _time_of_day(column: str, type_: pa.DataType, literal: Literal_) -> Fraction:
    """Seconds since midnight."""
    if not isinstance(literal, str) or _TIME.fullmatch(literal) is None:
        raise _unlike(column, type_, literal, "write it as '12:00:00'")
    return _seconds(column, type_, f"1970-01-01 {literal}", has_zone=False)


def _moment_text(value: pa.Scalar) -> str:
    seconds, rest = divmod(value.value, _PER_SECOND[value.type.unit])
    whole = (_EPOCH + timedelta(seconds=seconds)).replace(tzinfo=None).isoformat()
    width = len(str(_PER_SECOND[value.type.unit])) - 1
    return whole + (f".{rest:0{width}}" if rest else "") + ("Z" if value.type.tz else "")


def _is_text(type_: pa.DataType) -> bool:
    return bool(
        pa.types.is_string(type_)
        or pa.types.is_large_string(type_)
        or pa.types.is_string_view(type_)
    )


def _is_binary(type_: pa.DataType) -> bool:
    return bool(
        pa.types.is_binary(type_)
        or pa.types.is_large_binary(type_)
        or pa.types.is_binary_view(type_)
    )


def _unlike(column: str, type_: pa.DataType, literal: Literal_, hint: str = "") -> PredicateError:
    return PredicateError(
        f"predicate: {literal!r} is no {type_}, as column {column!r} is" + (hint and f"; {hint}")
    )
