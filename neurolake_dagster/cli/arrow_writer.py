"""Arrow IPC files, in which a column has one dictionary that may only grow.

Row groups of NCF and Parquet have dictionaries of their own: values are added to the first one's
as they come. Dictionaries that Arrow cannot unify are written as plain values.
"""

from typing import Any

import click
import pyarrow as pa
import pyarrow.ipc as pa_ipc


class ArrowWriter:
    """Writes record batches whose dictionaries may differ.

    Parameters
    ----------
    file
        Open for writing; not closed.
    """

    def __init__(self, file: Any, schema: pa.Schema, codec: pa.Codec | None) -> None:
        fields = [field.with_type(_written_type(field.type)) for field in schema]
        self._schema = pa.schema(fields, schema.metadata)
        self._dictionaries: dict[int, pa.DictionaryArray] = {}
        options = pa_ipc.IpcWriteOptions(compression=codec, emit_dictionary_deltas=True)
        self._writer = pa_ipc.new_file(file, self._schema, options=options)

    def write_batch(self, batch: pa.RecordBatch) -> None:
        """Append one batch."""
        columns = [self._written(index, array) for index, array in enumerate(batch)]
        self._writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=self._schema))

    def __enter__(self) -> "ArrowWriter":
        return self

    def __exit__(self, *rest: object) -> None:
        self._writer.__exit__(*rest)

    def _written(self, index: int, array: pa.Array) -> pa.Array:
        kind = self._schema.types[index]
        if pa.types.is_dictionary(kind):
            return self._unified(index, array)
        if pa.types.is_dictionary(array.type):
            array = array.dictionary_decode()
        return array if array.type == kind else array.cast(kind)

    def _unified(self, index: int, array: pa.DictionaryArray) -> pa.DictionaryArray:
        """Refer the rows to the column's dictionary, behind whose values new ones are put."""
        if array.dictionary.null_count:  # Arrow unifies none that hold nulls
            array = array.dictionary_decode().dictionary_encode().cast(array.type)
        known = self._dictionaries.get(index, array[:0])
        try:
            known, unified = pa.chunked_array([known, array]).unify_dictionaries().chunks
        except pa.ArrowInvalid as exc:
            raise self._refusal(index, "together have too many values for it") from exc
        before = self._dictionaries.get(index, known)
        if array.type.ordered and len(known.dictionary) > len(before.dictionary):
            raise self._refusal(index, "differ, and it is ordered")
        self._dictionaries[index] = known
        return unified

    def _refusal(self, index: int, why: str) -> click.ClickException:
        field = self._schema.field(index)
        return click.ClickException(
            f"column {field.name!r}, {field.type}: the dictionaries of its row groups {why}, where "
            "Arrow IPC files take one; convert to .ncf or .parquet, or choose other columns by -c"
        )


def _written_type(kind: pa.DataType) -> pa.DataType:
    """Keep the dictionaries that Arrow unifies: of a column itself, but not of nested values.

    Nor those of floats: a dictionary with NaN is not equal to itself.
    """
    values = kind.value_type if pa.types.is_dictionary(kind) else kind
    is_unified = not (pa.types.is_nested(values) or pa.types.is_floating(values))
    return kind if is_unified else _plain_type(kind)


def _plain_type(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_dictionary(kind):
        return _plain_type(kind.value_type)
    if pa.types.is_struct(kind):
        return pa.struct([_plain_field(field) for field in kind])
    if pa.types.is_map(kind):
        return pa.map_(_plain_field(kind.key_field), _plain_field(kind.item_field))
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(_plain_field(kind.value_field), kind.list_size)
    if pa.types.is_large_list(kind):
        return pa.large_list(_plain_field(kind.value_field))
    if pa.types.is_list(kind):
        return pa.list_(_plain_field(kind.value_field))
    return kind


def _plain_field(field: pa.Field) -> pa.Field:
    return field.with_type(_plain_type(field.type))
