"""All checks in reading order: settings first, for the rest depends on them."""

from neurolake_dagster.doctor.engine import check_jars, check_java, check_memory, check_workers
from neurolake_dagster.doctor.finding import Finding, judge, skip
from neurolake_dagster.doctor.machine import (
    check_dagster_home,
    check_leftovers,
    check_packages,
    check_ports,
    check_python,
)
from neurolake_dagster.doctor.store import check_storage
from neurolake_dagster.errors import SettingsError
from neurolake_dagster.resources import SparkResource, StorageResource
from neurolake_dagster.settings import CacheSettings, SourceSettings


def diagnose(
    spark: SparkResource | None = None, storage: StorageResource | None = None
) -> list[Finding]:
    """Look at everything; starts no Spark session.

    Parameters
    ----------
    spark, storage
        Whose settings to check; None is the environment's.
    """
    spark, storage = spark or SparkResource(), storage or StorageResource()
    findings = [check_python(), check_packages(), _check_settings(spark, storage)]
    findings.append(check_dagster_home())
    if findings[2].status == "failure":
        rest = ("spark", "storage", "leftovers")
        return [*findings, *(skip(one, "the settings are wrong", "right settings") for one in rest)]
    options, cache = spark.settings(), CacheSettings.load()
    findings += check_java(options)
    findings += check_jars(options, cache)
    findings.append(check_workers(options))
    findings.append(check_memory(options, storage.settings()))
    findings.append(check_ports(options))
    findings += check_storage(storage.storage())
    findings.append(check_leftovers(cache))
    return findings


def _check_settings(spark: SparkResource, storage: StorageResource) -> Finding:
    """That every setting is known and fits."""
    problems = []
    for load in (spark.settings, storage.settings, CacheSettings.load, SourceSettings.load):
        try:
            load()
        except SettingsError as error:
            problems.append(str(error))
    found = "; ".join(problems) or f"storage at {storage.settings().root}"
    return judge(
        "settings", not problems, found, "known names and fitting values",
        "correct the variable; .env.example lists them all",
    )  # fmt: skip
