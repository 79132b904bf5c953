"""Dagster's instance, as the commands that need one open it."""

import os
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg

from neurolake_dagster.errors import SettingsError

_REMEDY = "for example `export DAGSTER_HOME=$PWD/.dagster_home`, or use `make demo`"


def instance_home() -> Path:
    """The folder of Dagster's instance, which may be yet to come.

    Raises
    ------
    SettingsError
        If DAGSTER_HOME is not set, so that runs and events would vanish with the process, or is
        one that Dagster refuses.
    """
    home = os.environ.get("DAGSTER_HOME")
    if not home:
        raise SettingsError(
            "DAGSTER_HOME: not set, so that the run would be forgotten; expected a folder, "
            f"{_REMEDY}"
        )
    if not Path(home).is_absolute():
        raise SettingsError(f"DAGSTER_HOME: {home!r}, expected an absolute path, {_REMEDY}")
    if Path(home).is_file():
        raise SettingsError(f"DAGSTER_HOME: {home} is a file, expected a folder, {_REMEDY}")
    return Path(home)


@contextmanager
def open_instance() -> Iterator[dg.DagsterInstance]:
    """Open the instance of DAGSTER_HOME.

    Raises
    ------
    SettingsError
        If there is none, or its dagster.yaml is wrong.
    """
    home = instance_home()
    if not home.is_dir():
        raise SettingsError(f"DAGSTER_HOME: there is no folder {home}; run a job first, {_REMEDY}")
    try:
        instance = dg.DagsterInstance.get()
    except dg.DagsterError as exc:
        # The end of it spells out every option that there is.
        reason = textwrap.shorten(str(exc), 300)
        raise SettingsError(f"DAGSTER_HOME: {home} holds no instance: {reason}") from exc
    with instance:
        yield instance
