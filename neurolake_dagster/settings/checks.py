"""What the texts of settings must look like: sizes, masters, addresses, time zones, Spark keys.

Owns the patterns and the wording of what does not fit. A check returns the value in the form that
Spark takes, or raises `ValueError`, which the settings turn into their own error.
"""

import re
import urllib.parse
import zoneinfo
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from neurolake_dagster.settings.redaction import shown_remote

KIB = 1 << 10
UNITS = {"b": 1, "k": KIB, "m": KIB**2, "g": KIB**3, "t": KIB**4, "p": KIB**5}
SIZE = re.compile(r"(\d+)(?:([kmgtp])b?|(b))?", re.IGNORECASE | re.ASCII)
# Spark counts bytes in 64 bits.
MOST_BYTES = (1 << 63) - 1
HOST = r"(?:[\w.-]+|\[[\da-f:]+\])"
MASTERS = re.compile(
    rf"local|local\[(?:[1-9]\d*|\*)(?:,\s*[1-9]\d*)?\]|local-cluster\[\d+,\s*\d+,\s*\d+\]"
    rf"|spark://{HOST}:\d+(?:,{HOST}:\d+)*|yarn|k8s://\S+",
    re.IGNORECASE,
)
LOOPBACK = re.compile(r"localhost|127(?:\.\d+){3}|\[::1\]", re.IGNORECASE)
REMOTE = re.compile(rf"sc://{HOST}(?::\d+)?(?:/(?:;[\w.-]+=[^;=\s]+)*;?)?", re.IGNORECASE)
MOST_PORT = 65_535
WORD = re.compile(r"[a-z_]+", re.IGNORECASE)
# What Spark takes besides the names of the time zone database.
OFFSET = re.compile(
    r"Z|UTC|GMT|UT|(?:UTC|GMT|UT)?[+-](?:0?\d|1[0-7])(?::[0-5]\d(?::[0-5]\d)?)?|[+-]18(?::00)?"
)
CONNECT_PORT = 15002
REMOTES = ("auto", "start")
# Keys that decide where Spark runs: the options' own, whoever names them.
MOVED = {"spark.master": "master", "spark.remote": "remote"}


@dataclass(frozen=True, kw_only=True)
class Size:
    """How a size is read.

    Parameters
    ----------
    alone
        The unit of a number without one.
    least
        The smallest size that works, as a size with its unit.
    zero
        Whether 0 is taken whatever `least` says, and then means none or no limit.
    words
        What is taken besides sizes.
    unit_letters
        How many letters a unit may have where it is handed on; Java's and Hadoop's have one.
    """

    alone: str = "b"
    least: str = "1b"
    zero: bool = False
    words: tuple[str, ...] = ()
    unit_letters: int = 2


# Spark refuses heaps below 450 MiB; the driver's is handed to Java as it is.
HEAP = Size(alone="m", least="450m", unit_letters=1)
OVERHEAD = Size(alone="m", zero=True)
# S3 takes no smaller parts.
PART = Size(least="5m", unit_letters=1)


def parse_size(text: str, alone: str = "b") -> int:
    """A size word in bytes.

    Raises
    ------
    ValueError
    """
    found = SIZE.fullmatch(text)
    if found is None:
        raise ValueError(f"expected a size such as 512m or 4g, got {text!r}")
    return int(found[1]) * UNITS[(found[2] or found[3] or alone).lower()]


def check_size(text: str, size: Size) -> str:
    """A size that can work, with no more letters in its unit than its reader takes."""
    if text in size.words:
        return text
    found = parse_size(text, size.alone)
    if found < parse_size(size.least) and not (size.zero and found == 0):
        also = ", or 0" if size.zero else ""
        raise ValueError(f"expected at least {size.least}{also}, got {text!r}")
    if found > MOST_BYTES:
        raise ValueError(f"expected less than 8192p, got {text!r}")
    if size.unit_letters > 1:
        return text
    if text.isdigit():
        return text if size.alone == "b" else text + size.alone
    number = re.match(r"\d+", text)
    assert number is not None
    unit = text[number.end()].lower()
    if unit != "b":
        return number[0] + unit
    return number[0] if size.alone == "b" else f"{found // KIB}k"


def same_value(one: str | None, other: str | None) -> bool:
    """Whether two values of a Spark key are the same, as ``1024m`` and ``1g`` are."""
    if one is None or other is None or one == other:
        return one == other
    if SIZE.fullmatch(one) and SIZE.fullmatch(other):
        return parse_size(one) == parse_size(other)
    # Only words: paths and secrets are others in another case.
    return bool(WORD.fullmatch(one)) and one.lower() == other.lower()


def check_master(text: str) -> str:
    """A master that Spark knows."""
    if not MASTERS.fullmatch(text):
        raise ValueError(
            "expected local, local[N], local[*], spark://host:port, yarn or k8s://..., "
            f"got {text!r}"
        )
    return text


def is_loopback(master: str) -> bool:
    """Whether a standalone master listens on this machine's loopback only."""
    scheme, _, hosts = master.partition("://")
    return scheme == "spark" and all(
        LOOPBACK.fullmatch(host.rpartition(":")[0]) for host in hosts.split(",")
    )


