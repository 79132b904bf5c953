"""The folder with the source files of the flights example."""

from pathlib import Path

import dagster as dg
from pydantic import Field

from neurolake_dagster.settings import SourceSettings


class SourceResource(dg.ConfigurableResource["SourceResource"]):
    """Where the CSV files of the flights example lie."""

    directory: str | None = Field(
        default=None,
        description="Folder with the CSV files; unset: NEUROLAKE_SOURCES__DIR, then the wheel's.",
    )

    @property
    def path(self) -> Path | None:
        """The folder, or None for the wheel's own."""
        return SourceSettings.load(dir=self.directory).dir
