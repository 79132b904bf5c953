"""Reading predicates: SQL-like text or pyarrow's lists.

Owns the small language: comparisons, ``IN``, ``BETWEEN``, ``IS NULL``, ``AND``, ``OR``, ``NOT``.
A literal takes the column's type, so ``day >= '2013-01-02'`` works on a date; numbers are not
compared with texts; a time without a zone is UTC beside a column with one.
"""

import re
from collections.abc import Collection, Iterator, Sequence
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from neurolake_dagster.errors import PredicateError
from neurolake_dagster.ncf.pruning import build_filter
from neurolake_dagster.tables.conditions import (
    OPERATORS,
    Compare,
    IsNull,
    Joined,
    OneOf,
    Predicate,
)
from neurolake_dagster.tables.literals import Literal_

_TOKEN = re.compile(
    r"\s*(?:(?P<text>'(?:[^']|'')*')|(?P<quoted>`(?:[^`]|``)+`|\"(?:[^\"]|\"\")+\")"
    r"|(?P<number>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)"
    r"|(?P<operator><=|>=|<>|!=|==|=|<|>|\(|\)|,)|(?P<word>[A-Za-z_][A-Za-z0-9_.]*))"
)
_SAME = {"==": "=", "<>": "!="}
_KEYWORDS = {"and", "or", "not", "in", "is", "null", "between", "true", "false"}


def read_predicate(where: str | Sequence[Any]) -> Predicate:
    """Read a predicate: ``"day >= '2013-01-02' AND carrier IN ('AA', 'UA')"``, or lists.

    Parameters
    ----------
    where
        Text, or ``[(column, operator, value), ...]`` (all of them), or a list of such lists
        (any of them).

    Raises
    ------
    PredicateError
        Naming the place that is not understood.
    """
    if isinstance(where, str):
        return _Parser(where).read()
    groups = [list(group) for group in where] if where and isinstance(where[0], list) else [where]
    return _join("OR", [_join("AND", [_from_term(term) for term in group]) for group in groups])


def as_filter(filters: Any, schema: pa.Schema) -> pc.Expression | None:
    """A text of ours, or pyarrow's own forms of a filter, as an expression on some columns."""
    if isinstance(filters, str):
        return read_predicate(filters).expression(schema)
    expression: pc.Expression | None = build_filter(filters)
    return expression


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
                raise PredicateError(f"predicate {self._text!r}: {rest[:20]!r} is not understood")
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
            return self._one().opposite()
        if self._take_sign("("):
            inner = self._any_of()
            self._need_sign(")")
            return inner
        column = self._column()
        if self._take_word("is"):
            negated = self._take_word("not")
            self._need_word("null")
            return IsNull(column, negated)
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
        return found.opposite() if negated else found

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
        if kind != "operator" or token not in OPERATORS:
            raise self._refuse(f"one of {', '.join(OPERATORS)}, IN, BETWEEN, IS NULL")
        self._at += 1
        return token

    def _literals(self) -> tuple[Literal_, ...]:
        self._need_sign("(")
        if self._take_sign(")"):
            return ()
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
            return int(token) if re.fullmatch(r"[+-]?\d+", token) else Decimal(token)
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

    def _refuse(self, expected: str) -> PredicateError:
        return PredicateError(
            f"predicate {self._text!r}: expected {expected}, got {self._peek()[1]!r}"
        )


def _from_term(term: Any) -> Predicate:
    if not (isinstance(term, (tuple, list)) and len(term) == 3 and isinstance(term[0], str)):
        raise PredicateError(f"predicate {term!r}: expected (column, operator, value)")
    column, operator, value = term
    operator = _SAME.get(str(operator), str(operator))
    if operator in ("in", "not in"):
        if isinstance(value, (str, bytes)) or not isinstance(value, Collection):
            raise PredicateError(
                f"predicate {term!r}: expected a list of values after {operator!r}"
            )
        return OneOf(column, tuple(map(_literal, value)), operator == "not in")
    if operator not in OPERATORS:
        raise PredicateError(f"predicate {term!r}: operator, expected one of {list(OPERATORS)}, in")
    return Compare(column, operator, _literal(value))


def _literal(value: Any) -> Literal_:
    if isinstance(value, (bool, int, float, Decimal, str)):
        return value
    if isinstance(value, (date, datetime, time)):
        return value.isoformat()
    hint = "; ask IS NULL in a text" if value is None else ""
    raise PredicateError(
        f"predicate: {value!r} is no number, text, truth value, date, time or timestamp{hint}"
    )


def _join(operator: str, parts: Sequence[Predicate]) -> Predicate:
    if not parts:
        raise PredicateError("predicate: empty, expected at least one condition")
    return parts[0] if len(parts) == 1 else Joined(operator, tuple(parts))
