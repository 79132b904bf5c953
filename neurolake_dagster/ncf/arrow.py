"""numpy <-> Arrow: the only module that knows Arrow's buffers. Owns views and builders.

Functions named ``*_of`` take an Arrow array apart without a copy where its memory allows it;
``build_*`` put one together, and expect arguments that were checked before.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from neurolake_dagster.ncf.checks import Damage, NDArray
from neurolake_dagster.ncf.memory import Budget

types = pa.types
EMPTY_BYTES = np.zeros(0, np.uint8)
_MIN_FIXED_ROWS = 4096
_BLOCK_ROWS = 1 << 16


def combine(column: Any) -> Any:
    """Return a chunked array of at least one chunk as one array; several are copied."""
    if not isinstance(column, pa.ChunkedArray):
        return column
    if column.num_chunks == 1:
        return column.chunk(0)
    return pa.concat_arrays(column.unify_dictionaries().chunks)


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


def gather(values: NDArray, codes: NDArray) -> NDArray:
    """Return ``values[codes]``, bounds-checked, without numpy's int64 conversion of codes."""
    try:
        taken = pc.take(pa.array(values), pa.array(codes))
    except (pa.ArrowInvalid, pa.ArrowIndexError) as exc:
        raise Damage(f"dictionary: {exc}") from exc
    return np.frombuffer(taken.buffers()[1], values.dtype, len(codes))


def rows_of(values: NDArray) -> Any:
    """Return the rows of a contiguous array as fixed_size_binary, for `gather_rows`."""
    width = values.nbytes // len(values)
    return pa.Array.from_buffers(pa.binary(width), len(values), [None, pa.py_buffer(values)])


def gather_rows(rows: Any, codes: NDArray) -> Any:
    """Return the buffer of ``rows[codes]``; a code past the rows is damage."""
    return take_texts(rows, codes).buffers()[1]


def run_encode(values: NDArray) -> tuple[NDArray, NDArray]:
    """Return the exclusive ends (int64) and values of the runs in ``values``."""
    encoded = pc.run_end_encode(pa.array(values), run_end_type=pa.int32())
    return encoded.run_ends.to_numpy().astype(np.int64), encoded.values.to_numpy()


def run_decode(ends: NDArray, values: NDArray) -> NDArray:
    """Return the flat array of checked run ends (int32) and values."""
    if len(ends) == 0:
        return values[:0]
    runs = pa.RunEndEncodedArray.from_arrays(pa.array(ends), pa.array(values))
    decoded: NDArray = pc.run_end_decode(runs).to_numpy()
    return decoded


def allocate(budget: Budget, count: int, dtype: str) -> tuple[Any, NDArray]:
    """Return a buffer from Arrow's pool and a writable view of it as ``count`` items."""
    width = np.dtype(dtype).itemsize
    budget.debit(count * width)
    buffer = pa.allocate_buffer(count * width, memory_pool=budget.pool)
    return buffer, np.frombuffer(buffer, dtype, count)


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


def sample_rows(array: Any, ranges: list[tuple[int, int]]) -> Any:
    """Return the rows of (start, length) ranges as one array."""
    if len(ranges) == 1:
        return array.slice(*ranges[0])
    return pa.concat_arrays([array.slice(start, length) for start, length in ranges])


def dictionary_of(array: Any) -> tuple[NDArray, Any]:
    """Return codes (int32, null slots 0) and the dictionary, in order of appearance."""
    encoded = _encode_fixed_texts(array) or array.dictionary_encode()
    codes = fixed_of(encoded.indices, "<i4")
    mask = validity_of(array)
    if mask is not None:
        codes = np.where(mask, codes, np.int32(0))
    return codes, encoded.dictionary


def _encode_fixed_texts(array: Any) -> Any:
    """Dictionary-encode strings of 1, 2, 4 or 8 bytes as integers: three times as fast."""
    if array.null_count or len(array) < _MIN_FIXED_ROWS:
        return None
    offsets, data = bytes_of(array)
    width = int(offsets[1] - offsets[0])
    size = int(offsets[-1] - offsets[0])
    if width not in (1, 2, 4, 8) or size != width * len(array) or (np.diff(offsets) != width).any():
        return None
    words = data[int(offsets[0]) : int(offsets[-1])].view(f"<u{width}")
    encoded = pa.array(words).dictionary_encode()
    table = encoded.dictionary
    bounds = np.arange(len(table) + 1, dtype=offsets.dtype) * width
    texts = pa.Array.from_buffers(
        array.type, len(table), [None, pa.py_buffer(bounds), table.buffers()[1]]
    )
    return pa.DictionaryArray.from_arrays(encoded.indices, texts, safe=False)


def distinct_counts(array: Any) -> tuple[NDArray, NDArray]:
    """Return codes and, per distinct value, how often it occurs."""
    codes, dictionary = dictionary_of(array)
    return codes, np.bincount(codes, minlength=len(dictionary))


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


def array_from(values: NDArray, kind: Any) -> Any:
    """Return a fixed-width array of ``kind`` over contiguous values of its width."""
    return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(values)])


def distinct_sorted(values: NDArray) -> NDArray:
    """Return the distinct bit patterns, ascending as the unsigned or signed words they are."""
    words = values if values.dtype.kind != "f" else values.view(f"<i{values.dtype.itemsize}")
    return np.sort(pc.unique(pa.array(words)).to_numpy())


