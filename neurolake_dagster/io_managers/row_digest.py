"""What stands for rows: of Arrow rows on their way, and of files that are never written again."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from neurolake_dagster.conversion.digest import flattened, is_list, list_lengths
from neurolake_dagster.ncf.arrow import is_text, plain_of, plain_type
from neurolake_dagster.tables.schemas import BYTES, LISTS, TEXT, column_texts
from neurolake_dagster.tables.windows import Numbers


def files_digest(schema: pa.Schema, files: Iterable[str]) -> str:
    """The digest of what some files hold, read with a schema, in whatever order.

    Parameters
    ----------
    files
        Of each what stands for its bytes.
    """
    told = [*column_texts(schema), "", *sorted(files)]
    return xxhash.xxh3_128_hexdigest("\n".join(told).encode())


class RowDigests:
    """Digests of rows in their order, the same whatever batches and layouts they come in.

    Large, view and dictionary forms of a type are one. Rows of other types have another digest.
    It holds no rows, and of each partition less than 200 bytes for each buffer of a batch.

    Parameters
    ----------
    count
        Of the partitions whose rows are told apart.
    """

    def __init__(self, schema: pa.Schema, count: int) -> None:
        self._columns = [f"{field.name} {_one_form(field.type)}" for field in schema]
        self._count = count
        # By buffer and partition; one that has no rows has none.
        self._hashes: list[list[Any]] = []
        self._spare = _Spare()

    def update(self, batch: pa.RecordBatch, numbers: Sequence[int], cuts: Numbers) -> None:
        """Take more rows.

        Parameters
        ----------
        numbers
            Of the partitions that some of the rows are of, in the order of the rows.
        cuts
            The row at which each begins, and after the last the count of rows.
        """
        parts = (part for column in batch.columns for part in _parts(column, cuts, self._spare))
        for i, (values, places) in enumerate(parts):
            if i == len(self._hashes):
                self._hashes.append([None] * self._count)
            hashes, starts = self._hashes[i], places.tolist()
            for number, start, stop in zip(numbers, starts, starts[1:], strict=False):
                one = hashes[number]
                if one is None:
                    one = hashes[number] = xxhash.xxh64()
                one.update(values[start:stop])

    def results(self) -> list[str]:
        """The digest of all rows of each partition."""
        return [
            self._result([one[number] for one in self._hashes]) for number in range(self._count)
        ]

    def _result(self, hashes: list[Any]) -> str:
        told = [one.hexdigest() for one in hashes if one is not None]
        return xxhash.xxh3_128_hexdigest("\n".join([*self._columns, *told]).encode())


class _Spare:
    """Memory that is used again: new pages cost more than what is done in them."""

    def __init__(self) -> None:
        self._ones = np.ones(0, np.bool_)
        self._lengths = np.zeros(0, np.uint32)

    def ones(self, count: int) -> Any:
        """So many times true."""
        if count > len(self._ones):
            self._ones = np.ones(count, np.bool_)
        return self._ones[:count]

    def lengths(self, offsets: Any) -> Any:
        """Of what lies between offsets; to be used before the next are asked."""
        count = len(offsets) - 1
        if count > len(self._lengths):
            self._lengths = np.zeros(count, np.uint32)
        found = self._lengths[:count]
        return np.subtract(offsets[1:], offsets[:-1], out=found, casting="unsafe")


def _one_form(type_: pa.DataType) -> pa.DataType:
    """The one of a type's physical forms that is digested; names of list items do not count."""
    if any(is_one(type_) for is_one in TEXT):
        return pa.large_string()
    if any(is_one(type_) for is_one in BYTES):
        return pa.large_binary()
    if not plain_type(type_).equals(type_):
        return _one_form(plain_type(type_))
    if any(is_one(type_) for is_one in LISTS):
        return pa.large_list(_one_form(type_.value_type))
    if pa.types.is_fixed_size_list(type_):
        return pa.list_(_one_form(type_.value_type), type_.list_size)
    if pa.types.is_struct(type_):
        return pa.struct([(field.name, _one_form(field.type)) for field in type_])
    if pa.types.is_map(type_):
        return pa.map_(_one_form(type_.key_type), _one_form(type_.item_type))
    return type_


def _parts(array: pa.Array, cuts: Numbers, spare: _Spare) -> Iterator[tuple[Any, Numbers]]:
    """A column as arrays of values of one width, of a type always as many, each with its cuts.

    Each is to be used before the next is asked. What lies under nulls is not told.
    """
    array = plain_of(array)
    is_valid = spare.ones(len(array))
    if array.null_count:
        is_valid = array.is_valid().to_numpy(zero_copy_only=False)
    yield is_valid, cuts
    kind = array.type
    if pa.types.is_null(kind):
        return
    if pa.types.is_struct(kind):
        for child in array.flatten():
            yield from _parts(child, cuts, spare)
    elif is_list(kind):
        lengths = pc.fill_null(list_lengths(array), 0).to_numpy().astype(np.uint32)
        yield lengths, cuts
        ends = np.append(0, np.cumsum(lengths, dtype=np.int64))
        yield from _parts(flattened(array), ends[cuts], spare)
    elif is_text(kind):
        yield from _texts(array, cuts, spare)
    elif pa.types.is_boolean(kind):
        yield is_valid & array.fill_null(False).to_numpy(zero_copy_only=False), cuts
    elif kind.bit_width:
        yield _words(array, is_valid), cuts


def _texts(array: pa.Array, cuts: Numbers, spare: _Spare) -> Iterator[tuple[Any, Numbers]]:
    """The lengths and the bytes of texts, or of bytes."""
    present = array
    if array.null_count:
        present = array.fill_null(pa.scalar(b"", pa.binary()).cast(array.type))
    is_large = pa.types.is_large_string(array.type) or pa.types.is_large_binary(array.type)
    _, offsets, data = present.buffers()
    offsets = np.frombuffer(offsets or bytes(8), np.int64 if is_large else np.int32)
    offsets = offsets[present.offset : present.offset + len(present) + 1]
    yield spare.lengths(offsets), cuts
    yield np.frombuffer(data or b"", np.uint8), offsets[cuts]


def _words(array: pa.Array, is_valid: Any) -> Any:
    """Values of one width as words of at most 8 bytes, zeros for nulls."""
    width = array.type.bit_width // 8
    word = next(size for size in (8, 4, 2, 1) if width % size == 0)
    per_value, end = width // word, array.offset + len(array)
    words = np.frombuffer(array.buffers()[1] or b"", f"<u{word}", end * per_value)
    words = words.reshape(end, per_value)[array.offset :]
    return words if not array.null_count else words * is_valid[:, None].astype(words.dtype)
