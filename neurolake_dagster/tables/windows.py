"""Windows of time against columns: which values lie in which window, in Arrow and in SQL.

Owns what a column may hold: timestamps, dates for windows of whole days, ISO texts (``T``, a blank
or ``-`` before the time), and the partition key itself, as text or as integer. Both forms of
the test accept the same values.
"""

import re
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from neurolake_dagster.errors import PartitionError
from neurolake_dagster.tables.sql import any_of, quoted_text

Numbers: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]

SEPARATORS = (" ", "T", "-")
# A text is a time where it looks like a date, and where its wall time is the partitions': without
# a zone, or of UTC for partitions of UTC. SQL's LIKE has the same three tests.
_DATED = re.compile(r".{4}-.{2}-.{2}", re.DOTALL)
_WEST = re.compile(r".{4}-.{2}-.{2}.[^:]*:.*-", re.DOTALL)
# What may follow a key's wall time if it is to be read as that time.
_EXACT_REST = re.compile(r"(:00)*(\.0+)?(Z|\+[0-9:]*)?")
_SIGNS = "-:./ +"
_DAY = timedelta(days=1)
_CLOCK_CHANGE = timedelta(hours=1)


@dataclass(frozen=True, kw_only=True)
class Window:
    """Rows whose value lies in ``[start, end)``, or is the key's own text.

    Bounds have a zone. Python compares two of the same zone by wall time, so in the hour that
    a clock change repeats only their timestamps order them.
    """

    start: datetime
    end: datetime
    text: str = ""

    @property
    def is_under_a_day(self) -> bool:
        """Whether a date alone cannot tell that it lies inside; a day may lack an hour."""
        return _wall(self.end) - _wall(self.start) < _DAY - _CLOCK_CHANGE


def check_column(column: str, type_: pa.DataType, windows: Sequence[Window]) -> None:
    """Refuse a column that cannot tell the windows apart.

    Raises
    ------
    PartitionError
        For dates with windows under a day, and for types that hold no time.
    """
    type_ = _plain(type_)
    if pa.types.is_date(type_) and any(window.is_under_a_day for window in windows):
        raise PartitionError(
            f"column {column!r} is {type_}, but the partitions are windows under a day; "
            "expected a timestamp"
        )
    if pa.types.is_null(type_):
        return  # of no rows, or of rows that are in no window
    known = (pa.types.is_date, pa.types.is_timestamp, pa.types.is_integer, _is_text)
    if not any(is_one(type_) for is_one in known):
        raise PartitionError(
            f"column {column!r} is {type_}, expected a timestamp, a date, an ISO text, or the "
            "partition key as text or integer"
        )


def matcher(windows: Sequence[Window], type_: pa.DataType) -> Callable[[pa.Array], Numbers]:
    """What finds for each value of a column the number of its window, -1 for none or null."""
    if pa.types.is_null(type_):
        return lambda values: np.full(len(values), -1, np.int64)
    if pa.types.is_temporal(type_):
        return _Instants(windows, type_).match
    if pa.types.is_integer(type_):
        return _Integers(windows).match
    return _Texts(windows).match


def sql_test(name: str, type_: pa.DataType, windows: Sequence[Window]) -> str:
    """The SQL predicate for the values of any of the windows, for Spark by `spark_sql`.

    Timestamps stay plain texts, which either casts to the column's own unit and zone; a
    typed literal is in nanoseconds for the one, and the other's session zone for the other.
    """
    type_ = _plain(type_)
    if pa.types.is_null(type_):
        return "1 = 0"
    if pa.types.is_integer(type_):
        keys = [str(key) for key in _integers(windows)]
        return f"{name} IN ({', '.join(keys)})" if keys else "1 = 0"
    if _is_text(type_):
        return _sql_texts(name, windows)
    tests = [
        f"({name} >= {_literal(one.start, type_)} AND {name} < {_literal(one.end, type_)})"
        for one in _joined(windows)
    ]
    return any_of(tests)


