"""What a merge does to a table's rows: matching by key, exact counts.

Owns no file: it is given one file's keys after the other, and then rows of that file, which it
returns changed.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from neurolake_dagster.tables.partitions import Partition
from neurolake_dagster.tables.skipping import matching_files
from neurolake_dagster.tables.snapshot import DataFile, Snapshot

if TYPE_CHECKING:
    import polars as pl

_ROW = "__neurolake_row"
# Types that polars matches and Arrow has no least and greatest value of.
_WITHOUT_MIN_MAX = (pa.types.is_duration, pa.types.is_decimal32, pa.types.is_decimal64)

WhenMatched = Literal["update", "delete", "ignore"]
WhenNew = Literal["insert", "ignore"]
WhenGone = Literal["keep", "delete"]

NO_ROWS = {"rows_inserted": 0, "rows_updated": 0, "rows_deleted": 0, "rows_copied": 0}


@dataclass(frozen=True)
class Homes:
    """The partition of each of some rows.

    Parameters
    ----------
    places
        Each partition once.
    numbers
        Which of them: int64, shape ``(rows,)``.
    """

    places: tuple[Partition, ...]
    numbers: NDArray[np.int64]

    @staticmethod
    def of(pieces: Iterable[tuple[Partition, int]]) -> "Homes":
        """Of pieces that lie one behind the other, each with its row count."""
        known: dict[Partition, int] = {}
        numbers = [(known.setdefault(place, len(known)), count) for place, count in pieces]
        which, counts = np.array(numbers, np.int64).reshape(-1, 2).T
        return Homes(tuple(known), np.repeat(which, counts))

    def divide(self, rows: pa.Table, numbers: NDArray[np.int64]) -> dict[Partition, pa.Table]:
        """Rows by partition; `numbers` are those of their partitions."""
        found = np.unique(numbers)
        if len(found) == 1:
            return {self.places[found[0]]: rows}
        return {self.places[one]: rows.filter(pa.array(numbers == one)) for one in found}

    def with_place(self, place: Partition) -> tuple["Homes", int]:
        """The same that know one more partition, and its number."""
        places = self.places if place in self.places else (*self.places, place)
        return Homes(places, self.numbers), places.index(place)


@dataclass
class Merge:
    """The rows to merge, and what was found of them so far.

    Parameters
    ----------
    source
        In the table's schema; its keys are unique and not null.
    homes
        The partitions of its rows; None where they are not divided, and updated rows stay in
        the partition they are in.
    lacking
        Columns that it has only as nulls: updated rows keep their own values.
    """

    source: pa.Table
    keys: tuple[str, ...]
    when_matched: WhenMatched
    when_new: WhenNew
    when_gone: WhenGone
    homes: Homes | None = None
    lacking: tuple[str, ...] = ()
    updated: int = 0
    deleted: int = 0
    inserted: int = 0
    copied: int = 0
    seen: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        # Arrow would join its chunks at each batch that takes rows from it.
        self.source = self.source.combine_chunks()

    @property
    def key_schema(self) -> pa.Schema:
        """The keys' columns."""
        return self.source.select(list(self.keys)).schema

    def metrics(self) -> dict[str, int]:
        """The exact counts, as Delta counts: copied are the rows beside those updated or deleted.

        Whether a file is written anew does not matter: updates may change nothing in it.
        """
        return {
            "rows_inserted": self.inserted,
            "rows_updated": self.updated,
            "rows_deleted": self.deleted,
            "rows_copied": self.copied,
        }

    def candidates(self, base: Snapshot, places: Sequence[Partition]) -> Sequence[DataFile]:
        """The files that the merge may change."""
        files = base.files_of(places or None)
        if self.when_gone == "delete":
            return files
        return matching_files(base, files, self._key_range())

    def match(self, keys: pa.Table) -> pa.Array | None:
        """For each row of a file the number of the source's row with its key, or null; counted.

        None if the merge changes none of them.

        Parameters
        ----------
        keys
            The keys of all its rows.
        """
        match = self._match(keys)
        hits = len(match) - match.null_count
        gone = _count(self._gone(pc.is_valid(match)))
        self.seen += match.drop_null().to_pylist()
        self.deleted += gone
        updated = hits if self.when_matched == "update" else 0
        self.updated += updated
        if not updated and not gone:
            return None
        self.copied += len(match) - gone - updated
        return match

    def apply(
        self, rows: pa.Table, match: pa.Array, place: Partition
    ) -> Mapping[Partition, pa.Table]:
        """Rows of a partition's file after the merge, by partition, in their order.

        Parameters
        ----------
        match
            Theirs of what :meth:`match` gives.
        """
        hit = pc.is_valid(match)
        gone = self._gone(hit)
        stays = pc.invert(gone)
        if self.when_matched != "update" or match.null_count == len(match):
            return {place: rows.filter(stays) if _count(gone) else rows}
        after = self._updated(rows, match).filter(stays)
        if self.homes is None:
            return {place: after}
        homes, own = self.homes.with_place(place)
        numbers = np.full(rows.num_rows, own, np.int64)
        numbers[_flags(hit)] = homes.numbers[match.drop_null().to_numpy()]
        return homes.divide(after, numbers[_flags(stays)])

    def _updated(self, rows: pa.Table, match: pa.Array) -> pa.Table:
        """Rows with those of the source in the place of what they match."""
        flags = _flags(pc.is_valid(match))
        numbers = np.arange(rows.num_rows)
        # The source's rows are taken from behind the file's own.
        numbers[flags] = rows.num_rows + np.arange(np.count_nonzero(flags))
        after = pa.concat_tables([rows, self.source.take(match.drop_null())]).take(numbers)
        for name in self.lacking:
            column = after.column_names.index(name)
            after = after.set_column(column, after.field(column), rows[name])
        return after

    def fresh(self) -> Mapping[Partition, pa.Table]:
        """The rows to insert: those whose key no file had. Call it after all files."""
        if self.when_new == "ignore":
            return {}
        is_new = np.ones(self.source.num_rows, bool)
        is_new[self.seen] = False
        found = self.source.filter(pa.array(is_new))
        self.inserted = found.num_rows
        if self.homes is None:
            return {(): found}
        return self.homes.divide(found, self.homes.numbers[is_new])

    def _key_range(self) -> pc.Expression:
        """What every matching row's keys lie between."""
        if not self.source.num_rows:
            return pc.scalar(False)
        whole = pc.scalar(True)
        for key in self.keys:
            values = without_dictionaries(self.source.select([key]))[key]
            if any(test(values.type) for test in _WITHOUT_MIN_MAX):
                continue
            bounds = pc.min_max(values)
            column = pc.field(key)
            whole = whole & (column >= bounds["min"]) & (column <= bounds["max"])
        return whole

    def _gone(self, hit: pa.Array) -> pa.Array:
        """Which rows the merge deletes, given which ones matched."""
        gone = hit if self.when_matched == "delete" else pa.array(np.zeros(len(hit), bool))
        return pc.or_(gone, pc.invert(hit)) if self.when_gone == "delete" else gone

    def _match(self, rows: pa.Table) -> pa.Array:
        """For each row the number of the source's row with its key, or null."""
        names = list(self.keys)
        numbers = pa.array(np.arange(self.source.num_rows))
        keys = without_dictionaries(self.source.select(names))
        right = _frame(keys.append_column(_ROW, numbers))
        left = _frame(without_dictionaries(rows.select(names)))
        found = left.join(right, on=names, how="left", maintain_order="left", nulls_equal=False)
        return found[_ROW].to_arrow()


