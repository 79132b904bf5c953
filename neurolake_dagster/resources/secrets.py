"""Secrets of resources, kept out of everything that Dagster serializes.

Dagster sends a resource's configuration to the UI as it was given; a plain text would be read
there (an `EnvVar` would not). So a plain secret is kept in this process, and the resource holds
a reference to it. Each process that loads the definitions fills its own store.
"""

import hashlib
import os
from typing import Any

import dagster as dg

from neurolake_dagster.errors import SettingsError

_PREFIX = "neurolake-secret:"
_salt = os.urandom(16)
_kept: dict[str, str] = {}


def hide(value: Any, shown: str = "") -> Any:
    """Replace a plain text by a reference to it; `EnvVar`, None and references stay.

    Parameters
    ----------
    shown
        What of the text may be read; the reference begins with it.
    """
    if not isinstance(value, str) or isinstance(value, dg.EnvVar) or _PREFIX in value:
        return value
    # Salted: a reference must not let a guessed secret be confirmed.
    digest = hashlib.blake2b(value.encode(), key=_salt, digest_size=8).hexdigest()
    reference = f"{shown}{_PREFIX}{digest}"
    _kept[reference] = value
    return reference


def reveal(name: str, value: Any) -> Any:
    """A field's value as it was meant: the secret behind a reference, an `EnvVar`'s value.

    Dagster resolves `EnvVar` in a run; outside of one it is done here.

    Raises
    ------
    SettingsError
        If the secret was given in another process, or the variable is not set.
    """
    if isinstance(value, dict):
        return {key: reveal(f"{name}: {key}", one) for key, one in value.items()}
    if hasattr(type(value), "get_value"):
        found = value.get_value()
        if found is None:
            raise SettingsError(f"{name}: the environment has no {value.env_var_name}")
        return found
    if not isinstance(value, str) or _PREFIX not in value:
        return value
    if value not in _kept:
        raise SettingsError(
            f"{name}: its secret was given as plain text in another process, and does not leave "
            "that; give it as dg.EnvVar"
        )
    return _kept[value]
