"""Spark DataFrames into Delta tables, through delta-spark.

Owns the writer's options, the merge, and what delta-spark's errors mean. Imports pyspark only
when a DataFrame is at hand.
"""

import json
import re
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pyarrow as pa

from neurolake_dagster.errors import (
    CommitConflictError,
    PartitionError,
    SchemaMismatchError,
    TableError,
)
from neurolake_dagster.io_managers.plans import MergePlan, WritePlan
from neurolake_dagster.io_managers.spark_rows import column_types, told_of_types
from neurolake_dagster.tables.delta import DeltaDataset, merge_condition
from neurolake_dagster.tables.delta_commit import MARK
from neurolake_dagster.tables.delta_failures import long_folder
from neurolake_dagster.tables.partitions import NAME_BYTES
from neurolake_dagster.tables.schemas import joined_schema
from neurolake_dagster.tables.scope import Scope
from neurolake_dagster.tables.sql import quoted_column, spark_sql

SCHEMA_OPTIONS = {"merge": "mergeSchema", "overwrite": "overwriteSchema"}
STRAY_ROWS = "NEUROLAKE_STRAY_ROWS"
BAD_KEYS = "NEUROLAKE_BAD_KEYS"
_NOT_MADE = re.compile(r"Mkdirs failed to create ([^\n]*)")


def refuse_null_partition(plan: WritePlan) -> None:
    """Refuse the one key that Spark itself writes as null.

    Raises
    ------
    PartitionError
    """
    from neurolake_dagster.spark.writing import NULL_PARTITION

    keys = () if plan.scope is None else plan.scope.keys
    if any(NULL_PARTITION in key.members for key in keys):
        raise PartitionError(
            f"{plan.where}: partition {NULL_PARTITION!r} is null to Spark, expected another key; "
            "rename it, or return Arrow rows"
        )


def write_frame(
    dataset: DeltaDataset, plan: WritePlan, frame: Any, options: Mapping[str, Any], mark: str
) -> None:
    """Write a frame in one commit.

    Parameters
    ----------
    options
        As of `DeltaDataset.write`: ``mode``, ``where``, ``partition_by``, ``schema_mode``.
    """
    mode = {"error": "errorifexists"}.get(options["mode"], options["mode"])
    schema_mode = options.get("schema_mode")
    if mode in ("append", "overwrite") and schema_mode != "overwrite":
        frame = _fitted(dataset, plan, frame, adds_columns=schema_mode == "merge")
    exists = dataset.exists()
    # delta-spark holds rows against `replaceWhere` only where there is a table.
    is_proven = options.get("where") is not None and exists
    if plan.scope is not None and not is_proven:
        frame = frame.where(_is_ours(plan.scope, column_types(frame, plan.scope.columns)))
    writer = frame.write.format("delta").mode(mode)
    writer = writer.option("userMetadata", _user_metadata(plan, mark))
    replaces = mode == "overwrite" and exists and options.get("where") is None
    if plan.transaction is not None or replaces:
        name, number = dataset.next_replacement() if replaces else (plan.transaction, 1)
        writer = writer.option("txnAppId", name).option("txnVersion", number)
    if options.get("partition_by"):
        writer = writer.partitionBy(*options["partition_by"])
    if options.get("where") is not None:
        writer = writer.option("replaceWhere", spark_sql(options["where"]))
    if schema_mode is not None:
        writer = writer.option(SCHEMA_OPTIONS[schema_mode], "true")
    with told_of_types(plan.where), told_by_spark(plan.where):
        writer.save(dataset.spark_uri)
    if replaces and dataset.commit(mark) is None:
        raise CommitConflictError(
            f"{plan.where}: another write replaced the whole table first; nothing was changed"
        )


