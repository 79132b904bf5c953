"""From staged files to a version: the commit, its retries and its conflicts.

Owns optimistic concurrency: a commit whose number is taken is tried again on top of the
others if they touched nothing that it replaces, and refused otherwise.
"""

import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, get_args

from neurolake_dagster.errors import (
    CommitConflictError,
    NeuroLakeError,
    PartitionError,
    StorageError,
    StorageExistsError,
    TableError,
    TableNotFoundError,
)
from neurolake_dagster.storage import Storage
from neurolake_dagster.tables.change import Change, Commit
from neurolake_dagster.tables.entry import Entry, apply_entry
from neurolake_dagster.tables.layout import check_layout
from neurolake_dagster.tables.log import Log
from neurolake_dagster.tables.partitions import partition_folder
from neurolake_dagster.tables.parts import STAGING_FOLDER
from neurolake_dagster.tables.skipping import matching_files
from neurolake_dagster.tables.snapshot import DataFile, Snapshot, TableFormat, TableSchema

MOVES_AT_ONCE = 16
# A property of a Parquet table: keep the files of former versions, as NCF does. Readers of the
# plain folder then see the rows of all versions.
KEEP_FILES = "neurolake.keep_former_files"
# What writes rows anew that the table had: no reader of them misses a row.
REWRITES = ("optimize", "delete")
# What it brings depends on rows that the table had: nothing that changes those comes before it.
DEPENDENT = ("merge", "restore")


def carry_out(
    folder: Storage,
    table_format: TableFormat,
    change: Change,
    base: Snapshot | None,
    keep_files: Callable[[], None],
) -> Commit:
    """Commit a change on top of `base` or of what came since, if that leaves it its ground.

    Parameters
    ----------
    keep_files
        Called before the log may name the files: whoever is interrupted then must not delete them.

    Raises
    ------
    CommitConflictError
        If a commit since `base` touched what this one replaces; nothing was changed.
    PartitionError
        If its files are of other dimensions than those that stay; nothing was changed.
    """
    log = Log(folder)
    change = replace(change, files=_in_place(folder, change.files))
    own = [] if change.restores else [file.path for file in change.files]
    token = uuid.uuid4().hex
    keep_files()
    try:
        entry, state = _put(log, table_format, change, base, token)
    except NeuroLakeError as exc:
        is_refused = isinstance(exc, (CommitConflictError, PartitionError))
        if is_refused or _is_surely_lost(log, base, token):
            folder.delete(own)
        raise
    if entry.token != token:
        folder.delete(own)
        return Commit.of(entry, state)
    if not keeps_former_files(table_format, state.properties):
        _delete_former_files(log, entry, state)
    return Commit.of(entry, state)


def commit_of(log: Log, base: Snapshot, transaction: str | None) -> Commit | None:
    """What the commit of a transaction did, whose end is made up for; None if there is none."""
    version = base.version_of(transaction)
    if version is None:
        return None
    entry = _committed(log, version)
    if entry is None:  # a vacuum cuts the log; what was done long ago stays done
        return Commit.nothing(base)
    if not keeps_former_files(base.format, base.properties):
        # Whoever died right after its commit left them to be seen by plain readers.
        _delete_former_files(log, entry, base)
    return Commit.of(entry, base)


def checked_properties(properties: Mapping[str, str] | None, where: str) -> Mapping[str, str]:
    """Properties to set; `TableError` if one is no text."""
    wrong = {
        name: value
        for name, value in (properties or {}).items()
        if not (isinstance(name, str) and isinstance(value, str))
    }
    if wrong:
        raise TableError(f"{where}: properties {wrong!r}, expected texts")
    return properties or {}


def check_option(name: str, value: object, options: Any, where: str) -> None:
    """Refuse what is none of a `Literal`'s values: it would be taken for another of them."""
    known = get_args(options)
    if value not in known:
        raise TableError(f"{where}: {name} {value!r}, expected one of {list(known)}")