def check_remote(text: str, words: tuple[str, ...]) -> str:
    """A Connect address, or one of the words; the message shows no parameter of it."""
    if text in words or (REMOTE.fullmatch(text) and _has_port(text)):
        return text
    # pyspark's own refusal of a second = in a parameter shows the whole of it.
    hint = "; write a = in a value as %3D" if re.search("=[^;]*=", text) else ""
    raise ValueError(
        f"expected sc://host:port, sc://host:port/;name=value or {' or '.join(words)}, "
        f"got {shown_remote(text)!r}{hint}"
    )


def _has_port(remote: str) -> bool:
    """Whether the port of a Connect address can be one, or it has none."""
    port = re.match(r"sc://(?:\[[^]]*\]|[^/:]*):(\d+)", remote, re.IGNORECASE)
    return port is None or 0 < int(port[1]) <= MOST_PORT


def address_of(remote: str) -> tuple[str, int]:
    """Host and port of a Connect address."""
    found = urllib.parse.urlsplit(remote)
    return found.hostname or "localhost", found.port or CONNECT_PORT


def check_endpoint(text: str) -> str:
    """``host:port``, with ``http://`` or ``https://`` before it or not; no login, no bucket."""
    scheme, separator, rest = text.rpartition("://")
    if separator and scheme not in ("http", "https"):
        raise ValueError(f"expected http:// or https://, got {scheme}://")
    if not re.fullmatch(rf"{HOST}(?::\d+)?/?", rest, re.IGNORECASE):
        raise ValueError("expected host:port, or http(s)://host:port, and nothing behind it")
    return text


def scheme_tls(endpoint: str | None) -> bool | None:
    """What an endpoint's scheme says about TLS; None where it has no scheme."""
    scheme, separator, _ = (endpoint or "").rpartition("://")
    return scheme == "https" if separator else None


def default_tls(endpoint: str | None) -> bool:
    """TLS where nobody said anything: AWS always, other stores not."""
    host = (endpoint or "").rpartition("://")[2].split("/")[0].split(":")[0]
    return endpoint is None or host.endswith((".amazonaws.com", ".amazonaws.com.cn"))


def check_time_zone(text: str) -> str:
    """A time zone of the database, or an offset as Spark takes it."""
    if not (OFFSET.fullmatch(text) or _is_zone(text)):
        raise ValueError(f"expected a time zone such as UTC, Europe/Berlin or +01:00, got {text!r}")
    return text


def _is_zone(text: str) -> bool:
    try:
        return bool(zoneinfo.ZoneInfo(text))
    except (KeyError, ValueError, OSError):  # OSError: a folder of the database
        return False


def flat_configs(configs: Mapping[str, Any]) -> dict[str, str]:
    """Spark keys and their values as text; nested dicts joined by dots.

    ``{"spark": {"speculation": True}}`` is ``{"spark.speculation": "true"}``.

    Raises
    ------
    ValueError
        Naming every key whose value is no text, number or truth value; never with the value.
    """
    flat = dict(_leaves(configs, ""))
    wrong = [
        f"{key} ({type(value).__name__})"
        for key, value in flat.items()
        if not isinstance(value, (str, bool, int, float))
    ]
    if wrong:
        raise ValueError(f"expected text, numbers, true or false as values, not so {wrong}")
    return {key: _as_text(value) for key, value in flat.items()}


def _as_text(value: str | float) -> str:
    """As Spark writes it; a subclass of str stays what it is."""
    if isinstance(value, str):
        return value
    return str(value).lower() if isinstance(value, bool) else str(value)


def _leaves(configs: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in configs.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def take_extras(values: dict[str, Any]) -> dict[str, Any]:
    """Options with flat `extra_configs`, without the keys that say where Spark runs.

    Those become `master` and `remote`, unless these are given too.

    Raises
    ------
    ValueError
    """
    extras = values.get("extra_configs")
    if not isinstance(extras, dict):
        return values
    flat = flat_configs(extras)
    moved = {
        option: flat.pop(key)
        for key, option in MOVED.items()
        if key in flat and values.get(option) in (None, flat[key])
    }
    return values | moved | {"extra_configs": flat}


# How the texts of Spark's options are checked.
SIZES: dict[str, Size] = {
    "executor_memory": HEAP,
    "executor_memory_overhead": OVERHEAD,
    "driver_memory": HEAP,
    "driver_memory_overhead": OVERHEAD,
    "driver_max_result_size": Size(least="1m", zero=True),
    "aqe_coalesce_partitions_min_partition_size": Size(),
    "aqe_skew_join_skewed_partition_threshold": Size(zero=True),
    "s3_multipart_threshold": PART,
    "s3_multipart_size": PART,
    "sql_files_maxPartitionBytes": Size(),
}
CHECKS: dict[str, Callable[[str], str]] = {
    **{name: partial(check_size, size=size) for name, size in SIZES.items()},
    "master": check_master,
    "remote": partial(check_remote, words=REMOTES),
    "s3_endpoint": check_endpoint,
    "session_timezone": check_time_zone,
    "sql_autoBroadcastJoinThreshold": partial(check_size, size=Size(zero=True, words=("-1",))),
}
