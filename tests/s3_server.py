"""A real S3 server on loopback for the tests: SeaweedFS from its wheel, with keys.

Owns starting and stopping it; the fixtures start it once a run, and only if a test asks.
"""

import json
import os
import secrets
import socket
import subprocess
import sysconfig
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path

import boto3
import botocore.config
import botocore.exceptions
import pytest
from botocore.client import BaseClient

START_TIMEOUT_S = 60


@dataclass(frozen=True, kw_only=True)
class S3Server:
    """Where the server listens, and a pair of keys that may do everything in `bucket`."""

    endpoint: str
    access_key: str
    secret_key: str = field(repr=False)
    bucket: str
    region: str = "us-east-1"


def start_server(folder: Path) -> tuple[subprocess.Popen[bytes], S3Server]:
    """Start SeaweedFS on free ports with its data below `folder`; the caller stops it."""
    ports = _free_ports(10)
    access_key, secret_key = secrets.token_hex(8), secrets.token_hex(16)
    credentials = [{"accessKey": access_key, "secretKey": secret_key}]
    actions = ["Admin", "Read", "Write", "List", "Tagging"]
    identity = {"name": "test", "credentials": credentials, "actions": actions}
    config = folder / "s3.json"
    config.write_text(json.dumps({"identities": [identity]}))
    (folder / "data").mkdir()
    names = (
        "master.port", "master.port.grpc", "volume.port", "volume.port.grpc", "filer.port",
        "filer.port.grpc", "s3.port", "s3.port.grpc", "s3.port.iceberg", "s3.port.lance",
    )  # fmt: skip
    command = [
        str(Path(sysconfig.get_path("scripts")) / "weed"), "server", f"-dir={folder / 'data'}",
        "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-s3", f"-s3.config={config}", "-s3.iam=false",
        "-master.volumeSizeLimitMB=64", "-volume.max=200", "-s3.autoCreateBucket=false",
        "-master.telemetry=false",
    ]  # fmt: skip
    command += [f"-{name}={port}" for name, port in zip(names, ports, strict=True)]
    with (folder / "weed.log").open("wb") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, cwd=folder, env=_clean_environment()
        )
    endpoint = f"http://127.0.0.1:{ports[6]}"
    server = S3Server(
        endpoint=endpoint, access_key=access_key, secret_key=secret_key, bucket="lake"
    )
    return process, server


def wait_until_ready(process: subprocess.Popen[bytes], server: S3Server, log: Path) -> None:
    """Return when an object can be written and read; raise with the server's log otherwise."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while process.poll() is None and time.monotonic() < deadline:
        try:
            _create_bucket(server)
        except (botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError, OSError):
            time.sleep(0.3)
        else:
            return
    raise RuntimeError(f"SeaweedFS did not start: {log.read_text(errors='replace')[-2000:]}")


def stop_server(process: subprocess.Popen[bytes]) -> None:
    """Stop it, the hard way if it does not listen."""
    process.terminate()
    try:
        process.wait(2)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(15)


def open_client(server: S3Server) -> BaseClient:
    """A bare client, past our own storage; one try, short waits."""
    config = botocore.config.Config(
        retries={"total_max_attempts": 1},
        connect_timeout=2,
        read_timeout=5,
        s3={"addressing_style": "path"},
    )
    return boto3.client(
        "s3",
        endpoint_url=server.endpoint,
        aws_access_key_id=server.access_key,
        aws_secret_access_key=server.secret_key,
        region_name=server.region,
        config=config,
    )


def _create_bucket(server: S3Server) -> None:
    with closing(open_client(server)) as client:
        if not any(found["Name"] == server.bucket for found in client.list_buckets()["Buckets"]):
            client.create_bucket(Bucket=server.bucket)
        client.put_object(Bucket=server.bucket, Key="ready", Body=b"")


def _free_ports(count: int) -> list[int]:
    """Ports free together at this moment."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for held in sockets:
            held.bind(("127.0.0.1", 0))
        return [held.getsockname()[1] for held in sockets]


def _clean_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """The run's S3 server; `bucket` exists."""
    folder = tmp_path_factory.mktemp("s3")
    with ExitStack() as stack:
        process, server = start_server(folder)
        stack.callback(stop_server, process)
        wait_until_ready(process, server, folder / "weed.log")
        yield server
