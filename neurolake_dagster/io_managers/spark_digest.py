"""What a frame's rows are, told by the job that writes them: the data version of Spark assets.

Owns the digests: by partition the sum of 64-bit hashes of the rows, whatever their order and
files. No job of its own runs. They find a change of data; they are no proof against intent.
"""

import struct
import threading
from collections.abc import Mapping
from typing import Any

import datasketches
import xxhash

from neurolake_dagster.io_managers.spark_rows import (
    NUMBER_COLUMN,
    OUR_PREFIX,
    STRAY,
    with_key_numbers,
)
from neurolake_dagster.tables.scope import Scope
from neurolake_dagster.tables.sql import quoted_column

# The write is over when it is asked; what it observed comes a little later, or not at all.
WAIT_S = 10
ROW_COLUMN = f"{OUR_PREFIX}row"
# Of a row's hash, each summed by itself.
HALVES = ("high", "low")
_HALF = (1 << 32) - 1
# Spark's sketches of sums by key: from 4.2 on, of 2**4 to 2**26 keys.
_SKETCHES_SINCE = (4, 2)
_LEAST_LG_KEYS = 4


class FrameDigest:
    """The digests of a frame's rows by partition, known once the frame that it gives was written.

    Parameters
    ----------
    frame
        Replaced by one that is observed.
    scope
        The partitions that its rows are of.
    """

    def __init__(self, frame: Any, scope: Scope | None = None) -> None:
        from pyspark.sql import Observation, functions as sf

        self._observation = Observation()
        self._columns = [f"{field.name} {field.dataType.simpleString()}" for field in frame.schema]
        self._names = [""] if scope is None else [key.name for key in scope.keys]
        columns = [(sf.col(quoted_column(field.name)), field.dataType) for field in frame.schema]
        row = sf.xxhash64(*[cell for column, type_ in columns for cell in _cells(column, type_)])
        told = frame.withColumn(ROW_COLUMN, row)
        sums = [sf.count(sf.lit(1)).alias("rows")]
        if scope is None or len(scope.keys) == 1:
            sums += _sums()
        elif _has_sketches(frame.sparkSession):
            told = with_key_numbers(told, scope)
            sums += _sums_by_key(len(scope.keys))
        self.frame = told.observe(self._observation, *sums).drop(ROW_COLUMN, NUMBER_COLUMN)

    def by_partition(self) -> dict[str, str]:
        """The digests in hexadecimal by partition key; under "" of an asset without any.

        None at all where Spark did not tell them.
        """
        found: list[dict[str, Any]] = []
        # Waiting has no limit of its own.
        waiting = threading.Thread(target=lambda: found.append(self._observation.get), daemon=True)
        waiting.start()
        waiting.join(WAIT_S)
        if not found or not set(HALVES) <= found[0].keys():
            return {}
        highs, lows = (self._by_number(found[0], half) for half in HALVES)
        if highs is None or lows is None:
            return {}
        columns = "\n".join(self._columns)
        return {
            name: xxhash.xxh3_128_hexdigest(f"{columns}\n{high} {low}".encode())
            for name, high, low in zip(self._names, highs, lows, strict=True)
        }

    def _by_number(self, observed: Mapping[str, Any], half: str) -> list[int] | None:
        """The sums of one half, modulo 2**32, in the order of the partitions; None if not told."""
        told = observed[half]
        if isinstance(told, bytes | bytearray):
            sketch = datasketches.compact_tuple_sketch.deserialize(bytes(told), _Sums())
            sums: dict[int, int] = dict(iter(sketch))
            if _place(STRAY) in sums:
                return None  # Spark took what Arrow tells no key of
            return [sums.get(_place(i), 0) & _HALF for i in range(len(self._names))]
        if told is None and observed["rows"]:
            return None  # 2**32 rows at least, and all with large hashes
        return [(told or 0) & _HALF]


def _has_sketches(session: Any) -> bool:
    """Whether Spark can sum by key on the way; another's server may be an older one."""
    return tuple(map(int, session.version.split(".")[:2])) >= _SKETCHES_SINCE


def _halves() -> dict[str, Any]:
    """The halves of a row's hash, as signed integers of 32 bits."""
    from pyspark.sql import functions as sf

    row = sf.col(ROW_COLUMN)
    low = sf.shiftright(sf.shiftleft(row, 32), 32)
    return {"high": sf.shiftright(row, 32), "low": low}


def _sums() -> list[Any]:
    from pyspark.sql import functions as sf

    return [sf.try_sum(half).alias(name) for name, half in _halves().items()]


def _sums_by_key(key_count: int) -> list[Any]:
    """Sums modulo 2**32 by key number; a sketch that has room for all keys is exact."""
    from pyspark.sql import functions as sf

    room = max(key_count.bit_length(), _LEAST_LG_KEYS)  # of stray rows, too
    return [
        sf.tuple_sketch_agg_integer(NUMBER_COLUMN, half.cast("int"), room, "sum").alias(name)
        for name, half in _halves().items()
    ]


def _place(number: int) -> int:
    """Where a sketch keeps a key number: by its hash."""
    sketch = datasketches.update_theta_sketch()
    sketch.update(number)
    found: list[int] = list(sketch)
    return found[0]


class _Sums(datasketches.PyObjectSerDe):  # type: ignore[misc]  # has no types
    """How Java's sketches write a sum: the integer, and a byte that says that it is one."""

    SIZE = 5

    def from_bytes(self, data: bytes, offset: int) -> tuple[int, int]:
        return struct.unpack_from("<i", data, offset)[0], self.SIZE


def _cells(column: Any, type_: Any) -> list[Any]:
    """A value's part of a hash, which itself passes over nulls and takes no maps or variants."""
    return [_hashable(column, type_), column.isNull()]


def _hashable(column: Any, type_: Any) -> Any:
    from pyspark.sql import functions as sf
    from pyspark.sql.types import ArrayType, MapType, StructType, VariantType

    if isinstance(type_, VariantType):
        return sf.to_json(column)
    if isinstance(type_, StructType):
        members = [(column.getField(field.name), field.dataType) for field in type_]
        cells = [cell for member, kind in members for cell in _cells(member, kind)]
        return sf.xxhash64(*cells) if cells else sf.lit(0)
    if isinstance(type_, ArrayType):
        return sf.transform(column, lambda item: sf.xxhash64(*_cells(item, type_.elementType)))
    if isinstance(type_, MapType):
        keys = _hashable(sf.map_keys(column), ArrayType(type_.keyType))
        values = _hashable(sf.map_values(column), ArrayType(type_.valueType))
        return sf.xxhash64(keys, values)
    return column
