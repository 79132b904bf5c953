"""Row predicates: SQL-like text or pyarrow's lists, with one meaning in every engine.

Owns the small language: comparisons, ``IN``, ``BETWEEN``, ``IS NULL``, ``AND``, ``OR``, ``NOT``.
A literal takes the column's type, so ``day >= '2013-01-02'`` works on a date.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.compute as pc

from neurolake_dagster.errors import TableError

Literal_ = bool | int | float | str

_TOKEN = re.compile(
    r"\s*(?:(?P<text>'(?:[^']|'')*')|(?P<quoted>`(?:[^`]|``)+`|\"(?:[^\"]|\"\")+\")"
    r"|(?P<number>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)"
    r"|(?P<operator><=|>=|<>|!=|==|=|<|>|\(|\)|,)|(?P<word>[A-Za-z_][A-Za-z0-9_.]*))"
)
_SAME = {"==": "=", "<>": "!="}
_OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "=": lambda column, value: column == value,
    "!=": lambda column, value: column != value,
    "<": lambda column, value: column < value,
    "<=": lambda column, value: column <= value,
    ">": lambda column, value: column > value,
    ">=": lambda column, value: column >= value,
}
_KEYWORDS = {"and", "or", "not", "in", "is", "null", "between", "true", "false"}


class Predicate(Protocol):
    """A condition on rows; null counts as not fulfilled."""

    def expression(self, schema: pa.Schema) -> pc.Expression:
        """The condition on Arrow columns.

        Raises
        ------
        TableError
            If a column is unknown, or a literal is no value of its type.
        """

    def columns(self) -> tuple[str, ...]:
        """The columns it looks at."""

    def sql(self) -> str:
        """The condition as both deltalake's engine and Spark take it."""


@dataclass(frozen=True)
class Compare:
    """A column against one literal."""

    column: str
    operator: str
    value: Literal_

    def expression(self, schema: pa.Schema) -> pc.Expression:
        """The condition on Arrow columns."""
        value = _typed(schema, self.column, self.value)
        return _OPERATORS[self.operator](pc.field(self.column), value)

    def columns(self) -> tuple[str, ...]:
        """The columns it looks at."""
        return (self.column,)

    def sql(self) -> str:
        """The condition in SQL."""
        return f"{_quoted(self.column)} {self.operator} {_rendered(self.value)}"


@dataclass(frozen=True)
class OneOf:
    """A column against several literals."""

    column: str
    values: tuple[Literal_, ...]

    def expression(self, schema: pa.Schema) -> pc.Expression:
        """The condition on Arrow columns."""
        values = [_typed(schema, self.column, value) for value in self.values]
        found = pa.array([value.as_py() for value in values], schema.field(self.column).type)
        return pc.field(self.column).isin(found)

    def columns(self) -> tuple[str, ...]:
        """The columns it looks at."""
        return (self.column,)

    def sql(self) -> str:
        """The condition in SQL."""
        return f"{_quoted(self.column)} IN ({', '.join(map(_rendered, self.values))})"


@dataclass(frozen=True)
class IsNull:
    """A column without a value."""

    column: str

    def expression(self, schema: pa.Schema) -> pc.Expression:
        """The condition on Arrow columns."""
        _field(schema, self.column)
        return pc.field(self.column).is_null()

    def columns(self) -> tuple[str, ...]:
        """The columns it looks at."""
        return (self.column,)

    def sql(self) -> str:
        """The condition in SQL."""
        return f"{_quoted(self.column)} IS NULL"


@dataclass(frozen=True)
class Not:
    """The opposite; of null it is null."""

    part: Predicate

    def expression(self, schema: pa.Schema) -> pc.Expression:
        """The condition on Arrow columns."""
        inner = ~self.part.expression(schema)
        # Arrow's isin is false for null, SQL's IN is null.
        if isinstance(self.part, OneOf):
            return inner & pc.field(self.part.column).is_valid()
        return inner

    def columns(self) -> tuple[str, ...]:
        """The columns it looks at."""
        return self.part.columns()

    def sql(self) -> str:
        """The condition in SQL."""
        return f"NOT ({self.part.sql()})"


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

    def sql(self) -> str:
        """The condition in SQL."""
        return "(" + f" {self.operator} ".join(part.sql() for part in self.parts) + ")"


def read_predicate(where: str | Sequence[Any]) -> Predicate:
    """Read a predicate: ``"day >= '2013-01-02' AND carrier IN ('AA', 'UA')"``, or lists.

    Parameters
    ----------
    where
        Text, or ``[(column, operator, value), ...]`` (all of them), or a list of such lists
        (any of them).

    Raises
    ------
    TableError
        Naming the place that is not understood.
    """
    if isinstance(where, str):
        return _Parser(where).read()
    groups = [list(group) for group in where] if where and isinstance(where[0], list) else [where]
    return _join("OR", [_join("AND", [_from_term(term) for term in group]) for group in groups])


