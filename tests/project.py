"""A scratch copy of the project's surroundings: its own Dagster home and data folder.

Commands are started as a user starts them, in the project's folder, by their real names.
"""

import dataclasses
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import pytest

ROOT = Path(__file__).parent.parent


@dataclasses.dataclass(frozen=True)
class Project:
    """Where one test's runs and data go."""

    folder: Path

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def environment(self) -> dict[str, str]:
        scripts = str(Path(sys.executable).parent)
        return {
            **os.environ,
            "PATH": os.pathsep.join([scripts, os.environ["PATH"]]),
            "DAGSTER_HOME": str(self.home),
            "NEUROLAKE_STORAGE__ROOT": str(self.data),
        }

    def run(
        self, *command: str, check: bool = True, **environment: str
    ) -> "subprocess.CompletedProcess[str]":
        """Run a command in the project's folder; with `check`, its output tells why it failed."""
        result = subprocess.run(
            command,
            cwd=ROOT,
            env=self.environment | environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if check:
            assert result.returncode == 0, (result.stdout + result.stderr)[-8000:]
        return result

    @contextmanager
    def instance(self) -> Iterator[dg.DagsterInstance]:
        """Dagster's instance; dagster.yaml reads DAGSTER_HOME, so it is set for the while."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("DAGSTER_HOME", str(self.home))
            with dg.DagsterInstance.get() as opened:
                yield opened


def make_project(folder: Path) -> Project:
    """Make the Dagster home, with the project's dagster.yaml as it lies."""
    project = Project(folder)
    project.home.mkdir(parents=True)
    (project.home / "dagster.yaml").symlink_to(ROOT / "dagster.yaml")
    return project
