"""The log of a table: numbered commits, each put only if its number is still free.

Owns the folder ``_log``: ``<version>.json`` is one commit, ``<version>.checkpoint.json`` the
whole state at that version, ``_last_checkpoint`` a hint to the newest one. Whoever creates
``<version>.json`` made that version; there is no other lock.
"""

import json
import sys
import time
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, TypeVar

import pyarrow as pa

from neurolake_dagster.errors import (
    NeuroLakeError,
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
# Whose presence makes a folder a table: ours, and Delta's.
LOG_FOLDERS = (LOG_FOLDER, "_delta_log")
HINT = f"{LOG_FOLDER}/_last_checkpoint"
CHECKPOINT_SUFFIX = ".checkpoint.json"
CHECKPOINT_EVERY = 10
# Of a table with many files a checkpoint is dear to write, so it comes less often.
MANY_FILES = 1000
CHECKPOINT_EVERY_OF_MANY = 50
READS_AT_ONCE = 16
KEPT_TRANSACTIONS = 10_000

Decoded = TypeVar("Decoded")


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
        state = self._hinted(version)
        names = self._names(after=None if state is None else state.version)
        if state is None:
            state = self._checkpointed(names, version)
        done = -1 if state is None else state.version
        last = sys.maxsize if version is None else version
        for entry in self._entries(n for n in _numbers(names, ".json") if done < n <= last):
            expected = 0 if state is None else state.version + 1
            if entry.version != expected:
                raise TableError(
                    f"{self.storage.root}: log has version {entry.version} where {expected} was "
                    "expected"
                )
            state = apply_entry(state, entry)
        if state is None or (version is not None and state.version != version):
            return None
        return state

    def entry(self, version: int) -> Entry:
        """One commit."""
        key = _entry_key(version)
        try:
            return _decoded(Entry.decode, self._read_json(key), self.storage.uri(key))
        except StorageNotFoundError as exc:
            raise no_such_table(self.storage.root, version) from exc

    def entries(self, after: int = -1) -> Iterator[Entry]:
        """The commits above a version, oldest first."""
        names = self._names(after=after if after >= 0 else None)
        yield from self._entries(_numbers(names, ".json"))

    def version_at(self, moment: datetime) -> int:
        """The version that was the newest at a moment; one without a zone is UTC.

        Raises
        ------
        TableNotFoundError
            If the table is younger.
        """
        numbers = _numbers(self._names(after=None), ".json")
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

    def put(self, entry: Entry, base: Snapshot | None) -> tuple[Entry, Snapshot]:
        """Make `entry` the version after `base`.

        Returns
        -------
        The entry with the time of its commit, and the version that it made.

        Raises
        ------
        StorageExistsError
            If another commit took that number first; nothing was changed.
        """
        floor = 0 if base is None else base.timestamp_ms + 1
        stamped = replace(entry, timestamp_ms=max(time.time_ns() // 1_000_000, floor))
        self.storage.put_if_absent(_entry_key(entry.version), stamped.encode())
        state = apply_entry(base, stamped)
        every = CHECKPOINT_EVERY if len(state.files) < MANY_FILES else CHECKPOINT_EVERY_OF_MANY
        if entry.version % every == 0 and entry.version > 0:
            # Only a shortcut for readers: the version stands without it.
            with suppress(StorageError):
                self._write_checkpoint(state)
        return stamped, state

    def _entries(self, numbers: Iterable[int]) -> Iterator[Entry]:
        """Commits in the order of their numbers; of a remote store several are read at once."""
        if self.storage.is_local:
            yield from map(self.entry, numbers)
            return
        with ThreadPoolExecutor(READS_AT_ONCE) as pool:
            yield from pool.map(self.entry, numbers)

    def _names(self, after: int | None) -> list[str]:
        """The names of the log's files, those of a version and before left out."""
        marker = None if after is None else _entry_key(after)
        return [
            found.key.rsplit("/", 1)[1] for found in self.storage.list(LOG_FOLDER, after=marker)
        ]

    def _hinted(self, version: int | None) -> Snapshot | None:
        """The checkpoint that the hint names, if it is usable for a version."""
        with suppress(TableError, StorageNotFoundError):
            number = self._read_json(HINT).get("version")
            if isinstance(number, int) and (version is None or number <= version):
                return self._read_checkpoint(number)
        return None

    def _checkpointed(self, names: list[str], version: int | None) -> Snapshot | None:
        """The newest usable checkpoint among the log's files up to a version.

        A checkpoint is a shortcut: one that is missing or damaged only costs time.
        """
        for number in reversed(_numbers(names, CHECKPOINT_SUFFIX)):
            if version is None or number <= version:
                with suppress(TableError, StorageNotFoundError):
                    return self._read_checkpoint(number)
        return None

    def _read_checkpoint(self, version: int) -> Snapshot:
        key = _checkpoint_key(version)
        return _decoded(self._checkpoint_state, self._read_json(key), self.storage.uri(key))

    def _checkpoint_state(self, record: Json) -> Snapshot:
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
            "files": [file.encode_packed() for file in state.files],
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
            raise TableError(
                f"{where}: not JSON ({exc}), the log is damaged; restore this file, or if no newer "
                "version exists delete it: the version before it stands"
            ) from exc
        if not isinstance(record, dict):
            raise TableError(f"{where}: {type(record).__name__}, expected an object")
        if key != HINT and record.get("neurolake_table") != LOG_FORMAT:
            raise TableError(
                f"{where}: log format {record.get('neurolake_table')!r}, expected {LOG_FORMAT}"
            )
        return record


def inner_tables(keys: Iterable[str]) -> set[str]:
    """The folders of the tables that lie below a table's own, of which these are the keys."""
    return {
        "/".join(folders[:depth])
        for key in keys
        for folders in [key.split("/")[:-1]]
        for depth, name in enumerate(folders)
        if depth and name in LOG_FOLDERS
    }


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


def _decoded(decode: Callable[[Json], Decoded], record: Json, where: str) -> Decoded:
    """Read a record, or say which file is damaged."""
    try:
        return decode(record)
    except (KeyError, TypeError, ValueError, AttributeError, pa.ArrowException) as exc:
        if isinstance(exc, NeuroLakeError):
            raise
        raise TableError(f"{where}: no record of a table ({exc!r}), the log is damaged") from exc


def _numbers(names: Iterable[str], suffix: str) -> list[int]:
    """The versions of the files that are named by a number and that suffix."""
    stems = (name.removesuffix(suffix) for name in names if name.endswith(suffix))
    return sorted(int(stem) for stem in stems if stem.isdigit())


def _as_partition(pairs: list[list[str]]) -> Partition:
    return tuple((name, text) for name, text in pairs)


def _entry_key(version: int) -> str:
    return f"{LOG_FOLDER}/{version:020d}.json"


def _checkpoint_key(version: int) -> str:
    return f"{LOG_FOLDER}/{version:020d}.checkpoint.json"
