"""What a frame's rows are, told by the job that writes them: the data version of Spark assets.

Owns the digests, of hashes of the rows, whatever their order and files: of all rows the sum and
exclusive or of 64 bits, of each of several partitions the sum of 36 bits. No job of its own runs.
They find a change of data; they are no proof against intent.
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
# Each is a sum of its own over all rows: 31, a month's days, take half a microsecond a row.
TOLD_KEYS = 31
ROW_COLUMN, KEY_COLUMN = "__neurolake_row", "__neurolake_key"
_LOW = (1 << 32) - 1
# Of each row's 64: what leaves room for the sum of 134 million rows at least.
_PARTITION_BITS = 36


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
        tests = _tests(frame, scope)
        self._names = list(tests)
        # Columns of their own: else each sum would ask for them again.
        told = frame.withColumns({ROW_COLUMN: row, KEY_COLUMN: _number(tests.values())})
        sums = [sf.count(sf.lit(1)).alias("rows")]
        if self._names != [""]:
            sums += map(_partition_sum, range(len(self._names)))
        if len(self._names) == 1:
            sums += _whole_sums()
        self.frame = told.observe(self._observation, *sums).drop(ROW_COLUMN, KEY_COLUMN)

    def by_partition(self) -> dict[str, tuple[str, ...]]:
        """The digests in hexadecimal, the best first; under "" of all rows.

        What Spark did not tell is not there.
        """
        found: list[dict[str, Any]] = []
        # Waiting has no limit of its own.
        waiting = threading.Thread(target=lambda: found.append(self._observation.get), daemon=True)
        waiting.start()
        waiting.join(WAIT_S)
        if not found:
            return {}
        told = {name: self._told(found[0], i) for i, name in enumerate(self._names)}
        return {name: digests for name, digests in told.items() if digests}

    def _told(self, observed: Mapping[str, Any], number: int) -> tuple[str, ...]:
        found = []
        if "xor" in observed:
            low, high = observed["low"], observed["high"]
            # Of more than 2**31 rows the low half is not known; the rest of the digest is.
            total = None if None in (low, high) else (high << 32) + low
            found.append(f"sum={total}\nxor={observed['xor']}")
        name = f"part {number}"
        if name in observed and (observed[name] is not None or not observed["rows"]):
            found.append(f"part={observed[name] or 0}")
        columns = "\n".join(self._columns)
        return tuple(xxhash.xxh3_128_hexdigest(f"{columns}\n{told}".encode()) for told in found)


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
    """The number of the test that a row passes; partitions share none."""
    from pyspark.sql import functions as sf

    found = sf.lit(None).cast("int")
    for number, test in enumerate(tests):
        found = sf.lit(0) if test is None else sf.when(test, number).otherwise(found)
    return found


def _whole_sums() -> list[Any]:
    """The parts of the digest of all rows."""
    from pyspark.sql import functions as sf

    row = sf.col(ROW_COLUMN)
    return [
        # In halves: the sum needs more than 64 bits, and of decimals it takes thrice as long.
        sf.try_sum(row.bitwiseAND(sf.lit(_LOW))).alias("low"),
        sf.try_sum(sf.shiftright(row, 32)).alias("high"),
        sf.bit_xor(row).alias("xor"),
    ]


def _partition_sum(number: int) -> Any:
    """The digest of the rows of one number; null of more than it has room for."""
    from pyspark.sql import functions as sf

    row = sf.shiftrightunsigned(sf.col(ROW_COLUMN), 64 - _PARTITION_BITS)
    mine = sf.when(sf.col(KEY_COLUMN) == number, row).otherwise(sf.lit(0))
    return sf.try_sum(mine).alias(f"part {number}")


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
