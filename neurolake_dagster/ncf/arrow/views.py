"""Arrow arrays taken apart: their buffers as numpy views, rows and children."""

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from neurolake_dagster.ncf.checks import NDArray

types = pa.types
EMPTY_BYTES = np.zeros(0, np.uint8)
_BLOCK_ROWS = 1 << 16


@lru_cache(maxsize=16)
def _arrow_type(dtype: np.dtype[Any]) -> Any:
    return pa.from_numpy_dtype(dtype)


def array_of(values: NDArray) -> Any:
    """Return numbers as an Arrow array, without a copy where they are contiguous.

    Neither here nor in `numbers_of` by pyarrow's own way: its first use imports pandas, a second.
    """
    data = pa.py_buffer(np.ascontiguousarray(values))
    return pa.Array.from_buffers(_arrow_type(values.dtype), len(values), [None, data])


def numbers_of(array: Any) -> NDArray:
    """Return the values of an array of integers or floats; null slots hold anything."""
    return fixed_of(array, _numpy_type(array.type))


@lru_cache(maxsize=16)
def _numpy_type(kind: Any) -> str:
    letter = "u" if types.is_unsigned_integer(kind) else "f" if types.is_floating(kind) else "i"
    return f"<{letter}{kind.bit_width // 8}"


def combine(column: Any) -> Any:
    """Return a chunked array of at least one chunk as one array; several are copied."""
    if not isinstance(column, pa.ChunkedArray):
        return column
    if column.num_chunks == 1:
        return column.chunk(0)
    # Batches of a stream often share one dictionary; unifying would hash it for each.
    is_shared = len({tuple(shared_sizes(chunk)) for chunk in column.chunks}) == 1
    try:
        return pa.concat_arrays((column if is_shared else column.unify_dictionaries()).chunks)
    except pa.ArrowException:
        if not types.is_dictionary(column.type):
            raise
    return _chain_dictionaries(column)


def _chain_dictionaries(column: Any) -> Any:
    """Join dictionary arrays whose values Arrow cannot unify, such as structs and nulls.

    Raises
    ------
    pyarrow.ArrowInvalid
        If the index type cannot count the values of all dictionaries.
    """
    known: list[Any] = []
    starts: list[int] = []
    total, indices = 0, []
    for chunk in column.chunks:
        at = next((i for i, one in enumerate(known) if one.equals(chunk.dictionary)), len(known))
        if at == len(known):
            known.append(chunk.dictionary)
            starts.append(total)
            total += len(chunk.dictionary)
        dtype = np.dtype(_numpy_type(chunk.indices.type))
        if total - 1 > np.iinfo(dtype).max:
            raise pa.ArrowInvalid(f"{column.type} cannot hold {total} values")
        indices.append(pc.add(chunk.indices, array_of(np.array([starts[at]], dtype))[0]))
    return pa.DictionaryArray.from_arrays(
        pa.concat_arrays(indices), pa.concat_arrays(known), ordered=column.type.ordered, safe=False
    )


def child_types(kind: Any) -> list[Any]:
    """Return the types right below a nested type."""
    if isinstance(kind, pa.BaseExtensionType):
        return [kind.storage_type]
    if types.is_dictionary(kind) or types.is_run_end_encoded(kind):
        return [kind.value_type]
    return [kind.field(i).type for i in range(kind.num_fields)]


def holds_type(kind: Any, is_one: Callable[[Any], Any]) -> bool:
    """Whether a type, or one below it, is one of those that ``is_one`` tells."""
    return bool(is_one(kind)) or any(holds_type(child, is_one) for child in child_types(kind))


def holds_dictionary(kind: Any) -> bool:
    """Whether a type is a dictionary or has one below it."""
    return holds_type(kind, types.is_dictionary)


def shares_buffers(kind: Any) -> bool:
    """Whether arrays of a type may share what they hold: a dictionary, or the bytes of views."""
    return any(
        holds_type(kind, is_one)
        for is_one in (types.is_dictionary, types.is_string_view, types.is_binary_view)
    )


