"""Whether two texts divide time in the same way, however their cron schedules are spelt.

Owns the one spelling of a schedule: ``@daily``, ``00 0 * * *`` and ``0 0 */1 * *`` are
``0 0 * * *``.
"""

import re

ALIASES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
_DAYS = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"]
# Of each field the least and the largest number, and the names of some.
_FIELDS: tuple[tuple[int, int, dict[str, int]], ...] = (
    (0, 59, {}),
    (0, 23, {}),
    (1, 31, {}),
    (1, 12, {name: number for number, name in enumerate(_MONTHS, 1)}),
    (0, 7, {name: number for number, name in enumerate(_DAYS)}),
)
_PART = re.compile(r"(\*|(\w+)(?:-(\w+))?)(?:/(\d+))?")
# A dimension, as `windows_of` tells it.
_SCHEDULE = re.compile(r"(?<=: )[^:;]+?(?= \S+, keys )")


def are_same_windows(one: str, other: str) -> bool:
    """Whether two texts of `windows_of` mean the same windows of time."""
    return one == other or _spelt_alike(one) == _spelt_alike(other)


def plain_cron(schedule: str) -> str:
    """A schedule as each field's numbers; one with other signs as it is."""
    schedule = schedule.strip().lower()
    fields = ALIASES.get(schedule, schedule).split()
    if len(fields) != len(_FIELDS):
        return schedule
    try:
        return " ".join(_plain(text, *field) for text, field in zip(fields, _FIELDS, strict=True))
    except ValueError:
        return schedule


def _spelt_alike(windows: str) -> str:
    return _SCHEDULE.sub(lambda found: plain_cron(found.group()), windows)


def _plain(text: str, least: int, largest: int, names: dict[str, int]) -> str:
    is_weekday = largest == 7
    numbers: set[int] = set()
    for part in text.split(","):
        found = _PART.fullmatch(part)
        if found is None:
            raise ValueError(part)
        whole, first, last, step = found.groups()
        low = least if whole == "*" else _number(first, names)
        high = largest if whole == "*" or (step and not last) else _number(last or first, names)
        numbers.update(range(low, high + 1, int(step or 1)))
    if is_weekday:
        numbers, largest = {number % 7 for number in numbers}, 6
    if numbers == set(range(least, largest + 1)):
        return "*"
    return ",".join(map(str, sorted(numbers)))


def _number(text: str, names: dict[str, int]) -> int:
    return names[text] if text in names else int(text)
