"""Housekeeping of a table: restore, optimize, vacuum.

Owns what may be deleted: never a file that a kept version needs.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pyarrow.compute as pc

from neurolake_dagster.errors import TableError, TableNotFoundError
from neurolake_dagster.tables.change import Change, Commit
from neurolake_dagster.tables.checkpoints import LOG_FOLDER
from neurolake_dagster.tables.commit import carry_out, keeps_former_files
from neurolake_dagster.tables.log import Log, inner_tables
from neurolake_dagster.tables.merging import without_dictionaries
from neurolake_dagster.tables.partitions import Partition
from neurolake_dagster.tables.parts import STAGING_FOLDER, TARGET_FILE_BYTES, PartFiles
from neurolake_dagster.tables.reading import read_files, reason_gone, scan_files
from neurolake_dagster.tables.snapshot import DataFile, Snapshot
from neurolake_dagster.tables.table import Table

RETENTION = timedelta(days=7)
# Commits are kept longer than files: they are small, and a cut behind a writer would be harmful.
LOG_RETENTION = timedelta(days=30)
# A file counts as small below this share of the target: rewriting others gains nothing.
SMALL_SHARE = 0.75
_FIRST_TIME = datetime.min.replace(tzinfo=UTC)
# By whose values Arrow sorts no rows.
_WITHOUT_ORDER = (
    pa.types.is_nested,
    pa.types.is_null,
    pa.types.is_interval,
    pa.types.is_float16,
    pa.types.is_decimal32,
    pa.types.is_decimal64,
)


@dataclass(frozen=True, kw_only=True)
class VacuumReport:
    """What a vacuum deleted, or with a dry run would have."""

    paths: tuple[str, ...]
    bytes: int
    is_dry_run: bool


def restore(table: Table, version: int) -> Commit:
    """Make a former version the newest again, as a new commit; nothing is rewritten.

    What was done since counts as not done: an append that is run again adds its rows again.

    Raises
    ------
    TableError
        If files of that version were vacuumed, or the format keeps none.
    """
    current, former = table.snapshot(), table.snapshot(version)
    here = {file.path for file in current.files}
    back = tuple(file for file in former.files if file.path not in here)
    # What is not kept may be there for a moment still, before its commit deletes it.
    doomed = _not_kept(table, former)
    lost = [file.path for file in back if file.path in doomed or not table.folder.exists(file.path)]
    if lost:
        raise TableError(
            f"{table.uri}: version {former.version} cannot be restored, {len(lost)} of its files "
            f"are gone, first {lost[0]!r}; {reason_gone(former, current)}"
        )
    there = {file.path for file in former.files}
    schema, held = current.table_schema, former.table_schema
    # A column that was dropped and added again has the same name, and is another one.
    is_same = held.field_ids == schema.field_ids
    if not is_same or not held.schema.equals(schema.schema, check_metadata=True):
        schema = replace(held, id=schema.id + 1)
    change = Change(
        operation="restore",
        files=back,
        schema=schema,
        replaced=None,
        removed=tuple(file.path for file in current.files if file.path not in there),
        restores=former,
        properties=dict(former.properties),
        transactions={
            **{key: None for key in current.transactions if key not in former.transactions},
            **{
                key: done
                for key, done in former.transactions.items()
                if key not in current.transactions
            },
        },
        info={"restored_version": str(former.version)},
    )
    return carry_out(table.folder, table.format, change, current, lambda: None)


def _not_kept(table: Table, former: Snapshot) -> set[str]:
    """Paths of the files that commits since a version took away for good."""
    gone: set[str] = set()
    if keeps_former_files(table.format, {}):
        return gone
    removed, properties = set[str](), former.properties
    for entry in table.log.entries(after=former.version):
        removed.update(entry.removed)
        properties = properties if entry.properties is None else entry.properties
        if not keeps_former_files(table.format, properties):
            gone |= removed
    return gone


def optimize(
    table: Table,
    *,
    target_file_bytes: int = TARGET_FILE_BYTES,
    sort_by: Sequence[str] = (),
    partitions: Sequence[Partition] | None = None,
) -> Commit:
    """Rewrite the small files of each partition into few, optionally sorted by columns.

    Rows are streamed. With `sort_by` all files of a partition are rewritten, so that each holds a
    range, and the partition's rows are in memory.
    """
    if target_file_bytes < 1:
        raise TableError(f"{table.uri}: target_file_bytes {target_file_bytes}, expected 1 or more")
    snapshot = table.snapshot()
    _check_order(snapshot.schema, sort_by, table.uri)
    if not snapshot.schema.names:
        return Commit.nothing(snapshot)
    groups: dict[Partition, list[DataFile]] = {}
    for file in snapshot.files_of(partitions):
        if sort_by or file.bytes < SMALL_SHARE * target_file_bytes:
            groups.setdefault(file.partition, []).append(file)
    chosen = {place: files for place, files in groups.items() if len(files) > 1 or sort_by}
    if not chosen:
        return Commit.nothing(snapshot)
    with table.open_parts(snapshot.schema, target_file_bytes) as parts:
        for place, files in chosen.items():
            with table.still(snapshot):
                _write_anew(table, snapshot, place, files, sort_by, parts)
        parts.close()
        removed = tuple(file.path for files in chosen.values() for file in files)
        change = Change(
            operation="optimize",
            files=tuple(parts.files),
            schema=snapshot.table_schema,
            replaced=None,
            removed=removed,
            metrics={"files_before": len(removed), "files_after": len(parts.files)},
        )
        return carry_out(table.folder, table.format, change, snapshot, parts.forget)


def _write_anew(
    table: Table,
    snapshot: Snapshot,
    place: Partition,
    files: Sequence[DataFile],
    sort_by: Sequence[str],
    parts: PartFiles,
) -> None:
    """Write the rows of a partition's files into as many as their size asks for."""
    each = left = _rows_per_file(files, parts.target_file_bytes)
    for batch in _rows(table, snapshot, files, sort_by):
        while batch.num_rows:
            head, batch = batch.slice(0, left), batch.slice(left)
            parts.write(place, head)
            left -= head.num_rows
            if left == 0:
                parts.finish(place)
                left = each
    parts.ensure(place)


