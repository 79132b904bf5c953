"""Arrow rows on their way into a Delta table: proven, counted, digested, given again.

Owns what is known of rows that deltalake takes as one stream.
"""

from typing import BinaryIO

import pyarrow as pa

from neurolake_dagster.io_managers.plans import WritePlan
from neurolake_dagster.io_managers.row_digest import RowDigest
from neurolake_dagster.tables.kept_rows import KeptRows

# Of rows that wait for others of their partition to be digested: with more, none is.
HELD_BYTES = 128 << 20


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
        keys = () if plan.scope is None else plan.scope.keys
        self._names = {key.place: key.name for key in keys}
        self.counts = dict.fromkeys(self._names.values() if keys else [""], 0)
        self._digests: dict[str, RowDigest] = {}
        self._held = 0
        if plan.mode == "overwrite":
            self._digests = {name: RowDigest(rows.schema) for name in self.counts}
        self._rows = rows
        if isinstance(rows, pa.Table):
            for batch in rows.to_batches():
                self._see(batch)
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
        return {name: digest.result() for name, digest in self._digests.items()}

    def _see(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        if self._scope is None:
            self._take("", batch)
        elif self._digests:
            for place, rows in self._scope.divide(batch):
                self._take(self._names[place], rows)
        else:
            for name, count in self._scope.check(batch).items():
                self.counts[name] += count
        return batch

    def _take(self, name: str, rows: pa.RecordBatch) -> None:
        self.counts[name] += rows.num_rows
        if name not in self._digests:
            return
        digest = self._digests[name]
        before = digest.held_bytes
        digest.update(rows)
        self._held += digest.held_bytes - before
        if len(self._digests) > 1 and self._held > HELD_BYTES:
            self._digests = {}
