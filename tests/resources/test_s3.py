"""dagster-aws on the tables' credentials, against a real server."""

from typing import Any

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dagster._core.remote_representation.external_data import RepositorySnap
from dagster_aws.s3 import S3PickleIOManager, S3Resource

from neurolake_dagster.resources import StorageResource
from tests.s3_server import S3Server


@pytest.fixture(params=["plain", "from the environment"])
def storage(
    request: pytest.FixtureRequest, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> StorageResource:
    monkeypatch.setenv("THE_SECRET", s3_server.secret_key)
    is_plain = request.param == "plain"
    return StorageResource(
        root=f"s3://{s3_server.bucket}/dagster-aws",
        endpoint=s3_server.endpoint,
        access_key=s3_server.access_key,
        secret_key=s3_server.secret_key if is_plain else dg.EnvVar("THE_SECRET"),
    )


def test_what_an_s3_resource_writes_is_what_the_storage_reads(
    storage: StorageResource, s3_server: S3Server
) -> None:
    @dg.asset
    def put(s3: S3Resource) -> None:
        body = pa.BufferOutputStream()
        pq.write_table(pa.table({"x": [1, 2]}), body)
        s3.get_client().put_object(
            Bucket=s3_server.bucket, Key="dagster-aws/x.parquet", Body=body.getvalue().to_pybytes()
        )

    assert dg.materialize([put], resources={"s3": storage.s3_resource()}).success
    source = storage.storage().open_input("x.parquet").as_file()
    assert pq.read_table(source)["x"].to_pylist() == [1, 2]


def test_io_managers_of_dagster_aws_take_it(storage: StorageResource, s3_server: S3Server) -> None:
    seen: list[Any] = []
    manager = S3PickleIOManager(
        s3_resource=storage.s3_resource(), s3_bucket=s3_server.bucket, s3_prefix="dagster-aws"
    )

    @dg.asset
    def made() -> dict[str, int]:
        return {"x": 1}

    @dg.asset
    def used(made: dict[str, int]) -> None:
        seen.append(made)

    assert dg.materialize([made, used], resources={"io_manager": manager}).success
    assert seen == [{"x": 1}]
    assert storage.storage().exists("made")


def test_its_secrets_are_in_no_text() -> None:
    keys = {"access_key": "id", "secret_key": "never-read", "session_token": "a-token"}
    found = StorageResource(root="s3://b/p", **keys).s3_resource()

    @dg.asset
    def one() -> int:
        return 1

    definitions = dg.Definitions(assets=[one], resources={"s3": found})
    snapshot = dg.serialize_value(RepositorySnap.from_def(definitions.get_repository_def()))
    for secret in ("never-read", "a-token"):
        assert secret not in f"{found!r} {found} {snapshot}"
