"""Parquet to NCF and back by Spark: any path that Spark reads, local or ``s3a://``.

Owns the two functions and their result. Conversions of the platform's own tables, without a
JVM and with a proof, are `neurolake_dagster.conversion`'s.
"""

import json
import os
import re
import time
import urllib.parse
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from neurolake_dagster.errors import TableError
from neurolake_dagster.settings import SparkSettings, StorageSettings
from neurolake_dagster.spark.conf import BUCKET_KEYS, S3A, s3_options, with_own
from neurolake_dagster.spark.effective import running_value
from neurolake_dagster.spark.notebook import get_spark_session
from neurolake_dagster.spark.saving import SaveMode, check_mode, check_names, write_ncf
from neurolake_dagster.storage import StorageOptions
from neurolake_dagster.tables.sql import quoted_column

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, DataFrameWriter, SparkSession

    from neurolake_dagster.spark.locations import Location

FILES_AT_ONCE = 16


@dataclass(frozen=True, kw_only=True)
class FileConversion:
    """What a conversion did.

    Parameters
    ----------
    row_count
        Of the target, after the conversion.
    source_files, source_bytes, target_files, target_bytes
        Of all files of either side; of a table, those of its newest version.
    seconds
        Of reading and writing, without looking at the result.
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
    mode: SaveMode = "errorifexists",
    columns: Sequence[str] | None = None,
    partition_by: Sequence[str] = (),
) -> FileConversion:
    """Write the Parquet files at `source` as an NCF table at `target`, in one commit.

    Parameters
    ----------
    source
        File, folder (its ``key=value`` folders become columns) or glob.
    spark
        Whose S3 settings hold for both sides; None is this process's session, see
        `get_spark_session`.
    mode
        What becomes of a table that is there, see `write_ncf`.
    columns
        To be read, at least one; None is all of them.

    Raises
    ------
    TableError
        If there is a table and the mode is ``errorifexists``, or one side lies in the other, or
        an argument is not what it should be.
    StorageError
        If one side cannot be reached; nothing was written then.
    """
    _check_arguments(mode, columns, partition_by)
    session = spark or get_spark_session()
    here, there = _options_of(session, source), _options_of(session, target)
    started = time.perf_counter()
    frame = session.read.parquet(source)
    uris = _file_uris(frame)
    _require_apart(target, [source, *uris])
    read = _sizes(uris, here)
    _require_reachable(target, there)
    chosen = frame if columns is None else frame.select(*map(quoted_column, columns))
    write_ncf(chosen, target, mode=mode, partition_by=partition_by)
    seconds = time.perf_counter() - started
    files = _ncf_files(target, there)
    return FileConversion(
        source=source,
        target=target,
        row_count=sum(_row_count(file) for file in files),
        source_files=len(read),
        source_bytes=sum(read),
        target_files=len(files),
        target_bytes=sum(_size(file) for file in files),
        seconds=seconds,
    )


def convert_ncf_to_parquet(
    source: str,
    target: str,
    *,
    spark: "SparkSession | None" = None,
    mode: SaveMode = "errorifexists",
    columns: Sequence[str] | None = None,
    partition_by: Sequence[str] = (),
    compression: str = "zstd",
) -> FileConversion:
    """Write the NCF file, folder, glob or table at `source` as Parquet files at `target`.

    Parameters
    ----------
    spark, mode, columns
        As of `convert_parquet_to_ncf`.

    Raises
    ------
    TableError
        If there is something at the target and the mode is ``errorifexists``, or one side lies
        in the other, or an argument is not what it should be.
    StorageError
        If one side cannot be reached; nothing was written then.
    """
    _check_arguments(mode, columns, partition_by)
    session = spark or get_spark_session()
    here, there = _options_of(session, source), _options_of(session, target)
    started = time.perf_counter()
    files = _ncf_files(source, here)
    _require_apart(target, [source, *(file.uri for file in files)])
    _require_reachable(target, there)
    reader = session.read.format("ncf")
    if columns is not None:
        reader = reader.option("columns", json.dumps(list(columns)))
    frame = reader.load(source)
    writer = frame.write.mode(mode).option("compression", compression)
    _save_parquet(writer.partitionBy(*partition_by), target)
    seconds = time.perf_counter() - started
    written = _written_parquet(frame, target, partition_by)
    sizes = _sizes(_file_uris(written), there)
    return FileConversion(
        source=source,
        target=target,
        row_count=written.count(),
        source_files=len(files),
        source_bytes=sum(_size(file) for file in files),
        target_files=len(sizes),
        target_bytes=sum(sizes),
        seconds=seconds,
    )


def _check_arguments(mode: str, columns: Sequence[str] | None, partition_by: Sequence[str]) -> None:
    check_mode(mode)
    check_names("partition_by", partition_by)
    if columns is not None:
        check_names("columns", columns)
        if not columns:
            raise TableError("columns: expected at least one name, got none; None is all of them")


def _save_parquet(writer: "DataFrameWriter", target: str) -> None:
    from pyspark.errors import AnalysisException

    try:
        writer.parquet(target)
    except AnalysisException as exc:
        if exc.getCondition() != "PATH_ALREADY_EXISTS":
            raise
        raise TableError(f"{target}: exists already, and the mode is errorifexists") from exc


def _written_parquet(frame: "DataFrame", target: str, partition_by: Sequence[str]) -> "DataFrame":
    """What lies at the target; of no rows in partitions there is no file to tell the schema."""
    fields = frame.drop(*partition_by).schema
    return frame.sparkSession.read.schema(fields).parquet(target)


def _options_of(session: "SparkSession", uri: str) -> StorageOptions:
    """How a session reaches a place on S3; where it has no key, as the environment says."""
    running = _told(session, S3A)
    if "access_key" in running:
        secure = running.pop("secure", "true") != "false"
        base = StorageOptions(secure=secure, **running)
    else:
        base = s3_options(SparkSettings.load(), StorageSettings.load())
    bucket = re.match(r"s3a?://([^/]+)", uri)
    return with_own(base, _told(session, f"{S3A}bucket.{bucket[1]}.")) if bucket else base


def _told(session: "SparkSession", prefix: str) -> dict[str, str]:
    found = {name: running_value(session, f"{prefix}{key}") for key, name in BUCKET_KEYS.items()}
    return {name: value for name, value in found.items() if value}


def _require_apart(target: str, sources: Sequence[str]) -> None:
    """Refuse to write where is read: Spark empties the target first, or the two formats mix.

    Parameters
    ----------
    sources
        The place that is read, and its files: of a glob only these are known.
    """
    written = f"{_resolved(target)}/"
    for source in sources:
        read = f"{_resolved(source)}/"
        if read.startswith(written) or written.startswith(read):
            raise TableError(
                f"{target}: holds {source}, which is read, or lies in it; expected a target "
                "apart from the source: write to another folder"
            )


def _resolved(uri: str) -> str:
    """A place's address; on disk without links and dots."""
    from neurolake_dagster.spark.locations import address_of

    address = address_of(uri)
    return address if address.startswith("s3://") else os.path.realpath(address)


