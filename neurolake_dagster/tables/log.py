"""The log of a table: numbered commits, each put only if its number is still free.

Owns the folder ``_log``: ``<version>.json`` is one commit, ``<version>.checkpoint.json`` the
whole state at that version, ``_last_checkpoint`` a hint to the newest one. Whoever creates
``<version>.json`` made that version; there is no other lock.
"""

import json
import time
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from neurolake_dagster.errors import (
    StorageError,
    StorageNotFoundError,
    TableError,
    TableNotFoundError,
)
from neurolake_dagster.storage import Storage
from neurolake_dagster.tables.partitions import Partition
from neurolake_dagster.tables.snapshot import (
    DataFile,
    Json,
    Snapshot,
    TableSchema,
    checked_format,
    no_such_table,
)

LOG_FORMAT = 1
LOG_FOLDER = "_log"
HINT = f"{LOG_FOLDER}/_last_checkpoint"
CHECKPOINT_EVERY = 10
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
    token
        Unique to the attempt: tells one's own commit when the store's answer got lost.
    transaction
        Names the work, so that a second attempt at it is known as such.
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
    properties: Mapping[str, str] | None = None
    transaction: str | None = None
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
            "properties": None if self.properties is None else dict(self.properties),
            "transaction": self.transaction,
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
            properties=record.get("properties"),
            transaction=record.get("transaction"),
            info=record.get("info", {}),
            metrics=record.get("metrics", {}),
        )


