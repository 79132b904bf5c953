"""The S3 server of a test run; started once, and only if a test asks."""

from collections.abc import Iterator

import pytest

from neurolake_dagster.storage.server import (
    S3Server,
    open_client,
    start_s3_server,
    stop_s3_server,
)

__all__ = ["S3Server", "open_client", "s3_server"]


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """The run's S3 server; `bucket` exists."""
    folder = tmp_path_factory.mktemp("s3")
    try:
        yield start_s3_server(folder)
    finally:
        stop_s3_server(folder, grace_s=1)