def _check_order(schema: pa.Schema, sort_by: Sequence[str], where: str) -> None:
    wrong = [name for name in sort_by if name not in schema.names]
    wrong += [name for name in sort_by if name not in wrong and _is_unordered(schema.field(name))]
    if wrong:
        known = [field.name for field in schema if not _is_unordered(field)]
        raise TableError(f"{where}: sort_by names {wrong!r}, expected some of {known!r}")


def _is_unordered(field: pa.Field) -> bool:
    type_ = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
    is_extension = isinstance(type_, pa.BaseExtensionType)
    return is_extension or any(is_one(type_) for is_one in _WITHOUT_ORDER)


def _rows(
    table: Table, snapshot: Snapshot, files: Sequence[DataFile], sort_by: Sequence[str]
) -> pa.RecordBatchReader:
    source = (table.folder, table.files_format, snapshot, files, None, None)
    if not sort_by:
        return scan_files(*source)
    rows = read_files(*source)
    keys = without_dictionaries(rows.select(list(dict.fromkeys(sort_by))))
    order = pc.sort_indices(keys, [(name, "ascending") for name in keys.column_names])
    return rows.take(order).to_reader()


def _rows_per_file(files: Sequence[DataFile], target_file_bytes: int) -> int:
    """How many rows make a file of about that size, judged by the files there are."""
    rows, size = sum(file.row_count for file in files), sum(file.bytes for file in files)
    count = max(1, round(size / target_file_bytes))
    return max(1, -(-rows // count))


def vacuum(
    table: Table,
    *,
    retention: timedelta = RETENTION,
    log_retention: timedelta = LOG_RETENTION,
    dry_run: bool = False,
) -> VacuumReport:
    """Delete files that no version of the last `retention` needs.

    That is: files that were replaced before it, and files no commit ever named (of writes that
    failed or were killed) that are older than it. Former versions that lose a file can be read
    no more. A Parquet table keeps no former files, so that what it no longer needs goes at once.
    Tables that lie below this one's folder, and files of others there, are left alone.

    A retention shorter than the longest write takes that write's files away.

    Parameters
    ----------
    log_retention
        The log's files go when they are older than this and the retention: the history begins
        later then. Longer than any write takes.
    """
    for name, one in {"retention": retention, "log_retention": log_retention}.items():
        if not isinstance(one, timedelta) or one < timedelta(0):
            raise TableError(
                f"{table.uri}: {name} {one!r}, expected a timedelta that is not negative"
            )
    table.snapshot()  # Refuses a table of the other format, of which it would keep no versions.
    now = datetime.now(UTC)
    retention, log_retention = (
        min(one, now - _FIRST_TIME) for one in (retention, max(retention, log_retention))
    )
    cutoff = now - retention
    # Listed first: a file that is committed meanwhile is then named by the log.
    present = [*table.folder.list(), *table.folder.unfinished()]
    story = _Story.of(table.log, cutoff, now - log_retention)
    needed = story.needed if keeps_former_files(table.format, story.properties) else story.live
    inner = inner_tables(entry.key for entry in present)
    doomed = [
        entry
        for entry in present
        if entry.key not in needed
        and (
            entry.key in story.known
            or (entry.modified <= cutoff and _is_owned(entry.key, table, inner))
        )
    ]
    old = table.log.files_before(story.first_kept)
    if not dry_run:
        table.folder.delete(entry.key for entry in doomed)
        table.folder.remove_empty_folders(STAGING_FOLDER, until=cutoff)
        if old:
            table.log.cut(story.first_kept)
    gone = sorted([*doomed, *old], key=lambda entry: entry.key)
    return VacuumReport(
        paths=tuple(entry.key for entry in gone),
        bytes=sum(entry.bytes for entry in gone),
        is_dry_run=dry_run,
    )


@dataclass
class _Story:
    """What a log tells of a table's files.

    Parameters
    ----------
    live, needed, known
        Paths that the newest version has; that one of the kept time has; that any had.
    first_kept
        The version at which the log may begin.
    """

    live: set[str]
    needed: set[str]
    known: set[str]
    properties: Mapping[str, str]
    first_kept: int

    @staticmethod
    def of(log: Log, cutoff: datetime, log_cutoff: datetime) -> "_Story":
        """Read the log; again where another vacuum cut it meanwhile."""
        first = log.first_version()
        try:
            return _Story.read(log, cutoff, log_cutoff)
        except TableNotFoundError:
            if log.first_version() == first:
                raise
            return _Story.of(log, cutoff, log_cutoff)

    @staticmethod
    def read(log: Log, cutoff: datetime, log_cutoff: datetime) -> "_Story":
        """Go through the commits once; one is kept whole if the next is not older than `cutoff`.

        Raises
        ------
        TableError
            If a commit is missing: nobody knows which files it brought.
        """
        newest = first = log.first_version()
        state = log.snapshot(first)
        live = {file.path for file in state.files}
        story, is_kept = _Story(live, set(), set(live), state.properties, first), False
        for entry in log.entries(after=first):
            log.require_next(entry, newest)
            newest = entry.version
            if entry.timestamp > cutoff and not is_kept:
                story.needed |= live
                is_kept = True
            if entry.timestamp <= log_cutoff:
                story.first_kept = entry.version
            added = {file.path for file in entry.added}
            live.difference_update(entry.removed)
            live |= added
            story.known |= added
            if is_kept:
                story.needed |= added
            if entry.properties is not None:
                story.properties = entry.properties
        story.needed |= live
        return story


def _is_owned(key: str, table: Table, inner: Collection[str]) -> bool:
    """Whether a file that no commit names can only be a left-over of this table's writes.

    Below a table's folder others may lie, and files that people put there.
    """
    folder, _, name = key.rpartition("/")
    if any(key.startswith(f"{one}/") for one in inner):
        return False
    if folder == LOG_FOLDER:
        return "#" in name  # the log's own files are no left-overs, but those of killed writers
    if key.startswith(f"{STAGING_FOLDER}/"):
        return True
    is_part = name.partition("#")[0].endswith(f".{table.files_format.suffix}")
    return is_part and all("=" in segment for segment in folder.split("/") if segment)
