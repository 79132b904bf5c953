"""Partition keys against rows: which row belongs to which key.

Owns the algebra: dividing Arrow batches by key, and the SQL predicate that picks exactly the
asked keys. Knows keys as windows of time or texts, not where they come from.
"""

import math
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from neurolake_dagster.errors import PartitionError
from neurolake_dagster.tables.partitions import Partition
from neurolake_dagster.tables.sql import any_of, quoted_column, quoted_text
from neurolake_dagster.tables.windows import (
    Numbers,
    Window,
    check_column,
    matcher,
    sql_test,
)

Member = Window | str

# So many numbers are sorted by their digits, which takes a fifth of the time.
_SORTED_FAST = 1 << 16


@dataclass(frozen=True, kw_only=True)
class Key:
    """One partition key: its place in a table, and per dimension what its rows look like."""

    name: str
    place: Partition
    members: tuple[Member, ...]


@dataclass(frozen=True, kw_only=True)
class Scope:
    """The partitions that one output writes or one input reads.

    Parameters
    ----------
    columns
        The column of each dimension, by `partition_expr`; empty where it is not given.
    """

    keys: tuple[Key, ...]
    columns: tuple[str, ...]

    def single(self) -> "list[Scope]":
        """One scope for each key."""
        return [Scope(keys=(key,), columns=self.columns) for key in self.keys]

    def divide(self, batch: pa.RecordBatch) -> Iterator[tuple[Partition, pa.RecordBatch]]:
        """Divide a batch by key, in the order of the keys; for `Table.write`.

        Raises
        ------
        PartitionError
            If a row belongs to none of the keys.
        """
        order, numbers, cuts = self.order(batch)
        for number, start, stop in zip(numbers, cuts, cuts[1:], strict=False):
            rows = batch if len(numbers) == 1 else batch.take(pa.array(order[start:stop]))
            yield self.keys[number].place, rows

    def order(self, batch: pa.RecordBatch) -> tuple[Numbers, list[int], Numbers]:
        """How the rows of a batch are brought into the order of the keys.

        Returns
        -------
        The places of the rows by key, the numbers of the keys that have some, and where each
        key's places begin, with the count of rows after the last.

        Raises
        ------
        PartitionError
            If a row belongs to none of the keys.
        """
        numbers = self.numbers(batch)
        if (numbers < 0).any():
            raise self._stray(batch, numbers)
        if len(self.keys) <= _SORTED_FAST:
            numbers = numbers.astype(np.uint16)
        counts = np.bincount(numbers)
        found = np.flatnonzero(counts)
        order = np.argsort(numbers, kind="stable")
        return order, found.tolist(), np.append(0, np.cumsum(counts[found]))

    def check(self, batch: pa.RecordBatch) -> dict[str, int]:
        """How many rows belong to each key that has some; `PartitionError` for one of none."""
        numbers = self.numbers(batch)
        if (numbers < 0).any():
            raise self._stray(batch, numbers)
        counts = np.bincount(numbers)
        return {self.keys[number].name: int(counts[number]) for number in np.flatnonzero(counts)}

    def require_columns(self, schema: pa.Schema, where: str) -> None:
        """Refuse rows that cannot be told apart, before anything is written.

        Raises
        ------
        PartitionError
            If `partition_expr` is missing and needed, or names not one column that can tell them.
        """
        if not self.columns and len(self.keys) > 1:
            raise PartitionError(
                f"{where}: {len(self.keys)} partitions in one run; name the column that tells "
                'them apart in the asset\'s metadata: {"partition_expr": "<column>"}'
            )
        unknown = [name for name in self.columns if name not in schema.names]
        if unknown:
            raise PartitionError(
                f"{where}: partition_expr names {unknown!r}, expected columns of {schema.names!r}"
            )
        twice = [name for name in self.columns if schema.names.count(name) > 1]
        if twice:
            raise PartitionError(
                f"{where}: the rows have several columns {twice!r}, which tell the partitions "
                "apart; rename all but one of each"
            )
        for dimension in self._dimensions:
            try:
                dimension.check(schema.field(dimension.column).type)
            except PartitionError as exc:
                raise PartitionError(f"{where}: partition_expr: {exc}") from exc

    def predicate(self, schema: pa.Schema, alias: str = "") -> str:
        """The SQL predicate of exactly these keys, for Spark by `spark_sql`.

        It grows with what does not adjoin.

        Parameters
        ----------
        alias
            Of the table that the columns are of, in a statement with several.
        """
        if not self.keys:
            return "1 = 0"
        return _any_of(self.columns, [key.members for key in self.keys], schema, alias)

    def numbers(self, batch: pa.RecordBatch) -> Numbers:
        """For each row the index of its key, -1 for none: int64, shape (rows,)."""
        if not self.columns:
            return np.zeros(batch.num_rows, np.int64)
        places = np.zeros(batch.num_rows, np.int64)
        for dimension in self._dimensions:
            numbers = dimension.match(batch.column(dimension.column))
            is_known = (places >= 0) & (numbers >= 0)
            places = np.where(is_known, places * len(dimension.members) + numbers, -1)
        if self._is_grid:
            return places
        known, keys = self._places
        at = np.minimum(np.searchsorted(known, places), len(known) - 1)
        return np.where(known[at] == places, keys[at], -1)

    @cached_property
    def _dimensions(self) -> "list[_Dimension]":
        return [
            _Dimension(column, dict.fromkeys(key.members[number] for key in self.keys))
            for number, column in enumerate(self.columns)
        ]

    @cached_property
    def _places(self) -> tuple[Numbers, Numbers]:
        """The keys' places in the grid of all members, in order, and which key each one is."""
        places = np.zeros(len(self.keys), np.int64)
        for number, dimension in enumerate(self._dimensions):
            known = [dimension.members[key.members[number]] for key in self.keys]
            places = places * len(dimension.members) + np.array(known, np.int64)
        order = np.argsort(places, kind="stable")
        return places[order], order

    @cached_property
    def _is_grid(self) -> bool:
        """Whether each place in the grid is that of the key of its number."""
        size = math.prod(len(dimension.members) for dimension in self._dimensions)
        if size != len(self.keys):
            return False
        return all((one == np.arange(size)).all() for one in self._places)

    def _stray(self, batch: pa.RecordBatch, numbers: Numbers) -> PartitionError:
        first = int(np.flatnonzero(numbers < 0)[0])
        values = {name: batch.column(name)[first].as_py() for name in self.columns}
        names = [key.name for key in self.keys]
        shown = names if len(names) <= 5 else [*names[:3], "...", names[-1]]
        return PartitionError(
            f"{int((numbers < 0).sum())} rows of a batch belong to none of the asked partitions "
            f"{shown!r}, by {list(self.columns)!r}; nothing was changed"
        ).quoting(f"the first of them has {values!r}")


