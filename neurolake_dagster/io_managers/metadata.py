"""Arrow facts as Dagster metadata: the only place where the one becomes the other.

Owns the keys on every materialization. Dagster's own keys are used where they exist; beside
them stand ``bytes``, ``seconds``, ``files``, ``version``, ``content_digest``, ``preview``,
``statistics``, ``column_lineage``. Where files hold rows of several partitions (Delta tables that
are partitioned on disk by other columns), ``bytes`` of a partition is its rows' share of them, and
``bytes_told`` says so; ``preview_told`` and ``statistics_told`` say which rows those are of, where
not its own.
Takes plain values, never a context, so that assets without an IO manager use it too.
"""

import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import dagster as dg
import pyarrow as pa

from neurolake_dagster.io_managers.privacy import hidden_columns, is_pii
from neurolake_dagster.spark import SparkWork
from neurolake_dagster.tables.statistics import ColumnStatistics

CONTENT_DIGEST = "content_digest"
PREVIEW_ROWS = 5
PREVIEW_TEXT = 80
SHOWN_PARTITIONS = 20
# Of wide tables: a text of each cell of all columns would be megabytes on each materialization.
SHOWN_COLUMNS = 100
DESCRIPTION_KEYS = (b"ncf.description", b"description", b"comment")
SEMANTIC_KEY = b"ncf.semantic"
TAG_VALUE = re.compile(r"[A-Za-z0-9_.-]{1,63}")  # what Dagster takes as a tag

Metadata = dict[str, dg.MetadataValue[Any]]


def table_metadata(
    *,
    uri: str,
    schema: pa.Schema,
    row_count: int | None = None,
    partition_row_count: int | None = None,
    bytes: int | None = None,  # noqa: A002 - the metadata's own name
    seconds: float | None = None,
    files: int | None = None,
    version: int | None = None,
    table_name: str | None = None,
    source_bytes: int | None = None,
    preview: pa.Table | None = None,
    statistics: Sequence[ColumnStatistics] = (),
    column_descriptions: Mapping[str, str] | None = None,
    pii_columns: str | Iterable[str] = (),
) -> Metadata:
    """Metadata of one written table or partition; what is None is left out.

    Parameters
    ----------
    row_count, partition_row_count
        Rows of the whole table; of the partitions just written.
    source_bytes
        Size of what it was made of: adds ``compression_ratio``, source by target.
    preview
        A few rows; columns about persons are dropped here.
    statistics
        Of the whole table's columns; of those about persons no value is shown.
    column_descriptions
        Win over what an Arrow field says (``ncf.description``, ``description``, ``comment``).
    pii_columns
        Columns about persons, in any case, beside those with a field, however deep, that says
        ``pii``. With a name that is no column's, which may be misspelt, no value is shown.
    """
    schemas = [schema] if preview is None else [schema, preview.schema]
    names = [pii_columns] if isinstance(pii_columns, str) else list(pii_columns)
    hidden = hidden_columns(names, schemas)
    columns = table_schema(schema, column_descriptions or {}, hidden)
    found: Metadata = {
        "dagster/uri": dg.MetadataValue.text(uri),
        "dagster/column_schema": dg.MetadataValue.table_schema(columns),
    }
    found |= _numbers(
        {
            "dagster/row_count": row_count,
            "dagster/partition_row_count": partition_row_count,
            "bytes": bytes,
            "files": files,
            "version": version,
        }
    )
    if seconds is not None:
        found["seconds"] = dg.MetadataValue.float(round(seconds, 3))
    if table_name is not None:
        found["dagster/table_name"] = dg.MetadataValue.text(table_name)
    if source_bytes and bytes:
        found["compression_ratio"] = dg.MetadataValue.float(compression_ratio(source_bytes, bytes))
    unknown = _unknown(names, schemas)
    if unknown:
        hidden = {name for one in schemas for name in one.names}
        found["pii_told"] = dg.MetadataValue.text(
            f"pii_columns {unknown}: no such columns, so no values are shown"
        )
    return found | _values(preview, statistics, row_count, hidden)


def digest_metadata(digests: Sequence[str]) -> Metadata:
    """What stands for the rows that a table or partition holds: equal where one of them is."""
    return {CONTENT_DIGEST: dg.MetadataValue.text(" ".join(digests))}


def compression_ratio(source_bytes: int, target_bytes: int) -> float:
    """How many times smaller the target is; 0.5 means twice the source's size."""
    return round(source_bytes / target_bytes, 4) if target_bytes else 0.0


def table_schema(
    schema: pa.Schema, descriptions: Mapping[str, str], pii_columns: Collection[str] = ()
) -> dg.TableSchema:
    """Columns in order, with Arrow's type names, descriptions, not-null constraints and tags."""
    columns = [
        dg.TableColumn(
            name=field.name,
            type=str(field.type),
            description=descriptions.get(field.name) or _described(field),
            constraints=dg.TableColumnConstraints(nullable=field.nullable),
            tags=_tags(field, pii_columns) or None,
        )
        for field in schema
    ]
    return dg.TableSchema(columns=columns)


def lineage_metadata(lineage: Mapping[str, Sequence[tuple[dg.AssetKey, str]]]) -> Metadata:
    """Column lineage twice: for tools, and as a table that the open-source UI shows.

    Parameters
    ----------
    lineage
        For each column the upstream columns it is made of; none for a constant.
    """
    deps = {
        column: [
            dg.TableColumnDep(asset_key=asset_key, column_name=name) for asset_key, name in sources
        ]
        for column, sources in lineage.items()
    }
    rows = [
        f"| `{column}` | "
        + ", ".join(f"`{key.to_user_string()}`.`{name}`" for key, name in sources)
        + " |"
        for column, sources in lineage.items()
    ]
    text = "\n".join(["| column | made of |", "| --- | --- |", *rows])
    return {
        "dagster/column_lineage": dg.MetadataValue.column_lineage(
            dg.TableColumnLineage(deps_by_column=deps)
        ),
        "column_lineage": dg.MetadataValue.md(text),
    }


