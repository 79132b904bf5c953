"""NCF, the NeuroLake Columnar Format: tables in files smaller and faster than Parquet.

The front of the package; the bytes are specified in SPEC.md.
"""

from neurolake_dagster.ncf.engines import scan, scan_polars
from neurolake_dagster.ncf.joining import concat
from neurolake_dagster.ncf.metadata import (
    ColumnMetadata,
    ColumnStatistics,
    FileMetadata,
    RowGroupMetadata,
)
from neurolake_dagster.ncf.reader import NCFFile, read_metadata, read_schema, read_table
from neurolake_dagster.ncf.schema import ColumnNotes, SemanticType, column_notes
from neurolake_dagster.ncf.source import RangedSource
from neurolake_dagster.ncf.writer import NCFWriter, write_table

__all__ = [
    "ColumnMetadata",
    "ColumnNotes",
    "ColumnStatistics",
    "FileMetadata",
    "NCFFile",
    "NCFWriter",
    "RangedSource",
    "RowGroupMetadata",
    "SemanticType",
    "column_notes",
    "concat",
    "read_metadata",
    "read_schema",
    "read_table",
    "scan",
    "scan_polars",
    "write_table",
]
