"""What is to be converted into what, and whether the target can hold it.

Owns the two sides of a conversion (`Dataset`) and the plan's checks, which report every
problem at once. Moves no rows.
"""

import dataclasses
import io
import tempfile
from typing import Literal, get_args

import pyarrow as pa
import pyarrow.parquet as pq

from neurolake_dagster.conversion.parity import logical_type
from neurolake_dagster.errors import ConversionError, TableError
from neurolake_dagster.storage import Storage
from neurolake_dagster.tables import Table
from neurolake_dagster.tables.delta import DeltaDataset
from neurolake_dagster.tables.integrity import changed_files

Format = Literal["parquet", "ncf", "delta"]
FORMATS: tuple[Format, ...] = get_args(Format)
PROBE = "probe"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Written:
    """A committed version's size, from its log."""

    version: int
    row_count: int | None
    bytes: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dataset:
    """One side of a conversion: a table of a format at a path of a storage.

    Raises
    ------
    ConversionError
        If the format is unknown.
    """

    format: Format
    storage: Storage
    path: str

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise ConversionError(
                f"{self.path!r}: unknown format {self.format!r}; expected one of {FORMATS}"
            )

    @property
    def uri(self) -> str:
        """The dataset's address as users see it."""
        return self.storage.uri(self.path)

    def scan(self, version: int | None = None) -> pa.RecordBatchReader:
        """Stream the rows of the newest version, or of that one."""
        return self._table().scan(version=version)

    def changed_files(self) -> tuple[str, ...]:
        """The newest version's files that are not as they were committed, in words.

        None of Delta, whose log has no digests.
        """
        table = self._table()
        return tuple(changed_files(table)) if isinstance(table, Table) else ()

    def schema(self) -> pa.Schema:
        """The newest version's Arrow schema, from its log."""
        return self._table().snapshot().schema

    def write(
        self, data: pa.RecordBatchReader, properties: dict[str, str] | None = None
    ) -> Written:
        """Replace the dataset and its schema in one commit; a failure leaves it as it was.

        Parameters
        ----------
        properties
            Kept with the commit.
        """
        table = self._table()
        if isinstance(table, DeltaDataset):
            columns = table.open().metadata().partition_columns if table.exists() else []
            table.write(data, partition_by=columns, schema_mode="overwrite", properties=properties)
            return self.written()
        commit = table.write(data, properties=properties)
        return Written(
            version=commit.version, row_count=commit.table_row_count, bytes=commit.table_bytes
        )

    def written(self) -> Written:
        """The newest version's size, from its log; no data file is opened."""
        snapshot = self._table().snapshot()
        return Written(version=snapshot.version, row_count=snapshot.row_count, bytes=snapshot.bytes)

    def _table(self) -> Table | DeltaDataset:
        if self.format == "delta":
            return DeltaDataset(self.storage, self.path)
        return Table(self.storage, self.path, self.format)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConversionPlan:
    """One conversion, checked when it is made.

    Raises
    ------
    ConversionError
        If source and target are the same place.
    """

    source: Dataset
    target: Dataset

    def __post_init__(self) -> None:
        if self.source.uri == self.target.uri:
            raise ConversionError(
                f"{self.source.uri}: source and target are the same place; "
                "give the target a path of its own"
            )

    def check(self, schema: pa.Schema) -> None:
        """Refuse, before any row is moved, columns that the target would change.

        Raises
        ------
        ConversionError
            Naming each column, its type and what the target makes of it.
        """
        problems = []
        for field in schema:
            held = _held_type(field, self.target.format)
            if isinstance(held, str):
                problems.append(f"column {field.name!r}: {field.type} is not held: {held}")
            elif logical_type(held) != logical_type(field.type):
                problems.append(f"column {field.name!r}: {field.type} would become {held}")
        if problems:
            raise ConversionError(
                f"{self.target.uri}: {self.target.format} cannot hold every column as it is: "
                f"{'; '.join(problems)}; cast them in the source first"
            )


def _held_type(field: pa.Field, target: Format) -> pa.DataType | str:
    """The type that a column has once it was written, or why it can't be.

    An empty table is really written: a list of ours would be wrong with the next version, and
    deltalake's own schema conversion promises nanoseconds that its writer does not keep.
    """
    schema = pa.schema([field])
    try:
        if target == "delta":
            return _written_to_delta(schema).field(0).type
        if target == "parquet":
            sink = io.BytesIO()
            pq.write_table(pa.Table.from_batches([], schema), sink)
            return pq.read_schema(sink).field(0).type
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid, OSError, TableError) as exc:
        return str(exc).splitlines()[0].rpartition(f"/{PROBE}: ")[2]
    return field.type


def _written_to_delta(schema: pa.Schema) -> pa.Schema:
    """The schema of an empty Delta table that was written with this one."""
    with tempfile.TemporaryDirectory() as folder:
        probe = DeltaDataset(Storage(folder), PROBE)
        probe.write(pa.Table.from_batches([], schema))
        return probe.snapshot().schema
