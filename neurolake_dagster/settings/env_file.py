"""``.env`` of the working directory, for commands that Dagster does not start.

Dagster reads it by the same library when it starts code; importing the package reads nothing.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from dotenv import dotenv_values, load_dotenv

from neurolake_dagster.errors import SettingsError


@dataclass(frozen=True, kw_only=True)
class EnvFile:
    """A file that was read, and its names whose exported value is another and was kept."""

    path: Path
    shadowed: tuple[str, ...]


def load_env_file(path: Path) -> EnvFile:
    """Add a file's settings to this process's environment; what is exported stays.

    Raises
    ------
    SettingsError
        If it cannot be read.
    """
    try:
        load_dotenv(path)
        values = dotenv_values(path)
    except (OSError, UnicodeDecodeError) as exc:
        raise SettingsError(
            f"{path}: not readable ({exc}); expected lines NAME=value in UTF-8; correct or move it"
        ) from exc
    shadowed = (k for k, v in values.items() if v is not None and os.environ.get(k) != v)
    return EnvFile(path=path, shadowed=tuple(shadowed))
