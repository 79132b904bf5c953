"""What a session really runs with, option by option, beside what was asked.

Owns reading values back from a running Spark: its SQL configuration, its SparkConf and
Hadoop's, whichever holds the key.
"""

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from neurolake_dagster.settings import SparkSettings, StorageSettings
from neurolake_dagster.settings.redaction import is_secret
from neurolake_dagster.spark.conf import SECRETS, Choice, Origin, as_text, choose

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

HIDDEN = "*** (set)"
HADOOP = "spark.hadoop."


@dataclass(frozen=True, kw_only=True)
class Effective:
    """One option.

    Parameters
    ----------
    asked
        Its value as text; None where it has none. Secrets are hidden.
    running
        By Spark key what the session runs with; None where it does not know the key.
    origin
        Where the asked value came from.
    """

    option: str
    asked: str | None
    running: dict[str, str | None]
    origin: Origin
    fits: bool


def effective(
    session: "SparkSession", settings: SparkSettings, storage: StorageSettings
) -> list[Effective]:
    """Compare every option with the running session.

    Options of `extra_configs` win over others, so an option they overrule does not fit.
    """
    found = []
    for choice in choose(settings, storage):
        keys = choice.keys
        if choice.option == "master":
            keys = {"spark.master": as_text(choice.value)}
        elif choice.option == "extra_configs":
            keys = settings.extra_configs
        running = {key: running_value(session, key) for key in keys}
        found.append(
            Effective(
                option=choice.option,
                asked=_asked(choice),
                running={key: _shown(key, value) for key, value in running.items()},
                origin=choice.origin,
                fits=all(running[key] == value for key, value in keys.items()),
            )
        )
    return found


def running_value(session: "SparkSession", key: str) -> str | None:
    """The value that a running session has for a Spark key; None if it knows none."""
    is_classic = hasattr(session, "_jsc")
    if key.startswith(HADOOP) and is_classic:
        hadoop = session._jsc.hadoopConfiguration()  # noqa: SLF001  # pyspark has no public way
        value: str | None = hadoop.get(key.removeprefix(HADOOP))
        return value
    own = session.conf.get(key, None)
    # A server's session holds every key of its Spark; a classic one those of SQL only.
    return own if own is not None or not is_classic else session.sparkContext.getConf().get(key)


def _asked(choice: Choice) -> str | None:
    if choice.value is None:
        return None
    if choice.option in SECRETS:
        return HIDDEN
    if isinstance(choice.value, dict):
        return json.dumps({key: _shown(key, value) for key, value in choice.value.items()})
    return as_text(choice.value)


def _shown(key: str, value: str | None) -> str | None:
    """A value, or that there is one, if Spark too would redact its key."""
    return HIDDEN if value is not None and is_secret(key, value) else value
