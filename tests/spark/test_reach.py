"""When two endpoints are the same store."""

import pytest

from neurolake_dagster.spark.reach import store_of


@pytest.mark.parametrize(
    "alike",
    [
        [None, "s3.eu-central-1.amazonaws.com", "https://s3.amazonaws.com/"],
        ["http://127.0.0.1:9000", "localhost:9000/", "LOCALHOST:9000", "[::1]:9000"],
        ["minio", "http://minio:80", "https://Minio:443/"],
    ],
    ids=["aws", "loopback", "host"],
)
def test_an_endpoint_in_other_words_is_the_same_store(alike: list[str | None]) -> None:
    assert len({store_of(one) for one in alike}) == 1


def test_other_ports_hosts_and_aws_are_other_stores() -> None:
    endpoints = (None, "minio:9000", "minio:9001", "minio", "localhost:9000", "localhost")
    assert len({store_of(one) for one in endpoints}) == len(endpoints)