def keeps_former_files(table_format: TableFormat, properties: Mapping[str, str]) -> bool:
    """Whether the files of former versions stay until a vacuum takes them."""
    return table_format == "ncf" or properties.get(KEEP_FILES) == "true"


def _delete_former_files(log: Log, entry: Entry, state: Snapshot) -> None:
    """Delete what the commit took away, and what the one before left if it died at this."""
    last = [entry, *([log.entry(entry.version - 1)] if entry.version else [])]
    if any(one.properties is not None for one in last):
        # Perhaps they were kept until now.
        last = [*log.entries(), *last]
    gone = {path for one in last for path in one.removed}
    log.storage.delete(gone - {file.path for file in state.files})


def _put(
    log: Log,
    table_format: TableFormat,
    change: Change,
    base: Snapshot | None,
    token: str,
) -> tuple[Entry, Snapshot]:
    """Commit, trying again while others come first.

    Returns
    -------
    The change's own entry, or that of another attempt at the same transaction, and its version.
    """
    while True:
        entry = _entry(table_format, change, base, token)
        _check_layout(log, entry, base)
        try:
            return log.put(entry, base)
        except StorageExistsError:
            others = tuple(log.following(entry.version - 1)) or (log.taker(entry.version),)
            for other in others:
                if _is_same_work(entry, other):
                    return other, log.snapshot(other.version)
            change, base = _rebase(log, change, base, others)
        except StorageError:
            # The answer was lost, perhaps not the commit.
            found = _committed(log, entry.version)
            if found is None or found.token != token:
                raise
            return found, log.snapshot(entry.version)


def _entry(table_format: TableFormat, change: Change, base: Snapshot | None, token: str) -> Entry:
    files = change.files
    if not change.restores:
        files = tuple(replace(file, schema_id=change.schema.id) for file in files)
    is_known = base is not None and change.schema.id in base.schemas
    return Entry(
        version=0 if base is None else base.version + 1,
        token=token,
        format=table_format,
        operation=change.operation,
        added=files,
        removed=_removed(change, base),
        replaced=change.replaced,
        schema=None if is_known else change.schema,
        former=_former_schemas(change, base),
        properties=_properties(change, base),
        transaction=change.transaction,
        transactions=change.transactions,
        info=change.info,
        metrics=change.metrics,
    )


def _former_schemas(change: Change, base: Snapshot | None) -> tuple[TableSchema, ...]:
    """The schemas of files that come back, which the version before does not know."""
    if change.restores is None or base is None:
        return ()
    numbers = {file.schema_id for file in change.files}.difference(base.schemas)
    return tuple(change.restores.schemas[number] for number in sorted(numbers))


def _properties(change: Change, base: Snapshot | None) -> Mapping[str, str] | None:
    """What the table is to have after the change; None where that stays."""
    held = {} if base is None else dict(base.properties)
    wanted = {**(held if change.properties is None else change.properties), **change.sets}
    return None if wanted == held else wanted


def _check_layout(log: Log, entry: Entry, base: Snapshot | None) -> None:
    if base is not None and entry.added:
        gone = set(entry.removed)
        held = {file.partition for file in base.files if file.path not in gone}
        check_layout(held, {file.partition for file in entry.added}, log.storage.root)


def _removed(change: Change, base: Snapshot | None) -> tuple[str, ...]:
    if base is None or change.replaced is None:
        return change.removed
    files = base.files if change.replaced == () else base.files_of(change.replaced)
    return tuple(dict.fromkeys([*change.removed, *(file.path for file in files)]))


def _committed(log: Log, version: int) -> Entry | None:
    try:
        return log.entry(version)
    except (StorageError, TableNotFoundError):
        return None


def _is_surely_lost(log: Log, base: Snapshot | None, token: str) -> bool:
    """Whether no commit names an attempt's files; on S3 one may still be on its way."""
    if not log.storage.is_local:
        return False
    try:
        since = log.entries(after=-1 if base is None else base.version)
        return all(entry.token != token for entry in since)
    except NeuroLakeError:
        return False


