from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from neurolake_dagster.spark import measured

pytestmark = pytest.mark.spark


def test_work_of_the_block_is_counted_without_a_job(spark: SparkSession, tmp_path: Path) -> None:
    spark.range(5).collect()
    with measured(spark) as found:
        rows = spark.range(0, 1000, 1, 4).selectExpr("id % 7 as k").groupBy("k").count()
        rows.write.parquet(str(tmp_path / "out"))
    spark.range(5).collect()
    assert found.work is not None
    assert found.work.application_id == spark.sparkContext.applicationId
    assert found.work.version == spark.version
    counts = found.work.counts
    assert counts["stages"] >= 2
    assert counts["tasks"] >= 5
    assert counts["output_rows"] == 7
    assert counts["output_bytes"] > 0
    assert counts["shuffle_write_bytes"] == counts["shuffle_read_bytes"] > 0
    assert counts["failed_tasks"] == counts["spilled_bytes"] == 0


def test_a_block_without_jobs_counts_nothing(spark: SparkSession) -> None:
    with measured(spark) as found:
        spark.range(5).select("id")
    assert found.work is not None
    assert set(found.work.counts.values()) == {0}
