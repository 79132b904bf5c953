"""`neurolake run`: start a job as CI does, with progress on the terminal.

Owns the progress display. The job itself is run by `dg launch` in a process of its own; this
one follows the run's events in Dagster's instance, so what it shows is what the UI shows.
"""

import itertools
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

import click
import dagster as dg
from rich.console import Console
from rich.markup import escape

from neurolake_dagster.cli.instance import instance_home, open_instance
from neurolake_dagster.cli.report import asset_facts, human_bytes
from neurolake_dagster.errors import NeuroLakeError

POLL_S = 0.3
FAILED = "  [red]✗[/]"
# How tracebacks name our errors, and anybody's.
OURS = "neurolake_dagster.errors."
ERROR = re.compile(r"[\w.]+(Error|Exception): ")
# Steps of the events that end a run's story on the terminal.
_SHOWN = {
    dg.DagsterEventType.ASSET_MATERIALIZATION,
    dg.DagsterEventType.ASSET_CHECK_EVALUATION,
    dg.DagsterEventType.STEP_FAILURE,
}


@click.command()
@click.argument("job")
@click.option("--partition", metavar="KEY", help="Run one partition.")
@click.option("--partition-range", metavar="FIRST...LAST", help="Run a range as a single run.")
def run(job: str, partition: str | None, partition_range: str | None) -> None:
    """Run JOB by `dg launch` and show its progress.

    Needs DAGSTER_HOME, which `make` sets. The full log is kept in $DAGSTER_HOME/logs.
    """
    home = instance_home()
    command = ["dg", "launch", "--job", job]
    for option, value in (("--partition", partition), ("--partition-range", partition_range)):
        command += [option, value] if value else []
    console = Console(highlight=False)
    started = datetime.now(UTC)
    log_path = home / "logs" / f"{job}-{started:%Y%m%d-%H%M%S}.log"
    log_path.parent.mkdir(parents=True, exist_ok=True)
    console.print(f"[bold]{job}[/]: {' '.join(command)}", soft_wrap=True)
    is_told = False
    with log_path.open("wb") as log, open_instance() as instance:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        try:
            for line in follow(instance, job, started, process):
                console.print(line, soft_wrap=True)
                is_told |= line.startswith(FAILED)
        finally:
            if process.poll() is None:
                process.terminate()
            process.wait()
    seconds = (datetime.now(UTC) - started).total_seconds()
    if process.returncode:
        reason = "" if is_told else f": {reason_in(log_path.read_text(errors='replace'))}"
        raise NeuroLakeError(
            f"{job}: failed after {seconds:.0f} s{reason}; the whole log: {log_path}"
        )
    console.print(f"[bold]{job}[/]: done in {seconds:.0f} s")


def follow(
    instance: dg.DagsterInstance, job: str, since: datetime, process: "subprocess.Popen[bytes]"
) -> Iterator[str]:
    """Yield one line of Rich markup per event worth seeing, until the process ends."""
    run_id, cursor = None, None
    while True:
        is_over = process.poll() is not None
        if run_id is None:
            filters = dg.RunsFilter(job_name=job, created_after=since)
            runs = instance.get_runs(filters, limit=1)
            run_id = runs[0].run_id if runs else None
        if run_id is not None:
            page = instance.get_records_for_run(run_id, cursor=cursor, of_type=_SHOWN)
            cursor = page.cursor
            events = [record.event_log_entry.dagster_event for record in page.records]
            yield from event_lines([event for event in events if event is not None])
        if is_over:
            return
        sys.stdout.flush()
        time.sleep(POLL_S)


def reason_in(log: str) -> str:
    """Why a command failed, by its log: the last error of ours, of others, or the last line."""
    lines = [line.strip() for line in log.splitlines() if line.strip() and line[0] != " "]
    ours = [line for line in lines if line.startswith(OURS)]
    errors = [line for line in lines if ERROR.match(line)]
    found = (ours or errors or lines or ["its log is empty"])[-1]
    return found.removeprefix(OURS).removeprefix("Error: ")


def event_lines(events: Sequence[dg.DagsterEvent]) -> Iterator[str]:
    """Events as lines of Rich markup; an asset's passed checks share one."""
    for asset, group in itertools.groupby(events, key=_checked_asset):
        if asset is None:
            yield from (_line(event) for event in group)
            continue
        checks = [event.asset_check_evaluation_data for event in group]
        passed = [check.check_name for check in checks if check.passed]
        if passed:
            yield f"  [green]=[/] [dim]{asset}: {', '.join(passed)}[/]"
        for check in checks:
            if not check.passed:
                text = escape(f"{asset}: {check.check_name}: {check.description}")
                yield f"  [red]≠[/] {text}"


def _checked_asset(event: dg.DagsterEvent) -> str | None:
    """The asset that a check's event is about; None for other events."""
    if event.event_type != dg.DagsterEventType.ASSET_CHECK_EVALUATION:
        return None
    return event.asset_check_evaluation_data.asset_key.to_user_string()


def _line(event: dg.DagsterEvent) -> str:
    """A materialization or a failed step."""
    if event.event_type == dg.DagsterEventType.ASSET_MATERIALIZATION:
        materialization = event.step_materialization_data.materialization
        facts = asset_facts(materialization)
        partition = f" [dim]{materialization.partition}[/]" if materialization.partition else ""
        rows = "" if facts.row_count is None else f"{facts.row_count:,} rows"
        size = "" if facts.bytes is None else human_bytes(facts.bytes)
        seconds = "" if facts.seconds is None else f"{facts.seconds:.2f} s"
        return f"  [green]✓[/] {facts.asset:<26}{rows:>14} {size:>10} {seconds:>9}{partition}"
    error = event.step_failure_data.error
    while error is not None and not error.message.startswith(OURS) and error.cause is not None:
        error = error.cause
    message = error.message.strip() if error is not None else "no message"
    if message.startswith(OURS):
        message = message.removeprefix(OURS).splitlines()[0]
    return f"{FAILED} {event.step_key}: {escape(message)}"
