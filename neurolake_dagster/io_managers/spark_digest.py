"""What a frame's rows are, told by the job that writes them: the data version of Spark assets.

Owns the digest: sum and exclusive or of a hash of each row, whatever their order and files, of all
rows or of each of a few partitions. No job of its own runs. 64 bits a row find a change of data;
they are no proof against intent.
"""

import threading
from collections.abc import Iterable, Mapping
from typing import Any

import xxhash

from neurolake_dagster.io_managers.spark_rows import column_types
from neurolake_dagster.tables.scope import Scope
from neurolake_dagster.tables.sql import quoted_column, spark_sql

# The write is over when it is asked; what it observed comes a little later, or not at all.
WAIT_S = 10
# Each is sums of its own over all rows: eight take a quarter of a microsecond a row.
TOLD_KEYS = 8
ROW_COLUMN, KEY_COLUMN = "__neurolake_row", "__neurolake_key"
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
        # Columns of their own: else each sum would ask for them again.
        told = frame.withColumns({ROW_COLUMN: row, KEY_COLUMN: _number(self._tests.values())})
        sums = [one for number in range(len(self._tests)) for one in _sums(number)]
        self.frame = told.observe(self._observation, *sums).drop(ROW_COLUMN, KEY_COLUMN)

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
        low, high, xor = (observed[f"{name} {number}"] for name in ("low", "high", "xor"))
        # Of more than 2**31 rows the low half is not known; the rest of the digest is.
        total = None if None in (low, high) else (high << 32) + low
        told = [*self._columns, f"sum={total}", f"xor={xor}"]
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


def _number(tests: Iterable[Any]) -> Any:
    """The number of the first test that a row passes."""
    from pyspark.sql import functions as sf

    found = sf.lit(None).cast("int")
    for number, test in enumerate(tests):
        found = sf.lit(0) if test is None else sf.when(test, number).otherwise(found)
    return found


def _sums(number: int) -> list[Any]:
    """The digest's parts, of the rows of one number."""
    from pyspark.sql import functions as sf

    row = sf.when(sf.col(KEY_COLUMN) == number, sf.col(ROW_COLUMN))
    return [
        # In halves: the sum needs more than 64 bits, and of decimals it takes thrice as long.
        sf.try_sum(row.bitwiseAND(sf.lit(_LOW))).alias(f"low {number}"),
        sf.try_sum(sf.shiftright(row, 32)).alias(f"high {number}"),
        sf.bit_xor(row).alias(f"xor {number}"),
    ]


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