def _require_reachable(place: str, options: StorageOptions) -> None:
    """Ask for something there, before Spark writes what could not be looked at after."""
    from neurolake_dagster.spark.locations import place_of

    storage, key = place_of(place, options)
    # A listing: asked for a single object, S3 does not tell a missing bucket from a missing key.
    storage.folders(key)


def _ncf_files(place: str, options: StorageOptions) -> "tuple[Location, ...]":
    from neurolake_dagster.spark.locations import find_files

    return find_files([place], options).files


def _size(file: "Location") -> int:
    return file.storage.size(file.key) if file.bytes is None else file.bytes


def _row_count(file: "Location") -> int:
    if file.row_count is not None:
        return file.row_count
    with file.open() as opened:
        return opened.num_rows


def _file_uris(frame: "DataFrame") -> list[str]:
    return [urllib.parse.unquote(uri) for uri in frame.inputFiles()]


def _sizes(uris: Sequence[str], options: StorageOptions) -> list[int]:
    """The size of each of a frame's files; Spark tells their names only."""
    from neurolake_dagster.spark.locations import place_of

    places = [place_of(uri, options) for uri in uris]
    with ThreadPoolExecutor(FILES_AT_ONCE) as pool:
        return list(pool.map(lambda place: place[0].size(place[1]), places))