def _is_same_work(entry: Entry, other: Entry) -> bool:
    """Whether the other is this very commit, or another attempt's at its transaction."""
    same = entry.transaction is not None and entry.transaction == other.transaction
    return same or entry.token == other.token


def _rebase(
    log: Log, change: Change, base: Snapshot | None, others: Sequence[Entry]
) -> tuple[Change, Snapshot | None]:
    """The change on top of the commits since `base`, if none of them speaks against it.

    Of exactly those: what comes while they are looked at is found by the next try.
    """
    since, newest = -1 if base is None else base.version, base
    for other in others:
        if not change.is_overtaken and _brings_rows(other, change, base):
            change = replace(change, is_overtaken=True)
        reason = _conflict(change, other, base)
        if reason:
            raise CommitConflictError(
                f"{log.storage.root}: this {change.operation} (based on version {since}) and "
                f"version {other.version} ({other.operation}, {other.timestamp:%F %T} UTC) "
                f"{reason}; run it again on the newest version"
            )
        newest = apply_entry(newest, other)
    if base is None and newest is not None:
        change = replace(change, schema=newest.table_schema)
    return change, newest


def _conflict(change: Change, other: Entry, base: Snapshot | None) -> str:
    """Why the other commit takes away this change's ground; empty if it does not."""
    if other.schema is not None and (base is not None or not _same(change, other.schema)):
        return "both depend on the schema"
    if change.removed and set(change.removed) & set(other.removed):
        return "both replace the same files"
    if set(change.found) & set(other.removed):
        return "both depend on the same rows"
    if change.is_overtaken and change.operation != "delete":
        return "both add rows, perhaps with the same keys"
    if change.is_overtaken and other.operation in DEPENDENT:
        return "both change rows, perhaps the same"
    if change.properties is not None and other.properties is not None:
        return "both set the table's properties"
    if change.restores and (other.added or other.removed):
        return "both replace the whole table"
    if change.replaced is None:
        return ""
    touched = {file.partition for file in other.added} | set(other.replaced or ())
    if change.replaced == () or other.replaced == ():
        return "both replace the whole table" if touched or other.removed else ""
    held = () if base is None else base.files
    touched |= {file.partition for file in held if file.path in set(other.removed)}
    shared = sorted(str(dict(place)) for place in touched & set(change.replaced))
    return f"both changed partitions {', '.join(shared)}" if shared else ""


def _brings_rows(other: Entry, change: Change, base: Snapshot | None) -> bool:
    """Whether a commit brought rows that a change would have looked at."""
    if change.reads is None or other.operation in REWRITES:
        return False
    came = [file for file in other.added if not change.reads or file.partition in change.reads]
    return bool(came if base is None else matching_files(base, came, change.where))


def _same(change: Change, schema: TableSchema) -> bool:
    return bool(change.schema.schema.equals(schema.schema))


def _in_place(folder: Storage, files: tuple[DataFile, ...]) -> tuple[DataFile, ...]:
    """Move staged files to their partition's folder; what fails leaves none behind."""
    moves = {file: _place(file) for file in files if file.path.startswith(f"{STAGING_FOLDER}/")}
    if not moves:
        return files
    stages = {"/".join(file.path.split("/")[:2]) for file in moves}
    if not folder.is_local:
        # A store moves by copying. Who may delete nothing would leave the copies in plain view.
        folder.delete(f"{stage}/_moving" for stage in stages)

    def move(file: DataFile) -> None:
        folder.move(file.path, moves[file])

    try:
        with ThreadPoolExecutor(MOVES_AT_ONCE) as pool:
            list(pool.map(move, moves))
    except BaseException:
        folder.delete(moves.values())
        raise
    for stage in stages:
        folder.remove_empty_folders(stage)
    return tuple(replace(file, path=moves.get(file, file.path)) for file in files)


def _place(file: DataFile) -> str:
    name = file.path.rsplit("/", 1)[1]
    place = partition_folder(file.partition)
    return f"{place}/{name}" if place else name