def shared_sizes(array: Any) -> Iterator[tuple[int, int]]:
    """Yield address and size in bytes of what an array may share with others, at any depth."""
    kind = array.type
    children: list[Any] = []
    if types.is_dictionary(kind):
        size = memory_size(array.dictionary)
        yield from [(one.address, size) for one in _filled(array.dictionary)][:1]
    elif types.is_string_view(kind) or types.is_binary_view(kind):
        yield from ((one.address, one.size) for one in array.buffers()[2:])
    elif isinstance(array, pa.ExtensionArray):
        children = [array.storage]
    elif types.is_map(kind):
        children = [array.keys, array.items]
    elif types.is_struct(kind) or types.is_union(kind):
        children = [array.field(i) for i in range(kind.num_fields)]
    elif types.is_nested(kind):
        children = [array.values]
    for child in children:
        yield from shared_sizes(child)


def _filled(array: Any) -> list[Any]:
    return [buffer for buffer in array.buffers() if buffer is not None and buffer.size]


def memory_size(array: Any) -> int:
    """Return the bytes that the rows of an array, chunked or not, need in memory.

    The same for the same rows: Arrow's own count has bitmaps that no row needs, and the bits
    before a slice's first; and it reads past the end of a slice of a dense union (pyarrow 26).
    """
    if isinstance(array, pa.ChunkedArray):
        return sum(map(memory_size, array.chunks))
    kind, count = array.type, len(array)
    validity = (count + 7) // 8 if array.null_count else 0
    if isinstance(array, pa.ExtensionArray):
        return memory_size(array.storage)
    if types.is_dictionary(kind):
        return memory_size(array.indices) + memory_size(array.dictionary)
    if types.is_run_end_encoded(kind):
        ends, values = runs_of(array)
        return int(ends.nbytes) + memory_size(values)
    if types.is_nested(kind):
        return validity + _row_bytes(kind) * count + sum(map(memory_size, _children_of(array)))
    if types.is_null(kind):
        return 0
    if types.is_primitive(kind) or types.is_decimal(kind) or types.is_fixed_size_binary(kind):
        return validity + (int(kind.bit_width) * count + 7) // 8
    bitmap = array.buffers()[0]
    first = array.offset // 8
    spare = 0 if bitmap is None else (array.offset + count + 7) // 8 - first
    return int(array.nbytes) - spare + validity


def _row_bytes(kind: Any) -> int:
    """What offsets, sizes and type codes of a nested type take per row."""
    if types.is_union(kind):
        return 5 if kind.mode == "dense" else 1
    if types.is_list(kind) or types.is_map(kind):
        return 4
    if types.is_large_list(kind) or types.is_list_view(kind):
        return 8
    return 16 if types.is_large_list_view(kind) else 0


def _children_of(array: Any) -> list[Any]:
    """The arrays right below a nested one, of just its rows."""
    kind = array.type
    if types.is_struct(kind):
        return [array.field(i) for i in range(kind.num_fields)]
    if types.is_union(kind):
        return union_children_of(array, union_codes_of(array))[0]
    if types.is_fixed_size_list(kind):
        return [fixed_list_child_of(array)]
    if types.is_list_view(kind) or types.is_large_list_view(kind):
        return [view_lists_of(array)[1]]
    return [list_child_of(array, list_offsets_of(array))]


def validity_of(array: Any) -> NDArray | None:
    """Return a bool mask, True where valid; None without nulls. A copy."""
    if array.null_count == 0:
        return None
    return bits_of(array.buffers()[0], array.offset, len(array)).view(bool)


