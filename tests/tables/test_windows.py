"""Windows of time against columns: texts, keys, dates, and many keys at once."""

import time
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import duckdb
import pyarrow as pa
import pytest

from neurolake_dagster.errors import PartitionError
from neurolake_dagster.tables.scope import Key, Scope
from neurolake_dagster.tables.windows import Window

START = datetime(2024, 1, 1, tzinfo=UTC)


def windows(first: datetime, length: timedelta, count: int, form: str) -> list[Window]:
    starts = [first + length * number for number in range(count)]
    return [Window(start=one, end=one + length, text=f"{one:{form}}") for one in starts]


def scope_of(members: Sequence[Window]) -> Scope:
    keys = [
        Key(name=one.text, place=(("partition_key", one.text),), members=(one,)) for one in members
    ]
    return Scope(keys=tuple(keys), columns=("at",))


HOURS = windows(START, timedelta(hours=1), 48, "%Y-%m-%d-%H:%M")


def key_of(value: str | None, members: Sequence[Window]) -> str | None:
    """The key that takes a text, by each key's own scope, and by that of all of them."""
    batch = pa.record_batch({"at": pa.array([value], pa.string())})
    (number,) = scope_of(members).numbers(batch)
    takers = [one.text for one in members if scope_of([one]).numbers(batch)[0] == 0]
    assert takers == ([] if number < 0 else [members[number].text])
    return takers[0] if takers else None


@pytest.mark.parametrize(
    "text",
    [
        "2024-01-01T05:10:00", "2024-01-01 05:10:00", "2024-01-01-05:00", "2024-01-01T05",
        "2024-01-01T05:59:59.999999Z", "2024-01-01T05:00:00+00:00", "2024-01-01T05:10+0000",
    ],
)  # fmt: skip
def test_a_text_of_an_hour_belongs_to_that_hour(text: str) -> None:
    """Texts were compared with `2024-01-01 05:00:00`: `T` and `-` sort after its blank, so that
    hours of the morning were taken by 23:00."""
    assert key_of(text, HOURS) == "2024-01-01-05:00"


@pytest.mark.parametrize(
    "text",
    [
        "2024-01-01", "2024-01-01T05:10:00+02:00", "2024-01-01T05:10:00-05:00", "20240101",
        "2024-01-01T24:00", "5", "", None,
    ],
)  # fmt: skip
def test_other_texts_belong_to_no_hour(text: str | None) -> None:
    assert key_of(text, HOURS) is None


def test_days_take_their_dates_times_and_keys() -> None:
    days = windows(START, timedelta(days=1), 3, "%Y%m%d")
    assert {key_of(t, days) for t in ("20240102", "2024-01-02", "2024-01-02T23:59")} == {"20240102"}
    assert key_of("20240109", days) is None


def test_days_that_begin_late_take_the_morning_after() -> None:
    days = windows(START + timedelta(hours=5), timedelta(days=1), 3, "%Y-%m-%d")
    assert key_of("2024-01-02T04:59", days) == "2024-01-01"
    assert key_of("2024-01-02T05:00", days) == "2024-01-02"
    assert key_of("2024-01-02", days) == "2024-01-02"


@pytest.mark.parametrize(
    ("first", "length", "form"),
    [
        (START + timedelta(minutes=30), timedelta(hours=1), "%Y-%m-%d-%H-%M"),
        (START, timedelta(minutes=30), "%Y-%m-%d-%H-%M"),
        (START + timedelta(minutes=15), timedelta(hours=6), "%Y-%m-%dT%H%M"),
        (START + timedelta(minutes=30), timedelta(hours=1), "%Y-%m-%d-%H"),
        (START, timedelta(days=1), "%Y-%d-%m"),
    ],
)
def test_a_key_that_sorts_like_another_time_is_its_own(
    first: datetime, length: timedelta, form: str
) -> None:
    """`-03-30` sorts before `-03:30`: the window of 02:30 took the rows of the key 03:30, and to
    overwrite it in a Delta table with a text column deleted them."""
    members = windows(first, length, 40, form)
    assert [key_of(one.text, members) for one in members] == [one.text for one in members]
    assert key_of(f"{first:%FT%T}", members) == members[0].text


