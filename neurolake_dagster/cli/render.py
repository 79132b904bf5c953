"""Descriptions and rows as text on a terminal."""

import base64
from collections import defaultdict
from collections.abc import Iterable

import pyarrow as pa
from rich.console import Console
from rich.table import Table
from rich.text import Text

from neurolake_dagster.cli.describe import Chunk, Description, is_pii, label
from neurolake_dagster.cli.formats import LABELS

_MAX_CELL = 40
# Out of range; a time zone that is not known here.
_NOT_IN_PYTHON = (ArithmeticError, LookupError, ValueError, OSError)


def print_description(description: Description, console: Console, *, all_groups: bool) -> None:
    """Print schema, then the columns' encodings, sizes and statistics, then the row groups."""
    rows = "unknown" if description.row_count is None else f"{description.row_count:,}"
    title = f"{LABELS[description.kind]} {description.version}"
    console.print(
        Text(f"{description.path}: {title}, {rows} rows, {size(description.file_bytes)}"),
        soft_wrap=True,
    )
    for key, value in description.properties.items():
        console.print(Text(f"  {key}: {cell(value)}"), soft_wrap=True)
    console.print(_schema_table(description.schema))
    if description.groups:
        console.print(_column_table(description))
        console.print(_group_table(description, all_groups=all_groups))


def print_rows(batches: Iterable[pa.RecordBatch], schema: pa.Schema, console: Console) -> None:
    """Print all rows of `batches` as one table: for the few rows of `head`."""
    table = Table(box=None, header_style="bold")
    for column in schema:
        numeric = pa.types.is_integer(column.type) or pa.types.is_floating(column.type)
        table.add_column(Text(column.name), justify="right" if numeric else "left")
    for batch in batches:
        columns = [python_values(array) for array in batch.columns]
        for row in zip(*columns, strict=True):
            table.add_row(*(Text(cell(value)) for value in row))
    console.print(table)


def python_values(array: pa.Array) -> list[object]:
    """Return an array's values; those that Python has not, such as the year 10,000, as text."""
    if array.type == pa.time64("ns"):
        # Python's times are cut to microseconds.
        array = array.cast(pa.string())
    try:
        return list(array.to_pylist())
    except _NOT_IN_PYTHON:
        return [_python_value(scalar) for scalar in array]


def _python_value(scalar: pa.Scalar) -> object:
    try:
        return scalar.as_py()
    except _NOT_IN_PYTHON:
        # Nested values have no number of their own.
        return f"{getattr(scalar, 'value', '?')} ({scalar.type})"


def size(count: float) -> str:
    """Word a number of bytes."""
    for unit in ("B", "KB", "MB"):
        if abs(count) < 1000:
            return f"{count:,.0f} {unit}" if unit == "B" else f"{count:,.2f} {unit}"
        count /= 1000
    return f"{count:,.2f} GB"


def cell(value: object) -> str:
    """Word a value for one cell: control characters escaped, cut where it is long."""
    if value is None:
        return ""
    if isinstance(value, bytes):
        value = f"0x{value[:_MAX_CELL].hex()}"
    text = printable(str(value)[: _MAX_CELL * 2])
    return text if len(text) <= _MAX_CELL else f"{text[: _MAX_CELL - 1]}…"


def printable(text: str) -> str:
    """Escape control characters."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def plain(value: object) -> object:
    """Return a value as JSON takes it: bytes as base64, other scalars as text."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if value - value == 0 else str(value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    return str(value)


def _schema_table(schema: pa.Schema) -> Table:
    table = Table("column", "type", title="Schema", title_justify="left", header_style="bold")
    labelled = any(column.metadata for column in schema)
    if labelled:
        for name in ("semantic", "PII", "description"):
            table.add_column(name)
    for column in schema:
        row = [column.name, f"{column.type}{'' if column.nullable else ' not null'}"]
        if labelled:
            row.append(label(column, "ncf.semantic") or "")
            row.append("yes" if is_pii(column) else "")
            row.append(label(column, "ncf.description") or "")
        table.add_row(*map(Text, row))
    return table


def _column_table(description: Description) -> Table:
    chunks: dict[str, list[Chunk]] = defaultdict(list)
    for group in description.groups:
        for chunk in group.chunks:
            chunks[chunk.column].append(chunk)
    total = sum(group.stored_bytes for group in description.groups) or 1
    table = Table(title="Columns", title_justify="left", header_style="bold")
    table.add_column("column")
    table.add_column("encodings")
    for name in ("bytes", "share", "nulls"):
        table.add_column(name, justify="right")
    table.add_column("min")
    table.add_column("max")
    for name, parts in chunks.items():
        stored = sum(part.stored_bytes for part in parts)
        share = f"{100 * stored / total:.1f} %"
        low, high = _bounds(parts)
        encodings = " | ".join(dict.fromkeys(_encoding(part) for part in parts))
        row = (name, encodings, f"{stored:,}", share, _nulls(parts), cell(low), cell(high))
        table.add_row(*map(Text, row))
    return table


def _encoding(chunk: Chunk) -> str:
    return f"{chunk.encoding} {chunk.compression}".strip()


def _nulls(chunks: list[Chunk]) -> str:
    counts = [chunk.null_count for chunk in chunks]
    return "" if None in counts else f"{sum(c for c in counts if c is not None):,}"


def _bounds(chunks: list[Chunk]) -> tuple[object, object]:
    lows = [chunk.low for chunk in chunks if chunk.low is not None]
    highs = [chunk.high for chunk in chunks if chunk.high is not None]
    try:
        return min(lows, default=None), max(highs, default=None)  # type: ignore[type-var]
    except TypeError:
        return None, None


def _group_table(description: Description, *, all_groups: bool) -> Table:
    table = Table(title="Row groups", title_justify="left", header_style="bold")
    for name in ("row group", "rows", "bytes"):
        table.add_column(name, justify="right")
    shown = description.groups if all_groups else description.groups[:10]
    for index, group in enumerate(shown):
        table.add_row(str(index), f"{group.row_count:,}", f"{group.stored_bytes:,}")
    if hidden := len(description.groups) - len(shown):
        rows = sum(group.row_count for group in description.groups[len(shown) :])
        table.add_row(f"{hidden} more", f"{rows:,}", "")
    return table
