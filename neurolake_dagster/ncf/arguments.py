"""Arguments of the writer, checked and brought into one form."""

from collections.abc import Mapping
from typing import Any

from neurolake_dagster.ncf.bloom import supports

SortingColumn = str | tuple[str, str] | tuple[str, bool, bool]


def sorting_key(key: SortingColumn, schema: Any) -> tuple[str, bool, bool]:
    """Return a sorting column as (name, descending, nulls first)."""
    match key:
        case str(name):
            found = (name, False, False)
        case (str(name), "ascending" | "descending" as direction):
            found = (name, direction == "descending", False)
        case (str(name), bool(descending), bool(nulls_first)):
            found = (name, descending, nulls_first)
        case _:
            raise ValueError(
                f"sorting_columns: expected a name, (name, direction) or (name, descending, "
                f"nulls_first), got {key!r}"
            )
    if schema.get_field_index(found[0]) < 0:
        raise ValueError(f"sorting_columns: no column {found[0]!r} in {schema.names}")
    return found


def checked_metadata(metadata: Mapping[str, str] | None) -> dict[str, str]:
    """Return the texts that a file keeps for its reader."""
    found = dict(metadata or {})
    for key, value in found.items():
        if not isinstance(key, str) or not isinstance(value, str):
            raise ValueError(f"metadata: expected texts by name, got {key!r}: {value!r}")
    return found


def bloom_column(name: str, schema: Any) -> int:
    """Return the place of a column that can have Bloom filters."""
    index = schema.get_field_index(name)
    if index < 0 or not supports(schema.field(index).type):
        raise ValueError(
            f"bloom_filters: expected columns of numbers, times, text or bytes, got {name!r}"
        )
    return int(index)
