"""The folder with the source files of the flights example."""

from pathlib import Path
from typing import Any

import dagster as dg
from pydantic import Field

from neurolake_dagster.resources.fields import refuse_unknown
from neurolake_dagster.settings import SourceSettings


class SourceResource(dg.ConfigurableResource["SourceResource"]):
    """Where the CSV files of the flights example lie."""

    directory: str | None = Field(
        default=None,
        description="Folder with the CSV files; unset: NEUROLAKE_SOURCES__DIR, then the wheel's.",
    )

    def __init__(self, **data: Any) -> None:
        refuse_unknown(type(self), data)
        super().__init__(**data)

    @property
    def path(self) -> Path | None:
        """The folder, or None for the wheel's own."""
        return SourceSettings.load(dir=self.directory).dir
