"""Rows on their way into a table, and the partitions they are for.

Owns the check that no row goes to a partition which the write does not replace.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import pyarrow as pa

from neurolake_dagster.errors import PartitionError, TableError
from neurolake_dagster.tables.partitions import (
    Partition,
    PartitionLike,
    as_partition,
    as_partitions,
)
from neurolake_dagster.tables.schemas import check_fit

Rows: TypeAlias = pa.Table | pa.RecordBatchReader

# Divides a batch by partition; each row goes to exactly one.
Split = Callable[[pa.RecordBatch], Iterable[tuple[Partition, pa.RecordBatch]]]


@dataclass(frozen=True, kw_only=True)
class Incoming:
    """Rows to be written.

    Parameters
    ----------
    streams
        Readers, each with the partition of all its rows; None: `split` finds it.
    asked
        The partitions that are replaced; empty: the table has none, or `split` may find any.
    """

    schema: pa.Schema
    streams: tuple[tuple[Partition | None, pa.RecordBatchReader], ...]
    asked: tuple[Partition, ...]
    split: Split | None

    @staticmethod
    def of(
        data: Rows | Mapping[Partition, Rows],
        partition: PartitionLike | None,
        partitions: Iterable[PartitionLike] | None,
        split: Split | None,
    ) -> "Incoming":
        """Read the arguments of a write."""
        if partition is not None and (partitions is not None or split is not None):
            raise PartitionError("give either one partition, or partitions with a split")
        asked = () if partitions is None else tuple(as_partitions(partitions))
        if partitions is not None and not asked:
            raise PartitionError("no partition was given, expected at least one, or None for all")
        if isinstance(data, Mapping):
            streams = tuple((as_partition(place), _reader(rows)) for place, rows in data.items())
            if not streams:
                raise PartitionError("rows by partition: no partition was given")
            return Incoming(
                schema=streams[0][1].schema,
                streams=streams,
                asked=tuple(place for place, _ in streams),
                split=None,
            )
        if partition is not None:
            asked = (as_partition(partition),)
        if len(asked) > 1 and split is None:
            raise PartitionError(f"{len(asked)} partitions, and no way to divide the rows")
        reader = _reader(data)
        place = None if split else (asked[0] if asked else ())
        return Incoming(schema=reader.schema, streams=((place, reader),), asked=asked, split=split)

    @cached_property
    def _asked(self) -> frozenset[Partition]:
        return frozenset(self.asked)

    @property
    def is_partitioned(self) -> bool:
        """Whether the rows go to partitions."""
        return bool(self.asked) or self.split is not None

    def divided(self, where: str) -> Iterator[tuple[Partition, pa.RecordBatch]]:
        """All batches, each with its partition.

        Raises
        ------
        PartitionError
            At the first rows of a partition that was not asked for.
        """
        for place, reader in self.streams:
            check_fit(reader.schema, self.schema, where)
            for batch in reader:
                if place is not None:
                    yield place, batch
                else:
                    yield from self._split(batch, where)

    def _split(
        self, batch: pa.RecordBatch, where: str
    ) -> Iterator[tuple[Partition, pa.RecordBatch]]:
        assert self.split is not None
        for place, rows in self.split(batch):
            if self.asked and place not in self._asked:
                shown = [dict(one) for one in self.asked[:3]]
                raise PartitionError(
                    f"{where}: {rows.num_rows} rows belong to partition {dict(place)!r}, which "
                    f"this write does not replace (it replaces {len(self.asked)}, the first of "
                    f"them {shown!r}); nothing was changed"
                )
            yield place, rows


def _reader(data: Rows) -> pa.RecordBatchReader:
    if isinstance(data, pa.Table):
        return data.to_reader()
    if isinstance(data, pa.RecordBatchReader):
        return data
    raise TableError(f"rows are {type(data)}, expected a pyarrow.Table or a RecordBatchReader")
