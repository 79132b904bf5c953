"""What a frame's rows are, told by the job that writes them: the data version of Spark assets.

Owns the digest: count, sum and exclusive or of a hash of each row, whatever their order and files,
of all rows or of each of a few partitions. No job of its own runs. 64 bits a row find a change of
data; they are no proof against intent.
"""

import threading
from collections.abc import Mapping
from typing import Any

import xxhash

from neurolake_dagster.io_managers.spark_rows import column_types
from neurolake_dagster.tables.scope import Scope
from neurolake_dagster.tables.sql import quoted_column, spark_sql

# The write is over when it is asked; what it observed comes a little later, or not at all.
WAIT_S = 10
# Each is a sum of its own over all rows.
TOLD_KEYS = 16
_LOW = (1 << 32) - 1


class FrameDigest:
    """The digest of a frame's rows, known once the frame that it gives was written.

    Parameters
    ----------
    frame
        Replaced by one that is observed.
    scope
        The partitions that its rows are of; more than `TOLD_KEYS` are told as one.
    """

    def __init__(self, frame: Any, scope: Scope | None = None) -> None:
        from pyspark.sql import Observation, functions as sf

        self._observation = Observation()
        self._columns = [f"{field.name} {field.dataType.simpleString()}" for field in frame.schema]
        columns = [(sf.col(quoted_column(field.name)), field.dataType) for field in frame.schema]
        row = sf.xxhash64(*[cell for column, type_ in columns for cell in _cells(column, type_)])
        self._tests = _tests(frame, scope)
        self.frame = frame.observe(
            self._observation,
            *[
                found.alias(f"{name} {number}")
                for number, test in enumerate(self._tests.values())
                for name, found in _aggregates(row, test).items()
            ],
        )

    def by_partition(self) -> dict[str, str]:
        """The digests in hexadecimal, under "" of all rows; empty if Spark did not tell."""
        found: list[dict[str, Any]] = []
        # Waiting has no limit of its own.
        waiting = threading.Thread(target=lambda: found.append(self._observation.get), daemon=True)
        waiting.start()
        waiting.join(WAIT_S)
        if not found:
            return {}
        return {name: self._told(found[0], i) for i, name in enumerate(self._tests)}

    def _told(self, observed: Mapping[str, Any], number: int) -> str:
        values = {name: observed[f"{name} {number}"] for name in ("count", "low", "high", "xor")}
        # Of more than 2**31 rows the low half is not known; the rest of the digest is.
        low, high = values["low"], values["high"]
        known = values | {"sum": None if None in (low, high) else (high << 32) + low}
        told = [*self._columns, *(f"{name}={known[name]}" for name in ("count", "sum", "xor"))]
        return xxhash.xxh3_128_hexdigest("\n".join(told).encode())


def _tests(frame: Any, scope: Scope | None) -> dict[str, Any]:
    """What a row of each partition passes; None is passed by all."""
    from pyspark.sql import functions as sf

    if scope is not None and len(scope.keys) == 1:
        return {scope.keys[0].name: None}
    if scope is None or not scope.columns or len(scope.keys) > TOLD_KEYS:
        return {"": None}
    types = column_types(frame, scope.columns)
    return {one.keys[0].name: sf.expr(spark_sql(one.predicate(types))) for one in scope.single()}


def _aggregates(row: Any, test: Any) -> dict[str, Any]:
    """The digest's parts, of the rows that pass a test."""
    from pyspark.sql import functions as sf

    seen = row if test is None else sf.when(test, row)
    return {
        "count": sf.count(seen),
        # In halves: the sum needs more than 64 bits, and of decimals it takes thrice as long.
        "low": sf.try_sum(seen.bitwiseAND(sf.lit(_LOW))),
        "high": sf.try_sum(sf.shiftright(seen, 32)),
        "xor": sf.bit_xor(seen),
    }


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
