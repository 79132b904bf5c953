from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from neurolake_dagster.errors import TableError
from neurolake_dagster.spark import convert_ncf_to_parquet, convert_parquet_to_ncf
from neurolake_dagster.storage import Storage
from neurolake_dagster.tables import Table

pytestmark = pytest.mark.spark


def test_parquet_to_ncf_and_back(spark: SparkSession, tmp_path: Path) -> None:
    rows = pa.table({"id": range(1000), "k": [i % 3 for i in range(1000)]})
    pq.write_to_dataset(rows, tmp_path / "in", partition_cols=["k"])
    there = convert_parquet_to_ncf(str(tmp_path / "in"), str(tmp_path / "ncf"), spark=spark)
    assert (there.row_count, there.source_files) == (1000, 3)
    table = Table(Storage(str(tmp_path)), "ncf", "ncf")
    assert there.target_bytes == table.snapshot().bytes
    assert there.source_bytes == sum(p.stat().st_size for p in (tmp_path / "in").rglob("*.parquet"))
    assert there.size_ratio == there.target_bytes / there.source_bytes
    with pytest.raises(TableError, match="exists already"):
        convert_parquet_to_ncf(str(tmp_path / "in"), str(tmp_path / "ncf"), spark=spark)
    back = convert_ncf_to_parquet(
        str(tmp_path / "ncf"), str(tmp_path / "out"), spark=spark, columns=["id"]
    )
    assert back.row_count == 1000
    assert back.source_bytes == there.target_bytes
    assert pq.read_table(tmp_path / "out").sort_by("id").equals(rows.select(["id"]))
