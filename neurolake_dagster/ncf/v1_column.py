"""NCF v1's column payloads as Arrow arrays: numbers, strings, and what pickles held.

A payload is what one column's bytes are once zstd is undone. File structure is `v1`'s.
"""

from collections.abc import Callable
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa

from neurolake_dagster.ncf.checks import Damage
from neurolake_dagster.ncf.v1_globals import Moment, zone_name
from neurolake_dagster.ncf.v1_pickle import load_array

NUMBER_TYPES: dict[str, pa.DataType] = {
    "int8": pa.int8(),
    "int16": pa.int16(),
    "int32": pa.int32(),
    "int64": pa.int64(),
    "uint8": pa.uint8(),
    "uint16": pa.uint16(),
    "uint32": pa.uint32(),
    "uint64": pa.uint64(),
    "float32": pa.float32(),
    "float64": pa.float64(),
}
# What an all-null column of a pickled type becomes: its values cannot say.
PICKLED_TYPES: dict[str, pa.DataType] = {
    "boolean": pa.bool_(),
    "binary": pa.binary(),
    "date": pa.date32(),
    "timestamp": pa.timestamp("us"),
    "decimal": pa.decimal128(38, 9),
}
_TICKS = {"D": 1, "s": 86_400, "ms": 86_400_000, "us": 86_400_000_000, "ns": 86_400_000_000_000}
_INT32 = np.iinfo(np.int32)


def decode_column(payload: pa.Buffer, data_type: str, row_count: int, step_limit: int) -> pa.Array:
    """Make an Arrow array of one column's payload.

    Parameters
    ----------
    payload
        Bytes after decompression; numbers and strings stay views on them.
    data_type
        The schema's word: a key of `NUMBER_TYPES` or `PICKLED_TYPES`, or "string".
    row_count
        Rows that the header promises.
    step_limit
        Bound on the pickle's opcodes, see `load_array`.

    Raises
    ------
    Damage
        If the payload is damaged, or its values have no one Arrow type.
    """
    try:
        if data_type in NUMBER_TYPES:
            array = _decode_numbers(payload, NUMBER_TYPES[data_type], row_count)
        elif data_type == "string":
            array = _decode_strings(payload, row_count)
        else:
            values = load_array(payload.to_pybytes(), row_count, step_limit)
            array = _from_values(values, PICKLED_TYPES[data_type])
        array.validate(full=True)
    except (pa.ArrowException, OverflowError, UnicodeError) as exc:
        raise Damage(f"no valid values: {exc}") from exc
    return array


def _decode_numbers(payload: pa.Buffer, kind: pa.DataType, row_count: int) -> pa.Array:
    expected = row_count * kind.byte_width
    if payload.size != expected:
        raise Damage(f"{payload.size} bytes, {expected} expected for {row_count} rows")
    return pa.Array.from_buffers(kind, row_count, [None, payload])


def _decode_strings(payload: pa.Buffer, row_count: int) -> pa.Array:
    """Read `u32 n, (n + 1) x u32 offset, UTF-8`; a slot of no bytes is null."""
    blob_at = 4 + 4 * (row_count + 1)
    if payload.size < blob_at:
        raise Damage(f"{payload.size} bytes, at least {blob_at} for {row_count} strings")
    numbers = np.frombuffer(payload.slice(0, blob_at), "<u4")
    offsets, blob = numbers[1:], payload.slice(blob_at)
    if numbers[0] != row_count:
        raise Damage(f"{numbers[0]} strings, the header says {row_count} rows")
    if offsets[0] != 0 or offsets[-1] != blob.size or (offsets[1:] < offsets[:-1]).any():
        raise Damage(f"string offsets do not run from 0 to the {blob.size} bytes of text")
    filled = offsets[1:] > offsets[:-1]
    validity = pa.py_buffer(np.packbits(filled, bitorder="little").tobytes())
    if blob.size > _INT32.max:
        parts = [validity, pa.py_buffer(offsets.astype("<i8")), blob]
        return pa.Array.from_buffers(pa.large_string(), row_count, parts)
    parts = [validity, payload.slice(4, 4 * (row_count + 1)), blob]
    return pa.Array.from_buffers(pa.string(), row_count, parts)