def codes_in(values: NDArray, table: NDArray) -> NDArray:
    """Return for each value its place in ``table``, int32; every value must be there."""
    words = values if values.dtype.kind != "f" else values.view(table.dtype)
    found = pc.index_in(pa.array(words), value_set=pa.array(table))
    return fixed_of(found, "<i4")


def offset_dtype(kind: Any) -> np.dtype[Any]:
    """Return the dtype of the offsets of a string, binary, list or map type."""
    large = (
        types.is_large_string(kind)
        or types.is_large_binary(kind)
        or types.is_large_list(kind)
        or types.is_large_list_view(kind)
    )
    return np.dtype("<i8" if large else "<i4")


def lengths_of(texts: Any) -> NDArray:
    """Return the lengths in bytes of a string or binary array without nulls, int64."""
    offsets, _ = bytes_of(texts)
    return np.diff(offsets).astype(np.int64)


def take_texts(texts: Any, codes: NDArray) -> Any:
    """Return ``texts[codes]``, bounds-checked."""
    try:
        return pc.take(texts, pa.array(codes))
    except (pa.ArrowInvalid, pa.ArrowIndexError) as exc:
        raise Damage(f"codes: {exc}") from exc


def join_texts(columns: list[Any], kind: Any) -> Any:
    """Return the row-wise concatenation of string or binary columns."""
    binary = types.is_binary(kind) or types.is_large_binary(kind)
    return pc.binary_join_element_wise(*columns, pa.scalar(b"" if binary else "", kind))


def run_decode_texts(ends: NDArray, texts: Any) -> Any:
    """Return the flat array of checked run ends (int32) and strings."""
    return pc.run_end_decode(pa.RunEndEncodedArray.from_arrays(pa.array(ends), texts))


def fixed_text_of(texts: Any) -> Any:
    """Return strings of one length (1 to 64) as fixed_size_binary over the same bytes, or None."""
    lengths = lengths_of(texts)
    if not len(lengths) or not 0 < lengths[0] <= 64 or (lengths != lengths[0]).any():
        return None
    offsets, _ = bytes_of(texts)
    data = texts.buffers()[2].slice(int(offsets[0]))
    return pa.Array.from_buffers(pa.binary(int(lengths[0])), len(texts), [None, data])


def with_validity(array: Any, validity: Any, nulls: int) -> Any:
    """Return a fresh array with its validity replaced; None keeps it as it is."""
    if validity is None:
        return array
    return pa.Array.from_buffers(
        array.type, len(array), [validity, *array.buffers()[1:]], nulls, array.offset
    )


def concat_texts(data: Any, size: int, more: NDArray) -> Any:
    """Return the first ``size`` bytes of a buffer (or None) and ``more`` as one buffer. A copy."""
    head = EMPTY_BYTES if data is None else np.frombuffer(data, np.uint8, size)
    return pa.py_buffer(np.concatenate([head, more]))


def sort_ranks(texts: Any) -> tuple[NDArray, Any]:
    """Return the rank of each string among all, and the strings in ascending order."""
    order = pc.sort_indices(texts)
    ranks = np.empty(len(texts), np.int64)
    ranks[order.to_numpy()] = np.arange(len(texts))
    return ranks, pc.take(texts, order)


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
        return array.take(pa.array(rows))
    except pa.ArrowNotImplementedError:
        # Views and unions have no take kernel.
        return pa.concat_arrays([array.slice(int(row), 1) for row in rows])


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


def runs_of(array: Any) -> tuple[NDArray, Any]:
    """Return ends (int64, from 0) and values of the runs of a (sliced) run-end encoded array."""
    first, count = array.find_physical_offset(), array.find_physical_length()
    ends = array.run_ends.to_numpy()[first : first + count].astype(np.int64) - array.offset
    return np.minimum(ends, len(array)), array.values.slice(first, count)


def build_runs(kind: Any, ends: NDArray, values: Any, count: int) -> Any:
    """Return a run-end encoded array over checked ends."""
    run_ends = pa.array(ends.astype(f"<i{kind.run_end_type.bit_width // 8}"))
    return pa.Array.from_buffers(kind, count, [None], 0, children=[run_ends, values])


def build_dictionary(indices: Any, table: Any, kind: Any) -> Any:
    """Return a dictionary array over checked indices."""
    return pa.DictionaryArray.from_arrays(indices, table, ordered=kind.ordered, safe=False)


def cast_array(array: Any, kind: Any) -> Any:
    """Return ``array`` as another layout of the same values."""
    return array.cast(kind)


def concat_rows(column: Any) -> Any:
    """Return a chunked array as one array, of no rows too."""
    if column.num_chunks == 0:
        return pa.chunked_array([pa.nulls(0, column.type)]).chunk(0)
    return combine(column)


def matching_rows(table: Any, expression: Any) -> NDArray:
    """Return the row numbers of a table that pass a filter expression, ascending."""
    name = "\0row"
    numbered = table.append_column(name, pa.array(np.arange(table.num_rows)))
    passing: NDArray = numbered.filter(expression)[name].to_numpy()
    return passing
