"""The schema: Arrow IPC both ways, its limits, and what NCF keeps in field metadata.

``ncf.semantic`` (a `SemanticType` value), ``ncf.pii`` (``true``) and ``ncf.description`` live in
the metadata of a top-level field.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa

from neurolake_dagster.ncf.arrow import child_types
from neurolake_dagster.ncf.checks import Damage

MAX_COLUMNS = 10_000
MAX_NESTING = 32
SEMANTIC_KEY, PII_KEY, DESCRIPTION_KEY = b"ncf.semantic", b"ncf.pii", b"ncf.description"


class SemanticType(Enum):
    """What a column means, beyond its type; the 16 values of NCF v1."""

    UNKNOWN = "unknown"
    PII_EMAIL = "pii_email"
    PII_PHONE = "pii_phone"
    PII_SSN = "pii_ssn"
    PII_NAME = "pii_name"
    PII_ADDRESS = "pii_address"
    GEOGRAPHIC_LAT = "geo_lat"
    GEOGRAPHIC_LON = "geo_lon"
    TEMPORAL_DATE = "temporal_date"
    TEMPORAL_TIMESTAMP = "temporal_timestamp"
    IDENTIFIER_UUID = "id_uuid"
    IDENTIFIER_KEY = "id_key"
    CATEGORICAL = "categorical"
    NUMERICAL = "numerical"
    TEXT_DESCRIPTION = "text_description"
    TEXT_TITLE = "text_title"


@dataclass(frozen=True, kw_only=True)
class ColumnNotes:
    """What the metadata of a field says of a column."""

    semantic: str | None = None
    pii: bool = False
    description: str | None = None


def column_notes(field: Any) -> ColumnNotes:
    """Return the notes in a field's metadata."""
    stored = field.metadata or {}
    semantic, text = stored.get(SEMANTIC_KEY), stored.get(DESCRIPTION_KEY)
    return ColumnNotes(
        semantic=None if semantic is None else semantic.decode("utf-8", "replace"),
        pii=stored.get(PII_KEY, b"").lower() == b"true",
        description=None if text is None else text.decode("utf-8", "replace"),
    )


def annotate_schema(schema: Any, notes: Mapping[str, Mapping[str, Any]] | None) -> Any:
    """Return ``schema`` with notes in its fields' metadata.

    Parameters
    ----------
    notes
        Per column name any of ``semantic`` (`SemanticType` or its value), ``pii`` (bool, or v1's
        name ``contains_pii``) and ``description`` (text); a ``ncf.`` before the key is allowed.
    """
    fields = list(schema)
    for name, values in (notes or {}).items():
        index = schema.get_field_index(name)
        if index < 0:
            raise ValueError(f"column_metadata: no single column {name!r} in {schema.names}")
        fields[index] = fields[index].with_metadata(
            {**(fields[index].metadata or {}), **_encode_notes(name, values)}
        )
    return pa.schema(fields, schema.metadata)


def _encode_notes(name: str, values: Mapping[str, Any]) -> dict[bytes, bytes]:
    stored = {}
    for key, value in values.items():
        match key.removeprefix("ncf."):
            case "semantic":
                stored[SEMANTIC_KEY] = _semantic_type(name, value).value.encode()
            case "pii" | "contains_pii":
                stored[PII_KEY] = _encode_flag(name, value)
            case "description":
                stored[DESCRIPTION_KEY] = str(value).encode()
            case _:
                raise ValueError(
                    f"column_metadata: {name!r}: expected semantic, pii or description, got {key!r}"
                )
    return stored


def _semantic_type(name: str, value: object) -> SemanticType:
    try:
        return SemanticType(value)
    except ValueError:
        known = ", ".join(kind.value for kind in SemanticType)
        raise ValueError(
            f"column_metadata: {name!r}: semantic: expected one of {known}, got {value!r}"
        ) from None


def _encode_flag(name: str, value: object) -> bytes:
    """Return a flag as text; nothing that could be meant as true becomes false."""
    text = str(value).lower()
    if text not in ("true", "false") or not isinstance(value, (bool, str, np.bool_)):
        raise ValueError(f"column_metadata: {name!r}: pii: expected true or false, got {value!r}")
    return text.encode()


def encode_schema(schema: Any) -> bytes:
    """Return the Arrow IPC schema message."""
    check_schema(schema)
    message: bytes = schema.serialize().to_pybytes()
    return message


@lru_cache(maxsize=64)
def decode_schema(raw: bytes) -> Any:
    """Return the schema of an Arrow IPC message.

    The same bytes are decoded once: the files of a table share them, and it is a quarter of the
    time to open a small one.
    """
    try:
        schema = pa.ipc.read_schema(pa.py_buffer(raw))
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError) as exc:
        raise Damage(f"schema: {exc}") from exc
    try:
        check_schema(schema)
    except ValueError as exc:
        raise Damage(str(exc)) from exc
    return schema


def check_schema(schema: Any) -> None:
    """Refuse what no file can hold: too many columns, one nested too deep, or no IPC type."""
    if len(schema) > MAX_COLUMNS:
        raise ValueError(f"schema: {len(schema)} columns, at most {MAX_COLUMNS}")
    # All names are looked at: one that is not UTF-8 fails here.
    for name, kind in zip(schema.names, schema.types, strict=True):
        if not pa.types.is_primitive(kind):
            _check_type(kind, 1, name)


def _check_type(kind: Any, depth: int, name: str) -> None:
    if depth > MAX_NESTING:
        raise ValueError(f"schema: column {name!r} is nested more than {MAX_NESTING} deep")
    if pa.types.is_dictionary(kind) and _hides_in_dictionary(kind.value_type):
        raise ValueError(
            f"schema: column {name!r}: {kind}: Arrow's schema message holds no dictionary whose "
            f"values are an extension type or a dictionary; cast to {kind.value_type}"
        )
    for child in child_types(kind):
        _check_type(child, depth + 1, name)


def _hides_in_dictionary(kind: Any) -> bool:
    """Whether Arrow's IPC loses this type as that of a dictionary's values."""
    return isinstance(kind, pa.BaseExtensionType) or pa.types.is_dictionary(kind)
