"""Which partitions of a Delta table were ever written, also those without rows.

Owns the record of them: a transaction of the log for each, which Delta keeps for good. Rows alone
cannot tell a partition that is empty from one that nobody wrote.
"""

from collections.abc import Collection, Sequence

import xxhash
from deltalake import CommitProperties, DeltaTable, Transaction

PREFIX = "neurolake.partition/"
# Of all partitions of one write, by their digest: a lookup takes a millisecond.
TOGETHER = "neurolake.partitions/"
# How often the whole table was replaced, whatever its partitions. Marks of before are no larger.
REPLACED = "neurolake.replaced"


def new_transactions(
    table: DeltaTable | None, names: Collection[str], *, replaces: bool = False
) -> list[Transaction]:
    """What a commit must carry so that partitions count as written; none twice.

    Parameters
    ----------
    replaces
        Whether it replaces the whole table, so that no others count any more.
    """
    number = next_replacement(table)
    known = set() if table is None or replaces else recorded_partitions(table, names)
    fresh = [PREFIX + name for name in names if name not in known]
    if fresh and len(names) > 1:
        fresh.append(_together(names))
    if not replaces:
        return [Transaction(mark, number) for mark in fresh]
    return [Transaction(REPLACED, number), *(Transaction(mark, number + 1) for mark in fresh)]


def next_replacement(table: DeltaTable | None) -> int:
    """What `REPLACED` is once the whole table is replaced; of two such writes one conflicts."""
    return 1 + (0 if table is None else table.transaction_version(REPLACED) or 0)


def recorded_partitions(table: DeltaTable, names: Collection[str]) -> set[str]:
    """Those of some partitions that a commit says it wrote, since the table was replaced.

    A restore sets the marks that it takes back to what they were.
    """
    least = next_replacement(table)

    def is_recorded(mark: str) -> bool:
        return (table.transaction_version(mark) or 0) >= least

    if len(names) > 1 and is_recorded(_together(names)):
        return set(names)
    return {name for name in names if is_recorded(PREFIX + name)}


def record_partitions(table: DeltaTable, names: Collection[str]) -> None:
    """Commit that partitions were written, and nothing else; nothing if that is known."""
    marks = new_transactions(table, names)
    if marks:
        commit_nothing(table, marks)


def commit_nothing(table: DeltaTable, marks: Sequence[Transaction] = ()) -> None:
    """A commit that brings no rows and takes none away."""
    table.create_write_transaction(
        [],
        "append",
        table.schema(),
        table.metadata().partition_columns,
        commit_properties=CommitProperties(app_transactions=list(marks)),
    )


def _together(names: Collection[str]) -> str:
    return TOGETHER + xxhash.xxh3_128_hexdigest("\0".join(sorted(names)).encode())
