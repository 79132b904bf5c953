"""Reading NCF in Spark: which row groups each task reads, and reading them.

Owns the division into tasks and the pruning by bounds. Holds only picklable values; files are
opened inside `NCFReader.read`.
"""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import reduce
from operator import and_

import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql.datasource import DataSourceReader, Filter, InputPartition

from neurolake_dagster.errors import SchemaMismatchError
from neurolake_dagster.ncf import NCFFile, RowGroupMetadata
from neurolake_dagster.spark.filters import Bounds, Term, read_filter
from neurolake_dagster.spark.locations import FOOTERS_AT_ONCE, Location
from neurolake_dagster.spark.types import fit_table, keeps_values, match_names
from neurolake_dagster.tables.bounds import encode_bound

PARTITION_BYTES = 128 << 20
OPEN_COST_BYTES = 4 << 20
# A core's share up to this is one task: a second one costs more than an uneven end.
ONE_TASK_BYTES = 16 << 20
# A smaller file is one piece of work: its footer is read by its task, not by the driver.
WHOLE_FILE_BYTES = 8 << 20
BATCH_ROWS = 1 << 17
# What is sent at once: small enough for the processor's cache on both sides of the pipe, large
# enough that a batch's own cost does not count.
SENT_BYTES = 1 << 19