def merge_frame(
    dataset: DeltaDataset, plan: WritePlan, frame: Any, schema: pa.Schema, mark: str
) -> None:
    """Bring a frame's rows together with those of the same keys, in one commit.

    Rows of other partitions, and keys that are null or come twice, fail the merge itself: no
    job of their own looks for them.
    """
    if plan.transaction is not None and dataset.has_transaction(plan.transaction):
        return
    assert plan.merge is not None
    unknown = [key for key in plan.merge.keys if key not in schema.names]
    if unknown:
        raise TableError(
            f"{plan.where}: merge keys {list(plan.merge.keys)!r}, expected some of {schema.names!r}"
        )
    _refuse_misread_names(dataset, plan, schema)
    frame = _fitted(dataset, plan, frame, adds_columns=plan.schema_mode == "merge")
    where = None if plan.scope is None else spark_sql(plan.scope.predicate(schema, "target"))
    source = f"global_temp.neurolake_{uuid.uuid4().hex}"
    statement = _merge_statement(dataset, plan, plan.merge, source, where)
    with _own_session(frame.sparkSession, plan, mark) as session, told_by_spark(plan.where):
        _, view = source.split(".")
        _proven(frame, plan, plan.merge, schema).createGlobalTempView(view)
        try:
            session.sql(statement).collect()
        finally:
            session.catalog.dropGlobalTempView(view)


def _fitted(dataset: DeltaDataset, plan: WritePlan, frame: Any, *, adds_columns: bool) -> Any:
    """The frame, narrower numbers cast to the table's types.

    Left alone delta-spark cuts numbers, drops columns and puts nulls without a word.

    Raises
    ------
    SchemaMismatchError
    """
    from pyspark.sql import functions as sf

    from neurolake_dagster.spark.types import arrow_schema, spark_schema

    if not dataset.exists():
        return frame
    schema = column_types(frame, tuple(frame.columns))
    types = spark_schema(pa.schema(dataset.open().schema().to_arrow()))
    whole = joined_schema(arrow_schema(types), schema, plan.where, adds=adds_columns)
    wider = {
        one.name: sf.col(quoted_column(one.name)).cast(types[one.name].dataType)
        for one in schema
        if one.name in types.names and not whole.field(one.name).type.equals(one.type)
    }
    return frame.withColumns(wider) if wider else frame


def _refuse_misread_names(dataset: DeltaDataset, plan: WritePlan, schema: pa.Schema) -> None:
    """Refuse names that delta-spark's own merge does not quote."""
    odd = [name for name in schema.names if "`" in name]
    odd += [name for name in dataset.open().metadata().partition_columns if "." in name]
    if odd:
        raise TableError(
            f"{plan.where}: delta-spark cannot merge into columns {odd!r}, expected no backticks, "
            "and no dots in partition columns; rename them, or return Arrow rows"
        )


@contextmanager
def told_by_spark(where: str) -> Iterator[None]:
    """Translate what delta-spark says about rows, schemas and others' commits."""
    from py4j.protocol import Py4JJavaError
    from pyspark.errors import AnalysisException, PySparkException

    try:
        yield
    except (PySparkException, Py4JJavaError) as exc:  # a broken constraint stays a Java error
        whole = str(exc)
        text = next((line for line in whole.splitlines() if "DELTA_" in line), whole.split("\n")[0])
        if "REPLACE_WHERE_MISMATCH" in whole or STRAY_ROWS in whole:
            raise PartitionError(
                f"{where}: rows of none of the asked partitions; nothing was changed"
            ).quoting(text) from exc
        if BAD_KEYS in whole:
            raise TableError(
                f"{where}: rows to merge repeat a key, or a key is null; keep one for each"
            ) from exc
        if "DELTA_VIOLATE_CONSTRAINT" in whole:
            # Its other lines show whole rows, which may be about persons.
            raise TableError(f"{where}: rows break a constraint of the table: {text}") from None
        if _names_long_folder(whole):
            raise long_folder(where) from None
        if "DELTA_CONCURRENT" in whole:
            raise CommitConflictError(f"{where}: another commit came first: {text}") from exc
        if "DELTA_INVALID_CHARACTERS" in whole:
            raise TableError(f"{where}: rename the columns for Delta: {text}") from exc
        is_mismatch = isinstance(exc, AnalysisException) and "mismatch" in text
        if is_mismatch or "DELTA_FAILED_TO_MERGE" in whole:
            raise SchemaMismatchError(f"{where}: the rows do not fit the table: {text}") from exc
        raise