class _Instants:
    """Timestamps and dates, as the column's own integers."""

    def __init__(self, windows: Sequence[Window], type_: pa.DataType) -> None:
        order = sorted(range(len(windows)), key=lambda number: windows[number].start.timestamp())
        self._order = np.array(order, np.int64)
        self._starts = np.array([_instant(windows[i].start, type_) for i in order], np.int64)
        self._ends = np.array([_instant(windows[i].end, type_) for i in order], np.int64)
        self._exact = pa.int32() if pa.types.is_date32(type_) else pa.int64()

    def match(self, values: pa.Array) -> Numbers:
        known = np.asarray(values.is_valid().to_numpy(zero_copy_only=False), bool)
        exact = pc.fill_null(values.cast(self._exact), 0)
        numbers = exact.to_numpy(zero_copy_only=False).astype(np.int64)
        place = np.searchsorted(self._starts, numbers, side="right") - 1
        inside = known & (place >= 0)
        place = np.maximum(place, 0)
        inside &= numbers < self._ends[place]
        return np.where(inside, self._order[place], -1)


class _Integers:
    """Keys as integers, such as 20240131."""

    def __init__(self, windows: Sequence[Window]) -> None:
        found = _integers(windows)
        self._keys = pa.array(list(found), pa.int64())
        self._numbers = np.array([*found.values(), -1], np.int64)

    def match(self, values: pa.Array) -> Numbers:
        found = pc.index_in(values.cast(pa.int64()), value_set=self._keys)
        places = np.asarray(pc.fill_null(found, -1).to_numpy(zero_copy_only=False), np.int64)
        return np.asarray(self._numbers[places], np.int64)


class _Texts:
    """ISO texts, which sort as their times do within one form, and the keys themselves."""

    def __init__(self, windows: Sequence[Window]) -> None:
        ranges = sorted(
            (low, high, number)
            for number, window in enumerate(windows)
            for low, high in _ranges(window)
        )
        self._lows = [low for low, _, _ in ranges]
        self._rest = [(high, number) for _, high, number in ranges]
        self._keys = {window.text: number for number, window in enumerate(windows) if window.text}
        self._is_utc = _is_utc(windows)
        self.shapes = _key_shapes(windows)
        patterns = [re.escape(one).replace("_", ".") for one in self.shapes]
        self._is_key = re.compile("|".join(patterns), re.DOTALL).fullmatch

    def match(self, values: pa.Array) -> Numbers:
        distinct = pc.dictionary_encode(values.cast(pa.string()), null_encoding="encode")
        numbers = np.array([self._number(x) for x in distinct.dictionary.to_pylist()], np.int64)
        return np.asarray(numbers[distinct.indices.to_numpy(zero_copy_only=False)], np.int64)

    def _number(self, text: str | None) -> int:
        if text is None:
            return -1
        number = self._keys.get(text)
        return self.by_time(text) if number is None else number

    def by_time(self, text: str) -> int:
        """The number of the window that a text lies in as a time, -1 for none."""
        if self.shapes and self._is_key(text):
            return -1
        place = bisect_right(self._lows, text) - 1
        if place < 0 or text >= self._rest[place][0] or not _is_time(text, is_utc=self._is_utc):
            return -1
        return self._rest[place][1]


def _is_time(text: str, *, is_utc: bool) -> bool:
    if _DATED.match(text) is None or _WEST.match(text) is not None:
        return False
    if is_utc:
        return "+" not in text or "+00" in text
    return "+" not in text and not text.endswith("Z")


def _sql_texts(name: str, windows: Sequence[Window]) -> str:
    found = [one for window in _joined(windows) for one in _ranges(window)]
    tests = [f"({name} >= '{low}' AND {name} < '{high}')" for low, high in found]
    zone = (
        f"({name} NOT LIKE '%+%' OR {name} LIKE '%+00%')"
        if _is_utc(windows)
        else f"{name} NOT LIKE '%+%' AND {name} NOT LIKE '%Z'"
    )
    shape = f"{name} LIKE '____-__-__%' AND {name} NOT LIKE '____-__-___%:%-%' AND {zone}"
    texts = _Texts(windows)
    shape += "".join(f" AND {name} NOT LIKE '{one}'" for one in texts.shapes)
    # The own text of most keys lies in their window's range already.
    keys = [
        window.text
        for number, window in enumerate(windows)
        if window.text and texts.by_time(window.text) != number
    ]
    parts = [f"({shape} AND ({any_of(tests)}))"] if tests else []
    if keys:
        parts.append(f"{name} IN ({', '.join(map(quoted_text, keys))})")
    return " OR ".join(parts) or "1 = 0"


