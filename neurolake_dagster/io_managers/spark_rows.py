"""Spark DataFrames on their way into tables: which key a row belongs to, and who writes it.

Owns the key's expression and the one Spark job that writes part files on the executors.
Imports pyspark only when a DataFrame is at hand.
"""

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pyarrow as pa

from neurolake_dagster import errors
from neurolake_dagster.io_managers.plans import ReadPlan
from neurolake_dagster.tables import DataFile, Snapshot, Stage, Staged, Table
from neurolake_dagster.tables.conditions import Predicate
from neurolake_dagster.tables.schemas import plain_schema
from neurolake_dagster.tables.scope import Scope
from neurolake_dagster.tables.sql import quoted_column, spark_sql
from neurolake_dagster.tables.tasks import RECORD_COLUMN, WriteParts, read_records

OUR_PREFIX = "__neurolake_"
NUMBER_COLUMN = f"{OUR_PREFIX}key"
STRAY = -1
COLLECTED_BYTES = 4 << 30
_LACKING = re.compile(
    r"\[[A-Z_]*(UNSUPPORTED_DATA_TYPE|UNSUPPORTED_TIME_TYPE|EMPTY_SCHEMA|CONTAINS_NULL_TYPE)"
)
_OURS = re.compile(r"neurolake_dagster\.errors\.(PartitionError|SchemaMismatchError): (.*)")


def with_key_numbers(frame: Any, scope: Scope) -> Any:
    """The frame with a column that holds the index of each row's key, `STRAY` for none.

    The executors look it up as for Arrow rows: an expression would grow with the keys.
    """
    from pyspark.sql import functions as sf
    from pyspark.sql.pandas.functions import arrow_udf
    from pyspark.sql.types import LongType

    names = list(scope.columns)

    def numbers(*columns: pa.Array) -> pa.Array:
        return pa.array(scope.numbers(pa.RecordBatch.from_arrays([*columns], names)), pa.int64())

    numbered = arrow_udf(numbers, LongType())  # type: ignore[call-overload] # of any columns
    return frame.withColumn(
        NUMBER_COLUMN, numbered(*[sf.col(quoted_column(name)) for name in names])
    )


def frame_of_keys(frame: Any, scope: Scope | None, kept: Scope | None, where: str) -> Any:
    """The rows of a frame but for those of the keys of a scope that are not kept.

    Raises
    ------
    PartitionError
        If a column that tells them is missing.
    """
    if scope is None or kept is None or kept is scope:
        return frame
    check_scope(frame, scope, where)
    left = [i for i, key in enumerate(scope.keys) if key in kept.keys]
    numbered = with_key_numbers(frame, scope)
    return numbered.where(numbered[NUMBER_COLUMN].isin([STRAY, *left])).drop(NUMBER_COLUMN)


def collected(frame: Any, table: Table, where: str) -> pa.Table:
    """All rows of a frame on this machine, through files of the executors, not Spark's driver.

    Raises
    ------
    TableError
        If they are more than `COLLECTED_BYTES`.
    """
    found, size = [], 0
    with table.stage() as stage:
        staged = write_parts(frame, table, stage, stored_types(frame), None)
        for file in staged.files:
            names = staged.schema.names
            for batch in table.files_format.scan(table.folder, file.path, names, None):
                size += batch.nbytes
                if size > COLLECTED_BYTES:
                    raise errors.TableError(
                        f"{where}: over {COLLECTED_BYTES >> 20} MiB of rows to merge, which are "
                        f"held by one machine for {table.format} tables; merge them in parts, or "
                        "keep the asset as delta, whose merges Spark does"
                    )
                found.append(batch)
    return pa.Table.from_batches(found, staged.schema)


def stored_types(frame: Any) -> pa.Schema:
    """The Arrow types of all columns in files of our own; no Spark job runs.

    Raises
    ------
    UnsupportedTypeError
        Naming every column that such a file cannot hold.
    """
    from neurolake_dagster.spark.types import arrow_schema

    return arrow_schema(frame.schema, is_stored=True)


def check_names(frame: Any, where: str) -> None:
    """Refuse columns that Spark does not tell apart, and those of ours.

    Raises
    ------
    TableError
    """
    ours = [name for name in frame.columns if name.lower().startswith(OUR_PREFIX)]
    if ours:
        raise errors.TableError(
            f"{where}: columns {ours!r} would be taken for those that are added on the way; "
            f"rename them, expected no names that begin with {OUR_PREFIX!r}"
        )
    is_exact = frame.sparkSession.conf.get("spark.sql.caseSensitive") == "true"
    names = [name if is_exact else name.lower() for name in frame.columns]
    twice = [one for one, name in zip(frame.columns, names, strict=True) if names.count(name) > 1]
    if twice:
        raise errors.TableError(
            f"{where}: columns {twice!r} have the same name to Spark; rename them before writing"
        )