def test_hours_after_one_that_comes_twice_are_found_by_their_keys() -> None:
    """A range from the second of two hours found the rows of no later hour by their keys."""
    zone = ZoneInfo("America/New_York")
    at = [datetime.fromtimestamp(1383454800 + 3600 * hour, zone) for hour in range(6)]
    hours = [
        Window(start=start, end=end, text=f"{start:%F-%H:%M}{start:%z}" if start.fold else
               f"{start:%F-%H:%M}")
        for start, end in pairwise(at)
    ]  # fmt: skip
    rows = pa.table({"at": [one.text for one in hours]})
    for first in range(len(hours)):
        test = scope_of(hours[first:]).predicate(rows.schema).replace("`", '"')
        assert duckdb.from_arrow(rows).filter(test).fetchall() == [
            (one.text,) for one in hours[first:]
        ]


def test_dates_tell_days_that_lack_an_hour_apart() -> None:
    """A day that begins at 2 has 23 hours of wall time where that hour is skipped: its dates were
    refused, one day a year."""
    zone = ZoneInfo("America/New_York")
    bounds = [datetime(2024, 3, 9, 2, tzinfo=zone), datetime(2024, 3, 10, 3, tzinfo=zone),
              datetime(2024, 3, 11, 2, tzinfo=zone)]  # fmt: skip
    days = [
        Window(start=start, end=end, text=f"{start:%Y-%m-%d}") for start, end in pairwise(bounds)
    ]
    rows = pa.record_batch({"at": pa.array([date(2024, 3, 9), date(2024, 3, 10)])})
    scope_of(days).require_columns(rows.schema, "asset x")
    assert scope_of(days).numbers(rows).tolist() == [0, 1]


def test_dates_cannot_tell_hours_apart() -> None:
    """A date column was taken whole by the key of 23:00."""
    batch = pa.record_batch({"at": pa.array([date(2024, 1, 1)])})
    with pytest.raises(PartitionError, match="windows under a day"):
        scope_of(HOURS[:1]).check(batch)
    with pytest.raises(PartitionError, match=r"asset x: .*windows under a day"):
        scope_of(HOURS).require_columns(batch.schema, "asset x")


TEXTS = [
    f"2024-01-0{day}{rest}"
    for day in (1, 2, 3)
    for rest in (
        "", *(f"{separator}{hour:02}{minute}{zone}"
              for separator in ("T", " ", "-") for hour in (0, 4, 5, 12, 23)
              for minute in ("", ":00", ":30:01.5") for zone in ("", "Z", "+00:00", "-03:00")),
    )
]  # fmt: skip


@pytest.mark.parametrize(
    "members",
    [
        HOURS[:1], HOURS[3:30], HOURS[::5],
        windows(START + timedelta(hours=5), timedelta(days=1), 1, "%Y-%m-%d"),
        windows(START, timedelta(days=1), 2, "%Y%m%d"),
        windows(START + timedelta(hours=4, minutes=30), timedelta(hours=1), 3, "%H"),
        windows(START + timedelta(hours=4, minutes=30), timedelta(hours=1), 3, "%Y-%m-%dT%H"),
        windows(START + timedelta(days=1), timedelta(days=1), 1, "%Y-%d-%m"),
    ],
    ids=["hour", "hours", "some hours", "late day", "days", "half hours", "keys of half hours",
         "days of months"],
)  # fmt: skip
def test_the_predicate_takes_what_the_rows_are_divided_by(members: list[Window]) -> None:
    rows = pa.table({"at": [*TEXTS, "20240101", "04", "x", None]})
    scope = scope_of(members)
    (batch,) = rows.to_batches()
    ours = [text for text, key in zip(batch["at"], scope.numbers(batch), strict=True) if key >= 0]
    test = scope.predicate(rows.schema).replace("`", '"')
    theirs = duckdb.from_arrow(rows).filter(test).fetchall()
    assert sorted(str(text) for text in ours) == sorted(text for (text,) in theirs)
    assert ours


@pytest.mark.parametrize("type_", [pa.timestamp("us", "UTC"), pa.string()], ids=str)
def test_a_year_of_hours_is_divided_in_under_a_second(type_: Any) -> None:
    """Each batch searched the list of keys once for each key: a minute for 8,760."""
    hours = windows(START, timedelta(hours=1), 8760, "%Y-%m-%d-%H:%M")
    scope = scope_of(hours)
    starts = [one.start if type_ != pa.string() else f"{one.start:%FT%T}" for one in hours]
    batch = pa.record_batch({"at": pa.array(starts[::-1], type_)})
    began = time.process_time()
    for _ in range(3):
        places = [place for place, _rows in scope.divide(batch)]
    assert time.process_time() - began < 3
    assert places == [key.place for key in scope.keys]
    assert len(scope.predicate(batch.schema)) < 1000
