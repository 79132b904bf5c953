"""Rows behind a `pyarrow.dataset.Dataset`, the interface DuckDB pushes filters through.

Import it only where a dataset is asked for: pyarrow.dataset imports pandas.
"""

import atexit
import threading
from collections.abc import Callable, Iterator
from typing import Any, NoReturn, Self
from weakref import WeakSet

import pyarrow as pa
import pyarrow.dataset as ds
from pyarrow import fs

from neurolake_dagster.ncf.pruning import mentioned_columns
from neurolake_dagster.ncf.reader import NCFFile, read_schema

OpenRows = Callable[[Any, Any], pa.RecordBatchReader]
EXIT_WAIT_S = 0.2
_NO_FILE = "these rows are read by scanner(), to_table() and to_batches() alone"


class _Ending(Iterator[pa.RecordBatch]):
    """Batches that end when Python does.

    A thread of Arrow's reads ahead, also after a query that wants no more: the process aborts
    where that thread calls Python while the interpreter exits.
    """

    def __init__(self, batches: pa.RecordBatchReader) -> None:
        self.is_told = threading.Event()
        self._batches = batches
        self._turn = threading.Lock()
        self._is_over = False
        _unfinished.add(self)

    def __next__(self) -> pa.RecordBatch:
        with self._turn:
            try:
                if self._is_over:
                    raise StopIteration
                return next(self._batches)
            except BaseException:
                self.is_told.set()
                raise

    def end(self) -> None:
        """Give no more batches; the one that is being read is waited for."""
        with self._turn:
            self._is_over = True


_unfinished: "WeakSet[_Ending]" = WeakSet()


@atexit.register
def _end_all() -> None:
    """End what is read ahead, and wait until it is told; what is far enough ahead does not ask."""
    found = list(_unfinished)
    for one in found:
        one.end()
    for one in found:
        one.is_told.wait(EXIT_WAIT_S)


class ScanDataset(ds.FileSystemDataset):  # type: ignore[misc] # pyarrow has no types
    """A `pyarrow.dataset.Dataset` that opens its rows anew for each query.

    Pyarrow's C++ reads datasets past these methods, in a union for instance. It finds one file
    that is not there, whose name says why, where an object without one would crash it.

    Parameters
    ----------
    open_rows
        Given names (None for all) and an Arrow filter (or None), a reader of exactly these rows.
    """

    def __init__(self, schema: pa.Schema, open_rows: OpenRows, condition: Any = None) -> None:
        form, store = ds.ParquetFileFormat(), fs.LocalFileSystem()
        super().__init__([form.make_fragment(_NO_FILE, store)], schema, form, store)
        self._open_rows = open_rows
        self._condition = condition

    def __reduce__(self) -> tuple[Any, ...]:
        return ScanDataset, (self.schema, self._open_rows, self._condition)

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
        computed = columns if isinstance(columns, dict) else None
        named = None if columns is None else list(columns)
        if computed is not None:
            known = self.schema.names
            used = {n for each in computed.values() for n in mentioned_columns(each, known)}
            # A batch without columns would forget its rows.
            named = [name for name in known if name in used] or known[:1]
        rows = self._open_rows(named, self._both(filter))
        ending = pa.RecordBatchReader.from_batches(rows.schema, _Ending(rows))
        # Decoding has threads of its own.
        return ds.Scanner.from_batches(ending, columns=computed, use_threads=False)

    def count_rows(self, filter: Any = None, **options: Any) -> int:  # noqa: A002
        """Count rows by one column: a batch without columns forgets its rows."""
        del options
        rows = self._open_rows(self.schema.names[:1], self._both(filter))
        return sum(batch.num_rows for batch in rows)

    def filter(self, expression: Any) -> Self:
        """Return the rows that pass ``expression`` too, as a dataset."""
        rebuild, known = self.__reduce__()
        found: Self = rebuild(*known[:-1], self._both(expression))
        return found

    def sort_by(self, sorting: Any, **options: Any) -> Any:
        """Return the sorted rows as a dataset in memory."""
        return ds.InMemoryDataset(self.to_table().sort_by(sorting, **options))

    def join(self, right_dataset: Any, keys: Any, *given: Any, **options: Any) -> Any:
        """Return the join as a dataset in memory; arguments as `pyarrow.Table.join` has them."""
        joined = self.to_table().join(right_dataset.to_table(), keys, *given, **options)
        return ds.InMemoryDataset(joined)

    def join_asof(self, right_dataset: Any, *given: Any, **options: Any) -> Any:
        """Return the join as a dataset in memory, as `pyarrow.Table.join_asof` does."""
        joined = self.to_table().join_asof(right_dataset.to_table(), *given, **options)
        return ds.InMemoryDataset(joined)

    def get_fragments(self, filter: Any = None) -> NoReturn:  # noqa: A002
        """Refuse: there are no files that pyarrow could read by itself."""
        raise NotImplementedError(f"get_fragments: {_NO_FILE}")

    def replace_schema(self, schema: Any) -> NoReturn:
        """Refuse: the rows have the schema they have."""
        raise NotImplementedError("replace_schema: cast the table that to_table() returns")

    @property
    def files(self) -> list[str]:
        """Return none: pyarrow could not read them."""
        return []

    def _both(self, further: Any) -> Any:
        known = self._condition
        if known is None or further is None:
            return further if known is None else known
        return known & further


class NCFDataset(ScanDataset):
    """One NCF file: projections and filters are pushed down.

    Parameters
    ----------
    source
        As `NCFFile` takes it.
    """

    def __init__(self, source: Any, condition: Any = None) -> None:
        rows: OpenRows = lambda *asked: NCFFile(source).scan(*asked)  # noqa: E731
        super().__init__(read_schema(source), rows, condition)
        self._given = source

    def __reduce__(self) -> tuple[Any, ...]:
        return NCFDataset, (self._given, self._condition)

    def count_rows(self, filter: Any = None, **options: Any) -> int:  # noqa: A002
        """Count rows: without a filter no column is read, with one only those that it names."""
        del options
        condition = self._both(filter)
        with NCFFile(self._given) as file:
            if condition is None:
                return file.num_rows
            return sum(len(batch) for batch in file.iter_batches(columns=[], filters=condition))

    def take(self, indices: Any, columns: Any = None, filter: Any = None, **options: Any) -> Any:  # noqa: A002
        """Return the rows of these numbers, decoding only their pages where nothing is filtered."""
        if isinstance(columns, dict) or self._both(filter) is not None:
            return super().take(indices, columns=columns, filter=filter, **options)
        with NCFFile(self._given) as file:
            return file.take(indices, columns)
