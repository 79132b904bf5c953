"""Secrets of resources, kept out of everything that Dagster serializes.

Dagster sends a resource's configuration to the UI as it was given; a plain text would be read
there (an `EnvVar` would not). So a plain secret is kept in this process, and the resource holds
a reference to it. Each process that loads the definitions fills its own store.
"""

import hashlib
import os
from typing import Any

import dagster as dg

_PREFIX = "neurolake-secret:"
_salt = os.urandom(16)
_kept: dict[str, str] = {}


def hide(value: Any) -> Any:
    """Replace a plain text by a reference to it; `EnvVar`, None and references stay."""
    if not isinstance(value, str) or isinstance(value, dg.EnvVar) or value.startswith(_PREFIX):
        return value
    # Salted: a reference must not let a guessed secret be confirmed.
    reference = _PREFIX + hashlib.blake2b(value.encode(), key=_salt, digest_size=8).hexdigest()
    _kept[reference] = value
    return reference


def reveal(value: str | None) -> str | None:
    """The secret behind a reference; another text (an `EnvVar`'s value) is the secret itself."""
    if value is None or not value.startswith(_PREFIX):
        return value
    return _kept[value]
