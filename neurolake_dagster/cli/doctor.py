"""`neurolake doctor`: what is missing here, and what to do about it."""

import dataclasses
import json

import click
from rich.console import Console
from rich.text import Text

from neurolake_dagster.doctor import Finding, Status, diagnose
from neurolake_dagster.settings.env_file import EnvFile

MARKS: dict[Status, tuple[str, str]] = {
    "ok": ("ok", "green"),
    "warning": ("WARN", "yellow"),
    "failure": ("FAIL", "red"),
    "skipped": ("skip", "dim"),
}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
@click.pass_obj
def doctor(env_file: EnvFile | None, as_json: bool) -> None:
    """Check everything that assets, Spark and the store need; exits with 1 on a failure.

    Starts no Spark session; writes one small object below the storage root and deletes it.
    """
    findings = diagnose(env_file=env_file)
    failures = sum(finding.status == "failure" for finding in findings)
    if as_json:
        rows = [dataclasses.asdict(finding) for finding in findings]
        click.echo(json.dumps({"ok": not failures, "findings": rows}, indent=2))
    else:
        _print(findings, failures)
    if failures:
        raise SystemExit(1)


def _print(findings: list[Finding], failures: int) -> None:
    console = Console(highlight=False)
    width = max(len(finding.check) for finding in findings)
    for finding in findings:
        mark, style = MARKS[finding.status]
        line = Text(f"{mark:4}", style).append(f"  {finding.check:{width}}  ", "default")
        console.print(line.append(finding.found, "default"), soft_wrap=True)
        if finding.fix:
            indent = " " * (width + 8)
            console.print(Text(f"{indent}expected: {finding.expected}"), soft_wrap=True)
            console.print(Text(f"{indent}fix: {finding.fix}"), soft_wrap=True)
    warnings = sum(finding.status == "warning" for finding in findings)
    console.print(f"{len(findings)} checks: {failures} failures, {warnings} warnings")
