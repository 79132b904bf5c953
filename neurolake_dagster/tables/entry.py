"""One commit: its form in the log, and what it makes of the version before it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from neurolake_dagster.tables.partitions import Partition
from neurolake_dagster.tables.snapshot import (
    DataFile,
    Json,
    Snapshot,
    TableSchema,
    checked_format,
    transaction_key,
)

LOG_FORMAT = 1
KEPT_TRANSACTIONS = 10_000


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One commit as the log keeps it.

    Parameters
    ----------
    replaced
        The partitions whose files it took away; None: it took none, or single files; an
        empty tuple: all.
    removed
        Paths of the files it took away.
    schema
        Only where the commit changed it.
    former
        The schemas of files that a restore brings back, which the version before lacks.
    token
        Unique to the attempt: tells one's own commit when the store's answer got lost.
    transaction
        Names the work, so that a second attempt at it is known as such.
    transactions
        What a restore changes of those that count as done, by their keys: the version that did
        one, or None for one that is to be done again.
    info
        What the caller wants kept with the commit, for example the run's id.
    """

    version: int
    format: str
    operation: str
    token: str
    timestamp_ms: int = 0
    added: tuple[DataFile, ...] = ()
    removed: tuple[str, ...] = ()
    replaced: tuple[Partition, ...] | None = None
    schema: TableSchema | None = None
    former: tuple[TableSchema, ...] = ()
    properties: Mapping[str, str] | None = None
    transaction: str | None = None
    transactions: Mapping[str, int | None] = field(default_factory=dict)
    info: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, int] = field(default_factory=dict)

    @property
    def timestamp(self) -> datetime:
        """When it was committed, in UTC."""
        return datetime.fromtimestamp(self.timestamp_ms / 1000, UTC)

    def encode(self) -> bytes:
        """The commit's file."""
        found: Json = {
            "neurolake_table": LOG_FORMAT,
            "version": self.version,
            "timestamp_ms": self.timestamp_ms,
            "format": self.format,
            "operation": self.operation,
            "token": self.token,
            "add": [file.encode() for file in self.added],
            "remove": list(self.removed),
        }
        if self.replaced is not None:
            found["replaced"] = [[list(pair) for pair in part] for part in self.replaced]
        if self.schema is not None:
            found["schema"] = self.schema.encode()
        optional = {
            "former": [schema.encode() for schema in self.former] or None,
            "properties": None if self.properties is None else dict(self.properties),
            "transaction": self.transaction,
            "transactions": dict(self.transactions) or None,
            "info": dict(self.info) or None,
            "metrics": dict(self.metrics) or None,
        }
        found |= {name: value for name, value in optional.items() if value is not None}
        return json.dumps(found, separators=(",", ":")).encode()

    @staticmethod
    def decode(record: Json) -> "Entry":
        """Read a commit's file."""
        replaced = record.get("replaced")
        schema = record.get("schema")
        return Entry(
            version=record["version"],
            format=record["format"],
            operation=record["operation"],
            token=record["token"],
            timestamp_ms=record["timestamp_ms"],
            added=tuple(DataFile.decode(file) for file in record["add"]),
            removed=tuple(record["remove"]),
            replaced=None if replaced is None else tuple(map(_as_partition, replaced)),
            schema=None if schema is None else TableSchema.decode(schema),
            former=tuple(map(TableSchema.decode, record.get("former", ()))),
            properties=record.get("properties"),
            transaction=record.get("transaction"),
            transactions=record.get("transactions", {}),
            info=record.get("info", {}),
            metrics=record.get("metrics", {}),
        )


def apply_entry(state: Snapshot | None, entry: Entry) -> Snapshot:
    """The version that a commit makes of the one before it."""
    gone = set(entry.removed)
    kept = () if state is None else tuple(file for file in state.files if file.path not in gone)
    files = kept + entry.added
    transactions = {} if state is None else dict(state.transactions)
    done = dict(entry.transactions)
    if entry.transaction is not None:
        done[transaction_key(entry.transaction)] = entry.version
    for key, version in done.items():
        transactions.pop(key, None)
        if version is not None:
            transactions[key] = version
    while len(transactions) > KEPT_TRANSACTIONS:
        del transactions[next(iter(transactions))]
    properties = entry.properties
    if properties is None:
        properties = {} if state is None else state.properties
    return Snapshot(
        version=entry.version,
        timestamp_ms=entry.timestamp_ms,
        format=checked_format(entry.format, f"version {entry.version}"),
        schemas=_schemas(state, entry, files),
        files=files,
        properties=properties,
        transactions=transactions,
    )


def _schemas(
    state: Snapshot | None, entry: Entry, files: tuple[DataFile, ...]
) -> dict[int, TableSchema]:
    """The current schema, and those that files were written with."""
    known = {} if state is None else dict(state.schemas)
    known |= {schema.id: schema for schema in entry.former}
    if entry.schema is not None:
        known[entry.schema.id] = entry.schema
    if len(known) < 2:
        return known
    used = {file.schema_id for file in files} | {max(known)}
    return {number: schema for number, schema in known.items() if number in used}


def _as_partition(pairs: list[list[str]]) -> Partition:
    return tuple((name, text) for name, text in pairs)
