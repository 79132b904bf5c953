"""The file tools: `neurolake inspect`, `verify`, `head`, `cat` and `convert`."""

import csv
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import click
import pyarrow as pa
import pyarrow.csv as pa_csv
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from neurolake_dagster.cli.describe import as_json, describe
from neurolake_dagster.cli.formats import (
    LABELS,
    SUFFIXES,
    Format,
    RowWriter,
    check_options,
    detect_format,
    open_rows,
    translated,
)
from neurolake_dagster.cli.render import (
    plain,
    print_description,
    print_rows,
    python_values,
    size,
)
from neurolake_dagster.ncf import NCFFile

_C = TypeVar("_C", bound=Callable[..., Any])
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_TARGETS = sorted({kind for kind in SUFFIXES.values() if kind != "csv"})


def _columns_option(command: _C) -> _C:
    return click.option(
        "-c",
        "--columns",
        metavar="A,B,...",
        callback=lambda _, __, value: None if value is None else next(csv.reader([value])),
        help="Only these columns, in this order; a name with a comma in double quotes.",
    )(command)


@click.command()
@click.argument("file", type=_FILE)
@click.option("--json", "as_text", is_flag=True, help="One JSON object, with every row group.")
@click.option("--row-groups", is_flag=True, help="List every row group, not the first ten.")
def inspect(file: Path, as_text: bool, row_groups: bool) -> None:
    """Show schema, labels, row groups, encodings, sizes and statistics of FILE.

    NCF, Parquet, Arrow IPC or CSV. Reads metadata only: no column is decoded.

    Exit code 0: shown. 1: damaged or another format. 2: wrong usage.
    """
    description = describe(file)
    if as_text:
        click.echo(json.dumps(plain(as_json(description)), indent=2))
        return
    print_description(description, _console(), all_groups=row_groups)


@click.command()
@click.argument("files", type=_FILE, nargs=-1, required=True)
@click.option("--json", "as_text", is_flag=True, help="One JSON object per file and line.")
def verify(files: tuple[Path, ...], as_text: bool) -> None:
    """Read every byte of FILES, check every checksum and every value.

    NCF: checksums, structure, and that the statistics hold. Parquet: page checksums where they
    were written. Arrow IPC and CSV: that all of it reads.

    Exit code 0: all sound. 1: at least one is damaged; all are checked. 2: wrong usage.
    """
    damaged = 0
    for file in files:
        started = time.perf_counter()
        fault = _fault(file)
        seconds = round(time.perf_counter() - started, 3)
        damaged += fault is not None
        if as_text:
            found = {"path": str(file), "ok": fault is None, "seconds": seconds, "error": fault}
            click.echo(json.dumps(found))
        else:
            click.echo(fault or f"{file}: sound, {seconds} s", err=fault is not None)
    sys.exit(1 if damaged else 0)


def _fault(file: Path) -> str | None:
    from neurolake_dagster.errors import NeuroLakeError

    try:
        if detect_format(file) == "ncf":
            with _progress("bytes") as bar, translated(file), NCFFile(file) as opened:
                task = bar.add_task(file.name, total=None)
                opened.verify(lambda done, total: bar.update(task, completed=done, total=total))
            return None
        total = describe(file).row_count
        with _progress("rows") as bar, open_rows(file) as (_, batches):
            task = bar.add_task(file.name, total=total)
            for batch in batches:
                batch.validate(full=True)
                bar.advance(task, batch.num_rows)
    except (NeuroLakeError, click.ClickException) as exc:
        return str(exc)
    return None


@click.command()
@click.argument("file", type=_FILE)
@click.option("-n", "--rows", type=click.IntRange(min=0), default=10, show_default=True)
@_columns_option
@click.option("--json", "as_text", is_flag=True, help="One JSON object per row and line.")
def head(file: Path, rows: int, columns: list[str] | None, as_text: bool) -> None:
    """Print the first rows of FILE: NCF, Parquet, Arrow IPC or CSV.

    Exit code 0: printed. 1: damaged, another format, or no such column. 2: wrong usage.
    """
    with open_rows(file, columns, rows) as (schema, batches):
        first = _first(batches, rows)
        if as_text:
            _refuse_double_names(file, schema)
            _print_json_lines(first)
        else:
            print_rows(list(first), schema, _console())


@click.command()
@click.argument("file", type=_FILE)
@_columns_option
@click.option("--json", "as_text", is_flag=True, help="One JSON object per row and line, not CSV.")
def cat(file: Path, columns: list[str] | None, as_text: bool) -> None:
    """Print all rows of FILE as CSV: NCF, Parquet, Arrow IPC or CSV.

    Streams: any size in bounded memory.

    Exit code 0: printed. 1: damaged, another format, or no such column. 2: wrong usage.
    """
    with open_rows(file, columns) as (schema, batches):
        if as_text:
            _refuse_double_names(file, schema)
            _print_json_lines(batches)
            return
        with translated(file), pa_csv.CSVWriter(sys.stdout.buffer, _csv_schema(schema)) as writer:
            for batch in batches:
                writer.write_batch(_as_csv(batch))


