"""Which partitions of a Delta table were ever written, also those without rows.

Owns the record of them: a transaction of the log for each, which Delta keeps for good. Rows alone
cannot tell a partition that is empty from one that nobody wrote.
"""

from collections.abc import Collection

import xxhash
from deltalake import CommitProperties, DeltaTable, Transaction

PREFIX = "neurolake.partition/"
# Of all partitions of one write, by their digest: a lookup takes a millisecond.
TOGETHER = "neurolake.partitions/"


def new_transactions(table: DeltaTable | None, names: Collection[str]) -> list[Transaction]:
    """What a commit must carry so that partitions count as written; none twice."""
    known = set() if table is None else recorded_partitions(table, names)
    fresh = [PREFIX + name for name in names if name not in known]
    if fresh and len(names) > 1:
        fresh.append(_together(names))
    return [Transaction(mark, 1) for mark in fresh]


def recorded_partitions(table: DeltaTable, names: Collection[str]) -> set[str]:
    """Those of some partitions that a commit says it wrote."""
    if len(names) > 1 and _is_recorded(table, _together(names)):
        return set(names)
    return {name for name in names if _is_recorded(table, PREFIX + name)}


def _is_recorded(table: DeltaTable, mark: str) -> bool:
    """Whether a mark counts; a restore sets those that it takes back to 0."""
    return (table.transaction_version(mark) or 0) > 0


def record_partitions(table: DeltaTable, names: Collection[str]) -> None:
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


def _together(names: Collection[str]) -> str:
    return TOGETHER + xxhash.xxh3_128_hexdigest("\0".join(sorted(names)).encode())