class _Dimension:
    """One dimension of the keys: its column, and its members with their numbers."""

    def __init__(self, column: str, members: Iterable[Member]) -> None:
        self.column = column
        self.members = {member: number for number, member in enumerate(members)}
        self._matchers: dict[pa.DataType, Callable[[pa.Array], Numbers]] = {}

    @property
    def windows(self) -> list[Window]:
        """The members of a dimension of time; none of one of texts."""
        return [member for member in self.members if isinstance(member, Window)]

    def check(self, type_: pa.DataType) -> None:
        """Refuse a type that cannot tell the members apart."""
        if self.windows:
            check_column(self.column, type_, self.windows)
        elif pa.types.is_nested(type_) and not pa.types.is_run_end_encoded(type_):
            raise PartitionError(
                f"column {self.column!r} is {type_}, expected texts, numbers, dates or booleans"
            )
        else:
            odd = [text for text in map(str, self.members) if not _may_be_told(text, type_)]
            if odd:
                raise PartitionError(
                    f"column {self.column!r} is {type_}, no value of which reads {odd[0]!r}; "
                    "expected keys as Arrow casts the values to text"
                )

    def match(self, values: pa.Array) -> Numbers:
        """For each value the number of its member, -1 for none or null."""
        if pa.types.is_dictionary(values.type):
            values = values.dictionary_decode()
        elif pa.types.is_run_end_encoded(values.type):
            values = pc.run_end_decode(values)
        if values.type not in self._matchers:
            self._matchers[values.type] = self._matcher(values.type)
        return self._matchers[values.type](values)

    def _matcher(self, type_: pa.DataType) -> Callable[[pa.Array], Numbers]:
        self.check(type_)
        if self.windows:
            return matcher(self.windows, type_)
        return _Texts(map(str, self.members)).match


