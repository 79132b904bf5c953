"""Writing a DataFrame as an NCF table by one call, with our own errors.

Owns the function and the modes. What the format does with the rows is
`neurolake_dagster.spark.writing`'s.
"""

import json
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, get_args

from neurolake_dagster.errors import TableError

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

SaveMode = Literal["append", "overwrite", "errorifexists", "error", "ignore"]
OVERWRITE_MODE = "spark.sql.sources.partitionOverwriteMode"
# Spark gives the text of a worker's error only.
_EXISTS = re.compile(r"errors\.TableError: (.*exists already.*)")


def write_ncf(
    frame: "DataFrame",
    uri: str,
    *,
    mode: SaveMode = "errorifexists",
    partition_by: Sequence[str] = (),
) -> None:
    """Write a DataFrame as an NCF table, in one commit.

    Does what ``frame.write.format("ncf")`` does, everywhere alike: in threads that did not start
    the session, and behind Connect servers of others. These have our Python source only, for
    which Spark refuses ``mode("errorifexists")``, its default, ``mode("ignore")`` and
    ``partitionBy``. And an existing table is a `TableError`, not Spark's error of errors::

        write_ncf(frame, "s3a://bucket/flights", mode="overwrite", partition_by=["month"])

    Parameters
    ----------
    uri
        The table's folder: a path, or ``s3a://``. Its former versions stay readable.
    mode
        Where there is a table: ``append`` to it, ``overwrite`` it, refuse
        (``errorifexists``, ``error``), or leave it and write nothing (``ignore``). Where the
        session's ``spark.sql.sources.partitionOverwriteMode`` is ``dynamic``, only partitions
        that get rows are overwritten.
    partition_by
        Columns whose values divide the rows into ``column=value`` folders.

    Raises
    ------
    TableError
        If the mode is ``errorifexists`` and there is a table, or it is no mode; or if NCF files
        lie there that are no table's, or `partition_by` is a text.
    """
    check_mode(mode)
    check_names("partition_by", partition_by)
    # Executors import this package too, and need no session.
    from pyspark.errors import PySparkException

    from neurolake_dagster.spark.session import activate

    session = frame.sparkSession
    activate(session)
    writer = frame.write.format("ncf").option("partitionBy", json.dumps(list(partition_by)))
    writer.option("partitionOverwriteMode", session.conf.get(OVERWRITE_MODE, "static"))
    if mode == "overwrite":
        writer.mode("overwrite")
    else:
        writer.mode("append").option("ifExists", mode)
    try:
        writer.save(uri)
    except PySparkException as exc:
        told = _EXISTS.search(str(exc))
        if told is None:
            raise
        raise TableError(told.group(1)) from exc


def check_mode(mode: str) -> None:
    """Refuse what is no mode.

    Raises
    ------
    TableError
    """
    if mode not in get_args(SaveMode):
        raise TableError(f"mode {mode!r}, expected one of {get_args(SaveMode)}")


def check_names(argument: str, names: Sequence[str]) -> None:
    """Refuse a text, which would be taken letter by letter.

    Raises
    ------
    TableError
    """
    if isinstance(names, str):
        raise TableError(f"{argument}: expected a list of names, got the text {names!r}")