def partitions_metadata(rows: Sequence[Mapping[str, str | int | float | None]]) -> Metadata:
    """What one run wrote to its partitions, as a table under ``partitions``: the first few.

    It stands on the materialization of each of them, beside that partition's own numbers: all of
    them on all would take the square of their number.
    """
    records = [dg.TableRecord(dict(row)) for row in rows[:SHOWN_PARTITIONS]]
    names = list(rows[0]) if rows else []
    if len(rows) > len(records):
        left = f"{len(rows) - len(records):,} more"
        records.append(dg.TableRecord(dict.fromkeys(names) | {names[0]: left}))
    schema = dg.TableSchema(columns=[dg.TableColumn(name=name) for name in names])
    return {"partitions": dg.MetadataValue.table(records=records, schema=schema)}


def spark_metadata(work: SparkWork) -> Metadata:
    """What Spark did for a materialization; each number under ``spark/``."""
    found: Metadata = {
        "spark/application_id": dg.MetadataValue.text(work.application_id),
        "spark/version": dg.MetadataValue.text(work.version),
    }
    if work.ui_url is not None:
        found["spark/ui"] = dg.MetadataValue.url(work.ui_url)
    if work.missing:
        found["spark/not_told"] = dg.MetadataValue.text(work.missing)
    counts = {f"spark/{name}": dg.MetadataValue.int(count) for name, count in work.counts.items()}
    return found | counts


def _values(
    preview: pa.Table | None,
    statistics: Sequence[ColumnStatistics],
    row_count: int | None,
    hidden: set[str],
) -> Metadata:
    found: Metadata = {}
    if preview is not None:
        found["preview"] = _preview(preview, hidden)
    if statistics:
        found["statistics"] = _statistics(statistics, row_count, hidden)
    return found


def _numbers(values: Mapping[str, int | None]) -> Metadata:
    return {key: dg.MetadataValue.int(int(n)) for key, n in values.items() if n is not None}


def _preview(rows: pa.Table, hidden: set[str]) -> dg.MetadataValue[Any]:
    names = [name for name in rows.column_names if name not in hidden]
    shown = rows.select(names[:SHOWN_COLUMNS]).slice(0, PREVIEW_ROWS)
    cells = [[_cell(value) for value in column.to_pylist()] for column in shown.columns]
    records = [
        dg.TableRecord(dict(zip(shown.column_names, row, strict=True)))
        for row in zip(*cells, strict=True)
    ]
    columns = [dg.TableColumn(name=one.name, type=_cut(str(one.type))) for one in shown.schema]
    if len(names) > SHOWN_COLUMNS:
        left = f"{len(names) - SHOWN_COLUMNS:,} more columns"
        columns.append(dg.TableColumn(name=left, type="not shown"))
        records = [dg.TableRecord({**record.data, left: None}) for record in records]
    return dg.MetadataValue.table(records=records, schema=dg.TableSchema(columns=columns))


def _cell(value: object) -> str | int | float | bool | None:
    """A table record's cell: other values as text, cut; JSON knows no NaN or infinity."""
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    text = f"{len(value)} bytes" if isinstance(value, bytes) else str(value)
    return _cut(text)


def _cut(text: str) -> str:
    return text if len(text) <= PREVIEW_TEXT else text[: PREVIEW_TEXT - 1] + "…"


def _described(field: pa.Field) -> str | None:
    for key in DESCRIPTION_KEYS:
        raw = (field.metadata or {}).get(key)
        if raw:
            return str(raw.decode("utf-8", "replace"))
    return None


def _tags(field: pa.Field, hidden: Collection[str]) -> dict[str, str]:
    """What the field's metadata says it means, and whether it is about a person."""
    found = {"pii": ""} if is_pii(field) or field.name in hidden else {}
    meaning = (field.metadata or {}).get(SEMANTIC_KEY, b"").decode("utf-8", "replace")
    return found | ({"semantic": meaning} if TAG_VALUE.fullmatch(meaning) else {})


def _statistics(
    columns: Sequence[ColumnStatistics], row_count: int | None, hidden: Collection[str]
) -> dg.MetadataValue[Any]:
    """One row for each of the first columns; a column about persons shows no values."""
    records = []
    for column in columns[:SHOWN_COLUMNS]:
        shown = column.name not in hidden
        records.append(
            dg.TableRecord(
                {
                    "column": column.name,
                    "type": _cut(str(column.type)),
                    "rows": row_count,
                    "nulls": column.null_count,
                    "minimum": _cell(column.minimum) if shown else None,
                    "maximum": _cell(column.maximum) if shown else None,
                }
            )
        )
    names = ["column", "type", "rows", "nulls", "minimum", "maximum"]
    if len(columns) > SHOWN_COLUMNS:
        left = f"{len(columns) - SHOWN_COLUMNS:,} more"
        records.append(dg.TableRecord({**dict.fromkeys(names), "column": left}))
    schema = dg.TableSchema(columns=[dg.TableColumn(name=name) for name in names])
    return dg.MetadataValue.table(records=records, schema=schema)


def _unknown(named: Collection[str], schemas: Collection[pa.Schema]) -> list[str]:
    """The names that hide nothing."""
    known = {name.casefold() for schema in schemas for name in schema.names}
    return sorted(
        name for name in named if not known & {name.casefold(), name.split(".")[0].casefold()}
    )
