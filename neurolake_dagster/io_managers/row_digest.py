"""What stands for rows: of Arrow rows on their way, and of files that are never written again."""

import io
from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa
import xxhash

from neurolake_dagster.ncf.arrow import is_text, plain_of, plain_schema
from neurolake_dagster.tables.schemas import (
    BYTES,
    LISTS,
    TEXT,
    cast_column,
    column_texts,
    plain_schema as without_views,
)

# A multiple of 8, so that bits of validity begin with a byte.
WINDOW_ROWS = 1 << 14


def files_digest(schema: pa.Schema, files: Iterable[str]) -> str:
    """The digest of what some files hold, read with a schema, in whatever order.

    Parameters
    ----------
    files
        Of each what stands for its bytes.
    """
    told = [*column_texts(schema), "", *sorted(files)]
    return xxhash.xxh3_128_hexdigest("\n".join(told).encode())


class RowDigest:
    """A digest of rows in their order, the same whatever batches and layouts they come in.

    Large, view and dictionary forms of a type are one. Rows of other types have another digest; so
    do those with other bytes under nested nulls.
    """

    def __init__(self, schema: pa.Schema) -> None:
        self._hash = xxhash.xxh3_128()
        viewless = without_views(schema)
        self._viewless = viewless.types
        self._types = [_one_form(field.type) for field in plain_schema(viewless)]
        validity = [(name, pa.bool_()) for name in schema.names]
        self._schema = pa.schema([*zip(schema.names, self._types, strict=True), *validity])
        self._stream = pa.ipc.new_stream(pa.PythonFile(_Sink(self._hash), "w"), self._schema)
        self._held: list[pa.RecordBatch] = []
        self._held_rows = 0
        self.held_bytes = 0

    def update(self, batch: pa.RecordBatch) -> None:
        """Take more rows."""
        while batch.num_rows:
            head = batch.slice(0, WINDOW_ROWS - self._held_rows)
            self._held.append(head)
            self._held_rows += head.num_rows
            self.held_bytes += head.nbytes
            batch = batch.slice(head.num_rows)
            if self._held_rows == WINDOW_ROWS:
                self._take_held()

    def result(self) -> str:
        """The digest of all rows that were taken."""
        if self._held_rows:
            self._take_held()
        return self._hash.hexdigest()

    def _take_held(self) -> None:
        parts = [
            [
                _as_digested(*three)
                for three in zip(batch.columns, self._viewless, self._types, strict=True)
            ]
            for batch in self._held
        ]
        columns = [_in_one(pieces) for pieces in zip(*parts, strict=True)]
        valid = [column.is_valid() for column in columns]
        filled = [_without_nulls(column) for column in columns]
        self._stream.write_batch(pa.RecordBatch.from_arrays([*filled, *valid], schema=self._schema))
        self._held, self._held_rows, self.held_bytes = [], 0, 0


def _one_form(type_: pa.DataType) -> pa.DataType:
    """The one of a type's physical forms that is digested; names of list items do not count."""
    if any(is_one(type_) for is_one in TEXT):
        return pa.large_string()
    if any(is_one(type_) for is_one in BYTES):
        return pa.large_binary()
    if pa.types.is_dictionary(type_) or pa.types.is_run_end_encoded(type_):
        return _one_form(type_.value_type)
    if any(is_one(type_) for is_one in LISTS):
        return pa.large_list(_one_form(type_.value_type))
    if pa.types.is_fixed_size_list(type_):
        return pa.list_(_one_form(type_.value_type), type_.list_size)
    if pa.types.is_struct(type_):
        return pa.struct([(field.name, _one_form(field.type)) for field in type_])
    if pa.types.is_map(type_):
        return pa.map_(_one_form(type_.key_type), _one_form(type_.item_type))
    return type_


def _as_digested(column: pa.Array, viewless: pa.DataType, type_: pa.DataType) -> pa.Array:
    """A column in the one form of its type."""
    if column.type.equals(type_):
        return column
    return cast_column(plain_of(cast_column(column, viewless)), type_)


def _in_one(pieces: Sequence[pa.Array]) -> pa.Array:
    """The pieces as one array, always a copy: bits and bytes of others may follow a slice's."""
    return pa.concat_arrays([pieces[0].slice(0, 0), *pieces])


def _without_nulls(column: pa.Array) -> pa.Array:
    """The column with zeros for nulls, under which any bytes may lie; nested ones as they are."""
    type_ = column.type
    if column.null_count == 0 or pa.types.is_interval(type_):
        return column
    if is_text(type_):
        return column.fill_null(pa.scalar(b"", pa.binary()).cast(type_))
    if pa.types.is_primitive(type_) or pa.types.is_decimal(type_):
        zeros = pa.py_buffer(bytes(max(type_.bit_width // 8, 1)))
        return column.fill_null(pa.Array.from_buffers(type_, 1, [None, zeros])[0])
    return column


class _Sink(io.RawIOBase):
    """A file that keeps the hash of what is written and nothing else."""

    def __init__(self, hasher: xxhash.xxh3_128) -> None:
        self._hash = hasher

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._hash.update(data)
        return len(data)
