import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyspark.sql import SparkSession

from neurolake_dagster import ncf
from neurolake_dagster.spark import Watch, measured
from neurolake_dagster.spark.work import SUMS, _look

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
    assert found.work.missing == ""
    counts = found.work.counts
    assert counts["stages"] >= 2
    assert counts["tasks"] >= 5
    assert (counts["input_rows"], counts["output_rows"]) == (1000, 7)
    assert counts["output_bytes"] > 0
    assert counts["shuffle_write_bytes"] == counts["shuffle_read_bytes"] > 0
    assert counts["failed_tasks"] == 0
    assert counts["spilled_memory_bytes"] == counts["spilled_disk_bytes"] == 0


def test_bytes_of_ncf_are_those_of_the_row_groups_and_columns_read(
    spark: SparkSession, tmp_path: Path
) -> None:
    """Spark counts what its own file systems read: NCF tasks, which read in Python, read none."""
    path = tmp_path / "neurolake:input_bytes=many;large.ncf"
    noise = np.random.default_rng(1).random(1_500_000)
    table = pa.table({"at": np.arange(len(noise)), "noise": noise})
    ncf.write_table(table, path, row_group_size=300_000)
    groups = ncf.read_metadata(path).row_groups
    assert path.stat().st_size > 8 << 20
    with measured(spark) as found:
        frame = spark.read.format("ncf").load(str(path))
        frame.where("at >= 1300000").agg({"noise": "sum"}).collect()
    assert found.work is not None
    read = sum(column.compressed_bytes for column in groups[-1].columns)
    assert found.work.counts["input_bytes"] == read
    assert found.work.counts["input_rows"] == 200_000


def test_a_block_without_jobs_counts_nothing(spark: SparkSession) -> None:
    with measured(spark) as found:
        spark.range(5).select("id")
    assert found.work is not None
    assert set(found.work.counts.values()) == {0}


def test_spill_is_told_as_memory_and_as_disk(spark: SparkSession) -> None:
    """Only the disk's share was told."""
    session = spark.newSession()
    session.conf.set("spark.sql.windowExec.buffer.in.memory.threshold", "10")
    session.conf.set("spark.sql.windowExec.buffer.spill.threshold", "100")
    with measured(session) as found:
        session.range(5000).selectExpr("sum(id) over (partition by 1) as s").agg(
            {"s": "max"}
        ).head()
    assert found.work is not None
    counts = found.work.counts
    assert counts["spilled_memory_bytes"] > counts["spilled_disk_bytes"] > 0


def test_a_watch_tells_what_is_new_each_time(spark: SparkSession) -> None:
    watch, before = Watch(), spark.sparkContext.getJobTags()
    assert watch.tell() is None
    watch.add(spark)
    # Of the same JVM: told together.
    watch.add(spark.newSession())
    told = []
    for jobs in (2, 1, 0):
        for _ in range(jobs):
            spark.range(5).collect()
        other = threading.Thread(target=lambda: spark.range(5).collect())
        other.start()
        other.join()
        told.append(watch.tell())
    watch.close()
    assert [one.counts["jobs"] for one in told if one is not None] == [2, 1, 0]
    assert spark.sparkContext.getJobTags() == before


@pytest.mark.parametrize("forgotten", ["Job", "Stage"])
def test_what_spark_forgot_is_told_and_fails_nothing(spark: SparkSession, forgotten: str) -> None:
    """Spark keeps its last 1,000 jobs and stages; a long step's first ones are gone."""
    jvm: Any = spark._jvm
    store = spark.sparkContext._jsc.sc().statusStore()
    watch = Watch()
    watch.add(spark)
    for _ in range(2):
        spark.range(5).collect()
    first = store.jobsList(None).apply(1)
    key = first.jobId()
    if forgotten == "Stage":
        key = spark.sparkContext._gateway.new_array(jvm.int, 2)
        key[0] = first.stageIds().apply(0)
    kind = jvm.org.apache.spark.util.Utils.classForName(
        f"org.apache.spark.status.{forgotten}DataWrapper", True, False
    )
    store.store().delete(kind, key)
    work = watch.tell()
    watch.close()
    assert work is not None
    assert not work.counts
    assert f"retained{forgotten}s" in work.missing


def test_all_attempts_of_a_stage_are_counted() -> None:
    """Of a stage that a lost executor made Spark do again, the last attempt alone was."""
    numbers = dict.fromkeys(SUMS.values(), 0)
    attempts = [
        {**numbers, "status": status, "numTasks": tasks, "inputRecords": rows}
        for status, tasks, rows in (("FAILED", 3, 70), ("COMPLETE", 1, 30))
    ]
    skipped = [{**numbers, "status": "SKIPPED", "numTasks": 9}]
    answers = {
        "jobs": [{"jobId": 0, "jobTags": ["the-tag"], "stageIds": [1, 2], "status": "SUCCEEDED"}],
        "stages/1?details=false": attempts,
        "stages/2?details=false": skipped,
    }
    api: Any = SimpleNamespace(get=lambda _application, path: answers[path])
    counts, has_ended = _look(api, "app", "tag")
    assert has_ended
    assert [counts[one] for one in ("jobs", "stages", "tasks", "input_rows")] == [1, 1, 4, 100]