@click.command()
@click.argument("source", type=_FILE)
@click.argument("target", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--to", "kind", type=click.Choice(_TARGETS), help="Instead of TARGET's suffix.")
@_columns_option
@click.option("--compression", help="NCF: zstd, none, and profiles fast, archive. Others: a codec.")
@click.option("--level", type=int, help="Compression level.")
@click.option("--overwrite", is_flag=True, help="Replace TARGET if it is there.")
@click.option("--json", "as_text", is_flag=True, help="Report as one JSON object.")
def convert(
    source: Path,
    target: Path,
    kind: Format | None,
    columns: list[str] | None,
    compression: str | None,
    level: int | None,
    overwrite: bool,
    as_text: bool,
) -> None:
    """Write SOURCE anew as TARGET, in the format of TARGET's suffix.

    SOURCE: NCF, Parquet, Arrow IPC or CSV, whose numbers with zeros in front (007) and whole
    numbers too long for a number stay text. TARGET: .ncf, .parquet, .arrow. Streams in bounded
    memory; TARGET appears when it is complete, and keeps what it held until then. Into a pipe
    (/dev/stdout --overwrite --to ncf) the report goes to stderr.

    Exit code 0: written. 1: SOURCE is damaged, or TARGET cannot be written. 2: wrong usage.
    """
    chosen = kind or SUFFIXES.get(target.suffix.lower())
    if chosen is None or chosen == "csv":
        raise click.UsageError(f"{target}: name it {', '.join(_suffixes())}, or say --to")
    if target.exists() and not overwrite:
        raise click.UsageError(f"{target}: there already; say --overwrite to replace it")
    options = {"compression": compression, "compression_level": level}
    options = {key: value for key, value in options.items() if value is not None}
    check_options(chosen, options)
    started = time.perf_counter()
    source_bytes = source.stat().st_size
    row_count = _copy(source, target, chosen, columns, options)
    seconds = round(time.perf_counter() - started, 3)
    target_bytes = target.stat().st_size if target.is_file() else None
    report = {
        "source": str(source),
        "target": str(target),
        "rows": row_count,
        "source_bytes": source_bytes,
        "target_bytes": target_bytes,
        "seconds": seconds,
    }
    told = ""
    if target_bytes is not None:
        told = f"{size(target_bytes)} ({target_bytes / max(1, source_bytes):.2f} of the source), "
    line = f"{target}: {row_count:,} rows, {LABELS[chosen]}, {told}{seconds} s"
    # Behind the rows in a pipe it would be taken for them.
    click.echo(json.dumps(report) if as_text else line, err=target_bytes is None)


def _copy(
    source: Path, target: Path, kind: Format, columns: list[str] | None, options: dict[str, Any]
) -> int:
    total, row_count = describe(source).row_count, 0
    with _progress("rows") as progress, open_rows(source, columns) as (schema, batches):
        task = progress.add_task(target.name, total=total)
        with translated(target, write=True), RowWriter(target, kind, schema, options) as writer:
            for batch in batches:
                writer.write(batch)
                row_count += batch.num_rows
                progress.update(task, completed=row_count)
    return row_count


def _progress(unit: str) -> Progress:
    """Make a bar on stderr that only a terminal shows, and that goes away at the end."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=not sys.stderr.isatty(),
    )


def _first(batches: Iterator[pa.RecordBatch], rows: int) -> Iterator[pa.RecordBatch]:
    while rows > 0 and (batch := next(batches, None)) is not None:
        yield batch.slice(0, rows)
        rows -= min(rows, batch.num_rows)


def _refuse_double_names(file: Path, schema: pa.Schema) -> None:
    if twice := sorted({name for name in schema.names if schema.names.count(name) > 1}):
        raise click.ClickException(
            f"{file}: columns {twice} are there more than once, and a JSON object holds a name "
            "once; leave --json out, or choose other columns by -c"
        )


def _print_json_lines(batches: Any) -> None:
    for batch in batches:
        for start in range(0, batch.num_rows, 1024):
            columns = map(python_values, batch.slice(start, 1024).columns)
            for values in zip(*columns, strict=True):
                row = dict(zip(batch.schema.names, values, strict=True))
                click.echo(json.dumps(plain(row), ensure_ascii=False))


def _csv_schema(schema: pa.Schema) -> pa.Schema:
    return pa.schema([(f.name, f.type if _in_csv(f.type) else pa.string()) for f in schema])


def _in_csv(kind: pa.DataType) -> bool:
    """Tell whether Arrow's CSV writer knows the type; bytes it would write raw."""
    types = pa.types
    return bool(
        types.is_boolean(kind)
        or types.is_integer(kind)
        or types.is_floating(kind)
        or types.is_string(kind)
        or types.is_large_string(kind)
        or types.is_decimal128(kind)
        or types.is_date(kind)
        or types.is_time(kind)
        or (types.is_timestamp(kind) and kind.tz is None)
        or types.is_null(kind)
    )


def _as_csv(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Word nested and binary values as JSON text: CSV has no types for them."""
    columns = [
        array if _in_csv(array.type) else pa.array(map(_as_text, python_values(array)), pa.string())
        for array in batch.columns
    ]
    return pa.RecordBatch.from_arrays(columns, schema=_csv_schema(batch.schema))


def _as_text(value: object) -> str | None:
    value = plain(value)
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False)


def _console() -> Console:
    """Make a console as wide as the text needs where the output is no terminal."""
    return Console(width=None if sys.stdout.isatty() else 240)


def _suffixes() -> list[str]:
    return [suffix for suffix, kind in SUFFIXES.items() if kind != "csv"]