def _names_long_folder(text: str) -> bool:
    """Whether Spark could not make a folder since no disk takes its name; it does not say why."""
    found = _NOT_MADE.search(text)
    return found is not None and any(
        len(name.encode()) > NAME_BYTES for name in found[1].split("/")
    )


def _merge_statement(
    dataset: DeltaDataset, plan: WritePlan, merge: MergePlan, source: str, where: str | None
) -> str:
    """The merge in SQL: delta-spark's own API needs jars of Delta's on a Connect server."""
    uri = dataset.spark_uri.replace("`", "``")
    evolving = " WITH SCHEMA EVOLUTION" if plan.schema_mode == "merge" else ""
    matched = {"update": "UPDATE SET *", "delete": "DELETE"}.get(merge.when_matched)
    gone = "" if where is None else f" AND ({where})"
    clauses = [
        f"MERGE{evolving} INTO delta.`{uri}` AS target USING {source} AS source",
        f"ON {merge_condition(merge.keys, where)}",
        f"WHEN MATCHED THEN {matched}" if matched else "",
        "WHEN NOT MATCHED THEN INSERT *" if merge.when_new == "insert" else "",
        f"WHEN NOT MATCHED BY SOURCE{gone} THEN DELETE" if merge.when_gone == "delete" else "",
    ]
    return "\n".join(clause for clause in clauses if clause)


def _user_metadata(plan: WritePlan, mark: str) -> str:
    return json.dumps({**plan.properties, MARK: mark})


@contextmanager
def _own_session(session: Any, plan: WritePlan, mark: str) -> Iterator[Any]:
    """A session whose settings mark the commit: a merge has no options of its own.

    Classic Spark makes one beside the frame's; over Connect it is the frame's itself.
    """
    own = session.newSession() if hasattr(session, "_jsparkSession") else session
    settings = {"spark.databricks.delta.commitInfo.userMetadata": _user_metadata(plan, mark)}
    if plan.transaction is not None:
        settings["spark.databricks.delta.write.txnAppId"] = plan.transaction
        settings["spark.databricks.delta.write.txnVersion"] = "1"
    for name, value in settings.items():
        own.conf.set(name, value)
    try:
        yield own
    finally:
        for name in settings:
            own.conf.unset(name)


def _proven(frame: Any, plan: WritePlan, merge: MergePlan, schema: pa.Schema) -> Any:
    """The frame, failing where it is read if a row is none that may be merged."""
    from pyspark.sql import Window, functions as sf

    keys = [sf.col(quoted_column(key)) for key in merge.keys]
    is_null = sf.lit(False)
    for key in keys:
        is_null = is_null | key.isNull()
    count = "__neurolake_count"
    counted = frame.withColumn(count, sf.count(sf.lit(1)).over(Window.partitionBy(*keys)))
    bad = is_null | (sf.col(count) > 1)
    counted = counted.where(sf.when(bad, _failing(BAD_KEYS)).otherwise(sf.lit(True)))
    if plan.scope is not None:
        counted = counted.where(_is_ours(plan.scope, schema))
    return counted.drop(count)


def _is_ours(scope: Scope, schema: pa.Schema) -> Any:
    """True for rows of the scope's partitions; others fail the job that reads them."""
    from pyspark.sql import functions as sf

    test = sf.coalesce(sf.expr(spark_sql(scope.predicate(schema))), sf.lit(False))
    return sf.when(test, sf.lit(True)).otherwise(_failing(STRAY_ROWS))


def _failing(text: str) -> Any:
    from pyspark.sql import functions as sf

    return sf.raise_error(sf.lit(text)).cast("boolean")
