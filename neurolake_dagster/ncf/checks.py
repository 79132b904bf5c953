"""Checks on values that come from a file. Owns the internal fault.

Every decoder raises `Damage` with a reason only; `reader.py` adds path, row group, column
and page and turns it into the public ``NCFCorruptError``.
"""

import reprlib
from typing import Any

import numpy as np
import numpy.typing as npt

NDArray = npt.NDArray[Any]
Node = list[Any]

# A row count above this in one page or one child of a page is refused before any allocation.
MAX_PAGE_ROWS = 1 << 24
MAX_CHILD_ROWS = (1 << 31) - 1
INT64_MIN, INT64_MAX = -(1 << 63), (1 << 63) - 1


class Damage(ValueError):
    """Bytes of a file break a rule of the format; the message is the reason alone."""

    row_group: int | None = None
    column: str | None = None
    page: int | None = None


def brief(value: object) -> str:
    """Return a short repr of a foreign value, safe for a message."""
    return reprlib.repr(value)


def need_count(value: object, low: int, high: int | None, what: str) -> int:
    """Return an argument of the caller's if it is a whole number of a range; bools are refused."""
    fits = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not fits or value < low or (high is not None and value > high):  # type: ignore[operator]
        wanted = f"at least {low}" if high is None else f"{low}..{high}"
        raise ValueError(f"{what}: expected a whole number, {wanted}, got {value!r}")
    return int(value)  # type: ignore[call-overload, no-any-return]


def need_int(value: object, low: int, high: int, what: str) -> int:
    """Return ``value`` if it is an integer in ``low..high``; bools are refused."""
    if type(value) is not int or not low <= value <= high:
        raise Damage(f"{what}: expected an integer {low}..{high}, got {brief(value)}")
    return value


def need_list(value: object, length: int | None, what: str) -> Node:
    """Return ``value`` if it is a list, of exactly ``length`` items where that is given."""
    if type(value) is not list or (length is not None and len(value) != length):
        wanted = "a list" if length is None else f"a list of {length}"
        raise Damage(f"{what}: expected {wanted}, got {brief(value)}")
    return value


def need_bytes(value: object, low: int, high: int, what: str) -> bytes:
    """Return ``value`` if it is a byte string of ``low..high`` bytes."""
    if type(value) is not bytes or not low <= len(value) <= high:
        raise Damage(f"{what}: expected {low}..{high} bytes, got {brief(value)}")
    return value