class _Parser:
    """Reads text from left to right, one token ahead."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = list(self._split())
        self._at = 0

    def read(self) -> Predicate:
        found = self._any_of()
        if self._at < len(self._tokens):
            raise self._refuse("the end")
        return found

    def _split(self) -> Iterator[tuple[str, str]]:
        position = 0
        while self._text[position:].strip():
            match = _TOKEN.match(self._text, position)
            if match is None:
                rest = self._text[position:].strip()
                raise TableError(f"predicate {self._text!r}: {rest[:20]!r} is not understood")
            assert match.lastgroup is not None
            yield match.lastgroup, match.group(match.lastgroup)
            position = match.end()

    def _any_of(self) -> Predicate:
        parts = [self._all_of()]
        while self._take_word("or"):
            parts.append(self._all_of())
        return _join("OR", parts)

    def _all_of(self) -> Predicate:
        parts = [self._one()]
        while self._take_word("and"):
            parts.append(self._one())
        return _join("AND", parts)

    def _one(self) -> Predicate:
        if self._take_word("not"):
            return Not(self._one())
        if self._take_sign("("):
            inner = self._any_of()
            self._need_sign(")")
            return inner
        column = self._column()
        if self._take_word("is"):
            negated = self._take_word("not")
            self._need_word("null")
            return Not(IsNull(column)) if negated else IsNull(column)
        negated = self._take_word("not")
        found: Predicate
        if self._take_word("in"):
            found = OneOf(column, self._literals())
        elif self._take_word("between"):
            low = self._literal()
            self._need_word("and")
            found = Joined(
                "AND", (Compare(column, ">=", low), Compare(column, "<=", self._literal()))
            )
        elif negated:
            raise self._refuse("IN or BETWEEN")
        else:
            return Compare(column, self._operator(), self._literal())
        return Not(found) if negated else found

    def _column(self) -> str:
        kind, token = self._peek()
        if kind == "quoted":
            self._at += 1
            return token[1:-1].replace(token[0] * 2, token[0])
        if kind == "word" and token.lower() not in _KEYWORDS:
            self._at += 1
            return token
        raise self._refuse("a column")

    def _operator(self) -> str:
        kind, token = self._peek()
        token = _SAME.get(token, token)
        if kind != "operator" or token not in _OPERATORS:
            raise self._refuse(f"one of {', '.join(_OPERATORS)}, IN, BETWEEN, IS NULL")
        self._at += 1
        return token

    def _literals(self) -> tuple[Literal_, ...]:
        self._need_sign("(")
        found = [self._literal()]
        while self._take_sign(","):
            found.append(self._literal())
        self._need_sign(")")
        return tuple(found)

    def _literal(self) -> Literal_:
        kind, token = self._peek()
        if kind == "word" and token.lower() in ("date", "timestamp"):
            self._at += 1
            kind, token = self._peek()
        if kind == "text":
            self._at += 1
            return token[1:-1].replace("''", "'")
        if kind == "number":
            self._at += 1
            return int(token) if re.fullmatch(r"[+-]?\d+", token) else float(token)
        if kind == "word" and token.lower() in ("true", "false"):
            self._at += 1
            return token.lower() == "true"
        raise self._refuse("a literal")

    def _peek(self) -> tuple[str, str]:
        return self._tokens[self._at] if self._at < len(self._tokens) else ("end", "the end")

    def _take_word(self, word: str) -> bool:
        kind, token = self._peek()
        found = kind == "word" and token.lower() == word
        self._at += found
        return found

    def _take_sign(self, sign: str) -> bool:
        found = self._peek() == ("operator", sign)
        self._at += found
        return found

    def _need_word(self, word: str) -> None:
        if not self._take_word(word):
            raise self._refuse(word.upper())

    def _need_sign(self, sign: str) -> None:
        if not self._take_sign(sign):
            raise self._refuse(repr(sign))

    def _refuse(self, expected: str) -> TableError:
        return TableError(f"predicate {self._text!r}: expected {expected}, got {self._peek()[1]!r}")


def _from_term(term: Any) -> Predicate:
    if not (isinstance(term, (tuple, list)) and len(term) == 3 and isinstance(term[0], str)):
        raise TableError(f"predicate {term!r}: expected (column, operator, value)")
    column, operator, value = term
    operator = _SAME.get(str(operator), str(operator))
    if operator in ("in", "not in"):
        found = OneOf(column, tuple(map(_plain, value)))
        return Not(found) if operator == "not in" else found
    if operator not in _OPERATORS:
        raise TableError(f"predicate {term!r}: operator, expected one of {list(_OPERATORS)}, in")
    return Compare(column, operator, _plain(value))


def _plain(value: Any) -> Literal_:
    if isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (date, datetime)):
        return value.isoformat()
    raise TableError(f"predicate: {value!r} is no number, text, truth value, date or timestamp")


def _join(operator: str, parts: Sequence[Predicate]) -> Predicate:
    if not parts:
        raise TableError("predicate: empty, expected at least one condition")
    return parts[0] if len(parts) == 1 else Joined(operator, tuple(parts))


def _field(schema: pa.Schema, column: str) -> pa.Field:
    if column not in schema.names:
        raise TableError(f"predicate: no column {column!r}, expected one of {schema.names!r}")
    return schema.field(column)


def _typed(schema: pa.Schema, column: str, value: Literal_) -> pa.Scalar:
    type_ = _field(schema, column).type
    try:
        return pa.scalar(value).cast(type_)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError) as exc:
        if isinstance(value, float) and not pa.types.is_temporal(type_):
            return pa.scalar(value)
        raise TableError(f"predicate: {value!r} is no {type_}, as column {column!r} is") from exc


def _quoted(column: str) -> str:
    return "`" + column.replace("`", "``") + "`"


def _rendered(value: Literal_) -> str:
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    return str(value).upper() if isinstance(value, bool) else repr(value)
