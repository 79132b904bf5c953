"""What tells two warm servers apart, and how it is told."""

import os

import pytest

from neurolake_dagster.settings import SparkSettings, StorageSettings
from neurolake_dagster.spark.server import (
    Server,
    _as_properties,
    _blank_ended,
    fingerprint,
    shortened,
)

TOKEN = "of-this-server"
KEYS = {"s3_access_key": "id", "s3_secret_key": "hidden"}


def started(**options: object) -> Server:
    settings, storage = settings_of(**options)
    return Server(port=1, token=TOKEN, keys=fingerprint(settings, storage, TOKEN))


def settings_of(**options: object) -> tuple[SparkSettings, StorageSettings]:
    return SparkSettings.load({}, **options), StorageSettings.load({}, region="eu-1")


def test_the_same_settings_differ_in_nothing_whatever_the_name() -> None:
    server = started(shuffle_partitions=7)
    assert server.differences(*settings_of(shuffle_partitions=7, app_name="B", remote="auto")) == []


def test_a_client_of_another_umask_uses_the_server() -> None:
    """It fell back, for other values of spark.python.unix.domain.socket.enabled."""
    server, key = started(), "spark.python.unix.domain.socket.enabled"
    before = os.umask(0o002)
    try:
        found = server.differences(*settings_of())
    finally:
        os.umask(before)
    assert found == []
    assert server.differences(*settings_of(extra_configs={key: "false"})) == [key]


def test_other_settings_are_told_by_name_and_never_by_value() -> None:
    server = started(**KEYS, extra_configs={"spark.mine": "1"})
    wanted = settings_of(**KEYS | {"s3_secret_key": "other"}, shuffle_partitions=77)
    found = server.differences(*wanted)
    assert found == [
        "spark.hadoop.fs.s3a.secret.key",
        "spark.mine",
        "spark.sql.shuffle.partitions",
    ]
    assert "hidden" not in f"{server.keys}"
    assert TOKEN not in repr(server)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"jars": ["/other.jar"]}, "spark.jars"),
        ({"extra_configs": {"spark.jars": "/more.jar"}}, "spark.jars"),
        ({"master": "local[3]"}, "spark.master"),
        ({"python": "/opt/python"}, "spark.pyspark.python"),
    ],
)
def test_what_a_server_is_started_with_tells_it_apart(
    options: dict[str, object], name: str
) -> None:
    """A server with other jars passed for the same."""
    assert name in started().differences(*settings_of(**options))


def test_the_record_of_a_secret_cannot_be_compared_with_another_servers() -> None:
    settings, storage = settings_of(**KEYS)
    key = "spark.hadoop.fs.s3a.secret.key"
    assert fingerprint(settings, storage, "a")[key] != fingerprint(settings, storage, "b")[key]


def test_many_names_are_shortened() -> None:
    assert shortened(["a", "b"]) == "a, b"
    assert shortened(list("abcdefgh")) == "a, b, c, d, e, f and 2 more"


def test_a_value_of_several_lines_stays_one() -> None:
    """What followed a carriage return was a key of its own."""
    assert _as_properties({"a": "C:\\x\ny\rb=1"}) == "a=C:\\\\x\\ny\\rb=1\n"


def test_outer_blanks_are_kept_but_of_secrets() -> None:
    """Of what a properties file says Spark cuts them."""
    conf = {"a": " x ", "b": "x", "c.secret": " x", "d": "x\t"}
    assert _blank_ended(conf) == ["a= x ", "d=x\t"]