class _Texts:
    """Keys that are the column's own values, as text."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._texts = pa.array(texts, pa.string())

    def match(self, values: pa.Array) -> Numbers:
        type_ = pa.binary() if _is_bytes(values.type) else pa.string()  # not all bytes are texts
        known, values = self._texts.cast(type_), values.cast(type_)
        found = pc.index_in(values, value_set=known)
        return np.asarray(pc.fill_null(found, -1).to_numpy(zero_copy_only=False), np.int64)


def _any_of(
    columns: Sequence[str], rows: Collection[tuple[Member, ...]], schema: pa.Schema, alias: str
) -> str:
    """The test for rows of members, one for each column; what makes a grid is tested as one."""
    if len(columns) == 1:
        return _test(columns[0], [members[0] for members in rows], schema, alias)
    rests: dict[Member, dict[tuple[Member, ...], None]] = {}
    for first, *rest in rows:
        rests.setdefault(first, {})[tuple(rest)] = None
    firsts: dict[frozenset[tuple[Member, ...]], list[Member]] = {}
    for first, found in rests.items():
        firsts.setdefault(frozenset(found), []).append(first)
    tests = [
        f"(({_test(columns[0], members, schema, alias)}) AND "
        f"({_any_of(columns[1:], rests[members[0]], schema, alias)}))"
        for members in firsts.values()
    ]
    return any_of(tests)


def _test(column: str, members: Sequence[Member], schema: pa.Schema, alias: str) -> str:
    """The test for any of some members of one column."""
    name = quoted_column(column)
    if alias:
        name = f"{alias}.{name}"
    type_ = schema.field(column).type
    windows = [member for member in members if isinstance(member, Window)]
    if windows:
        return sql_test(name, type_, windows)
    literals = _literals([str(member) for member in members], type_)
    return f"{name} IN ({', '.join(literals)})" if literals else "1 = 0"


def _literals(texts: Sequence[str], type_: pa.DataType) -> list[str]:
    """Keys as literals of a type; those that no value of it can be are left out."""
    if pa.types.is_integer(type_):
        return [text for text in texts if re.fullmatch(r"0|-?[1-9]\d*", text)]
    if type_ == pa.bool_():
        return [text for text in texts if text in ("true", "false")]
    if pa.types.is_date(type_):
        return [f"CAST({quoted_text(text)} AS DATE)" for text in texts]
    if _is_bytes(type_):
        return [f"X'{text.encode().hex()}'" for text in texts]
    return [quoted_text(text) for text in texts]


def _may_be_told(text: str, type_: pa.DataType) -> bool:
    """Whether SQL and Arrow take the same values for a key: SQL takes also other texts of them."""
    known = (pa.types.is_decimal, pa.types.is_floating, pa.types.is_temporal)
    if not any(is_one(type_) for is_one in known):
        return True
    try:
        return bool(pa.array([text]).cast(type_).cast(pa.string())[0].as_py() == text)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return False


def _is_bytes(type_: pa.DataType) -> bool:
    known = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view)
    return any(is_one(type_) for is_one in known) or pa.types.is_fixed_size_binary(type_)