@dataclass(frozen=True, kw_only=True)
class ScanPlan:
    """What is to be read.

    Parameters
    ----------
    schema
        Of what is read, as Spark wants it.
    sent
        How many of its columns are sent; the terms need those behind.
    parallelism
        Tasks that run at once.
    partition_bytes
        Stored bytes that one task reads at most, but for a single larger row group.
    allows_missing
        Whether a column that a file lacks is null there; else that is an error.
    table_schema
        Of the table that the files are of, if they are.
    terms
        What the rows must pass, all of them.
    """

    files: tuple[Location, ...]
    schema: pa.Schema
    sent: int
    parallelism: int
    partition_bytes: int
    allows_missing: bool
    table_schema: pa.Schema | None = None
    terms: tuple[Term, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Piece:
    """Row groups of one file; None is all of them, chosen by the task."""

    file: Location
    groups: tuple[int, ...] | None
    bytes: int


@dataclass
class NCFPartition(InputPartition):
    """What one task reads.

    Parameters
    ----------
    input_bytes
        Stored bytes of the chunks it reads, as text that `jvm/BatchReaders.java` finds in the
        pickled partition: Spark counts what its own file systems read, not what Python does.
    """

    pieces: tuple[Piece, ...]
    input_bytes: str = field(init=False)

    def __post_init__(self) -> None:
        self.input_bytes = f"neurolake:input_bytes={sum(piece.bytes for piece in self.pieces)};"


class NCFReader(DataSourceReader):
    """Reads the columns of a plan, row group by row group."""

    def __init__(self, plan: ScanPlan) -> None:
        self.plan = plan

    def partitions(self) -> list[InputPartition]:
        """Divide the row groups that may match among tasks, by their stored size."""
        files = [file for file in self.plan.files if self._file_may_match(file)]
        with ThreadPoolExecutor(FOOTERS_AT_ONCE) as pool:
            pieces = [piece for found in pool.map(self._pieces, files) for piece in found]
        return [NCFPartition(tuple(group)) for group in _pack(pieces, self._target(pieces))]

    def read(self, partition: InputPartition) -> Iterator[pa.RecordBatch]:
        """Read the pieces of one task."""
        for piece in getattr(partition, "pieces", ()):
            yield from self._read_piece(piece)

    def _target(self, pieces: Sequence[Piece]) -> int:
        """Bytes for a task: as Spark's own file formats divide; large shares twice as fine.

        Row groups cannot be divided, so finer tasks even out what they leave uneven.
        """
        sizes = [piece.bytes for piece in pieces]
        share = sum(sizes) // self.plan.parallelism
        # Half a row group more, or what does not fit in evenly would be a task of its own.
        target = share + max(sizes, default=0) // 2 if share <= ONE_TASK_BYTES else share // 2
        return min(self.plan.partition_bytes, max(OPEN_COST_BYTES, target))

    def _pieces(self, location: Location) -> list[Piece]:
        size = location.bytes
        if size is not None and size < WHOLE_FILE_BYTES:
            return [Piece(file=location, groups=None, bytes=size)]
        with location.open() as file:
            sources = self._sources(location, file)
            names = set(sources)
            return [
                Piece(
                    file=location,
                    groups=(index,),
                    bytes=sum(one.compressed_bytes for one in group.columns if one.name in names),
                )
                for index, group in enumerate(file.metadata.row_groups)
                if self._group_may_match(sources, file.schema, group)
            ]

    def _read_piece(self, piece: Piece) -> Iterator[pa.RecordBatch]:
        """Read row groups; the core skips their pages by what it can be asked directly."""
        schema, sent = self.plan.schema, list(range(self.plan.sent))
        with piece.file.open() as file:
            sources = self._sources(piece.file, file)
            direct, rest = self._divide_terms(file.schema, sources)
            batches = file.iter_batches(
                BATCH_ROWS,
                [name for name in dict.fromkeys(sources) if name is not None],
                _joined(direct),
                row_groups=piece.groups,
            )
            left = _joined(rest)
            for batch in batches:
                rows = fit_table(
                    pa.Table.from_batches([batch]),
                    schema,
                    sources,
                    allows_missing=self.plan.allows_missing,
                )
                kept = (rows if left is None else rows.filter(left)).select(sent)
                yield from _sendable(kept)

    def _divide_terms(
        self, held: pa.Schema, sources: list[str | None]
    ) -> tuple[list[Term], list[Term]]:
        """Terms on columns that the file holds under that name and type, and the others."""
        direct: list[Term] = []
        rest: list[Term] = []
        for term in self.plan.terms:
            index = self.plan.schema.get_field_index(term.column)
            same = sources[index] == term.column and (
                held.field(term.column).type == self.plan.schema.field(index).type
            )
            (direct if same else rest).append(term)
        return direct, rest

    def _sources(self, location: Location, file: NCFFile) -> list[str | None]:
        """For each asked column the file's own, None where it has none."""
        held = list(location.renames) or file.schema.names
        asked, sent = self.plan.schema.names, self.plan.sent
        names = [
            name
            for part in (asked[:sent], asked[sent:])
            for name in match_names(part, held, location.uri)
        ]
        missing = [name for name, one in zip(asked, names, strict=True) if one is None]
        if missing and not self.plan.allows_missing:
            raise SchemaMismatchError(
                f"{location.uri}: no columns {missing!r}, the file has {file.schema.names!r}; "
                'option("mergeSchema", true) reads them as null'
            )
        return [None if name is None else location.renames.get(name, name) for name in names]

    def _file_may_match(self, location: Location) -> bool:
        """Judge a table's file by what the log knows of it."""
        schema = self.plan.table_schema
        if schema is None or location.row_count is None:
            return True
        for term in self.plan.terms:
            known = location.bounds.get(term.column)
            if known is None:
                continue
            kind = schema.field(term.column).type
            if not self._keeps_values(term, kind):
                continue
            values = [encode_bound(value.as_py(), kind) for value in term.values]
            bounds = Bounds(
                row_count=location.row_count,
                low=known.minimum,
                high=known.maximum,
                null_count=known.null_count,
                may_have_nan=term.is_float,
            )
            if None not in values and not term.may_match(bounds, values):
                return False
        return True

    def _group_may_match(
        self, sources: list[str | None], held: pa.Schema, group: RowGroupMetadata
    ) -> bool:
        """Judge a row group by its footer's statistics."""
        statistics = {column.name: column.statistics for column in group.columns}
        for term in self.plan.terms:
            name = sources[self.plan.schema.get_field_index(term.column)] or ""
            known = statistics.get(name)
            if known is None or not self._keeps_values(term, held.field(name).type):
                continue
            bounds = Bounds(
                row_count=group.num_rows,
                low=known.min,
                high=known.max,
                null_count=known.null_count,
                may_have_nan=bool(known.nan_count),
            )
            if not term.may_match(bounds):
                return False
        return True

    def _keeps_values(self, term: Term, stored: pa.DataType) -> bool:
        """Whether a stored column's bounds tell what a term, which is of the asked type, meets."""
        return keeps_values(stored, self.plan.schema.field(term.column).type)


class FilteringReader(NCFReader):
    """A reader that takes Spark's filters; Spark refuses this method while push-down is off."""

    def pushFilters(self, filters: list[Filter]) -> Iterable[Filter]:  # noqa: N802  # Spark's name
        """Take the filters that are answered exactly here; give the others back."""
        types = {field.name: field.type for field in self.plan.schema}
        taken = []
        for asked in filters:
            term = read_filter(asked, types)
            if term is None:
                yield asked
            else:
                taken.append(term)
        self.plan = replace(self.plan, terms=(*self.plan.terms, *taken))


def _sendable(rows: pa.Table) -> Iterator[pa.RecordBatch]:
    """The rows in batches of about `SENT_BYTES`."""
    if rows.num_rows == 0:
        return
    size = max(1, rows.nbytes // SENT_BYTES)
    yield from (one for one in rows.to_batches(-(-rows.num_rows // size)) if one.num_rows)


def _joined(terms: Sequence[Term]) -> pc.Expression | None:
    return reduce(and_, (term.expression() for term in terms)) if terms else None


def _pack(pieces: Sequence[Piece], target: int) -> Iterator[list[Piece]]:
    """Join neighbours while they stay below the target; neighbours of one file become one."""
    current: list[Piece] = []
    size = 0
    for piece in pieces:
        if current and size + piece.bytes > target:
            yield current
            current, size = [], 0
        last = current[-1] if current else None
        if last is not None and last.file is piece.file and last.groups and piece.groups:
            joined = last.bytes + piece.bytes
            current[-1] = Piece(file=last.file, groups=last.groups + piece.groups, bytes=joined)
        else:
            current.append(piece)
        size += piece.bytes
    if current:
        yield current
