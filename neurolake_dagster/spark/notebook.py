"""Two functions for notebooks and scripts, on the same code as the resource."""

from typing import TYPE_CHECKING, Any

from neurolake_dagster.settings import SparkSettings, StorageSettings
from neurolake_dagster.spark.session import get_session

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def get_spark_session(
    config: SparkSettings | dict[str, Any] | None = None, force_recreate: bool = False
) -> "SparkSession":
    """The Spark session of this process, started now if there is none.

    Parameters
    ----------
    config
        Options by name, or settings; what is not set comes from ``NEUROLAKE_SPARK__*``.
    force_recreate
        Stop a running session and its JVM first.

    Raises
    ------
    SettingsError, JavaNotFoundError, JarsNotFoundError, SessionConflictError
    """
    settings = config if isinstance(config, SparkSettings) else SparkSettings.load(**(config or {}))
    return get_session(settings, StorageSettings.load(), force_recreate=force_recreate)


def get_spark_config() -> SparkSettings:
    """The settings that the environment gives, checked.

    Raises
    ------
    SettingsError
    """
    return SparkSettings.load()
