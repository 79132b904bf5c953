"""Whole states beside a log's commits: shortcuts for readers, no versions of their own.

Owns which of them are kept. The newest two serve who reads on; one of every so many serves who
reads a former version; the rest would make the log grow with the square of its commits.
"""

import json
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, TypeVar

import pyarrow as pa

from neurolake_dagster.errors import NeuroLakeError, StorageNotFoundError, TableError
from neurolake_dagster.storage import Storage
from neurolake_dagster.tables.entry import LOG_FORMAT
from neurolake_dagster.tables.snapshot import (
    DataFile,
    Json,
    Snapshot,
    TableSchema,
    checked_format,
)

LOG_FOLDER = "_log"
SUFFIX = ".checkpoint.json"
HINT = f"{LOG_FOLDER}/_last_checkpoint"
EVERY = 10
# Of a table with many files a checkpoint is dear to write, so it comes less often.
MANY_FILES = 1000
EVERY_OF_MANY = 50
# Of so many one is kept for good.
KEPT_ONE_OF = 20

Decoded = TypeVar("Decoded")


class Checkpoints:
    """The checkpoints of one table's log.

    Parameters
    ----------
    storage
        Rooted at the table's folder.
    """

    def __init__(self, storage: Storage) -> None:
        self.storage = storage

    def newest(self, version: int | None) -> Snapshot | None:
        """The one that the hint names, if it is usable for a version; for the newest with None."""
        with suppress(TableError, StorageNotFoundError):
            number = read_json(self.storage, HINT).get("version")
            if isinstance(number, int) and (version is None or number <= version):
                return self.read(number)
        return None

    def best(self, numbers: Iterable[int], version: int | None) -> Snapshot | None:
        """The newest usable one of some up to a version.

        One that is missing or damaged only costs time.
        """
        for number in sorted(numbers, reverse=True):
            if version is None or number <= version:
                with suppress(TableError, StorageNotFoundError):
                    return self.read(number)
        return None

    def read(self, version: int) -> Snapshot:
        """The state at a version."""
        key = checkpoint_key(version)
        return decoded(self._state, read_json(self.storage, key), self.storage.uri(key))

    def put_if_due(self, state: Snapshot) -> bool:
        """Write the state if it is time for one; whether it was."""
        if state.version == 0 or state.version % _every(state):
            return False
        self.write(state)
        self.point_to(state.version)
        return True

    def drop_old(self, state: Snapshot, first: int) -> None:
        """Delete the checkpoint that has had its time; the log needs that of its first version."""
        every = _every(state)
        old = state.version - 2 * every
        if old > first and old % (KEPT_ONE_OF * every):
            self.storage.delete([checkpoint_key(old)])

    def write(self, state: Snapshot) -> None:
        """Write a state; :meth:`point_to` leads readers of the newest version to it."""
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
        self.storage.put(checkpoint_key(state.version), json.dumps(record).encode())

    def point_to(self, version: int) -> None:
        """Let readers of the newest version begin at this one."""
        self.storage.put(HINT, json.dumps({"version": version}).encode())

    def _state(self, record: Json) -> Snapshot:
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


def _every(state: Snapshot) -> int:
    return EVERY if len(state.files) < MANY_FILES else EVERY_OF_MANY


def checkpoint_key(version: int) -> str:
    """Where the state at a version lies."""
    return f"{LOG_FOLDER}/{version:020d}{SUFFIX}"


def read_json(storage: Storage, key: str) -> Json:
    """One file of the log; `TableError` if it is damaged or of another format."""
    raw = storage.read(key)
    where = storage.uri(key)
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


def decoded(decode: Callable[[Json], Decoded], record: Json, where: str) -> Decoded:
    """Read a record, or say which file is damaged."""
    try:
        return decode(record)
    except (KeyError, TypeError, ValueError, AttributeError, pa.ArrowException) as exc:
        if isinstance(exc, NeuroLakeError):
            raise
        raise TableError(f"{where}: no record of a table ({exc!r}), the log is damaged") from exc
