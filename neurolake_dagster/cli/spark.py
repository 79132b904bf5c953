"""`neurolake spark`: the warm Spark server of this machine, and what a session runs with."""

import dataclasses
import json
from typing import get_args

import click

from neurolake_dagster.settings import SparkSettings, StorageSettings
from neurolake_dagster.settings.profiles import Profile
from neurolake_dagster.spark import effective as compare, get_session
from neurolake_dagster.spark.effective import as_table, planned
from neurolake_dagster.spark.server import (
    IDLE_TIMEOUT_S,
    Server,
    find_server,
    server_service,
    shortened,
    start_server,
    stop_server,
)


@click.group()
def spark() -> None:
    """Start, show and stop a Spark server that several processes share; show a session's options.

    Sessions use the server with NEUROLAKE_SPARK__REMOTE=auto, or SparkResource(remote="auto").
    """


@spark.command()
@click.option(
    "--idle-timeout",
    type=click.IntRange(min=1),
    default=IDLE_TIMEOUT_S,
    show_default=True,
    help="Seconds without a client.",
)
def start(idle_timeout: int) -> None:
    """Start it with the environment's settings; does nothing where it runs."""
    server = start_server(SparkSettings.load(), StorageSettings.load(), idle_timeout_s=idle_timeout)
    click.echo(_told(find_server() or server))


@spark.command()
def status() -> None:
    """Show whether it runs, and whether it fits the settings; exits with 1 if not."""
    server, service = find_server(), server_service()
    if server is None:
        click.echo(f"no Spark server (log of the last one: {service.log_path})")
        raise SystemExit(1)
    other = server.differences(SparkSettings.load(), StorageSettings.load())
    click.echo(_told(server, f"{'OTHER' if other else 'the same'} settings"))
    if other:
        click.echo(f"other values of {shortened(other)}")
        raise SystemExit(1)


@spark.command()
def stop() -> None:
    """Stop it."""
    click.echo("stopped" if stop_server() else "no Spark server ran")


@spark.command()
@click.option(
    "--profile", type=click.Choice(get_args(Profile)), help="Instead of the environment's."
)
@click.option("--planned", "is_planned", is_flag=True, help="Start no session: show its plan.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def effective(profile: str | None, is_planned: bool, as_json: bool) -> None:
    """Show every option: what is asked, where that comes from, and what a session runs with.

    Starts a session with the environment's settings, or uses the warm server where
    NEUROLAKE_SPARK__REMOTE says so.
    """
    chosen = {} if profile is None else {"profile": profile}
    settings, storage = SparkSettings.load(**chosen), StorageSettings.load()
    if is_planned:
        rows = planned(settings, storage)
    else:
        rows = compare(get_session(settings, storage), settings, storage)
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(row) for row in rows], indent=2))
    else:
        click.echo(as_table(rows))


def _told(server: Server, also: str = "") -> str:
    """A running server in one line."""
    service = server_service()
    facts = [
        f"Spark server on 127.0.0.1:{server.port}",
        f"process {service.pid()}",
        *([also] if also else []),
        *([f"UI {server.ui_url}"] if server.ui_url else []),
        f"log {service.log_path}",
    ]
    return ", ".join(facts)
