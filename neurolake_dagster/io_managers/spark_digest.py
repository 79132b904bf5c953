"""What a frame's rows are, told by the job that writes them: the data version of Spark assets.

Owns the digest: count, sum and exclusive or of a hash of each row, whatever their order and files.
No job of its own runs. 64 bits a row find a change of data; they are no proof against intent.
"""

import threading
from typing import Any

import xxhash

from neurolake_dagster.tables.sql import quoted_column

# The write is over when it is asked; what it observed comes a little later, or not at all.
WAIT_S = 10
_LOW = (1 << 32) - 1


class FrameDigest:
    """The digest of a frame's rows, known once the frame that it gives was written.

    Parameters
    ----------
    frame
        Replaced by one that is observed.
    """

    def __init__(self, frame: Any) -> None:
        from pyspark.sql import Observation, functions as sf

        self._observation = Observation()
        self._names = [f"{field.name} {field.dataType.simpleString()}" for field in frame.schema]
        columns = [(sf.col(quoted_column(field.name)), field.dataType) for field in frame.schema]
        row = sf.xxhash64(*[cell for column, type_ in columns for cell in _cells(column, type_)])
        self.frame = frame.observe(
            self._observation,
            sf.count(sf.lit(1)).alias("count"),
            # In halves: the sum needs more than 64 bits, and of decimals it takes thrice as long.
            sf.try_sum(row.bitwiseAND(sf.lit(_LOW))).alias("low"),
            sf.try_sum(sf.shiftright(row, 32)).alias("high"),
            sf.bit_xor(row).alias("xor"),
        )

    def result(self) -> str | None:
        """The digest in hexadecimal; None where Spark did not tell what it observed."""
        found: list[dict[str, Any]] = []
        # Waiting has no limit of its own.
        waiting = threading.Thread(target=lambda: found.append(self._observation.get), daemon=True)
        waiting.start()
        waiting.join(WAIT_S)
        if not found:
            return None
        values = found[0]
        # Of more than 2**31 rows the low half is not known; the rest of the digest is.
        low, high = values["low"], values["high"]
        known = values | {"sum": None if None in (low, high) else (high << 32) + low}
        told = [*self._names, *(f"{name}={known[name]}" for name in ("count", "sum", "xor"))]
        return xxhash.xxh3_128_hexdigest("\n".join(told).encode())


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
