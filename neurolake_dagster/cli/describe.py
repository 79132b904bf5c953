"""What a file says of itself, in one shape for all formats: the data behind `inspect`."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from neurolake_dagster import ncf
from neurolake_dagster.cli.csv_text import open_csv, read_types
from neurolake_dagster.cli.formats import (
    Format,
    detect_format,
    open_arrow,
    open_parquet,
    translated,
)
from neurolake_dagster.ncf.arrow import memory_size


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """One column of one row group. Sizes in bytes; None is what the format does not say."""

    column: str
    encoding: str
    compression: str
    stored_bytes: int
    raw_bytes: int | None = None
    null_count: int | None = None
    low: object = None
    high: object = None


@dataclass(frozen=True, kw_only=True)
class Group:
    """One row group (Arrow: record batch)."""

    row_count: int
    stored_bytes: int
    chunks: tuple[Chunk, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Description:
    """One file."""

    path: Path
    kind: Format
    version: str
    file_bytes: int
    row_count: int | None
    schema: pa.Schema
    groups: tuple[Group, ...] = ()
    properties: dict[str, object] = field(default_factory=dict)


def describe(path: Path) -> Description:
    """Read a file's metadata; of CSV the first block, of the others no values."""
    kind = detect_format(path)
    reader = {"ncf": _ncf, "parquet": _parquet, "arrow": _arrow, "csv": _csv}[kind]
    with translated(path):
        description = reader(path)
        _ = description.schema.names  # decodes them: names that are not UTF-8 fail here
        return description


def as_json(description: Description) -> dict[str, object]:
    """Return the description as plain values, with one entry per column."""
    return {
        "path": str(description.path),
        "format": description.kind,
        "version": description.version,
        "bytes": description.file_bytes,
        "rows": description.row_count,
        "properties": description.properties,
        "columns": [
            {
                "name": column.name,
                "type": str(column.type),
                "nullable": column.nullable,
                "semantic": label(column, "ncf.semantic"),
                "pii": is_pii(column),
                "description": label(column, "ncf.description"),
            }
            for column in description.schema
        ],
        "row_groups": [
            {
                "rows": group.row_count,
                "bytes": group.stored_bytes,
                "columns": [vars(chunk) for chunk in group.chunks],
            }
            for group in description.groups
        ],
    }


def label(column: pa.Field, key: str) -> str | None:
    """Return one text of a field's metadata."""
    value = (column.metadata or {}).get(key.encode())
    return None if value is None else value.decode("utf-8", "replace")


def is_pii(column: pa.Field) -> bool:
    """Tell whether the field is flagged as personal."""
    return (label(column, "ncf.pii") or "").lower() in ("true", "1")


def _parquet(path: Path) -> Description:
    with open_parquet(path) as file:
        metadata = file.metadata
        return Description(
            path=path,
            kind="parquet",
            version=metadata.format_version,
            file_bytes=path.stat().st_size,
            row_count=metadata.num_rows,
            schema=file.schema_arrow,
            groups=tuple(
                _parquet_group(metadata.row_group(index))
                for index in range(metadata.num_row_groups)
            ),
            properties={"created_by": metadata.created_by},
        )


def _parquet_group(group: Any) -> Group:
    chunks = tuple(_parquet_chunk(group.column(index)) for index in range(group.num_columns))
    stored = sum(chunk.stored_bytes for chunk in chunks)
    return Group(row_count=group.num_rows, stored_bytes=stored, chunks=chunks)


def _parquet_chunk(chunk: Any) -> Chunk:
    statistics = chunk.statistics
    bounded = statistics is not None and statistics.has_min_max
    counted = statistics is not None and statistics.has_null_count
    return Chunk(
        column=chunk.path_in_schema,
        encoding=" ".join(sorted(set(chunk.encodings))),
        compression=chunk.compression.lower(),
        stored_bytes=chunk.total_compressed_size,
        raw_bytes=chunk.total_uncompressed_size,
        null_count=statistics.null_count if counted else None,
        low=statistics.min if bounded else None,
        high=statistics.max if bounded else None,
    )


def _arrow(path: Path) -> Description:
    with open_arrow(path) as (version, schema, batches):
        groups = tuple(_arrow_group(batch) for batch in batches)
    return Description(
        path=path,
        kind="arrow",
        version=version,
        file_bytes=path.stat().st_size,
        row_count=sum(group.row_count for group in groups),
        schema=schema,
        groups=groups,
    )


def _arrow_group(batch: pa.RecordBatch) -> Group:
    pairs: Iterable[tuple[str, Any]] = zip(batch.schema.names, batch.columns, strict=True)
    chunks = tuple(
        Chunk(
            column=name,
            encoding="plain",
            compression="",
            stored_bytes=memory_size(array),
            null_count=array.null_count,
        )
        for name, array in pairs
    )
    size = sum(chunk.stored_bytes for chunk in chunks)
    return Group(row_count=batch.num_rows, stored_bytes=size, chunks=chunks)


def _csv(path: Path) -> Description:
    with open_csv(path, read_types(path, row_limit=1)) as file:
        return Description(
            path=path,
            kind="csv",
            version="text",
            file_bytes=path.stat().st_size,
            row_count=None,
            schema=file.schema,
        )


def _ncf(path: Path) -> Description:
    metadata = ncf.read_metadata(path)
    properties: dict[str, object] = {"created_by": metadata.created_by}
    if metadata.sorting_columns:
        properties["sorted_by"] = ", ".join(name for name, *_ in metadata.sorting_columns)
    return Description(
        path=path,
        kind="ncf",
        version=metadata.format_version,
        file_bytes=metadata.file_bytes,
        row_count=metadata.num_rows,
        schema=metadata.schema,
        groups=tuple(_ncf_group(group) for group in metadata.row_groups),
        properties=properties | metadata.key_value,
    )


def _ncf_group(group: ncf.RowGroupMetadata) -> Group:
    return Group(
        row_count=group.num_rows,
        stored_bytes=group.compressed_bytes,
        chunks=tuple(
            Chunk(
                column=column.name,
                encoding=" ".join(column.encodings),
                compression="",
                stored_bytes=column.compressed_bytes,
                raw_bytes=column.raw_bytes,
                null_count=column.statistics.null_count,
                low=column.statistics.min,
                high=column.statistics.max,
            )
            for column in group.columns
        ),
    )