def can_match(type_: pa.DataType) -> bool:
    """Whether values of a type can be keys: polars, which matches them, takes no others."""
    if pa.types.is_dictionary(type_):
        return can_match(type_.value_type)
    if pa.types.is_decimal(type_):
        return not pa.types.is_decimal256(type_) and type_.scale >= 0
    is_strange = pa.types.is_nested(type_) or isinstance(type_, pa.BaseExtensionType)
    return not (is_strange or pa.types.is_float16(type_) or pa.types.is_interval(type_))


def count_keys(rows: pa.Table, keys: Sequence[str]) -> int:
    """How many different keys rows have, as a merge matches them: 0.0 is -0.0, NaN is NaN."""
    return _frame(without_dictionaries(rows.select(list(keys)))).n_unique()


def without_dictionaries(rows: pa.Table) -> pa.Table:
    """The rows with the values of dictionary columns themselves."""
    for place, column in enumerate(rows.schema):
        if pa.types.is_dictionary(column.type):
            plain = column.with_type(column.type.value_type)
            rows = rows.set_column(place, plain, rows[place].cast(plain.type))
    return rows


def _count(flags: pa.Array) -> int:
    return int(pc.sum(flags).as_py() or 0)


def _flags(values: pa.Array) -> NDArray[np.bool_]:
    return np.asarray(values.to_numpy(zero_copy_only=False), bool)


def _frame(rows: pa.Table) -> "pl.DataFrame":
    # Half a second that only a merge is to pay.
    import polars as pl

    found = pl.from_arrow(rows)
    assert isinstance(found, pl.DataFrame)
    return found
