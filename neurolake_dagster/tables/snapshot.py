"""What a version of a table consists of, and its form in the log's JSON.

Owns `DataFile`, `TableSchema` and `Snapshot`, each with its encoding beside its decoding.
Reads and writes no storage.
"""

import base64
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, Literal, NamedTuple, get_args

import pyarrow as pa
import xxhash

from neurolake_dagster.errors import TableError, TableNotFoundError
from neurolake_dagster.tables.partitions import Partition, PartitionLike, as_partitions

TableFormat = Literal["ncf", "parquet"]
TABLE_FORMATS: tuple[TableFormat, ...] = get_args(TableFormat)

Json = dict[str, Any]


class ColumnBounds(NamedTuple):
    """A column's statistics in one file; None where they are not known or all is null."""

    minimum: bool | int | float | str | None = None
    maximum: bool | int | float | str | None = None
    null_count: int | None = None


class StoredBounds(Mapping[str, ColumnBounds]):
    """A file's bounds as JSON text, parsed when one is asked for.

    A snapshot of 10,000 files opens 4 times as fast so, for most readers ask for few.
    """

    __slots__ = ("_parsed", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self._parsed: dict[str, ColumnBounds] | None = None

    def __getitem__(self, name: str) -> ColumnBounds:
        return self._all()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())

    def _all(self) -> dict[str, ColumnBounds]:
        if self._parsed is None:
            self._parsed = _decode_bounds(json.loads(self.text))
        return self._parsed


@dataclass(frozen=True, kw_only=True)
class DataFile:
    """One part file of a table.

    Parameters
    ----------
    path
        Key below the table's folder.
    schema_id
        Which of the table's schemas it was written with.
    bounds
        Statistics by column name, used to skip the file.
    digest
        The xxh3 of its bytes; None where somebody else wrote it.
    """

    path: str
    bytes: int
    row_count: int
    partition: Partition = ()
    schema_id: int = 0
    bounds: Mapping[str, ColumnBounds] = field(default_factory=dict, compare=False, repr=False)
    digest: str | None = None

    def encode(self) -> Json:
        """The file's record in a commit."""
        found: Json = {"path": self.path, "bytes": self.bytes, "rows": self.row_count}
        if self.partition:
            found["partition"] = [list(pair) for pair in self.partition]
        if self.schema_id:
            found["schema"] = self.schema_id
        if self.digest is not None:
            found["digest"] = self.digest
        if self.bounds:
            found["bounds"] = {name: list(stat) for name, stat in self.bounds.items()}
        return found

    def encode_packed(self) -> Json:
        """The file's record in a checkpoint: the bounds as text, for :class:`StoredBounds`."""
        if isinstance(self.bounds, StoredBounds):
            return replace(self, bounds={}).encode() | {"bounds": self.bounds.text}
        found = self.encode()
        if "bounds" in found:
            found["bounds"] = json.dumps(found["bounds"], separators=(",", ":"))
        return found

    @staticmethod
    def decode(record: Json) -> "DataFile":
        """Read a file's record from a commit or a checkpoint."""
        bounds = record.get("bounds", {})
        return DataFile(
            path=record["path"],
            bytes=record["bytes"],
            row_count=record["rows"],
            partition=tuple((name, text) for name, text in record.get("partition", ())),
            schema_id=record.get("schema", 0),
            digest=record.get("digest"),
            bounds=StoredBounds(bounds) if isinstance(bounds, str) else _decode_bounds(bounds),
        )


@dataclass(frozen=True, kw_only=True)
class TableSchema:
    """One schema of a table's life.

    Parameters
    ----------
    field_ids
        One per column: a column keeps its id when it is renamed, so that files written
        before are still read right, and a dropped name never comes back with old values.
    """

    id: int
    schema: pa.Schema
    field_ids: tuple[int, ...]

    def encode(self) -> Json:
        """The schema's record: Arrow's own form, and readable columns beside it."""
        return {
            "id": self.id,
            "field_ids": list(self.field_ids),
            "columns": {column.name: str(column.type) for column in self.schema},
            "arrow": base64.b64encode(self.schema.serialize()).decode("ascii"),
        }

    @staticmethod
    def decode(record: Json) -> "TableSchema":
        """Read a schema's record; only the Arrow form counts."""
        raw = base64.b64decode(record["arrow"], validate=True)
        return TableSchema(
            id=record["id"],
            schema=pa.ipc.read_schema(pa.BufferReader(raw)),
            field_ids=tuple(record["field_ids"]),
        )


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """One version of a table: its schema and its live files.

    Parameters
    ----------
    timestamp_ms
        When it was committed, in milliseconds since 1970 UTC; grows with the version.
    schemas
        All schemas that a live file may have been written with, by id; the last is current.
    transactions
        The newest transactions by their keys, each with the version that carried it out.
    """

    version: int
    timestamp_ms: int
    format: TableFormat
    schemas: Mapping[int, TableSchema]
    files: tuple[DataFile, ...]
    properties: Mapping[str, str] = field(default_factory=dict)
    transactions: Mapping[str, int] = field(default_factory=dict)

    @property
    def table_schema(self) -> TableSchema:
        """The current schema with its field ids."""
        return self.schemas[max(self.schemas)]

    @property
    def schema(self) -> pa.Schema:
        """The current Arrow schema."""
        return self.table_schema.schema

    def version_of(self, transaction: str | None) -> int | None:
        """The version that carried a transaction out; None if none did."""
        return None if transaction is None else self.transactions.get(transaction_key(transaction))

    @property
    def timestamp(self) -> datetime:
        """When it was committed, in UTC."""
        return datetime.fromtimestamp(self.timestamp_ms / 1000, UTC)

    @cached_property
    def row_count(self) -> int:
        """Rows of all live files."""
        return sum(file.row_count for file in self.files)

    @cached_property
    def bytes(self) -> int:
        """Size of all live files in bytes."""
        return sum(file.bytes for file in self.files)

    @cached_property
    def partitions(self) -> tuple[Partition, ...]:
        """The partitions that have files, in the order of their first file."""
        return tuple(dict.fromkeys(file.partition for file in self.files))

    def files_of(self, partitions: Iterable[PartitionLike] | None) -> tuple[DataFile, ...]:
        """The live files of some partitions, in the order asked; all for None."""
        if partitions is None:
            return self.files
        by_partition: dict[Partition, list[DataFile]] = {}
        for file in self.files:
            by_partition.setdefault(file.partition, []).append(file)
        return tuple(
            file
            for partition in as_partitions(partitions)
            for file in by_partition.get(partition, ())
        )


def transaction_key(transaction: str) -> str:
    """How the log remembers a transaction: thousands of names would fill its checkpoints."""
    return xxhash.xxh3_64_hexdigest(transaction.encode())


def _decode_bounds(record: Json) -> dict[str, ColumnBounds]:
    return {name: ColumnBounds(*stat) for name, stat in record.items()}


def checked_format(name: str, where: str) -> TableFormat:
    """Refuse a file format that tables do not keep."""
    for known in TABLE_FORMATS:
        if name == known:
            return known
    raise TableError(f"{where}: file format {name!r}, expected one of {TABLE_FORMATS}")


def no_such_table(uri: str, version: int | None = None) -> TableNotFoundError:
    """The error for a place without a log, or without that version in it."""
    if version is None:
        return TableNotFoundError(f"{uri}: no table here; write it first or fix the path")
    return TableNotFoundError(f"{uri}: no version {version}; see the table's history")
