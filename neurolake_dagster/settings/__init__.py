"""Settings: typed, validated values from arguments and the environment.

The front of the room, and the only reader of the environment. Core functions take settings,
never names of variables.
"""

from neurolake_dagster.settings.paths import CacheSettings, SourceSettings
from neurolake_dagster.settings.spark import SparkSettings
from neurolake_dagster.settings.storage import StorageSettings

__all__ = ["CacheSettings", "SourceSettings", "SparkSettings", "StorageSettings"]
