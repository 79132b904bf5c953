"""An NCF file as a `pyarrow.dataset.Dataset`, the interface DuckDB pushes filters through.

Import it only where a dataset is asked for: pyarrow.dataset imports pandas.
"""

from typing import Any

import pyarrow.dataset as ds

from neurolake_dagster.ncf.reader import NCFFile, read_schema


class NCFDataset(ds.Dataset):  # type: ignore[misc] # pyarrow has no types
    """A `pyarrow.dataset.Dataset` over one NCF file: projections and filters are pushed down.

    Parameters
    ----------
    source
        As `NCFFile` takes it.
    """

    def __init__(self, source: Any) -> None:
        self._given = source
        self._known_schema = read_schema(source)

    @property
    def schema(self) -> Any:
        """Return the file's schema."""
        return self._known_schema

    def __reduce__(self) -> tuple[type, tuple[Any, ...]]:
        return NCFDataset, (self._given,)

    def scanner(
        self,
        columns: Any = None,
        filter: Any = None,  # noqa: A002 - pyarrow's name
        batch_size: int = 1 << 17,
        **options: Any,
    ) -> Any:
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
        rows = NCFFile(self._given).scan(columns=named, filters=filter, batch_size=batch_size)
        computed = columns if isinstance(columns, dict) else None
        return ds.Scanner.from_batches(rows, columns=computed)

    def count_rows(self, filter: Any = None, **options: Any) -> int:  # noqa: A002
        """Count rows: without a filter no column is read."""
        del options
        with NCFFile(self._given) as file:
            if filter is None:
                return file.num_rows
            # A batch without columns forgets its rows: one of them has to come along.
            return int(file.read(self._known_schema.names[:1], filter).num_rows)
