"""Arrow rows on their way into a Delta table: proven, counted, digested, given again.

Owns what is known of rows that deltalake takes as one stream.
"""

from concurrent.futures import Future
from typing import BinaryIO

import numpy as np
import pyarrow as pa

from neurolake_dagster.io_managers.plans import WritePlan
from neurolake_dagster.io_managers.row_digest import RowDigests
from neurolake_dagster.ncf.pool import pool
from neurolake_dagster.tables.kept_rows import KeptRows
from neurolake_dagster.tables.schemas import fit_batch, plain_schema

# At once: of many partitions each has few of them, but pyarrow's cast of views is wrong past 2 GiB.
DIGESTED_ROWS, CAST_ROWS = 1 << 16, 1 << 12


class CheckedRows:
    """Rows that are proven to be of the asked partitions, how many are of each, their digests.

    Parameters
    ----------
    rows
        A table is checked at once, a reader while it streams by.
    file
        Where a reader's rows are kept, to be given again.
    """

    def __init__(
        self,
        rows: pa.Table | pa.RecordBatchReader,
        plan: WritePlan,
        file: BinaryIO | None = None,
    ) -> None:
        self.can_repeat = file is not None or isinstance(rows, pa.Table)
        self._scope = plan.scope
        self._names = [""] if plan.scope is None else [key.name for key in plan.scope.keys]
        self.counts = dict.fromkeys(self._names, 0)
        self._plain = plain_schema(rows.schema)  # Arrow sorts no views and no runs
        is_digested = plan.mode == "overwrite"
        self._digests = RowDigests(self._plain, len(self._names)) if is_digested else None
        self._rows = rows
        self._digesting: Future[None] | None = None
        if isinstance(rows, pa.Table):
            for batch in rows.to_batches():
                self._check(batch)
            if is_digested:
                # Beside the write: the engine has one thread for most of its work.
                self._digesting = pool().submit(self._digest, rows.to_batches())
            return
        self._rows = pa.RecordBatchReader.from_batches(rows.schema, map(self._see, rows))
        self._kept = None if file is None else KeptRows(self._rows, file)

    def rows(self) -> pa.Table | pa.RecordBatchReader:
        """All of them; of a reader that is not kept only once."""
        if isinstance(self._rows, pa.Table) or self._kept is None:
            return self._rows
        return self._kept.reader()

    def digests(self) -> dict[str, str]:
        """By key, of the rows that went by, where they are all that it holds now."""
        if self._digests is None:
            return {}
        if self._digesting is not None:
            self._digesting.result()
        return dict(zip(self._names, self._digests.results(), strict=True))

    def _see(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        self._check(batch)
        self._digest([batch])
        return batch

    def _check(self, batch: pa.RecordBatch) -> None:
        found = {"": batch.num_rows} if self._scope is None else self._scope.check(batch)
        for name, count in found.items():
            self.counts[name] += count

    def _digest(self, batches: list[pa.RecordBatch]) -> None:
        if self._digests is None:
            return
        for batch in batches:
            step = DIGESTED_ROWS if batch.schema.types == self._plain.types else CAST_ROWS
            for start in range(0, batch.num_rows, step):
                rows = fit_batch(batch.slice(start, step), self._plain)
                numbers, cuts = [0], np.array([0, rows.num_rows])
                if self._scope is not None:
                    order, numbers, cuts = self._scope.order(rows)
                    rows = rows if len(numbers) == 1 else rows.take(pa.array(order))
                self._digests.update(rows, numbers, cuts)