def _from_values(values: Any, declared: pa.DataType) -> pa.Array:
    if isinstance(values, np.ndarray):
        return _from_numpy(values)
    kinds = {type(value) for value in values} - {type(None)}
    if float in kinds and (len(kinds) > 1 or all(v is None or v != v for v in values)):
        # Among other values pandas' NaN is a missing one.
        values = [None if isinstance(v, float) and v != v else v for v in values]
        kinds = {type(value) for value in values} - {type(None)}
    if not kinds:
        return pa.nulls(len(values), declared)
    if len(kinds) > 1 or not kinds <= set(_BUILDERS):
        found = ", ".join(sorted(kind.__name__ for kind in kinds))
        raise Damage(f"values of one known type expected, found {found}")
    return _BUILDERS[kinds.pop()](values)


def _from_numpy(values: "np.ndarray[Any, np.dtype[Any]]") -> pa.Array:
    kind = values.dtype.kind
    if kind in "SU":
        return pa.array(values.tolist(), pa.binary() if kind == "S" else pa.string())
    if kind == "M" and np.datetime_data(values.dtype)[0] == "D":
        days, missing = values.view("<i8"), np.isnat(values)
        _check_days(days[~missing])
        return pa.array(days.astype("<i4"), pa.int32(), mask=missing).cast(pa.date32())
    if kind == "m" and np.datetime_data(values.dtype)[0] == "D":
        raise Damage("numpy timedeltas in days have no Arrow type")
    return pa.array(values)


def _check_days(days: "np.ndarray[Any, np.dtype[Any]]") -> None:
    if days.size and (days.min() < _INT32.min or days.max() > _INT32.max):
        raise Damage("a date beyond the 32 bits of days that Arrow has")


def _from_integers(values: list[Any]) -> pa.Array:
    present = [value for value in values if value is not None]
    if min(present) >= 0 and max(present) >= 2**63:
        return pa.array(values, pa.uint64())
    return pa.array(values, pa.int64())


def _from_decimals(values: list[Any]) -> pa.Array:
    whole, scale = 1, 0
    for value in values:
        if value is None:
            continue
        _, digits, exponent = value.as_tuple()
        if not isinstance(exponent, int) or abs(exponent) > 76:
            raise Damage(f"decimal {str(value)[:40]} has no Arrow value")
        whole = max(whole, len(digits) + exponent)
        scale = max(scale, -exponent)
    if whole + scale > 76:
        raise Damage(f"decimals of {whole + scale} digits, 76 is the most")
    wide = pa.decimal256 if whole + scale > 38 else pa.decimal128
    return pa.array(values, wide(whole + scale, scale))


def _from_datetimes(values: list[Any]) -> pa.Array:
    zones = {value.tzinfo for value in values if value is not None}
    if len(zones) > 1:
        raise Damage(f"{len(zones)} time zones in one column, one expected")
    zone = zones.pop()
    return pa.array(values, pa.timestamp("us", None if zone is None else zone_name(zone)))


def _from_moments(values: list[Any]) -> pa.Array:
    present = [value for value in values if value is not None]
    zones = {value.zone for value in present}
    if len(zones) > 1:
        raise Damage(f"{len(zones)} time zones in one column, one expected")
    units = {value.unit for value in present}
    unit = max(units, key=lambda word: _TICKS[word])
    ticks = [None if v is None else v.count * (_TICKS[unit] // _TICKS[v.unit]) for v in values]
    if unit == "D":
        return pa.array(ticks, pa.int32()).cast(pa.date32())
    return pa.array(ticks, pa.int64()).cast(pa.timestamp(unit, zones.pop()))


_BUILDERS: dict[type, Callable[[list[Any]], pa.Array]] = {
    bool: lambda values: pa.array(values, pa.bool_()),
    bytes: lambda values: pa.array(values, pa.binary()),
    str: lambda values: pa.array(values, pa.string()),
    float: lambda values: pa.array(values, pa.float64()),
    date: lambda values: pa.array(values, pa.date32()),
    int: _from_integers,
    Decimal: _from_decimals,
    datetime: _from_datetimes,
    Moment: _from_moments,
}
