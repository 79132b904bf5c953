"""A table: part files in a folder, and the log that says which of them count.

Owns writing and reading of whole tables and partitions. Every write is staged and becomes
true by one commit; until then, and after any failure, readers see the version before.
"""

import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from numbers import Integral
from typing import Literal, TypeAlias

import pyarrow as pa

from neurolake_dagster.errors import (
    CommitConflictError,
    PartitionError,
    StorageNotFoundError,
    TableError,
)
from neurolake_dagster.storage import Storage
from neurolake_dagster.tables.change import Change, Commit
from neurolake_dagster.tables.checkpoints import LOG_FOLDER
from neurolake_dagster.tables.commit import (
    carry_out,
    check_option,
    checked_properties,
    commit_of,
)
from neurolake_dagster.tables.entry import Entry
from neurolake_dagster.tables.formats import FileFormat, Filters, file_format
from neurolake_dagster.tables.incoming import Incoming, Rows, Split
from neurolake_dagster.tables.layout import check_layout
from neurolake_dagster.tables.log import Log, check_place
from neurolake_dagster.tables.partitions import (
    Partition,
    PartitionLike,
    as_partitions,
)
from neurolake_dagster.tables.parts import STAGING_FOLDER, TARGET_FILE_BYTES, PartFiles
from neurolake_dagster.tables.reading import files_gone, read_files, scan_files
from neurolake_dagster.tables.schemas import SchemaMode, fit_batch, schema_after
from neurolake_dagster.tables.snapshot import (
    DataFile,
    Snapshot,
    TableFormat,
    TableSchema,
    checked_format,
)
from neurolake_dagster.tables.stage import Stage

Mode = Literal["overwrite", "append", "error", "ignore"]
Version: TypeAlias = int | datetime | Snapshot | None