class Log:
    """The commits of one table.

    Parameters
    ----------
    storage
        Rooted at the table's folder.
    """

    def __init__(self, storage: Storage) -> None:
        self.storage = storage

    def snapshot(self, version: int | None = None) -> Snapshot:
        """The newest version, or that one.

        Raises
        ------
        TableNotFoundError
            If there is no table, or no such version.
        TableError
            If the log is damaged.
        """
        found = self.try_snapshot(version)
        if found is None:
            raise no_such_table(self.storage.root, version)
        return found

    def try_snapshot(self, version: int | None = None) -> Snapshot | None:
        """Like :meth:`snapshot`, but None where there is no table or no such version."""
        start = self._newest_checkpoint(version)
        state = None if start is None else self._read_checkpoint(start)
        numbers = self._versions(after=start)
        for number in numbers:
            if version is not None and number > version:
                break
            expected = 0 if state is None else state.version + 1
            if number != expected:
                raise TableError(
                    f"{self.storage.root}: log has version {number} where {expected} was expected"
                )
            state = apply_entry(state, self.entry(number))
        if state is None or (version is not None and state.version != version):
            return None
        return state

    def entry(self, version: int) -> Entry:
        """One commit."""
        try:
            return Entry.decode(self._read_json(_entry_key(version)))
        except StorageNotFoundError as exc:
            raise no_such_table(self.storage.root, version) from exc

    def entries(self, after: int = -1) -> Iterator[Entry]:
        """The commits above a version, oldest first."""
        for number in self._versions(after=after if after >= 0 else None):
            yield self.entry(number)

    def version_at(self, moment: datetime) -> int:
        """The version that was the newest at a moment; one without a zone is UTC.

        Raises
        ------
        TableNotFoundError
            If the table is younger.
        """
        numbers = self._versions(after=None)
        if not numbers:
            raise no_such_table(self.storage.root)
        aware = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
        count = bisect_right(numbers, aware, key=lambda number: self.entry(number).timestamp)
        if not count:
            raise TableNotFoundError(
                f"{self.storage.root}: no version at {aware:%F %T %Z}, the first one is of "
                f"{self.entry(numbers[0]).timestamp:%F %T} UTC"
            )
        return numbers[count - 1]

    def put(self, entry: Entry, base: Snapshot | None) -> Snapshot:
        """Make `entry` the version after `base`.

        Raises
        ------
        StorageExistsError
            If another commit took that number first; nothing was changed.
        """
        floor = 0 if base is None else base.timestamp_ms + 1
        stamped = replace(entry, timestamp_ms=max(time.time_ns() // 1_000_000, floor))
        self.storage.put_if_absent(_entry_key(entry.version), stamped.encode())
        state = apply_entry(base, stamped)
        if entry.version % CHECKPOINT_EVERY == 0 and entry.version > 0:
            # Only a shortcut for readers: the version stands without it.
            with suppress(StorageError):
                self._write_checkpoint(state)
        return state

    def _versions(self, after: int | None) -> list[int]:
        marker = None if after is None else _entry_key(after)
        found = self.storage.list(LOG_FOLDER, after=marker)
        names = (entry.key.rsplit("/", 1)[1] for entry in found)
        return sorted(
            int(name.removesuffix(".json"))
            for name in names
            if name.endswith(".json") and name.removesuffix(".json").isdigit()
        )

    def _newest_checkpoint(self, version: int | None) -> int | None:
        if version is None:
            try:
                return int(self._read_json(HINT)["version"])
            except StorageNotFoundError:
                return None
        usable = [
            int(name.removesuffix(".checkpoint.json"))
            for name in (entry.key.rsplit("/", 1)[1] for entry in self.storage.list(LOG_FOLDER))
            if name.endswith(".checkpoint.json")
        ]
        return max((found for found in usable if found <= version), default=None)

    def _read_checkpoint(self, version: int) -> Snapshot:
        record = self._read_json(_checkpoint_key(version))
        schemas = [TableSchema.decode(schema) for schema in record["schemas"]]
        return Snapshot(
            version=record["version"],
            timestamp_ms=record["timestamp_ms"],
            format=checked_format(record["format"], self.storage.root),
            schemas={schema.id: schema for schema in schemas},
            files=tuple(DataFile.decode(file) for file in record["files"]),
            properties=record["properties"],
            transactions=record["transactions"],
        )

    def _write_checkpoint(self, state: Snapshot) -> None:
        record: Json = {
            "neurolake_table": LOG_FORMAT,
            "version": state.version,
            "timestamp_ms": state.timestamp_ms,
            "format": state.format,
            "schemas": [schema.encode() for schema in state.schemas.values()],
            "files": [file.encode() for file in state.files],
            "properties": dict(state.properties),
            "transactions": dict(state.transactions),
        }
        self.storage.put(_checkpoint_key(state.version), json.dumps(record).encode())
        self.storage.put(HINT, json.dumps({"version": state.version}).encode())

    def _read_json(self, key: str) -> Json:
        raw = self.storage.read(key)
        where = self.storage.uri(key)
        try:
            record: Any = json.loads(raw)
        except ValueError as exc:
            raise TableError(f"{where}: not JSON ({exc}), the log is damaged") from exc
        if not isinstance(record, dict):
            raise TableError(f"{where}: {type(record).__name__}, expected an object")
        if key != HINT and record.get("neurolake_table") != LOG_FORMAT:
            raise TableError(
                f"{where}: log format {record.get('neurolake_table')!r}, expected {LOG_FORMAT}"
            )
        return record


def apply_entry(state: Snapshot | None, entry: Entry) -> Snapshot:
    """The version that a commit makes of the one before it."""
    gone = set(entry.removed)
    kept = () if state is None else tuple(file for file in state.files if file.path not in gone)
    schemas = {} if state is None else dict(state.schemas)
    if entry.schema is not None:
        schemas[entry.schema.id] = entry.schema
    transactions = {} if state is None else dict(state.transactions)
    if entry.transaction is not None:
        transactions[entry.transaction] = entry.version
        while len(transactions) > KEPT_TRANSACTIONS:
            del transactions[next(iter(transactions))]
    properties = entry.properties if entry.properties is not None else None
    if properties is None:
        properties = {} if state is None else state.properties
    return Snapshot(
        version=entry.version,
        timestamp_ms=entry.timestamp_ms,
        format=checked_format(entry.format, f"version {entry.version}"),
        schemas=schemas,
        files=kept + entry.added,
        properties=properties,
        transactions=transactions,
    )


def _as_partition(pairs: list[list[str]]) -> Partition:
    return tuple((name, text) for name, text in pairs)


def _entry_key(version: int) -> str:
    return f"{LOG_FOLDER}/{version:020d}.json"


def _checkpoint_key(version: int) -> str:
    return f"{LOG_FOLDER}/{version:020d}.checkpoint.json"
