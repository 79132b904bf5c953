"""All checks in reading order: settings first, for the rest depends on them."""

from collections.abc import Callable

from neurolake_dagster.doctor.engine import check_jars, check_java, check_workers
from neurolake_dagster.doctor.finding import Finding, advise, judge, skip
from neurolake_dagster.doctor.leftovers import check_leftovers, check_stages
from neurolake_dagster.doctor.machine import (
    check_dagster_home,
    check_memory,
    check_packages,
    check_python,
)
from neurolake_dagster.doctor.network import check_ports, check_server
from neurolake_dagster.doctor.store import check_storage
from neurolake_dagster.errors import SettingsError
from neurolake_dagster.resources import SparkResource, StorageResource
from neurolake_dagster.settings import CacheSettings, SourceSettings
from neurolake_dagster.settings.env_file import EnvFile

Check = Callable[[], Finding | list[Finding]]


def diagnose(
    spark: SparkResource | None = None,
    storage: StorageResource | None = None,
    env_file: EnvFile | None = None,
) -> list[Finding]:
    """Look at everything; starts no Spark session.

    A check that falls over is a finding of its own, and the others are made.

    Parameters
    ----------
    spark, storage
        Whose settings to check; None is the environment's.
    env_file
        What was read into the environment, to be told.
    """
    spark, storage = spark or SparkResource(), storage or StorageResource()
    settings = _check_settings(spark, storage, env_file)
    checks: dict[str, Check] = {
        "python": check_python,
        "packages": check_packages,
        "settings": lambda: settings,
        ".env": lambda: _check_env_file(env_file),
        "dagster home": check_dagster_home,
    }
    if settings.status == "ok":
        checks |= _checks_of(spark, storage)
    found = [one for name, check in checks.items() for one in _guarded(name, check)]
    if settings.status == "ok":
        return found
    rest = ("spark", "storage", "leftovers")
    return [*found, *(skip(one, "the settings are wrong", "right settings") for one in rest)]


def _checks_of(spark: SparkResource, storage: StorageResource) -> dict[str, Check]:
    """The checks of what right settings ask for."""
    options, lender, cache = spark.settings(), storage.settings(), CacheSettings.load()
    return {
        "java": lambda: check_java(options),
        "jars": lambda: check_jars(options, cache),
        "workers": lambda: check_workers(options),
        "memory": lambda: check_memory(options, lender),
        "ports": lambda: check_ports(options, lender),
        "spark server": lambda: check_server(options, lender),
        "storage": lambda: check_storage(storage.storage()),
        "leftovers": lambda: check_leftovers(cache),
        "staged files": lambda: check_stages(storage.storage()),
    }


def _guarded(name: str, check: Check) -> list[Finding]:
    """The findings of a check; one that it fell over, if it did."""
    try:
        found = check()
    except Exception as error:  # noqa: BLE001  # whatever is broken, the other checks tell more
        return [
            judge(
                name,
                False,
                f"this check fell over: {type(error).__name__}: {error}",
                "a check that runs through",
                "correct what the error names; if that is right, it is a defect of the doctor",
            )
        ]
    return [found] if isinstance(found, Finding) else found


def _check_settings(
    spark: SparkResource, storage: StorageResource, env_file: EnvFile | None
) -> Finding:
    """That every setting is known and fits."""
    problems = []
    for load in (spark.settings, storage.settings, CacheSettings.load, SourceSettings.load):
        try:
            load()
        except SettingsError as error:
            problems.append(str(error))
    found = "; ".join(problems) or f"storage at {storage.settings().root}"
    found += "" if env_file is None else f" (read {env_file.path})"
    return judge(
        "settings", not problems, found, "known names and fitting values",
        "correct the variable; .env.example lists them all",
    )  # fmt: skip


def _check_env_file(env_file: EnvFile | None) -> list[Finding]:
    """That it and what is exported agree: Dagster lets the file win, this command does not."""
    if env_file is None or not env_file.shadowed:
        return []
    return [
        advise(
            ".env", False,
            f"{env_file.path}: {', '.join(env_file.shadowed)} exported with another value",
            "one value, for `dagster` takes the file's and `neurolake` what is exported",
            "unset it, or take it out of the file",
        )
    ]  # fmt: skip