@dataclass(frozen=True)
class Table:
    """A dataset of one format at a place; it need not exist yet. Picklable.

    Parameters
    ----------
    path
        The table's folder below the storage's root.
    format
        Of the part files. NCF keeps the files of former versions until they are vacuumed;
        Parquet deletes them after each commit, so that any reader of plain folders sees
        exactly the newest version; where another table lies below it, as `flights/daily` does below
        `flights`, such a reader must not look into all folders.
    """

    storage: Storage
    path: str
    format: TableFormat

    def __post_init__(self) -> None:
        checked_format(self.format, self.uri)

    @property
    def uri(self) -> str:
        """The address people see."""
        return self.storage.uri(self.path)

    @property
    def spark_uri(self) -> str:
        """The address Spark takes."""
        return self.storage.spark_uri(self.path)

    @property
    def folder(self) -> Storage:
        """The storage rooted at the table's folder: paths of files are keys there."""
        return self.storage.child(self.path)

    @property
    def log(self) -> Log:
        """The table's commits."""
        return Log(self.folder)

    def exists(self) -> bool:
        """Whether a version was ever committed here."""
        return self.log.try_snapshot() is not None

    def snapshot(self, version: Version = None) -> Snapshot:
        """The newest version, that one, or the one of that moment; reads the log only.

        A snapshot is given back as it is: whoever has one need not read the log again.
        """
        if isinstance(version, Snapshot):
            return version
        if isinstance(version, datetime):
            version = self.log.version_at(version)
        elif isinstance(version, bool) or not isinstance(version, Integral | None):
            raise TableError(
                f"{self.uri}: version {version!r}, expected a number, a datetime or a snapshot"
            )
        found = self.log.snapshot(version)
        if found.format != self.format:
            raise TableError(f"{self.uri}: holds {found.format} files, asked for {self.format}")
        return found

    def files(self, partitions: Iterable[PartitionLike] | None = None) -> tuple[DataFile, ...]:
        """The live files, of some partitions or of all."""
        return self.snapshot().files_of(partitions)

    def history(self, limit: int | None = None) -> list[Entry]:
        """The commits, newest first; all, or that many."""
        newest = self.snapshot().version
        after = -1 if limit is None else max(-1, newest - limit)
        return sorted(self.log.entries(after=after), key=lambda entry: -entry.version)[:limit]

    def read(
        self,
        columns: Sequence[str] | None = None,
        filters: Filters | None = None,
        partitions: Iterable[PartitionLike] | None = None,
        *,
        version: Version = None,
    ) -> pa.Table:
        """Read rows into memory, in the order of the files.

        Parameters
        ----------
        columns
            Names to read, in that order; None reads all.
        filters
            A text as ``"day < '2013-01-02' AND id IN (1, 2)"``, or as in
            `pyarrow.parquet.read_table`; exact, and what cannot match is not read.
        partitions
            Read only these; those without files give no rows.
        """
        wanted = None if partitions is None else as_partitions(partitions)
        snapshot = self.snapshot(version)
        while True:
            files = snapshot.files_of(wanted)
            try:
                return read_files(self.folder, self.files_format, snapshot, files, columns, filters)
            except StorageNotFoundError as exc:
                # Parquet keeps no old files: a commit came between the log and the read.
                newest = self.snapshot(version)
                if newest.version == snapshot.version:
                    raise files_gone(exc, snapshot, self.snapshot(), self.uri) from exc
                snapshot = newest

    def scan(
        self,
        columns: Sequence[str] | None = None,
        filters: Filters | None = None,
        partitions: Iterable[PartitionLike] | None = None,
        *,
        version: Version = None,
    ) -> pa.RecordBatchReader:
        """Stream rows in bounded memory; the parameters are those of :meth:`read`."""
        snapshot = self.snapshot(version)
        wanted = snapshot.files_of(partitions)
        rows = scan_files(self.folder, self.files_format, snapshot, wanted, columns, filters)

        def batches() -> Iterator[pa.RecordBatch]:
            try:
                yield from rows
            except StorageNotFoundError as exc:
                raise files_gone(exc, snapshot, self.snapshot(), self.uri) from exc

        return pa.RecordBatchReader.from_batches(rows.schema, batches())

    def write(
        self,
        data: Rows | Mapping[Partition, Rows],
        *,
        partition: PartitionLike | None = None,
        split: Split | None = None,
        partitions: Iterable[PartitionLike] | None = None,
        mode: Mode = "overwrite",
        properties: Mapping[str, str] | None = None,
        transaction: str | None = None,
        schema_mode: SchemaMode | None = None,
        table_properties: Mapping[str, str] | None = None,
    ) -> Commit:
        """Write rows in one commit, streamed; a failure leaves the former version as it was.

        Parameters
        ----------
        data
            Rows; or rows by partition, which replace exactly those.
        partition
            All rows belong to this partition; only it is replaced.
        split
            Divides each batch by partition instead; with `partitions`, which are replaced.
            A row of another partition is refused before anything is touched.
        mode
            ``overwrite`` replaces the table or the partitions; ``append`` adds; ``error``
            refuses an existing table and ``ignore`` leaves it.
        properties
            Kept with the commit, for example the run's id; `table_properties` with the table.
        transaction
            Names this piece of work: if a commit carries it already, nothing is written.
        schema_mode
            ``strict`` refuses rows of another schema, ``merge`` adds columns that the table
            lacks and fills those that the rows lack with nulls, ``overwrite`` takes the rows'.
            None is ``overwrite`` where the whole table is replaced, else ``strict``.

        Raises
        ------
        SchemaMismatchError, PartitionError, CommitConflictError
        """
        check_option("mode", mode, Mode, self.uri)
        base = self.log.try_snapshot()
        done = self._done_before(base, mode, transaction)
        if done is not None:
            return done
        incoming = Incoming.of(data, partition, partitions, split)
        whole = mode == "overwrite" and not incoming.asked
        change = Change(
            operation=mode,
            files=(),
            schema=self.schema_for(base, incoming.schema, schema_mode, whole=whole),
            replaced=None if mode == "append" else tuple(incoming.asked),
            info=checked_properties(properties, self.uri),
            sets=checked_properties(table_properties, self.uri),
            transaction=transaction,
        )
        return self._write(incoming, change, base)

    def _write(self, incoming: Incoming, change: Change, base: Snapshot | None) -> Commit:
        """Write the rows' files, and carry out the change with them."""
        schema = change.schema.schema
        if base is not None and change.replaced != () and (incoming.asked or not incoming.split):
            check_layout(base.partitions, incoming.asked or [()], self.uri)
        with self.open_parts(schema) as parts:
            for place, rows in incoming.divided(self.uri):
                parts.write(place, fit_batch(rows, schema))
            is_append = change.replaced is None
            held = set(base.partitions) if is_append and base is not None else set()
            for place in incoming.asked or ([] if incoming.split or is_append else [()]):
                if place not in held:
                    parts.ensure(place)
            return self.commit_parts(change, base, parts)

    def commit_parts(self, change: Change, base: Snapshot | None, parts: PartFiles) -> Commit:
        """Carry out a change with its files and those of `parts`."""
        if base is not None:
            change = self._retyped(change, base, parts)
        parts.close()
        change = replace(change, files=(*change.files, *parts.files))
        return carry_out(self.folder, self.format, change, base, parts.forget)

    def done_before(self, mode: Mode, transaction: str | None) -> Commit | None:
        """What a write would return without writing; None if it has something to do.

        Raises
        ------
        TableError
            For mode ``error`` on a table that another piece of work made.
        """
        return self._done_before(self.log.try_snapshot(), mode, transaction)

    @contextmanager
    def still(self, base: Snapshot) -> Iterator[None]:
        """Read a version's files for a change of it: where they are gone, another came first.

        Raises
        ------
        CommitConflictError
        """
        try:
            yield
        except StorageNotFoundError as exc:
            newest = self.snapshot()
            if newest.version == base.version:
                raise
            raise CommitConflictError(
                f"{self.uri}: version {newest.version} came while this change read the files of "
                f"version {base.version}, which are gone; run it again on the newest version"
            ) from exc

    def stage(self) -> Stage:
        """A folder where Spark or a converter writes part files for a later `commit`."""
        return Stage(self.folder, f"{STAGING_FOLDER}/{uuid.uuid4().hex}", self.files_format)

    def commit(
        self,
        files: Sequence[DataFile],
        *,
        schema: pa.Schema,
        partitions: Iterable[PartitionLike] = (),
        mode: Mode = "overwrite",
        properties: Mapping[str, str] | None = None,
        transaction: str | None = None,
        schema_mode: SchemaMode | None = None,
        table_properties: Mapping[str, str] | None = None,
    ) -> Commit:
        """Make files that were written by others the table's, in one commit.

        Parameters
        ----------
        files
            Lying below the table's folder; those of a stage are moved to their place.
        schema
            Of all the files.
        partitions
            That the files replace; empty replaces the table.

        Raises
        ------
        PartitionError
            If a file belongs to another partition.
        """
        check_option("mode", mode, Mode, self.uri)
        base = self.log.try_snapshot()
        done = self._done_before(base, mode, transaction)
        if done is not None:
            return done
        asked = tuple(as_partitions(partitions))
        stray = sorted({_named(file.partition) for file in files} - set(map(_named, asked)))
        if asked and stray:
            raise PartitionError(f"{self.uri}: files of partitions {stray} were not asked for")
        whole = mode == "overwrite" and not asked
        change = Change(
            operation=mode,
            files=tuple(files),
            schema=self.schema_for(base, schema, schema_mode, whole=whole),
            replaced=None if mode == "append" else asked,
            info=checked_properties(properties, self.uri),
            sets=checked_properties(table_properties, self.uri),
            transaction=transaction,
        )
        with self.open_parts(change.schema.schema) as parts:
            return self.commit_parts(change, base, parts)

    @property
    def files_format(self) -> FileFormat:
        """How the part files are read and written."""
        return file_format(self.format)

    def open_parts(
        self, schema: pa.Schema, target_file_bytes: int = TARGET_FILE_BYTES
    ) -> PartFiles:
        """Part files to fill and then to name in a commit."""
        return PartFiles(
            self.folder,
            self.files_format,
            schema,
            folder=self.staging_folder(),
            target_file_bytes=target_file_bytes,
        )

    def staging_folder(self) -> str:
        """Where new files wait: only plain readers of Parquet could see them before the commit."""
        return f"{STAGING_FOLDER}/{uuid.uuid4().hex}" if self.format == "parquet" else ""

    def schema_after(
        self, schema: pa.Schema, *, whole: bool, schema_mode: SchemaMode | None
    ) -> pa.Schema:
        """The table's schema after a write of such rows, which staged files must have."""
        base = self.log.try_snapshot()
        return self.schema_for(base, schema, schema_mode, whole=whole).schema

    def schema_for(
        self,
        base: Snapshot | None,
        schema: pa.Schema,
        mode: SchemaMode | None,
        *,
        whole: bool = False,
    ) -> TableSchema:
        """As :func:`schemas.schema_after`; refuses what the files' format cannot keep up with."""
        if mode is not None:
            check_option("schema_mode", mode, SchemaMode, self.uri)
        if base is None:
            check_place(self.folder, LOG_FOLDER, self.uri)
        elif base.format != self.format:
            raise TableError(f"{self.uri}: holds {base.format} files, not {self.format}")
        found = schema_after(base, schema, mode, self.uri, whole=whole)
        is_longer = base is not None and len(found.schema) > len(base.schema)
        if is_longer and self.format == "parquet" and not whole:
            raise TableError(
                f"{self.uri}: parquet files are read by others, who would not see the new columns "
                "in the files that stay; overwrite the whole table, or keep it as ncf or delta"
            )
        return found

    def _retyped(self, change: Change, base: Snapshot, parts: PartFiles) -> Change:
        """The change, with the files that stay written anew where a column got its type.

        Readers of plain Parquet folders take no text for what is null by type in another file.
        """
        if self.format != "parquet" or change.replaced == ():
            return change
        types = change.schema.schema.types
        if all(map(pa.DataType.equals, base.schema.types, types)):
            return change
        replaced, removed = set(change.replaced or ()), set(change.removed)
        stay = [
            file
            for file in base.files
            if file.partition not in replaced and file.path not in removed
        ]
        for file in stay:
            with self.still(base):
                for rows in scan_files(self.folder, self.files_format, base, [file], None, None):
                    parts.write(file.partition, fit_batch(rows, change.schema.schema))
            parts.ensure(file.partition)
        removed.update(file.path for file in stay)
        return replace(change, removed=tuple(removed), reads=())

    def _done_before(
        self, base: Snapshot | None, mode: Mode, transaction: str | None
    ) -> Commit | None:
        """What is to be returned without writing; None to go on."""
        if base is None:
            return None
        done = commit_of(self.log, base, transaction)
        if done is not None:
            return done
        if mode == "error":
            raise TableError(
                f"{self.uri}: exists already (version {base.version}), mode 'error' refuses it"
            )
        return Commit.nothing(base) if mode == "ignore" else None


def _named(partition: Partition) -> str:
    return str(dict(partition))
