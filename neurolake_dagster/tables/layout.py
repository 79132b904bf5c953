"""How a table's files are divided: all by the same dimensions, or none by any.

Owns the refusal to mix: rows of no partition beside partitions would be of no key, and would
be counted twice once their key is written.
"""

from collections.abc import Iterable

from neurolake_dagster.errors import PartitionError
from neurolake_dagster.tables.partitions import Partition


def check_layout(held: Iterable[Partition], new: Iterable[Partition], where: str) -> None:
    """Refuse files of other dimensions than those that stay.

    Raises
    ------
    PartitionError
        Saying what can be done.
    """
    here, there = _dimensions(held), _dimensions(new)
    if len(here | there) < 2:
        return
    names = [list(one) for one in sorted(here or there)]
    if here and there == {()}:
        raise PartitionError(
            f"{where}: partitioned by {names[0]!r}, but these rows are of no partition; say of "
            "which one they are (an asset: by its partitions), or overwrite the whole table"
        )
    raise PartitionError(
        f"{where}: holds files by {names!r}, but these rows are by "
        f"{[list(one) for one in sorted(there)]!r}; delete the table's folder and write it again, "
        "or choose another place"
    )


def _dimensions(partitions: Iterable[Partition]) -> set[tuple[str, ...]]:
    return {tuple(name for name, _ in partition) for partition in partitions}