def bits_of(buffer: Any, offset: int, count: int) -> NDArray:
    """Return ``count`` bits of a bitmap as uint8 of 0 and 1."""
    raw = np.frombuffer(buffer, np.uint8)[offset // 8 : (offset + count + 7) // 8]
    return np.unpackbits(raw, bitorder="little")[offset % 8 :][:count]


def fixed_of(array: Any, dtype: str) -> NDArray:
    """Return the values of a fixed-width array, shape ``(n,)``; null slots hold anything."""
    buffer = array.buffers()[1]
    if buffer is None or len(array) == 0:
        return np.zeros(len(array), dtype)
    width = np.dtype(dtype).itemsize
    return np.frombuffer(buffer, dtype, len(array), array.offset * width)


def bytes_of(array: Any) -> tuple[NDArray, NDArray]:
    """Return offsets, shape ``(n + 1,)``, and data of a (large) string or binary array."""
    large = types.is_large_string(array.type) or types.is_large_binary(array.type)
    if len(array) == 0:
        return np.zeros(1, np.int64), EMPTY_BYTES
    _, offsets, data = array.buffers()
    width = np.dtype(np.int64 if large else np.int32)
    window = np.frombuffer(offsets, width, len(array) + 1, array.offset * width.itemsize)
    if data is None or data.size == 0:
        return window, EMPTY_BYTES
    return window, np.frombuffer(data, np.uint8)


def list_offsets_of(array: Any) -> NDArray:
    """Return the offsets of a (large) list or map, shape ``(n + 1,)``, into its whole child."""
    large = types.is_large_list(array.type)
    width = np.dtype(np.int64 if large else np.int32)
    buffer = array.buffers()[1]
    if buffer is None or buffer.size == 0:
        return np.zeros(len(array) + 1, width)
    return np.frombuffer(buffer, width, len(array) + 1, array.offset * width.itemsize)


def fixed_bytes_of(array: Any) -> NDArray:
    """Return the values of a fixed-width array as bytes, shape ``(n, width)``."""
    width = array.type.bit_width // 8
    buffer = array.buffers()[1]
    if buffer is None or not len(array) or not width:
        return np.zeros((len(array), width), np.uint8)
    raw = np.frombuffer(buffer, np.uint8, len(array) * width, array.offset * width)
    return raw.reshape(len(array), width)


def words_of(array: Any) -> NDArray:
    """Return the values of an integer-like or float array as integers of its own width."""
    letter = "u" if types.is_unsigned_integer(array.type) else "i"
    return fixed_of(array, f"<{letter}{array.type.bit_width // 8}")


def decimal_words_of(array: Any) -> tuple[NDArray, NDArray]:
    """Return low and high int64 words of a decimal128 array, both strided views."""
    raw = np.frombuffer(array.buffers()[1], "<i8").reshape(-1, 2)
    words = raw[array.offset : array.offset + len(array)]
    return words[:, 0], words[:, 1]


def decimals_fit_int64(low: NDArray, high: NDArray, mask: NDArray | None) -> bool:
    """Whether every valid decimal128 of these words is an int64; by blocks, to stay in cache."""
    for start in range(0, len(low), _BLOCK_ROWS):
        block = slice(start, start + _BLOCK_ROWS)
        fits = high[block] == low[block] >> 63
        if mask is not None:
            fits |= ~mask[block]
        if not fits.all():
            return False
    return True


def number_dictionary_of(array: Any) -> tuple[NDArray, NDArray]:
    """Return the code of each row of a fixed-width array and the distinct bit patterns.

    Returns
    -------
    uint8 and in order of appearance up to 256, else int32 and ascending as the words they are;
    the codes of null slots are anything.
    """
    kind = pa.from_numpy_dtype(words_of(array).dtype)
    words = pa.Array.from_buffers(kind, len(array), array.buffers(), array.null_count, array.offset)
    encoded = words.dictionary_encode()
    table = numbers_of(encoded.dictionary)
    codes = fixed_of(encoded.indices, "<i4")
    if len(table) <= 1 << 8:
        return codes.astype(np.uint8), table
    order = np.argsort(table)
    ranks = np.empty(len(table), np.int32)
    ranks[order] = np.arange(len(table), dtype=np.int32)
    return fixed_of(pc.take(array_of(ranks), encoded.indices), "<i4"), table[order]


def list_child_of(array: Any, offsets: NDArray) -> Any:
    """Return the child rows that a (sliced) list or map array refers to."""
    if types.is_map(array.type):
        entries = pa.StructArray.from_arrays(
            [array.keys, array.items], fields=[array.type.key_field, array.type.item_field]
        )
    else:
        entries = array.values
    return entries.slice(int(offsets[0]), int(offsets[-1] - offsets[0]))


def fixed_list_child_of(array: Any) -> Any:
    """Return the child rows of a (sliced) fixed_size_list array, those of nulls included."""
    size = array.type.list_size
    return array.values.slice(array.offset * size, len(array) * size)


def view_lists_of(array: Any) -> tuple[NDArray, Any]:
    """Return offsets (int64, from 0) and the child rows of a list view, in row order.

    Arrow's own cast to list leaves out the last offset (pyarrow 26).
    """
    width = "<i8" if types.is_large_list_view(array.type) else "<i4"
    _, starts_buffer, sizes_buffer = array.buffers()[:3]
    at = array.offset * np.dtype(width).itemsize
    starts = np.frombuffer(starts_buffer, width, len(array), at).astype(np.int64)
    sizes = np.frombuffer(sizes_buffer, width, len(array), at).astype(np.int64)
    mask = validity_of(array)
    if mask is not None:
        sizes = np.where(mask, sizes, 0)
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    rows = np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], sizes)
    return offsets, take_rows(array.values, rows)


