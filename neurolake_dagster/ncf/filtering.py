"""Which rows of an opened file a filter leaves: by statistics and Bloom filters, then exactly.

Owns the order of these steps; `pruning` has the promises, `bloom` the lookups.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from neurolake_dagster.ncf import pruning
from neurolake_dagster.ncf.arrow import matching_rows, plain_schema
from neurolake_dagster.ncf.bloom import Bloom, find_lookups
from neurolake_dagster.ncf.checks import NDArray
from neurolake_dagster.ncf.chunks import Chunks
from neurolake_dagster.ncf.expressions import parse_expression
from neurolake_dagster.ncf.statistics import Stats


class RowFilter:
    """A filter on one file.

    Parameters
    ----------
    filters
        An Arrow expression or DNF lists.

    Attributes
    ----------
    columns
        Places of the columns that must be read to apply it.

    Raises
    ------
    ValueError
        If it names unknown columns, one that occurs twice, or compares what cannot be compared.
    """

    def __init__(self, filters: Any, chunks: Chunks) -> None:
        self._chunks, schema = chunks, chunks.footer.schema
        self._expression = pruning.build_filter(filters)
        pruning.check_filter(self._expression, schema)
        names = pruning.mentioned_columns(self._expression, schema.names)
        self.columns = [i for i, name in enumerate(schema.names) if name in names]
        if any(schema.get_field_index(schema.names[i]) < 0 for i in self.columns):
            raise ValueError(f"{chunks.name}: the filter names a column that occurs twice")
        self._schema = plain_schema(schema)
        tree = parse_expression(self._expression)
        self._lookups = find_lookups(tree, schema, chunks.bloom_columns())

    def candidates(self, groups: Sequence[int]) -> Iterator[tuple[int, NDArray | None]]:
        """Yield row groups, and the rows of the pages in them (None: all), that may pass."""
        stored = self._chunks.footer.row_groups
        known = [
            [(stored[g].rows, stored[g].columns[i].stats) for i in self.columns] for g in groups
        ]
        for kept in self._surviving(known):
            if self._lookups is None or self._lookups.may_match(self._filters_of(groups[kept])):
                yield from self._pages(groups[kept])

    def passing(self, table: Any) -> NDArray:
        """Return the row numbers of a table of `columns` that pass, ascending."""
        return matching_rows(table, self._expression)

    def _pages(self, group: int) -> Iterator[tuple[int, NDArray | None]]:
        zones = [self._chunks.zones(column)[group] for column in self.columns]
        bounds = [[rows for rows, _ in pages] for pages in zones]
        if not zones or len(bounds[0]) < 2 or any(b != bounds[0] for b in bounds):
            yield group, None
            return
        count = len(bounds[0])
        kept = self._surviving([[zone[page] for zone in zones] for page in range(count)])
        if len(kept) == count:
            yield group, None
        elif kept:
            edges = np.concatenate([[0], np.cumsum(bounds[0])])
            yield group, np.concatenate([np.arange(edges[i], edges[i + 1]) for i in kept])

    def _surviving(self, known: Sequence[Sequence[tuple[int, Stats]]]) -> list[int]:
        """Return the places of the parts that may pass, given statistics per part and column."""
        fields = [self._schema.field(i) for i in self.columns]
        promises = [pruning.guarantee_all(fields, stats) for stats in known]
        return pruning.surviving(self._expression, self._schema, promises)

    def _filters_of(self, group: int) -> Any:
        def filter_of(column: int) -> Bloom | None:
            return self._chunks.blooms(column)[group]

        return filter_of
