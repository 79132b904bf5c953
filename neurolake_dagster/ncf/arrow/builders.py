"""Arrow arrays put together from numpy arrays and buffers that were checked before."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from neurolake_dagster.ncf.arrow.texts import take_texts
from neurolake_dagster.ncf.arrow.views import array_of, fixed_of
from neurolake_dagster.ncf.checks import Damage, NDArray
from neurolake_dagster.ncf.memory import Budget, scratch

types = pa.types
# In a cold cache a call of Arrow's kernels costs 100 us more than one of numpy's.
_FEW_ROWS = 1 << 16


def gather(values: NDArray, codes: NDArray) -> NDArray:
    """Return ``values[codes]``, bounds-checked.

    By numpy where Arrow's call costs more than the rows; more of them Arrow need not widen first.
    """
    if 0 < len(codes) <= _FEW_ROWS and codes.dtype == np.uint8:
        return _gather_few(values, codes)
    try:
        taken = pc.take(array_of(values), array_of(codes))
    except (pa.ArrowInvalid, pa.ArrowIndexError) as exc:
        raise Damage(f"dictionary: {exc}") from exc
    return np.frombuffer(taken.buffers()[1], values.dtype, len(codes))


def _gather_few(values: NDArray, codes: NDArray) -> NDArray:
    """Return ``values[codes]``, in memory that was used before: fresh pages cost as much again."""
    if codes.max() >= len(values):
        raise Damage(f"dictionary: code {codes.max()} of {len(values)} values")
    places = scratch(len(codes), np.intp)
    places[...] = codes
    found = np.frombuffer(pa.allocate_buffer(len(codes) * values.itemsize), values.dtype)
    values.take(places, out=found, mode="clip")
    return found


def rows_of(values: NDArray) -> Any:
    """Return the rows of a contiguous array as fixed_size_binary, for `gather_rows`."""
    width = values.nbytes // len(values)
    return pa.Array.from_buffers(pa.binary(width), len(values), [None, pa.py_buffer(values)])


def gather_rows(rows: Any, codes: NDArray) -> Any:
    """Return the buffer of ``rows[codes]``; a code past the rows is damage."""
    return take_texts(rows, codes).buffers()[1]


def repeat_rows(rows: Any, codes: NDArray, lengths: NDArray) -> Any:
    """Return the buffer of ``rows[codes]``, each as often as ``lengths`` says.

    By numpy: in a cold cache Arrow's kernels for it cost more than some ten thousand rows.
    """
    if len(codes) and not 0 <= int(codes.min()) <= int(codes.max()) < len(rows):
        raise Damage(f"codes: {codes.min()} to {codes.max()} of {len(rows)} values")
    values = fixed_of(rows, f"V{rows.type.byte_width}")
    return pa.py_buffer(np.repeat(values[codes], lengths))


def allocate(budget: Budget, count: int, dtype: str) -> tuple[Any, NDArray]:
    """Return a buffer from Arrow's pool and a writable view of it as ``count`` items."""
    width = np.dtype(dtype).itemsize
    budget.debit(count * width)
    buffer = pa.allocate_buffer(count * width, memory_pool=budget.pool)
    return buffer, np.frombuffer(buffer, dtype, count)


def aligned(buffer: Any) -> Any:
    """Return a buffer that starts where Arrow's kernels want words of 8 bytes to: else a copy."""
    return pa.py_buffer(buffer.to_pybytes()) if buffer.address % 8 else buffer


def build_fixed(kind: Any, count: int, validity: Any, nulls: int, values: Any) -> Any:
    """Return a fixed-width array over buffers; ``validity`` is a buffer or None."""
    return pa.Array.from_buffers(kind, count, [validity, values], nulls)


@lru_cache(maxsize=32)
def fixed_offsets(count: int, length: int, dtype: str) -> NDArray:
    """Return ``count + 1`` offsets of strings of one length: shared, read-only."""
    offsets: NDArray = np.arange(count + 1, dtype=dtype)
    offsets *= length
    offsets.flags.writeable = False
    return offsets


def build_bytes(
    kind: Any, count: int, validity: Any, nulls: int, offsets: NDArray, data: Any
) -> Any:
    """Return a (large) string or binary array over offsets and data."""
    return pa.Array.from_buffers(kind, count, [validity, pa.py_buffer(offsets), data], nulls)


def as_buffer(values: Any) -> Any:
    """Return a contiguous numpy array as a `pyarrow.Buffer`, without a copy."""
    return pa.py_buffer(values)


def array_from(values: NDArray, kind: Any) -> Any:
    """Return a fixed-width array of ``kind`` over contiguous values of its width."""
    return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(values)])


def offset_dtype(kind: Any) -> np.dtype[Any]:
    """Return the dtype of the offsets of a string, binary, list or map type."""
    large = (
        types.is_large_string(kind)
        or types.is_large_binary(kind)
        or types.is_large_list(kind)
        or types.is_large_list_view(kind)
    )
    return np.dtype("<i8" if large else "<i4")


def with_validity(array: Any, validity: Any, nulls: int) -> Any:
    """Return a fresh array with its validity replaced; None keeps it as it is."""
    if validity is None:
        return array
    return pa.Array.from_buffers(
        array.type, len(array), [validity, *array.buffers()[1:]], nulls, array.offset
    )


def build_nested(kind: Any, count: int, buffers: list[Any], nulls: int, children: list[Any]) -> Any:
    """Return a nested array over its own buffers and its children."""
    return pa.Array.from_buffers(kind, count, buffers, nulls, children=children)


def build_list(
    kind: Any, count: int, validity: Any, offsets: NDArray, child_of: Callable[[Any], Any]
) -> Any:
    """Return a list, map or list view over offsets that rise in row order.

    Parameters
    ----------
    child_of
        Decodes the child, given its Arrow type.
    """
    if types.is_map(kind):
        child = child_of(pa.struct([kind.key_field, kind.item_field]))
    else:
        child = child_of(kind.value_type)
    if types.is_list_view(kind) or types.is_large_list_view(kind):
        starts, sizes = pa.py_buffer(offsets[:-1].copy()), pa.py_buffer(np.diff(offsets))
        buffers = [validity.buffer, starts, sizes]
    else:
        buffers = [validity.buffer, pa.py_buffer(offsets)]
    return build_nested(kind, count, buffers, validity.nulls, [child])


def build_union(kind: Any, type_ids: NDArray, children: list[Any]) -> Any:
    """Return a union whose dense children, if any, are in row order."""
    if kind.mode == "sparse":
        buffers = [None, pa.py_buffer(type_ids)]
        return build_nested(kind, len(type_ids), buffers, 0, children)
    places = np.empty(len(type_ids), np.int32)
    for code in kind.type_codes:
        mine = type_ids == code
        places[mine] = np.arange(np.count_nonzero(mine))
    buffers = [None, pa.py_buffer(type_ids), pa.py_buffer(places)]
    return build_nested(kind, len(type_ids), buffers, 0, children)


def build_dictionary(indices: Any, table: Any, kind: Any) -> Any:
    """Return a dictionary array over checked indices."""
    return pa.DictionaryArray.from_arrays(indices, table, ordered=kind.ordered, safe=False)