def union_codes_of(array: Any) -> NDArray:
    """Return the type ids of a (sliced) union, int8."""
    return np.frombuffer(array.buffers()[1], np.int8, len(array), array.offset)


def union_children_of(array: Any, type_ids: NDArray) -> tuple[list[Any], list[NDArray]]:
    """Return the children of a union in row order, and the child rows before each row."""
    children = [array.field(i) for i in range(array.type.num_fields)]
    if array.type.mode == "sparse":
        return children, [np.arange(len(array) + 1)] * len(children)
    places = np.frombuffer(array.buffers()[2], "<i4", len(array), array.offset * 4)
    ordered, before = [], []
    for child, code in zip(children, array.type.type_codes, strict=True):
        mine = type_ids == code
        ordered.append(take_rows(child, places[mine]))
        before.append(np.concatenate([[0], np.cumsum(mine)]))
    return ordered, before


def take_rows(array: Any, rows: NDArray) -> Any:
    """Return ``array[rows]``: a slice where they are consecutive, of any type then."""
    if not len(rows):
        return array.slice(0, 0)
    first = int(rows[0])
    if int(rows[-1]) - first + 1 == len(rows) and (np.diff(rows) == 1).all():
        return array.slice(first, len(rows))
    try:
        return array.take(array_of(rows))
    except pa.ArrowNotImplementedError:
        # Views and unions have no take kernel.
        return pa.concat_arrays([array.slice(int(row), 1) for row in rows])


def build_runs(kind: Any, ends: NDArray, values: Any, count: int) -> Any:
    """Return a run-end encoded array of ``count`` rows over checked ends."""
    run_ends = array_of(ends.astype(f"<i{kind.run_end_type.bit_width // 8}", copy=False))
    return pa.Array.from_buffers(kind, count, [None], 0, children=[run_ends, values])


def run_decode(ends: NDArray, values: Any) -> Any:
    """Return the flat array of an Arrow array's runs over checked ends, int32."""
    count = int(ends[-1]) if len(ends) else 0
    runs = build_runs(pa.run_end_encoded(pa.int32(), values.type), ends, values, count)
    return pc.run_end_decode(runs)


def keep_ascending(column: Any, rows: NDArray) -> Any:
    """Return rows of a chunked array by ascending numbers, chunk by chunk."""
    kept, first = [], 0
    for chunk in column.chunks:
        start, stop = np.searchsorted(rows, (first, first + len(chunk)))
        if stop > start:
            kept.append(take_rows(chunk, rows[start:stop] - first))
        first += len(chunk)
    return pa.chunked_array(kept, column.type)


def take_chunked(column: Any, rows: NDArray) -> Any:
    """Return rows of a chunked array in any order."""
    try:
        return pa.chunked_array([take_rows(combine(column), rows)], column.type)
    except pa.ArrowException:
        # Dictionaries that cannot be joined stay apart.
        kept = [column.slice(int(row), 1) for row in rows]
        return pa.chunked_array([chunk for one in kept for chunk in one.chunks], column.type)


def runs_of(array: Any) -> tuple[NDArray, Any]:
    """Return ends (int64, from 0) and values of the runs of a (sliced) run-end encoded array."""
    first, count = array.find_physical_offset(), array.find_physical_length()
    ends = numbers_of(array.run_ends)[first : first + count].astype(np.int64) - array.offset
    return np.minimum(ends, len(array)), array.values.slice(first, count)


def cast_array(array: Any, kind: Any) -> Any:
    """Return ``array`` as another layout of the same values."""
    return array.cast(kind)