def _key_shapes(windows: Sequence[Window]) -> list[str]:
    """The shapes of keys that look like times, but not like their window's start.

    Texts of such a shape are keys alone: read as times, ``2024-01-01-04-30`` would come before
    ``2024-01-01-04:30``, and in ``%Y-%d-%m`` most days would be others.
    """
    is_utc = _is_utc(windows)
    keys = [one.text for one in windows if _is_time(one.text, is_utc=is_utc) and not _is_start(one)]
    return sorted(set(map(_shape, keys)))


def _shape(text: str) -> str:
    """A text as a pattern of LIKE: its signs, and any character for each other one."""
    return "".join(one if one in _SIGNS else "_" for one in text)


def _is_start(window: Window) -> bool:
    """Whether a key, read as a time, is its window's start; what whole units leave out is free."""
    start, end = _wall(window.start), _wall(window.end)
    day, clock = window.text[:10], window.text[11:]
    if day != start.date().isoformat():
        return False
    if not clock or start.time() == end.time() == time.min:
        return True
    known = _clock(start)
    if ":" not in known + _clock(end):
        return clock.startswith(known)
    return clock.startswith(known) and _EXACT_REST.fullmatch(clock.removeprefix(known)) is not None


def _ranges(window: Window) -> list[tuple[str, str]]:
    """The texts of a window as ranges, each from its first text to the one after its last.

    A whole day is one range for all separators; of the day that a window begins or ends
    within, each separator has its own.
    """
    start, end = _wall(window.start), _wall(window.end)
    if start >= end:  # the first of two hours with the same wall times: its key alone tells it
        return []
    separators = SEPARATORS[:2] if window.start.fold else SEPARATORS
    first, last = start.date(), end.date()
    if first == last:
        return _of_day(first, _clock(start), _clock(end), separators)
    found = []
    if start.time() != time.min:
        found += _of_day(first, _clock(start), "24", separators)
        first += _DAY
    if first < last:
        found.append((first.isoformat(), last.isoformat()))
    if end.time() != time.min:
        found += _of_day(last, "00", _clock(end), separators)
    return found


def _of_day(day: date, low: str, high: str, separators: Sequence[str]) -> list[tuple[str, str]]:
    return [(f"{day}{one}{low}", f"{day}{one}{high}") for one in separators]


def _clock(moment: datetime) -> str:
    """The shortest text of a time: all longer forms of the same and later ones sort after it."""
    return re.sub("(:00){1,2}$", "", moment.time().isoformat())


def _joined(windows: Sequence[Window]) -> list[Window]:
    """Windows that adjoin become one: a range of days is one comparison.

    Not the second of two hours with the same wall times, whose texts have other forms.
    """
    found: list[Window] = []
    for window in sorted(windows, key=lambda one: one.start.timestamp()):
        is_next = bool(found) and found[-1].end.timestamp() == window.start.timestamp()
        if is_next and not found[-1].start.fold and not window.start.fold:
            found[-1] = Window(start=found[-1].start, end=window.end)
        else:
            found.append(window)
    return found


def _integers(windows: Sequence[Window]) -> dict[int, int]:
    """The keys that are integers, each with its window's number."""
    return {int(one.text): i for i, one in enumerate(windows) if one.text.isdecimal()}


def _instant(moment: datetime, type_: pa.DataType) -> int:
    """A window's bound as the column's own integer: wall time unless the column has a zone."""
    if pa.types.is_timestamp(type_) and type_.tz is not None:
        return int(pa.scalar(moment, type_).value)
    wall = _wall(moment)
    return int(pa.scalar(wall.date() if pa.types.is_date(type_) else wall, type_).value)


def _literal(moment: datetime, type_: pa.DataType) -> str:
    if pa.types.is_date(type_):
        return f"CAST('{moment:%Y-%m-%d}' AS DATE)"
    if type_.tz is not None:
        return f"'{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}'"
    return f"'{moment:%Y-%m-%dT%H:%M:%S}'"


def _is_utc(windows: Sequence[Window]) -> bool:
    return all(window.start.tzname() == "UTC" for window in windows)


def _is_text(type_: pa.DataType) -> bool:
    known = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    return any(is_one(type_) for is_one in known)


def _plain(type_: pa.DataType) -> pa.DataType:
    return type_.value_type if pa.types.is_dictionary(type_) else type_


def _wall(moment: datetime) -> datetime:
    return moment.replace(tzinfo=None, fold=0)
