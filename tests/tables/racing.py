"""Writers in processes of their own, for tests that race or kill them."""

import itertools
import multiprocessing
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext

import pyarrow as pa

from neurolake_dagster.errors import CommitConflictError
from neurolake_dagster.tables import Table, merge_rows

PLACES = 3


def processes() -> ForkServerContext:
    """Processes that start in milliseconds: what they need is imported once."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.tables.racing"])
    return context


def numbers(*values: int) -> pa.Table:
    """Rows of one column."""
    return pa.table({"id": pa.array(values, pa.int64())})


def append(table: Table, values: list[int]) -> None:
    """Append each value by a commit of its own."""
    for value in values:
        table.write(numbers(value), mode="append")


def merge(table: Table, values: list[int]) -> None:
    """Merge each value by a commit of its own; again after a conflict."""
    for value in values:
        while True:
            try:
                merge_rows(table, numbers(value), ["id"])
            except CommitConflictError:
                continue
            break


def overwrite_forever(table: Table, acknowledge: Connection) -> None:
    """Write version n's number into partition n modulo 3, and tell each version once it stands."""
    base = table.log.try_snapshot()
    for number in itertools.count(0 if base is None else base.version + 1):
        commit = table.write(numbers(number), partition=f"p{number % PLACES}")
        assert commit.version == number
        acknowledge.send(number)