def check_scope(frame: Any, scope: Scope | None, where: str) -> None:
    """Refuse columns that do not tell a scope's partitions apart.

    Raises
    ------
    PartitionError
    """
    if scope is not None:
        types = column_types(frame, scope.columns)
        columns = {name: pa.null() for name in frame.columns}
        scope.require_columns(pa.schema(columns | {one.name: one.type for one in types}), where)


@contextmanager
def told_of_types(where: str) -> Iterator[None]:
    """Translate what Spark says of types that a format of its own lacks."""
    from pyspark.errors import PySparkException

    try:
        yield
    except PySparkException as exc:
        if _LACKING.search(str(exc)) is None:
            raise
        text = str(exc).split("\n")[0]
        raise errors.UnsupportedTypeError(f"{where}: cast the columns first: {text}") from exc


def column_types(frame: Any, columns: tuple[str, ...]) -> pa.Schema:
    """The Arrow types of some columns; no Spark job runs."""
    from neurolake_dagster.spark.types import arrow_schema

    known = [quoted_column(name) for name in columns if name in frame.columns]
    return arrow_schema(frame.select(*known).schema)


def write_parts(
    frame: Any, table: Table, stage: Stage, schema: pa.Schema, scope: Scope | None
) -> Staged:
    """Have the executors write part files into the stage: one job, all partitions at once.

    A partition without rows gets an empty file, and so does a frame without any.
    """
    plain = plain_schema(schema)
    task = WriteParts(
        folder=table.folder, stage=stage.path, format=table.format, schema=plain, scope=scope
    )
    # Spark takes a dot in a name for a path here.
    numbered = frame.toDF(*map(str, range(len(plain))))
    with told_by_task():
        records = numbered.mapInArrow(task, f"{RECORD_COLUMN} string").collect()
    files = read_records(record[RECORD_COLUMN] for record in records)
    written = {file.partition for file in files}
    places = [()] if scope is None else [key.place for key in scope.keys]
    empty = stage.write_empty([place for place in places if place not in written], plain)
    return Staged(files=(*files, *empty), schema=plain)


@contextmanager
def told_by_task() -> Iterator[None]:
    """Give back our own errors, which Spark wraps in its own with the worker's traceback."""
    from pyspark.errors import PySparkException

    try:
        yield
    except PySparkException as exc:
        found = _OURS.search(str(exc))
        if found is None:
            raise
        kind = getattr(errors, found.group(1))
        raise kind(found.group(2)) from exc


def read_parts(
    session: Any,
    table: Table,
    snapshot: Snapshot,
    files: Sequence[DataFile] | None,
    plan: ReadPlan,
) -> Any:
    """An NCF table, or some files of it, as a DataFrame through the format ``ncf``.

    The source cannot see which columns a query uses, so all are named to it that are.
    """
    reader = session.read.format("ncf")
    if plan.columns is not None:
        used = () if plan.where is None else plan.where.columns()
        names = json.dumps(list(dict.fromkeys([*plan.columns, *used])))
        reader = reader.option("columns", names)
    if plan.where is not None and _is_condition(plan.where, snapshot):
        reader = reader.option("where", plan.where.text())
    if files is not None:
        return reader.load([table.folder.uri(file.path) for file in files])
    if plan.version is not None:
        reader = reader.option("version", str(snapshot.version))
    return reader.load(table.uri)


def _is_condition(where: Predicate, snapshot: Snapshot) -> bool:
    """Whether the source can leave rows out by it; what it cannot, Spark does alone."""
    from neurolake_dagster.spark.filters import read_where
    from neurolake_dagster.spark.types import arrow_schema, spark_schema

    types = {one.name: one.type for one in arrow_schema(spark_schema(snapshot.schema))}
    try:
        read_where(where.text(), types)
    except errors.TableError:
        return False
    return True


def as_schema(frame: Any, schema: pa.Schema) -> Any:
    """The frame with the columns of a schema, in its order; those it lacks are null."""
    from pyspark.sql import functions as sf

    from neurolake_dagster.spark.types import spark_schema

    return frame.select(
        *[
            sf.col(quoted_column(field.name))
            if field.name in frame.columns
            else sf.lit(None).cast(field.dataType).alias(field.name)
            for field in spark_schema(schema)
        ]
    )


def empty_frame(session: Any, schema: pa.Schema) -> Any:
    """A frame without rows in Spark's form of an Arrow schema."""
    from neurolake_dagster.spark.types import spark_schema

    return session.createDataFrame([], spark_schema(schema))


def where_sql(frame: Any, where: Predicate) -> str:
    """The predicate in SQL, its literals of the types that the frame's columns have."""
    return spark_sql(where.sql(column_types(frame, where.columns())))


def narrowed(frame: Any, plan: ReadPlan) -> Any:
    """The rows and columns of a frame that an input asks for."""
    if plan.where is not None:
        frame = frame.where(where_sql(frame, plan.where))
    return frame if plan.columns is None else frame.select(*map(quoted_column, plan.columns))
