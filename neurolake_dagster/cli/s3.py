"""`neurolake s3`: an S3 server of this machine for development."""

import shlex
from pathlib import Path

import click

from neurolake_dagster.errors import StorageUnavailableError
from neurolake_dagster.settings import CacheSettings
from neurolake_dagster.storage.server import (
    find_s3_server,
    s3_service,
    start_s3_server,
    stop_s3_server,
)

_NONE = "no S3 server; `neurolake s3 start` starts one"


@click.group()
def s3() -> None:
    """Start, show and stop an S3 server (SeaweedFS) on loopback.

    Its data and keys stay in the cache folder until that is deleted.
    """


@s3.command()
def start() -> None:
    """Start it; does nothing where it runs."""
    server = start_s3_server(_folder())
    service = s3_service(_folder())
    click.echo(f"S3 server on {server.endpoint}, process {service.pid()}, log {service.log_path}")
    click.echo('Use it in this shell: eval "$(neurolake s3 env)"')


@s3.command()
def status() -> None:
    """Show where it runs; exits with 1 if it does not."""
    server = find_s3_server(_folder())
    if server is None:
        click.echo(_NONE)
        raise SystemExit(1)
    service = s3_service(_folder())
    click.echo(f"S3 server on {server.endpoint}, process {service.pid()}, log {service.log_path}")


@s3.command()
@click.option("--prefix", default="dev", show_default=True, help="Folder of the tables.")
def env(prefix: str) -> None:
    """Print the settings that use it, keys too, as lines for a shell."""
    server = find_s3_server(_folder())
    if server is None:
        raise StorageUnavailableError(_NONE)
    for name, value in {
        "ROOT": f"s3://{server.bucket}/{prefix}",
        "ENDPOINT": server.endpoint,
        "ACCESS_KEY": server.access_key,
        "SECRET_KEY": server.secret_key,
        "REGION": server.region,
    }.items():
        click.echo(f"export NEUROLAKE_STORAGE__{name}={shlex.quote(value)}")


@s3.command()
def stop() -> None:
    """Stop it; its data stays."""
    click.echo("stopped" if stop_s3_server(_folder()) else "no S3 server ran")


def _folder() -> Path:
    return CacheSettings.load().dir / "s3"
