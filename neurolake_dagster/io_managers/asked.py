"""The settings that assets and inputs have in their metadata.

Owns where a setting is found, its plain value, and what is refused: other types than expected, two
names for one thing that disagree, and names that are almost ours.
"""

import difflib
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from neurolake_dagster.errors import TableError

# Names of the same setting; the first is ours.
SYNONYMS = {"mode": ("write_mode",), "partition_expr": ("partition_by",)}
OUTPUT_KEYS = (
    "mode", "write_mode", "merge_keys", "when_matched", "when_new", "when_gone", "schema_mode",
    "table_properties", "constraints", "partition_columns", "partition_expr", "partition_by",
    "pii_columns", "column_descriptions", "format",
)  # fmt: skip
INPUT_KEYS = ("columns", "where", "version", "as_of", "allow_missing_partitions")
# What other IO managers call it, where leaving it out would change a table.
FOREIGN = {
    "merge_predicate": "merge_keys",
    "merge_operations_config": "when_matched, when_new and when_gone",
    "upsert_options": "merge_keys",
    "overwrite_schema": "schema_mode",
    "schema_update_mode": "schema_mode",
    "table_config": "table_properties",
    "table_configuration": "table_properties",
}
# Of outputs, shorter names are like too many that users have for something else: "model" is not
# "mode". An input has few other names, and one left out gives all rows.
LIKE_FROM = 7
LIKENESS = 0.9
INPUT_LIKENESS = 0.85


class Asked:
    """The settings of one output or input.

    Parameters
    ----------
    where
        Its name in messages.
    places
        Metadata, the strongest first.
    known
        The names of all settings there are.

    Raises
    ------
    TableError
        For names that are almost known, and synonyms in one place that disagree.
    """

    def __init__(
        self, where: str, places: Sequence[Mapping[str, Any] | None], known: Collection[str]
    ) -> None:
        self.where = where
        self._places = [place for place in places if place]
        for place in self._places:
            _refuse_alike(where, place, known)
            _refuse_disagreeing(where, place)

    def get(self, name: str) -> Any:
        """A setting's plain value; None if there is none."""
        return next(iter(self.all(name)), None)

    def all(self, name: str) -> list[Any]:
        """What each place says of a setting, the strongest first."""
        found = []
        for place in self._places:
            given = [place.get(one) for one in (name, *SYNONYMS.get(name, ()))]
            found += [plain(value) for value in given if value is not None][:1]
        return found

    def choice(self, choices: Sequence[str], name: str) -> Any:
        """A setting that must be one of a few; None if there is none."""
        found = self.get(name)
        if found is None or found in choices:
            return found
        raise self.refusal(name, found, f"one of {tuple(choices)}")

    def mapping(self, name: str) -> dict[str, str]:
        """A setting of names and texts; booleans as Delta spells them."""
        found = self.get(name) or {}
        if not isinstance(found, Mapping):
            raise self.refusal(name, found, 'a dict like {"a": "b"}')
        return {
            str(key): str(value).lower() if isinstance(value, bool) else str(value)
            for key, value in found.items()
        }

    def names(self, name: str) -> tuple[str, ...] | None:
        """A setting of one or several columns, each once."""
        found = self.get(name)
        if found is None:
            return None
        several = (found,) if isinstance(found, str) else found
        if not isinstance(several, (list, tuple, set, frozenset)) or not all(
            isinstance(one, str) for one in several
        ):
            raise self.refusal(name, found, "a column or a list of columns")
        return tuple(dict.fromkeys(several))

    def flag(self, name: str) -> bool:
        """A setting that is on or off."""
        found = self.get(name)
        if found is None or isinstance(found, bool):
            return bool(found)
        raise self.refusal(name, found, "true or false")

    def number(self, name: str) -> int | None:
        """A setting that is a whole number."""
        found = self.get(name)
        if isinstance(found, bool):
            raise self.refusal(name, found, "a whole number")
        try:
            return None if found is None else int(str(found))
        except ValueError as exc:
            raise self.refusal(name, found, "a whole number") from exc

    def moment(self, name: str) -> datetime | None:
        """A setting that is a time."""
        found = self.get(name)
        if found is None or isinstance(found, datetime):
            return found
        try:
            return datetime.fromisoformat(found)
        except (TypeError, ValueError) as exc:
            raise self.refusal(name, found, "a time like 2013-01-31T12:00") from exc

    def terms(self, name: str) -> Any:
        """A predicate: text, or lists of (column, operator, value), which may all be lists."""
        found = self.get(name)
        if found is None or isinstance(found, str):
            return found or None
        if not isinstance(found, (list, tuple)):
            raise self.refusal(name, found, "text or a list of (column, operator, value)")
        if _is_term(found):
            return [tuple(found)]
        if all(map(_is_term, found)):
            return [tuple(term) for term in found] or None
        return [[tuple(term) for term in group] for group in found]

    def refusal(self, name: str, found: object, expected: str) -> TableError:
        """The error for a value that makes no sense."""
        return TableError(f"{self.where}: {name} {found!r}, expected {expected}")


def plain(value: Any) -> Any:
    """What a setting's metadata value holds."""
    if isinstance(value, dg.TimestampMetadataValue):
        return datetime.fromtimestamp(value.value, UTC)
    inner = value.value if isinstance(value, dg.MetadataValue) else value
    return getattr(inner, "value", inner)


def _is_term(value: object) -> bool:
    return isinstance(value, (list, tuple)) and len(value) == 3 and isinstance(value[0], str)


def _refuse_alike(where: str, place: Mapping[str, Any], known: Collection[str]) -> None:
    is_output = "mode" in known
    for name in place:
        if name in known or "/" in name:
            continue
        meant = FOREIGN.get(name) if is_output else None
        meant = meant or next((one for one in known if _bare(one) == _bare(name)), None)
        if meant is None and (not is_output or len(name) >= LIKE_FROM):
            likeness = LIKENESS if is_output else INPUT_LIKENESS
            meant = next(iter(difflib.get_close_matches(name, known, 1, likeness)), None)
        if meant is not None:
            raise TableError(f"{where}: metadata {name!r} is not known; did you mean {meant}?")


def _bare(name: str) -> str:
    return "".join(character for character in name.lower() if character.isalnum()).rstrip("s")


def _refuse_disagreeing(where: str, place: Mapping[str, Any]) -> None:
    for name, others in SYNONYMS.items():
        given = {one: plain(place[one]) for one in (name, *others) if place.get(one) is not None}
        if any(value != next(iter(given.values())) for value in given.values()):
            raise TableError(f"{where}: {given!r} are the same setting, expected one of them")
