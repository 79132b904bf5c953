"""`neurolake spark`: the warm Spark server of this machine."""

import click

from neurolake_dagster.settings import SparkSettings, StorageSettings
from neurolake_dagster.spark.server import (
    IDLE_TIMEOUT_S,
    find_server,
    server_service,
    shortened,
    start_server,
    stop_server,
)


@click.group()
def spark() -> None:
    """Start, show and stop a Spark server that several processes share.

    Sessions use it with NEUROLAKE_SPARK__REMOTE=auto, or SparkResource(remote="auto").
    """


@spark.command()
@click.option(
    "--idle-timeout", default=IDLE_TIMEOUT_S, show_default=True, help="Seconds without a client."
)
def start(idle_timeout: int) -> None:
    """Start it with the environment's settings; does nothing where it runs."""
    server = start_server(SparkSettings.load(), StorageSettings.load(), idle_timeout_s=idle_timeout)
    service = server_service()
    click.echo(
        f"Spark server on 127.0.0.1:{server.port}, process {service.pid()}, log {service.log_path}"
    )


@spark.command()
def status() -> None:
    """Show whether it runs, and whether it fits the settings; exits with 1 if not."""
    server, service = find_server(), server_service()
    if server is None:
        click.echo(f"no Spark server (log of the last one: {service.log_path})")
        raise SystemExit(1)
    other = server.differences(SparkSettings.load(), StorageSettings.load())
    click.echo(
        f"Spark server on 127.0.0.1:{server.port}, process {service.pid()}, "
        f"{'OTHER' if other else 'the same'} settings, log {service.log_path}"
    )
    if other:
        click.echo(f"other values of {shortened(other)}")
        raise SystemExit(1)


@spark.command()
def stop() -> None:
    """Stop it."""
    click.echo("stopped" if stop_server() else "no Spark server ran")
