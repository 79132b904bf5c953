"""Parquet to NCF and back by Spark: any path that Spark reads, local or ``s3a://``.

Owns the two functions and their result. Conversions of the platform's own tables, without a
JVM and with a proof, are `neurolake_dagster.conversion`'s.
"""

import json
import time
import urllib.parse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from neurolake_dagster.settings import StorageSettings
from neurolake_dagster.spark.notebook import get_spark_session

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

Mode = Literal["append", "overwrite", "errorifexists", "ignore"]


@dataclass(frozen=True, kw_only=True)
class FileConversion:
    """What a conversion did.

    Parameters
    ----------
    row_count, source_bytes, target_bytes
        Of all files of either side, after the conversion.
    """

    source: str
    target: str
    row_count: int
    source_files: int
    source_bytes: int
    target_files: int
    target_bytes: int
    seconds: float

    @property
    def size_ratio(self) -> float:
        """The target's bytes by the source's; below 1 the target is smaller."""
        return self.target_bytes / self.source_bytes if self.source_bytes else 1.0


def convert_parquet_to_ncf(
    source: str,
    target: str,
    *,
    spark: "SparkSession | None" = None,
    mode: Mode = "errorifexists",
    columns: Sequence[str] | None = None,
    partition_by: Sequence[str] = (),
) -> FileConversion:
    """Write the Parquet files at `source` as an NCF table at `target`, in one commit.

    Parameters
    ----------
    source
        File, folder (its ``key=value`` folders become columns) or glob.
    spark
        None is this process's session, see `get_spark_session`.

    Raises
    ------
    TableError
        If there is a table and the mode is ``errorifexists``.
    """
    from neurolake_dagster.spark.writing import write_ncf

    started = time.perf_counter()
    session = spark or get_spark_session()
    frame = session.read.parquet(source)
    chosen = frame if columns is None else frame.select(*columns)
    write_ncf(chosen, target, mode=mode, partition_by=partition_by)
    return _told(frame, source, session.read.format("ncf").load(target), target, started)


def convert_ncf_to_parquet(
    source: str,
    target: str,
    *,
    spark: "SparkSession | None" = None,
    mode: Mode = "errorifexists",
    columns: Sequence[str] | None = None,
    partition_by: Sequence[str] = (),
    compression: str = "zstd",
) -> FileConversion:
    """Write the NCF file, folder, glob or table at `source` as Parquet files at `target`."""
    started = time.perf_counter()
    session = spark or get_spark_session()
    reader = session.read.format("ncf")
    if columns is not None:
        reader = reader.option("columns", json.dumps(list(columns)))
    frame = reader.load(source)
    writer = frame.write.mode(mode).option("compression", compression)
    writer.partitionBy(*partition_by).parquet(target)
    return _told(frame, source, session.read.parquet(target), target, started)


def _told(
    read: "DataFrame", source: str, written: "DataFrame", target: str, started: float
) -> FileConversion:
    seconds = time.perf_counter() - started
    source_sizes, target_sizes = _sizes(read, source), _sizes(written, target)
    return FileConversion(
        source=source,
        target=target,
        row_count=written.count(),
        source_files=len(source_sizes),
        source_bytes=sum(source_sizes),
        target_files=len(target_sizes),
        target_bytes=sum(target_sizes),
        seconds=seconds,
    )


def _sizes(frame: "DataFrame", place: str) -> list[int]:
    """The size of each file of a DataFrame; Spark tells no files of formats in Python."""
    from neurolake_dagster.spark.datasource import options_of
    from neurolake_dagster.spark.locations import find_files, place_of

    options = options_of(StorageSettings.load())
    if files := frame.inputFiles():
        places = [place_of(urllib.parse.unquote(uri), options) for uri in files]
        return [storage.size(key) for storage, key in places]
    return [
        file.storage.size(file.key) if file.bytes is None else file.bytes
        for file in find_files([place], options).files
    ]
