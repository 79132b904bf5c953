"""`neurolake report`: the last materialization of each asset, as a table.

Owns how run metadata is read back from Dagster's instance and laid out on a terminal.
"""

import dataclasses
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import click
import dagster as dg
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from neurolake_dagster.cli.instance import open_instance

# How many events are read from the instance at a time.
PAGE_EVENTS = 1000


@dataclasses.dataclass(frozen=True, kw_only=True)
class AssetFacts:
    """What a materialization's metadata says; None is "not recorded".

    `size_ratio` is bytes by the source's bytes; `partition_count` is 0 for an asset without
    partitions, whose counts are then sums over its latest partitions.
    """

    asset: str
    row_count: int | None
    bytes: int | None
    seconds: float | None
    uri: str | None
    source: str | None
    size_ratio: float | None
    partition_count: int
    checks_passed: int = 0
    checks_failed: int = 0


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def report(as_json: bool) -> None:
    """Show each asset's last materialization: rows, bytes, seconds, size, checks, path."""
    with open_instance() as instance:
        facts = collect_facts(instance)
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(fact) for fact in facts], indent=2))
        return
    # A pipe has no width: a log is read on wide screens.
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 150)
    console.print(_table(facts))
    console.print(
        "Graph, lineage, checks and history: [bold]make ui[/], then http://localhost:3000"
    )


def collect_facts(instance: dg.DagsterInstance) -> list[AssetFacts]:
    """Read every asset's facts from an instance, ordered by the time they came in."""
    found = []
    for key in instance.get_asset_keys():
        latest = _latest_by_partition(instance, key)
        if latest:
            last = max(record.timestamp for record in latest)
            checks = _check_results(instance, key, {record.run_id for record in latest})
            found.append((last, _combined(latest, checks)))
    return [facts for _, facts in sorted(found, key=lambda pair: pair[0])]


def _latest_by_partition(
    instance: dg.DagsterInstance, key: dg.AssetKey
) -> Sequence[dg.EventLogRecord]:
    """The newest materialization of each partition, or of the asset as a whole."""
    latest: dict[str | None, dg.EventLogRecord] = {}
    cursor, has_more = None, True
    while has_more:
        page = instance.fetch_materializations(key, limit=PAGE_EVENTS, cursor=cursor)
        cursor, has_more = page.cursor, page.has_more
        for record in page.records:
            latest.setdefault(record.partition_key, record)
    return list(latest.values())


def _check_results(
    instance: dg.DagsterInstance, key: dg.AssetKey, run_ids: set[str]
) -> Mapping[str, bool]:
    """Name -> passed, of the asset's checks in these runs."""
    results = {}
    for run_id in run_ids:
        logs = instance.all_logs(run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION)
        for entry in logs:
            assert entry.dagster_event is not None
            check = entry.dagster_event.asset_check_evaluation_data
            if check.asset_key == key:
                results[check.check_name] = check.passed
    return results


def _combined(records: Sequence[dg.EventLogRecord], checks: Mapping[str, bool]) -> AssetFacts:
    """Add up the facts of an asset's partitions."""
    materializations = [record.asset_materialization for record in records]
    parts = [asset_facts(part) for part in materializations if part is not None]
    first = parts[0]
    return dataclasses.replace(
        first,
        row_count=_total([part.row_count for part in parts]),
        bytes=_total([part.bytes for part in parts]),
        seconds=max((part.seconds for part in parts if part.seconds is not None), default=None),
        partition_count=sum(part.partition_count for part in parts),
        checks_passed=sum(checks.values()),
        checks_failed=sum(not passed for passed in checks.values()),
    )


def _total(values: Sequence[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None


def asset_facts(materialization: dg.AssetMaterialization) -> AssetFacts:
    """The facts of one materialization, from its metadata."""
    metadata = {key: value.value for key, value in materialization.metadata.items()}
    is_partition = materialization.partition is not None
    rows = metadata.get("dagster/partition_row_count") if is_partition else None
    source = metadata.get("source")
    return AssetFacts(
        asset=materialization.asset_key.to_user_string(),
        row_count=_number(rows if rows is not None else metadata.get("dagster/row_count")),
        bytes=_number(metadata.get("bytes")),
        seconds=_fraction(metadata.get("seconds")),
        uri=str(metadata["dagster/uri"]) if "dagster/uri" in metadata else None,
        source=source.to_user_string() if isinstance(source, dg.AssetKey) else None,
        size_ratio=_fraction(metadata.get("size_ratio")),
        partition_count=int(is_partition),
    )


def _number(value: object) -> int | None:
    return value if isinstance(value, int) else None


def _fraction(value: object) -> float | None:
    return value if isinstance(value, float) else None


def human_bytes(count: int) -> str:
    """Bytes with a decimal unit: ``4.28 MB``."""
    size = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} B" if unit == "B" else f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"


def _table(facts: Sequence[AssetFacts]) -> Table:
    table = Table(title="Last materialization of each asset", title_justify="left", box=SIMPLE)
    for heading in ("asset", "rows", "size", "seconds"):
        table.add_column(heading, justify="left" if heading == "asset" else "right", no_wrap=True)
    for heading in ("of its source", "checks"):
        table.add_column(heading, no_wrap=True)
    table.add_column("path", overflow="fold")
    for fact in facts:
        table.add_row(*_cells(fact))
    return table


def _cells(fact: AssetFacts) -> list[str]:
    failed = f", [red]{fact.checks_failed} failed[/]" if fact.checks_failed else ""
    return [
        fact.asset + (f" ({fact.partition_count} partitions)" if fact.partition_count else ""),
        "" if fact.row_count is None else f"{fact.row_count:,}",
        "" if fact.bytes is None else human_bytes(fact.bytes),
        "" if fact.seconds is None else f"{fact.seconds:.2f}",
        "" if fact.size_ratio is None else f"{fact.size_ratio:.2f} of {_short_source(fact)}",
        f"{fact.checks_passed} passed{failed}" if fact.checks_passed or failed else "",
        _short_path(fact.uri) if fact.uri else "",
    ]


def _short_source(fact: AssetFacts) -> str:
    """The source's key, or only its format where the dataset's name is the same."""
    source = fact.source or ""
    form, _, dataset = source.partition("/")
    return form if fact.asset.partition("/")[2] == dataset else source


def _short_path(uri: str) -> str:
    """A local path below the working directory, relative to it; another address as it is."""
    path = Path(uri)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else uri
