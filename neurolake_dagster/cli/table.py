"""`neurolake table`: finding tables below the storage's root, and looking after them."""

import json
import sys
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Literal

import click
from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from neurolake_dagster import tables
from neurolake_dagster.cli.render import cell, plain, printable, size
from neurolake_dagster.resources import StorageResource
from neurolake_dagster.tables.delta import DeltaDataset

# What other commands take must be whole.
_NAMES = ("path", "run")
_PIPE_WIDTH = 10_000
# A century: longer ones are slips.
RETENTION_HOURS = 876_000

_PATH = click.argument("path")
_JSON = click.option("--json", "as_text", is_flag=True, help="Print JSON.")


@click.group()
def table() -> None:
    """Find tables (NCF, Parquet, Delta) and look after them.

    PATH is a table's folder below NEUROLAKE_STORAGE__ROOT, for example ncf/flights.
    """


@table.command("list")
@click.argument("words", nargs=-1)
@_JSON
def list_(words: Sequence[str], as_text: bool) -> None:
    """Show the tables in which every one of WORDS occurs; all for none.

    Looked for in paths, column names, descriptions and properties, in any case.
    """
    found = tables.search_tables(StorageResource().storage(), " ".join(words))
    rows: list[dict[str, Any]] = [
        {
            "path": one.path,
            "format": one.format,
            "version": one.version,
            "rows": one.row_count,
            "bytes": one.bytes,
            "found in": ", ".join(one.matches),
            **({"problem": one.problem} if one.problem and as_text else {}),
        }
        for one in found
    ]
    _show(rows, as_text)
    for one in found:
        if one.problem and not as_text:
            click.echo(f"{one.path}: {one.problem}", err=True)


@table.command()
@_PATH
@click.option("-n", "--limit", type=click.IntRange(min=1), default=20, show_default=True)
@_JSON
def history(path: str, limit: int, as_text: bool) -> None:
    """Show a table's commits, newest first."""
    found = _find(path)
    if isinstance(found, tables.Table):
        rows = [
            {
                "version": entry.version,
                "at": entry.timestamp.isoformat(" ", "seconds"),
                "operation": entry.operation,
                "files added": len(entry.added),
                "files removed": len(entry.removed),
                "run": entry.info.get("dagster/run_id", ""),
            }
            for entry in found.history(limit)
        ]
    else:
        rows = found.history(limit)
    _show(rows, as_text)


@table.command()
@_PATH
@click.option("--sort-by", metavar="A,B,...", help="Cluster each partition by these columns.")
def optimize(path: str, sort_by: str | None) -> None:
    """Rewrite small files into few; former versions stay readable where the format keeps them."""
    found, columns = _find(path), sort_by.split(",") if sort_by else []
    if isinstance(found, tables.Table):
        commit = tables.optimize(found, sort_by=columns)
        before, after = len(commit.files_removed), len(commit.files_added)
        version = commit.version
    else:
        before, after, version = found.optimize(columns)
    click.echo(f"{found.uri}: {before} files into {after}, version {version}")


@table.command()
@_PATH
@click.option(
    "--retention-hours",
    type=click.FloatRange(min=0, max=RETENTION_HOURS),
    default=tables.RETENTION / timedelta(hours=1),
    show_default=True,
    help="Versions of that time stay readable; the history of 30 days stays, too.",
)
@click.option("--delete", is_flag=True, help="Delete; without it the files are only listed.")
@_JSON
def vacuum(path: str, retention_hours: float, delete: bool, as_text: bool) -> None:
    """List or delete the files that no kept version needs."""
    found, retention = _find(path), timedelta(hours=retention_hours)
    if isinstance(found, tables.Table):
        report = tables.vacuum(found, retention=retention, dry_run=not delete)
        paths, freed = report.paths, f", {size(report.bytes)}"
    else:
        paths, freed = found.vacuum(retention, dry_run=not delete), ""
    if as_text:
        click.echo(json.dumps({"deleted": delete, "paths": list(paths)}, indent=2))
        return
    for one in paths:
        click.echo(one)
    verb = "deleted" if delete else "to be deleted with --delete"
    click.echo(f"{found.uri}: {len(paths)} files{freed} {verb}")


@table.command()
@_PATH
@click.argument("version", type=click.IntRange(min=0))
def restore(path: str, version: int) -> None:
    """Make a former VERSION the newest again, as a commit of its own."""
    found = _find(path)
    if isinstance(found, tables.Table):
        now = tables.restore(found, version).version
    else:
        now = found.restore(version)
    click.echo(f"{found.uri}: version {version} is back as version {now}")


def _find(path: str) -> tables.Table | DeltaDataset:
    return tables.find_table(StorageResource().storage(), path.strip("/"))


def _show(rows: Sequence[dict[str, Any]], as_text: bool) -> None:
    if as_text:
        click.echo(json.dumps(plain(rows), indent=2))
        return
    if not rows:
        click.echo("none")
        return
    grid = Grid(box=None, header_style="bold")
    for name, value in rows[0].items():
        is_name = name in _NAMES
        overflow: Literal["fold", "ellipsis"] = "fold" if is_name else "ellipsis"
        grid.add_column(
            name, justify="right" if isinstance(value, int) else "left", overflow=overflow
        )
    for row in rows:
        grid.add_row(*(Text(_worded(name, value)) for name, value in row.items()))
    # A pipe has no width: each row stays on one line.
    Console(highlight=False, width=None if sys.stdout.isatty() else _PIPE_WIDTH).print(grid)


def _worded(name: str, value: Any) -> str:
    if name in _NAMES:
        return printable(value)
    return size(value) if name == "bytes" and value is not None else cell(value)
