"""Which partitions of a Delta table were ever written, also those without rows.

Owns the record of them: a transaction of the log for each, which Delta keeps for good. Rows alone
cannot tell a partition that is empty from one that nobody wrote.
"""

from collections.abc import Iterable

from deltalake import CommitProperties, DeltaTable, Transaction

PREFIX = "neurolake.partition/"


def new_transactions(table: DeltaTable | None, names: Iterable[str]) -> list[Transaction]:
    """What a commit must carry so that partitions count as written; none twice."""
    known = set() if table is None else recorded_partitions(table, names)
    return [Transaction(PREFIX + name, 1) for name in names if name not in known]


def recorded_partitions(table: DeltaTable, names: Iterable[str]) -> set[str]:
    """Those of some partitions that a commit says it wrote."""
    # A restore sets what it takes back to 0.
    return {name for name in names if (table.transaction_version(PREFIX + name) or 0) > 0}


def record_partitions(table: DeltaTable, names: Iterable[str]) -> None:
    """Commit that partitions were written, and nothing else; nothing if that is known."""
    marks = new_transactions(table, names)
    if marks:
        table.create_write_transaction(
            [],
            "append",
            table.schema(),
            table.metadata().partition_columns,
            commit_properties=CommitProperties(app_transactions=marks),
        )
