"""Rows behind a `pyarrow.dataset.Dataset`, the interface DuckDB pushes filters through.

Import it only where a dataset is asked for: pyarrow.dataset imports pandas.
"""

from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds

from neurolake_dagster.ncf.reader import NCFFile, read_schema


class ScanDataset(ds.Dataset):  # type: ignore[misc] # pyarrow has no types
    """A `pyarrow.dataset.Dataset` that opens its rows anew for each query.

    Parameters
    ----------
    open_rows
        Given names (None for all) and an Arrow filter (or None), a reader of exactly these rows.
    """

    def __init__(
        self, schema: pa.Schema, open_rows: Callable[[Any, Any], pa.RecordBatchReader]
    ) -> None:
        self._known_schema = schema
        self._open_rows = open_rows

    @property
    def schema(self) -> Any:
        """Return the rows' schema."""
        return self._known_schema

    def __reduce__(self) -> tuple[Any, ...]:
        return ScanDataset, (self._known_schema, self._open_rows)

    def scanner(self, columns: Any = None, filter: Any = None, **options: Any) -> Any:  # noqa: A002
        """Return a scanner over the rows that pass ``filter``.

        Parameters
        ----------
        columns
            Names, or expressions by name.
        options
            Pyarrow's further ones are about its own reading, and mean nothing here.
        """
        del options
        named = None if columns is None or isinstance(columns, dict) else list(columns)
        computed = columns if isinstance(columns, dict) else None
        return ds.Scanner.from_batches(self._open_rows(named, filter), columns=computed)

    def count_rows(self, filter: Any = None, **options: Any) -> int:  # noqa: A002
        """Count rows by one column: a batch without columns forgets its rows."""
        del options
        rows = self._open_rows(self._known_schema.names[:1], filter)
        return sum(batch.num_rows for batch in rows)


class NCFDataset(ScanDataset):
    """One NCF file: projections and filters are pushed down.

    Parameters
    ----------
    source
        As `NCFFile` takes it.
    """

    def __init__(self, source: Any) -> None:
        super().__init__(read_schema(source), lambda *asked: NCFFile(source).scan(*asked))
        self._given = source

    def __reduce__(self) -> tuple[Any, ...]:
        return NCFDataset, (self._given,)

    def count_rows(self, filter: Any = None, **options: Any) -> int:  # noqa: A002
        """Count rows: without a filter no column is read."""
        if filter is None:
            with NCFFile(self._given) as file:
                return file.num_rows
        return super().count_rows(filter, **options)
