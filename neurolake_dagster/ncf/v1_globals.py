"""What NCF v1's pickled columns may name: the closed list of globals and their stand-ins.

Each global is a function here that checks its arguments and builds a plain value; none is the
class that the pickle names. `v1_pickle` runs the opcodes, `v1_column` makes Arrow of the values.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone, tzinfo
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np

from neurolake_dagster.ncf.checks import Damage

PickledValues = np.ndarray | list[object]

_DTYPE = re.compile(r"b1|[iu][1248]|f[248]|[mM]8|O8|[SU][0-9]{1,6}")
_ZONE = re.compile(r"[A-Za-z0-9_+-]{1,32}(/[A-Za-z0-9_+-]{1,32}){0,2}")
_TIME_UNITS = frozenset({"D", "s", "ms", "us", "ns"})
_PANDAS_UNITS = {7: "s", 8: "ms", 9: "us", 10: "ns"}
_MAX_TEXT = 128  # characters of a decimal's or a zone's text
_NAT = -(2**63)


@dataclass(frozen=True, slots=True)
class Moment:
    """A point in time as pandas and numpy count it.

    Parameters
    ----------
    count
        Units since 1970-01-01, of UTC if there is a zone.
    unit
        "D", "s", "ms", "us" or "ns".
    zone
        IANA name or "+HH:MM"; None is a wall clock without a zone.
    """

    count: int
    unit: str
    zone: str | None = None


@dataclass(frozen=True, slots=True)
class GlobalName:
    """A global of the list, not yet called."""

    name: str


@dataclass(slots=True)
class PickledType:
    """A numpy dtype; complete once its state is set."""

    code: str
    dtype: "np.dtype[Any] | None" = None


@dataclass(slots=True)
class PickledArray:
    """A numpy array; complete once its state is set."""

    values: PickledValues | None = None


def zone_name(zone: tzinfo) -> str:
    """Name a zone as Arrow does: its IANA name, "UTC" or "+HH:MM"."""
    if isinstance(zone, ZoneInfo):
        return zone.key
    minutes = round(timezone.utcoffset(zone, None).total_seconds() / 60)  # type: ignore[arg-type]
    if minutes == 0:
        return "UTC"
    return f"{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02d}:{abs(minutes) % 60:02d}"


def _build_type(code: object, align: object, copy: object) -> PickledType:
    if not isinstance(code, str) or not _DTYPE.fullmatch(code) or align not in (0, 1):
        raise Damage(f"numpy dtype {_show(code)} is not on the list")
    del copy
    return PickledType(code)


def set_type(target: PickledType, state: object) -> None:
    """Take `(version, byte order, 3 x None, size, alignment, flags[, (None, (unit, ...))])`."""
    if target.dtype is not None or not isinstance(state, tuple) or len(state) not in (8, 9):
        raise Damage("numpy dtype with an unknown state")
    if state[1] not in ("<", ">", "|", "=") or state[2:5] != (None, None, None):
        raise Damage("structured numpy dtypes are not on the list")
    code = target.code
    if code[0] in "mM":
        code += f"[{_time_unit(state)}]"
    dtype = np.dtype(code).newbyteorder(state[1])
    if dtype.kind in "SU" and state[5] != dtype.itemsize:
        raise Damage(f"numpy dtype {code!r} says it takes {state[5]!r} bytes")
    target.dtype = dtype


def _time_unit(state: tuple[object, ...]) -> str:
    match state[8:]:
        case ((_, (bytes(unit), 1, 1, 1)),) if unit.decode("latin1") in _TIME_UNITS:
            return unit.decode("latin1")
    raise Damage("a numpy time without a unit of D, s, ms, us or ns")


def _reconstruct(kind: object, shape: object, code: object) -> PickledArray:
    if kind != GlobalName("numpy.ndarray") or shape != (0,) or code != b"b":
        raise Damage("numpy arrays are built from ndarray, (0,) and 'b' only")
    return PickledArray()


def set_array(target: PickledArray, state: object) -> None:
    """Take `(1, (rows,), dtype, Fortran order, bytes or list)`."""
    match state:
        case (1, (int(length),), PickledType(dtype=np.dtype() as dtype), bool(), content):
            pass
        case _:
            raise Damage("a numpy array that is not one-dimensional, or of no type")
    if target.values is not None:
        raise Damage("a numpy array with two states")
    target.values = _values(content, dtype, length)


def _values(content: object, dtype: "np.dtype[Any]", length: int) -> PickledValues:
    if dtype.kind == "O":
        if not isinstance(content, list) or len(content) != length:
            raise Damage(f"an object array without its {length} values")
        return content
    if not isinstance(content, bytes) or len(content) != length * dtype.itemsize:
        raise Damage(f"an array without its {length} x {dtype.itemsize} bytes")
    if dtype.kind == "b" and content.strip(b"\x00\x01"):
        raise Damage("a boolean that is neither 0 nor 1")
    if dtype.itemsize == 0:
        raise Damage("an array of zero-width values")
    values = np.frombuffer(content, dtype)
    return values.astype(dtype.newbyteorder("<"), copy=False)


def _from_buffer(content: object, kind: object, shape: object, order: object) -> PickledArray:
    match kind, shape:
        case PickledType(dtype=np.dtype() as dtype), (int(length),) if order in ("C", "F"):
            if dtype.kind == "O":
                raise Damage("an object array from a buffer")
            return PickledArray(_values(content, dtype, length))
    raise Damage("a numpy array that is not one-dimensional, or of no type")


def _scalar(kind: object, content: object) -> object:
    if not isinstance(kind, PickledType) or kind.dtype is None or kind.dtype.kind == "O":
        raise Damage("a numpy scalar of no type, or an object")
    values = _values(content, kind.dtype, 1)
    assert isinstance(values, np.ndarray)
    if kind.dtype.kind == "M":
        count = int(values.view("<i8")[0])
        return None if count == _NAT else Moment(count, np.datetime_data(kind.dtype)[0])
    if kind.dtype.kind == "m":
        raise Damage("numpy timedelta scalars are not on the list")
    return values[0].item()


def _date(raw: object) -> date:
    if not isinstance(raw, bytes) or len(raw) != 4:
        raise Damage("a date that is not 4 bytes")
    return date(raw[0] << 8 | raw[1], raw[2], raw[3])


def _datetime(raw: object, zone: object = None) -> datetime:
    """Take year (2 bytes, big-endian), month | fold << 7, day, h, min, s, us (3 bytes)."""
    if not isinstance(raw, bytes) or len(raw) != 10 or not isinstance(zone, tzinfo | None):
        raise Damage("a datetime that is not 10 bytes and a zone")
    year, month, fold = raw[0] << 8 | raw[1], raw[2] & 0x7F, raw[2] >> 7
    day, hour, minute, second = raw[3:7]
    microsecond = int.from_bytes(raw[7:], "big")
    return datetime(year, month, day, hour, minute, second, microsecond, zone, fold=fold)


def _timedelta(days: object, seconds: object, microseconds: object) -> timedelta:
    if not (isinstance(days, int) and isinstance(seconds, int) and isinstance(microseconds, int)):
        raise Damage("a timedelta of something else than integers")
    return timedelta(days, seconds, microseconds)


def _offset_zone(offset: object) -> tzinfo:
    if not isinstance(offset, timedelta) or offset.seconds % 60 or offset.microseconds:
        raise Damage("a zone offset that is not whole minutes")
    return timezone(offset)


def _named_zone(name: object, *rest: object) -> tzinfo:
    del rest
    if not isinstance(name, str) or not _ZONE.fullmatch(name):
        raise Damage(f"time zone {_show(name)} is no zone name")
    try:
        return ZoneInfo(name)
    except (KeyError, OSError) as exc:
        raise Damage(f"time zone {name!r} is not known here") from exc


def _show(value: object) -> str:
    return repr(value[:40]) if isinstance(value, str) else f"a {type(value).__name__}"


def _get_attribute(owner: object, name: object) -> GlobalName:
    """Stand in for `getattr`, which pickles use for one bound method only."""
    if owner != GlobalName("zoneinfo.ZoneInfo") or name != "_unpickle":
        raise Damage(f"global 'builtins.getattr' for {_show(name)}")
    return GlobalName("zoneinfo.ZoneInfo._unpickle")


def _decimal(text: object) -> Decimal:
    if not isinstance(text, str) or len(text) > _MAX_TEXT:
        raise Damage("a decimal that is no short text")
    return Decimal(text)


def _timestamp(count: object, freq: object, zone: object, unit: object = 10) -> Moment | None:
    if not isinstance(count, int) or not isinstance(zone, tzinfo | None) or freq is not None:
        raise Damage("a pandas Timestamp with unknown parts")
    # The type comes first: hashing a deeply nested tuple overflows the C stack.
    if not isinstance(unit, int) or unit not in _PANDAS_UNITS or not _NAT < count < 2**63:
        raise Damage("a pandas Timestamp out of range")
    return Moment(count, _PANDAS_UNITS[unit], None if zone is None else zone_name(zone))


def _nothing(*rest: object) -> None:
    del rest


def _never(*rest: object) -> object:
    raise Damage(f"a class that is named, never called, got {len(rest)} arguments")


MISSING = frozenset({"pandas._libs.missing.NA", "pandas._libs.tslibs.nattype.NaT"})
GLOBALS: dict[str, Callable[..., object]] = {
    "numpy.ndarray": _never,
    "numpy.dtype": _build_type,
    "datetime.date": _date,
    "datetime.datetime": _datetime,
    "datetime.timedelta": _timedelta,
    "datetime.timezone": _offset_zone,
    "decimal.Decimal": _decimal,
    "zoneinfo.ZoneInfo": _never,
    "zoneinfo.ZoneInfo._unpickle": _named_zone,
    "pytz._p": _named_zone,
    "pytz._UTC": lambda: UTC,
    "builtins.getattr": _get_attribute,
    "pandas._libs.tslibs.timestamps._unpickle_timestamp": _timestamp,
    "pandas._libs.tslibs.nattype.__nat_unpickle": _nothing,
    "pandas._libs.tslibs.nattype._nat_unpickle": _nothing,
}
for _core in ("numpy.core", "numpy._core"):
    GLOBALS[f"{_core}.multiarray._reconstruct"] = _reconstruct
    GLOBALS[f"{_core}.multiarray.scalar"] = _scalar
    GLOBALS[f"{_core}.numeric._frombuffer"] = _from_buffer
