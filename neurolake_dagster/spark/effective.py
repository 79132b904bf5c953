"""What a session really runs with, option by option, beside what was asked.

Owns reading values back from a running Spark: its SQL configuration, its SparkConf and
Hadoop's, whichever holds the key; and the table of all options for people.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from neurolake_dagster.settings import SparkSettings, StorageSettings
from neurolake_dagster.settings.checks import REMOTES, address_of, same_value
from neurolake_dagster.settings.redaction import is_secret, shown_remote
from neurolake_dagster.spark.conf import SECRETS, Choice, Origin, as_text, choose

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

HIDDEN = "*** (set)"
HADOOP = "spark.hadoop."
# What is asked for beside Spark's keys, and by which name its running value is told.
REMOTE, JARS, NCF = "spark.remote", "spark.jars", "format ncf"
SHOWN_WIDTH = 60


@dataclass(frozen=True, kw_only=True)
class Effective:
    """One option.

    Parameters
    ----------
    asked
        Its value as text; None where it has none. Secrets are hidden.
    running
        By Spark key what the session runs with; None where it does not know the key. Of `remote`
        the server, of `jars` all jars, of `neurolake_ncf_enabled` whether the format is there, of
        `profile` the one in force. Empty for `teardown`, which concerns no running session.
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
        keys = _keys(choice, settings)
        running = {key: _running(session, settings, key) for key in keys}
        found.append(
            Effective(
                option=choice.option,
                asked=_asked(choice),
                running={key: _shown(key, value) for key, value in running.items()},
                origin=choice.origin,
                fits=all(_fits(key, value, running[key]) for key, value in keys.items()),
            )
        )
    return found


def planned(settings: SparkSettings, storage: StorageSettings) -> list[Effective]:
    """Every option as a session of these settings would be started with it; starts none."""
    return [
        Effective(
            option=choice.option,
            asked=_asked(choice),
            running={key: _shown(key, value) for key, value in _keys(choice, settings).items()},
            origin=choice.origin,
            fits=True,
        )
        for choice in choose(settings, storage)
    ]


def as_table(rows: Iterable[Effective]) -> str:
    """Options for people: one line each, and one for each further key of an option."""
    lines = [("option", "asked", "from", "running", "")]
    for row in rows:
        asked = "" if row.asked is None else row.asked
        values = [f"{key} = {value}" for key, value in row.running.items()] or [""]
        verdict = "" if row.fits else "differs"
        lines.append((row.option, asked, row.origin, values[0], verdict))
        lines += [("", "", "", value, "") for value in values[1:]]
    cut = [tuple(_cut(cell) for cell in line) for line in lines]
    widths = [max(len(line[column]) for line in cut) for column in range(len(cut[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in cut
    )


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


def _keys(choice: Choice, settings: SparkSettings) -> dict[str, str | None]:
    """What is compared of an option, and the value that was asked for."""
    match choice.option:
        case "master":
            is_elsewhere = settings.remote not in (None, *REMOTES)
            return {} if is_elsewhere else {"spark.master": settings.master}
        case "remote":
            return {REMOTE: settings.remote}
        case "profile":
            return {"profile": settings.profile_in_force}
        case "jars":
            return {JARS: ",".join(settings.jars or ())}
        case "neurolake_ncf_enabled":
            return {NCF: as_text(settings.neurolake_ncf_enabled)}
        case "extra_configs":
            return dict(settings.extra_configs)
    return dict(choice.keys)


def _running(session: "SparkSession", settings: SparkSettings, key: str) -> str | None:
    if key == REMOTE:
        return _server_of(session)
    if key == NCF:
        return as_text(_offers_ncf(session))
    return settings.profile_in_force if key == "profile" else running_value(session, key)


def _fits(key: str, asked: str | None, running: str | None) -> bool:
    if key == JARS:
        return set((asked or "").split(",")) <= {"", *(running or "").split(",")}
    if key != REMOTE:
        return same_value(asked, running)
    # Without a fitting server, ``auto`` is a session of this process.
    if asked in REMOTES:
        return asked == "auto" or running is not None
    return _place(asked) == running


def _server_of(session: "SparkSession") -> str | None:
    """The address of a session's Connect server; None where it has none."""
    if hasattr(session, "_jsc"):
        return None
    client: Any = session.client
    return f"sc://{client._builder.endpoint}"  # noqa: SLF001  # its public host lacks the port


def _place(remote: str | None) -> str | None:
    if remote is None:
        return None
    host, port = address_of(remote)
    return f"sc://{host}:{port}"


def _offers_ncf(session: "SparkSession") -> bool:
    """Whether a session knows the format; Spark tells by failing to load nothing of it."""
    from py4j.protocol import Py4JError
    from pyspark.errors import PySparkException

    try:
        session.read.format("ncf").load().schema  # noqa: B018  # Connect asks the server by it
    except (PySparkException, Py4JError) as exc:
        return "DATA_SOURCE_NOT_FOUND" not in str(exc)
    return True


def _asked(choice: Choice) -> str | None:
    if choice.value is None:
        return None
    if choice.option in SECRETS:
        return HIDDEN
    if choice.option == "remote":
        return shown_remote(str(choice.value))
    if isinstance(choice.value, dict):
        return json.dumps({key: _shown(key, value) for key, value in choice.value.items()})
    return as_text(choice.value)


def _shown(key: str, value: str | None) -> str | None:
    """A value, or that there is one, if Spark too would redact its key."""
    if key == REMOTE and value is not None:
        return shown_remote(value)
    return HIDDEN if value is not None and is_secret(key, value) else value


def _cut(text: str) -> str:
    return text if len(text) <= SHOWN_WIDTH else text[: SHOWN_WIDTH - 3] + "..."
