"""The `neurolake` command: owns the group, the list of commands and the exit codes.

Each command lives in a module beside this one and is imported only when it runs, so that
`neurolake inspect` pays for neither Dagster nor Spark. To add one: write a click command in
`cli/<room>.py` and add one line to `COMMANDS`.

Exit codes: 0 done; 1 a failure of ours, one line on stderr; 2 wrong usage; further codes only
where a command's own help says so.

Settings come from the environment and, weaker, from `.env` of the working directory.
"""

import errno
import importlib
import io
import sys
from pathlib import Path
from typing import NamedTuple

import click

from neurolake_dagster import __version__
from neurolake_dagster.errors import NeuroLakeError

__all__ = ["COMMANDS", "LazyCommand", "main"]


class LazyCommand(NamedTuple):
    """Where a command lies, and its line in the list of commands."""

    target: str
    summary: str


COMMANDS: dict[str, LazyCommand] = {
    "inspect": LazyCommand("neurolake_dagster.cli.files:inspect", "Show what a file holds."),
    "verify": LazyCommand("neurolake_dagster.cli.files:verify", "Check every byte of a file."),
    "head": LazyCommand("neurolake_dagster.cli.files:head", "Print the first rows of a file."),
    "cat": LazyCommand("neurolake_dagster.cli.files:cat", "Print all rows of a file."),
    "convert": LazyCommand("neurolake_dagster.cli.files:convert", "Write a file anew as another."),
    "run": LazyCommand("neurolake_dagster.cli.run:run", "Run a job and show its progress."),
    "doctor": LazyCommand("neurolake_dagster.cli.doctor:doctor", "Find what is missing here."),
    "jars": LazyCommand("neurolake_dagster.cli.jars:jars", "Bring the jars that Spark needs."),
    "s3": LazyCommand("neurolake_dagster.cli.s3:s3", "Keep an S3 server for development."),
    "spark": LazyCommand("neurolake_dagster.cli.spark:spark", "Keep a warm Spark server."),
    "table": LazyCommand("neurolake_dagster.cli.table:table", "Find tables, look after them."),
    "report": LazyCommand("neurolake_dagster.cli.report:report", "Show what each asset holds."),
}


class _LazyGroup(click.Group):
    """Imports a command's module when the command is asked for, and words our own errors."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name].target.partition(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands from the table above: the list must import none of them."""
        rows = [(name, COMMANDS[name].summary) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except NeuroLakeError as error:
            raise click.ClickException(error.whole()) from error
        except OSError as error:
            if error.errno == errno.EPIPE:
                raise  # whoever read our output has enough of it: click ends quietly
            raise click.ClickException(str(error)) from error


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="neurolake")
@click.pass_context
def main(ctx: click.Context) -> None:
    """Lakehouse tables as Parquet, Delta and NCF.

    Reads .env of the working directory, as Dagster does; what is exported is stronger.

    Exit code 0: done. 1: failed, one line says why. 2: wrong usage.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal may not know every character of the data.
            stream.reconfigure(errors="backslashreplace")
    env_file = Path(".env").absolute()
    if env_file.is_file():
        # Not at the top: the file tools do without settings.
        from neurolake_dagster.settings.env_file import load_env_file

        ctx.obj = load_env_file(env_file)
