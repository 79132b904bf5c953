"""The log of a table: numbered commits, each put only if its number is still free.

Owns the folder ``_log``: ``<version>.json`` is one commit, ``<version>.checkpoint.json`` the
whole state at that version, ``_last_checkpoint`` a hint to the newest one. Whoever creates
``<version>.json`` made that version; there is no other lock.
"""

import sys
import time
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime

from neurolake_dagster.errors import (
    StorageError,
    StorageNotFoundError,
    TableError,
    TableNotFoundError,
)
from neurolake_dagster.storage import Storage, StorageEntry
from neurolake_dagster.tables.checkpoints import (
    LOG_FOLDER,
    SUFFIX,
    Checkpoints,
    decoded,
    read_json,
)
from neurolake_dagster.tables.entry import Entry, apply_entry
from neurolake_dagster.tables.snapshot import Snapshot, no_such_table

# Whose presence makes a folder a table: ours, and Delta's.
DELTA_LOG_FOLDER = "_delta_log"
LOG_FOLDERS = (LOG_FOLDER, DELTA_LOG_FOLDER)
READS_AT_ONCE = 16


def check_place(folder: Storage, own: str, where: str) -> None:
    """Refuse to begin a table where one of another kind lies.

    Each would take the files of the other for what a failed write of its own has left.

    Parameters
    ----------
    folder
        The storage rooted at the table's folder.
    own
        The log folder of the table to be.

    Raises
    ------
    TableError
    """
    for name in LOG_FOLDERS:
        if name != own and next(folder.list(name), None) is not None:
            kind = "a Delta table" if name == DELTA_LOG_FOLDER else "an NCF or Parquet table"
            raise TableError(
                f"{where}: holds {kind}; delete the folder to keep the asset in another format, "
                "or choose another place"
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
        self.checkpoints = Checkpoints(storage)

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
        state = self.checkpoints.newest(version)
        if state is not None:
            # The log may just have been cut, or be damaged: then all of it is looked at.
            with suppress(TableError):
                return self._replayed(state, self._names(after=state.version), version)
        names = self._names(after=None)
        if version is not None and version < min(_versions(names), default=0):
            return None
        state = self.checkpoints.best(_numbers(names, SUFFIX), version)
        return self._replayed(state, names, version)

    def first_version(self) -> int:
        """The oldest version that the log still tells of; 0 unless it was cut."""
        if self.storage.exists(_entry_key(0)):
            return 0
        return min(_versions(self._names(after=None)), default=0)

    def files_before(self, version: int) -> list[StorageEntry]:
        """The log's files that only older versions need."""
        first = _entry_key(version).removesuffix(".json")
        return [found for found in self.storage.list(LOG_FOLDER) if found.key < first]

    def cut(self, version: int) -> None:
        """Let the log begin at a version; older ones can be read no more.

        Whoever wrote on top of an older one must be done by now: its number looks free.
        """
        state = self.try_snapshot(version)
        if state is None:  # another cut was further
            return
        self.checkpoints.write(state)
        hinted = self.checkpoints.newest(None)
        if hinted is None or hinted.version < version:
            self.checkpoints.point_to(version)
        old = [entry.key for entry in self.files_before(version)]
        # Checkpoints and the first commit go before the others: without them, none of what a
        # killed cut leaves of those is a version.
        checkpoints = [key for key in old if key.endswith(SUFFIX)]
        for keys in (checkpoints, {_entry_key(0)}.intersection(old), old):
            self.storage.delete(keys)

    def entry(self, version: int) -> Entry:
        """One commit."""
        key = _entry_key(version)
        try:
            return decoded(Entry.decode, read_json(self.storage, key), self.storage.uri(key))
        except StorageNotFoundError as exc:
            raise no_such_table(self.storage.root, version) from exc

    def taker(self, version: int) -> Entry:
        """The commit that took a version's number and is in no listing.

        Raises
        ------
        TableError
            If what has its name is no commit.
        """
        try:
            return self.entry(version)
        except TableNotFoundError as exc:
            raise TableError(
                f"{self.storage.uri(_entry_key(version))}: has the name of the next commit and is "
                "none, so that none can be made; remove it"
            ) from exc

    def entries(self, after: int = -1) -> Iterator[Entry]:
        """The commits above a version, oldest first."""
        if after < 0:
            yield from self._entries(_versions(self._names(after=None)))
        else:
            yield from self._entries(_numbers(self._names(after=after), ".json"))

    def following(self, version: int) -> Iterator[Entry]:
        """The commits right after a version, up to the first one that is missing."""
        for entry in self.entries(after=version):
            if entry.version != version + 1:
                return
            yield entry
            version = entry.version

    def version_at(self, moment: datetime) -> int:
        """The version that was the newest at a moment; one without a zone is UTC.

        Raises
        ------
        TableNotFoundError
            If the table is younger.
        """
        numbers = _versions(self._names(after=None))
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
        # Only a shortcut for readers: the version stands without it.
        with suppress(StorageError):
            if self.checkpoints.put_if_due(state):
                self.checkpoints.drop_old(state, self.first_version())
        return stamped, state

    def require_next(self, entry: Entry, before: int) -> None:
        """Refuse to go on where a commit is missing."""
        if entry.version != before + 1:
            raise TableError(
                f"{self.storage.root}: log has version {entry.version} where {before + 1} was "
                "expected; restore the log's files"
            )

    def _replayed(
        self, state: Snapshot | None, names: list[str], version: int | None
    ) -> Snapshot | None:
        """A state with the commits after it, up to a version; None if that is not there."""
        done = -1 if state is None else state.version
        last = sys.maxsize if version is None else version
        for entry in self._entries(n for n in _numbers(names, ".json") if done < n <= last):
            self.require_next(entry, -1 if state is None else state.version)
            state = apply_entry(state, entry)
        if state is None or (version is not None and state.version != version):
            return None
        return state

    def _entries(self, numbers: Iterable[int]) -> Iterator[Entry]:
        """Commits in the order of their numbers; of a remote store several are read at once."""
        if self.storage.is_local:
            yield from map(self.entry, numbers)
            return
        with ThreadPoolExecutor(READS_AT_ONCE) as pool:
            yield from pool.map(self.entry, numbers)

    def _names(self, after: int | None) -> list[str]:
        """The names of the log's files, those of a version and before left out."""
        names = self._listed(after)
        numbers = _numbers(names, ".json")
        first = numbers[:1] if after is None else [after + 1]
        if numbers and numbers != list(range(first[0], numbers[-1] + 1)):
            # A folder's listing may miss a commit that was made meanwhile, and have the next.
            names = list({*names, *self._listed(after)})
        return names

    def _listed(self, after: int | None) -> list[str]:
        marker = None if after is None else _entry_key(after)
        return [
            found.key.rsplit("/", 1)[1] for found in self.storage.list(LOG_FOLDER, after=marker)
        ]


def inner_tables(keys: Iterable[str]) -> set[str]:
    """The folders of the tables that lie below a table's own, of which these are the keys."""
    return {
        "/".join(folders[:depth])
        for key in keys
        for folders in [key.split("/")[:-1]]
        for depth, name in enumerate(folders)
        if depth and name in LOG_FOLDERS
    }


def _numbers(names: Iterable[str], suffix: str) -> list[int]:
    """The versions of the files that are named by a number and that suffix."""
    stems = (name.removesuffix(suffix) for name in names if name.endswith(suffix))
    return sorted(int(stem) for stem in stems if stem.isdigit())


def _versions(names: Sequence[str]) -> list[int]:
    """The versions that a log with files of these names tells of.

    A cut log begins with a checkpoint; of what lies before it none is a version.
    """
    numbers = _numbers(names, ".json")
    checkpoints = _numbers(names, SUFFIX)
    if not checkpoints or 0 in numbers[:1]:
        return numbers
    return [number for number in numbers if number >= checkpoints[0]]


def _entry_key(version: int) -> str:
    return f"{LOG_FOLDER}/{version:020d}.json"
