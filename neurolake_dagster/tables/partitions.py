"""Partition values and the folders they lie in.

Owns the escaping: a folder's name is safe on disk, in S3 keys, in Hadoop globs and for
Hive-style readers, and no two values share one.
"""

import re
from collections.abc import Iterable, Mapping

from neurolake_dagster.errors import PartitionError

# The values of one partition by dimension, in order. Empty: the table is not partitioned.
Partition = tuple[tuple[str, str], ...]
PartitionLike = str | Mapping[str, str] | Partition

DEFAULT_DIMENSION = "partition_key"
NAME_BYTES = 255
_UNSAFE = re.compile(r"[^A-Za-z0-9_-]|^[_-]")


def as_partition(value: PartitionLike) -> Partition:
    """Normalise a partition; a plain text is a key of the dimension ``partition_key``.

    Raises
    ------
    PartitionError
        If a name or a value is empty: a Hive-style reader would see null.
    """
    if isinstance(value, str):
        found: Partition = ((DEFAULT_DIMENSION, value),)
    elif isinstance(value, Mapping):
        found = tuple(value.items())
    else:
        found = tuple(value)
    for name, text in found:
        if not name or not text:
            raise PartitionError(
                f"partition {dict(found)!r}: dimension and key must not be empty texts"
            )
    return found


def as_partitions(values: Iterable[PartitionLike]) -> list[Partition]:
    """Normalise several partitions, in order, each once."""
    return list(dict.fromkeys(as_partition(value) for value in values))


def partition_folder(partition: Partition) -> str:
    """The folder of a partition below the table, ``name=key/...``; empty for no partition.

    Raises
    ------
    PartitionError
        If a name is longer than a file system takes.
    """
    names = [f"{_escape(name)}={_escape(text)}" for name, text in partition]
    for name in names:
        if len(name) > NAME_BYTES:
            raise PartitionError(
                f"partition {dict(partition)!r}: its folder's name has {len(name)} bytes, expected "
                f"at most {NAME_BYTES} (all but letters, digits, - and _ take 3 a byte); shorten it"
            )
    return "/".join(names)


def _escape(text: str) -> str:
    """Percent-encode all but letters, digits, ``_`` and ``-``: Hive's own way, so readers undo it.

    Dots go too, so that no text is ``..``; a leading ``_`` would hide the folder.
    """
    return _UNSAFE.sub(lambda found: _percent(found.group()), text)


def _percent(character: str) -> str:
    return "".join(f"%{byte:02X}" for byte in character.encode())
