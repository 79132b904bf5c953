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
    told = f"{where}: {_told(here or there)}, but asked for are rows {_told(there)}"
    if here and there == {()}:
        raise PartitionError(
            f"{told}; say of which partition they are (an asset: by its partitions), or overwrite "
            "the whole table"
        )
    raise PartitionError(
        f"{told}; delete the table's folder and write it again, or choose another place"
    )


def _told(layouts: set[tuple[str, ...]]) -> str:
    return " and ".join(
        f"partitioned by {list(names)!r}" if names else "of no partition"
        for names in sorted(layouts)
    )


def _dimensions(partitions: Iterable[Partition]) -> set[tuple[str, ...]]:
    return {tuple(name for name, _ in partition) for partition in partitions}
