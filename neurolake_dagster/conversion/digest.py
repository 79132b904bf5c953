"""Hashes of Arrow values: the arithmetic behind "nothing changed on the way".

Owns one 64-bit hash per value, equal for equal bits whatever the layout (slices, chunks,
dictionary, large or view types). Floats are hashed by their bits, so -0.0 is not 0.0 and NaN
payloads count. The hashes find accidents, they are not cryptographic.
"""

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Hashes = npt.NDArray[np.uint64]

# splitmix64's constants: increment and the two multipliers of its finalizer.
GOLDEN = np.uint64(0x9E3779B97F4A7C15)
MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
MIX_2 = np.uint64(0x94D049BB133111EB)
NULL_HASH = np.uint64(0x6E756C6C6E756C6C)


def mix(values: Hashes) -> Hashes:
    """Scramble each value by splitmix64's finalizer; returns a new array."""
    mixed = values + GOLDEN
    mixed ^= mixed >> np.uint64(30)
    mixed *= MIX_1
    mixed ^= mixed >> np.uint64(27)
    mixed *= MIX_2
    mixed ^= mixed >> np.uint64(31)
    return mixed


def hash_values(array: pa.Array) -> Hashes:
    """Hash every value of an array.

    Returns
    -------
    uint64, shape ``(len(array),)``. Equal values give equal hashes, in any layout.
    """
    if pa.types.is_null(array.type):
        return np.full(len(array), NULL_HASH)
    plain = _plain(array)
    hashes = _hash_present(plain)
    if plain.null_count:
        hashes[pc.is_null(plain).to_numpy(zero_copy_only=False)] = NULL_HASH
    return hashes


def count_nulls(array: pa.Array) -> int:
    """How many values are null, also where the layout hides it: in a dictionary, or in runs."""
    if pa.types.is_dictionary(array.type) and not array.dictionary.null_count:
        return int(array.null_count)
    return int(_plain(array).null_count)


def _plain(array: pa.Array) -> pa.Array:
    """Undo the layouts that are not part of a value: extension, dictionary, runs."""
    while isinstance(array, pa.ExtensionArray):
        array = array.storage
    if pa.types.is_run_end_encoded(array.type):
        return _plain(pc.run_end_decode(array))
    if pa.types.is_dictionary(array.type):
        return _plain(array.dictionary_decode())
    return array


def _hash_present(array: pa.Array) -> Hashes:
    """Hash by the kind of type; what stands at null slots is arbitrary."""
    kind = array.type
    if pa.types.is_boolean(kind):
        bits = array.fill_null(False) if array.null_count else array
        return mix(bits.to_numpy(zero_copy_only=False).astype(np.uint64))
    if pa.types.is_struct(kind):
        return fold([hash_values(child) for child in array.flatten()], len(array))
    if is_list(kind):
        return _hash_lists(array)
    if _is_bytes(kind):
        return _hash_bytes(array)
    if pa.types.is_union(kind):
        return _hash_unions(array)
    return _hash_words(array)


def is_list(kind: pa.DataType) -> bool:
    """Whether a value is a list of values, of whatever layout; maps are lists of pairs."""
    return bool(
        pa.types.is_list(kind)
        or pa.types.is_large_list(kind)
        or pa.types.is_fixed_size_list(kind)
        or pa.types.is_map(kind)
        or pa.types.is_list_view(kind)
        or pa.types.is_large_list_view(kind)
    )


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_string_view(kind)
        or pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_binary_view(kind)
        or pa.types.is_fixed_size_binary(kind)
    )


def _hash_bytes(array: pa.Array) -> Hashes:
    """Text and binary by polars' vectorized hash, which is fixed for a seed and version."""
    import polars as pl  # heavy, and IO managers hash no texts

    if not pa.types.is_large_binary(array.type):
        step = pa.string() if pa.types.is_string_view(array.type) else array.type
        array = array.cast(step).cast(pa.binary()).cast(pa.large_binary())
    return pl.Series(values=array, dtype=pl.Binary).hash(seed=0).to_numpy(writable=True)


def _hash_words(array: pa.Array) -> Hashes:
    """Fixed-width values by their bits: 1 to 4 words of at most 8 bytes each."""
    width = array.type.bit_width // 8
    word = min(width, 8)
    words = np.frombuffer(array.buffers()[1], f"<u{word}")
    per_value = width // word
    words = words[array.offset * per_value : (array.offset + len(array)) * per_value]
    columns = words.astype(np.uint64).reshape(len(array), per_value)
    return fold([mix(columns[:, index]) for index in range(per_value)], len(array))


def _hash_lists(array: pa.Array) -> Hashes:
    """Lists by the hashes of their elements, each mixed with its place in the list."""
    lengths = pc.fill_null(list_lengths(array), 0).to_numpy(zero_copy_only=False)
    lengths = lengths.astype(np.int64)
    elements = hash_values(flattened(array))
    ends = np.cumsum(lengths)
    starts = ends - lengths
    place = np.arange(len(elements)) - np.repeat(starts, lengths)
    sums = np.zeros(len(elements) + 1, np.uint64)
    np.cumsum(mix(elements ^ mix(place.astype(np.uint64))), out=sums[1:])
    return mix((sums[ends] - sums[starts]) ^ mix(lengths.astype(np.uint64)))


def list_lengths(array: pa.Array) -> pa.Array:
    """How many elements each list has; null or 0 for a null."""
    if pa.types.is_map(array.type):
        lengths = pc.subtract(array.offsets[1:], array.offsets[:-1])
        return pc.if_else(array.is_valid(), lengths, 0)
    return pc.list_value_length(array)


def flattened(array: pa.Array) -> pa.Array:
    """The elements of all present lists, in order, as one array."""
    if not pa.types.is_map(array.type):
        return array.flatten()
    entries = pa.StructArray.from_arrays([array.keys, array.items], names=["key", "value"])
    lengths = pc.subtract(array.offsets[1:], array.offsets[:-1])
    if not pc.any(pc.and_(array.is_null(), pc.greater(lengths, 0))).as_py():
        first, last = array.offsets[0].as_py(), array.offsets[-1].as_py()
        return entries.slice(first, last - first)
    lists = pa.ListArray.from_arrays(array.offsets, entries)
    return lists.filter(array.is_valid()).flatten()


def _hash_unions(array: pa.UnionArray) -> Hashes:
    """Values of a union by their child's hash and its code; each row is of one child.

    pyarrow's own `type_codes` and `offsets` are those of the array that a slice is of.
    """
    mine = slice(array.offset, array.offset + len(array))
    codes = np.frombuffer(array.buffers()[1], np.int8)[mine]
    places = np.arange(len(array), dtype=np.int32)
    if array.type.mode == "dense":
        places = np.frombuffer(array.buffers()[2], np.int32)[mine]
    hashes = np.empty(len(array), np.uint64)
    for number, code in enumerate(array.type.type_codes):
        rows = codes == code
        hashes[rows] = mix(hash_values(array.field(number))[places[rows]] ^ np.uint64(code))
    return hashes


def fold(parts: list[Hashes], row_count: int) -> Hashes:
    """Combine one hash array per field into one per row; the fields' order counts."""
    combined = np.full(row_count, GOLDEN)
    for part in parts:
        combined = mix(combined ^ part)
    return combined
