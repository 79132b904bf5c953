"""The types an asset may return or ask for, to Arrow and back.

Owns the list of them. Written by runtime type, read by annotation; rows are streamed where
the type allows it, and handed over without a copy where the libraries do. pandas, polars and
`pyarrow.dataset`, which imports pandas, take a second and more: whoever has a value of theirs, or
is annotated with one, has imported them.
"""

import sys
import types
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, Union, get_args, get_origin

import pyarrow as pa

from neurolake_dagster.errors import NeuroLakeError, UnsupportedTypeError
from neurolake_dagster.ncf.engines import lazy_frame, polars_frame
from neurolake_dagster.tables.schemas import fit_table

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl

KNOWN_TYPES = (
    "pyspark.sql.DataFrame, pyarrow.Table, pyarrow.RecordBatch, pyarrow.RecordBatchReader, "
    "pyarrow.dataset.Dataset, pandas.DataFrame, polars.DataFrame, polars.LazyFrame"
)


# Given names (None for all) and an Arrow filter (or None), a reader of exactly these rows.
OpenRows: TypeAlias = Callable[[Sequence[str] | None, Any], pa.RecordBatchReader]

PEEKED_ROWS = 5


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What an input's annotation asks for.

    Parameters
    ----------
    type
        One of the known types.
    is_optional
        ``Optional[T]``: None where nothing was written yet.
    is_by_partition
        ``dict[str, T]``: one value per partition key.
    """

    type: type
    is_optional: bool = False
    is_by_partition: bool = False

    @property
    def is_spark(self) -> bool:
        """Whether a Spark DataFrame is asked for."""
        return _is_spark_type(self.type)

    @property
    def is_lazy(self) -> bool:
        """Whether the rows are read only when a query of the value asks for them."""
        kind = _kind_of(self.type)
        return kind is not None and kind.open is not None


class Peek:
    """The first rows of Arrow data on its way to a table, for the preview.

    Parameters
    ----------
    data
        Replaced by a reader that notes its first rows where it can be read only once.
    """

    def __init__(self, data: pa.Table | pa.RecordBatchReader) -> None:
        self.rows: pa.Table | None = None
        self.data = data
        if isinstance(data, pa.Table):
            self.rows = data.slice(0, PEEKED_ROWS)
        else:
            self.data = pa.RecordBatchReader.from_batches(data.schema, self._noting(data))

    def _noting(self, reader: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
        for batch in reader:
            if self.rows is None and batch.num_rows:
                self.rows = pa.Table.from_batches([batch.slice(0, PEEKED_ROWS)])
            yield batch


def is_spark(value: object) -> bool:
    """Whether it is a Spark DataFrame, classic or Connect; does not import pyspark."""
    return _is_spark_type(type(value))


def wanted_type(annotation: Any, where: str) -> Wanted:
    """Read an input's annotation; none at all means `pyarrow.Table`.

    Raises
    ------
    UnsupportedTypeError
        Naming the known types.
    """
    if annotation is Any or annotation is None:
        return Wanted(type=pa.Table)
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType) and len(inner) == 2 and type(None) in inner:
        found = wanted_type(next(arg for arg in inner if arg is not type(None)), where)
        return Wanted(type=found.type, is_optional=True, is_by_partition=found.is_by_partition)
    if origin is list:  # of a fan-in, whose values Dagster asks for one by one
        return wanted_type(inner[0], where)
    if origin is dict and inner[0] is str:
        found = wanted_type(inner[1], where)
        if found.is_optional:
            raise UnsupportedTypeError(
                f"{where}: annotated {annotation!r}: partitions that were never written are not in "
                "a dict at all; expected dict[str, T], or Optional[dict[str, T]]"
            )
        return Wanted(type=found.type, is_by_partition=True)
    if isinstance(annotation, type) and (_kind_of(annotation) or _is_spark_type(annotation)):
        return Wanted(type=annotation)
    raise UnsupportedTypeError(
        f"{where}: annotated {annotation!r}, expected one of {KNOWN_TYPES}, Optional of one, "
        "or dict[str, one] for a value per partition"
    )


def to_arrow(value: object, where: str) -> pa.Table | pa.RecordBatchReader:
    """The rows of an output as Arrow.

    Raises
    ------
    UnsupportedTypeError
        Naming the known types, or the values that Arrow has no type for; for None with the advice
        to annotate.
    """
    for kind in _KINDS:
        known = kind.type()
        if known is not None and isinstance(value, known):
            with _told_by_arrow(f"{where}: returned a {kind.module} {kind.name}"):
                return kind.write(value)
    if value is None:
        raise UnsupportedTypeError(
            f"{where}: returned None; annotate the asset `-> None` if it writes by itself, "
            f"else return one of {KNOWN_TYPES}"
        )
    name = f"{type(value).__module__}.{type(value).__qualname__}"
    raise UnsupportedTypeError(f"{where}: returned {name}, expected one of {KNOWN_TYPES}")


def open_lazily(schema: pa.Schema, open_rows: OpenRows, wanted: type) -> Any:
    """The rows of an input in a lazy type: each query opens those it needs."""
    kind = _kind_of(wanted)
    assert kind is not None
    assert kind.open is not None
    return kind.open(schema, open_rows)


def from_arrow(reader: pa.RecordBatchReader, wanted: type) -> Any:
    """The rows of an input in the type asked for; a reader goes through unread."""
    kind = _kind_of(wanted)
    assert kind is not None
    return kind.read(reader)


def _is_spark_type(type_: type) -> bool:
    sql = sys.modules.get("pyspark.sql")
    return sql is not None and issubclass(type_, sql.DataFrame)


def _kind_of(annotation: type) -> "_Kind | None":
    return next((kind for kind in _KINDS if kind.type() is annotation), None)


@contextmanager
def _told_by_arrow(what: str) -> Iterator[None]:
    """Translate what a conversion of values between libraries says."""
    try:
        yield
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as exc:
        if isinstance(exc, NeuroLakeError):
            raise
        raise UnsupportedTypeError(f"{what} that cannot be converted").quoting(exc) from exc


def _from_pandas(frame: "pd.DataFrame") -> pa.Table:
    """A named index becomes a column; an unnamed one carries nothing and is left out."""
    keep = any(name is not None for name in frame.index.names)
    return pa.Table.from_pandas(frame, preserve_index=keep)


def _to_pandas(reader: pa.RecordBatchReader) -> "pd.DataFrame":
    """Integers and booleans with nulls become pandas' nullable types, not floats and objects."""
    import pandas as pd

    table = reader.read_all()
    nullable = {
        column.type
        for column in table.columns
        if column.null_count and (pa.types.is_integer(column.type) or column.type == pa.bool_())
    }
    with _told_by_arrow("pandas: the rows have values"):
        whole: pd.DataFrame = table.to_pandas()
    for name, column in zip(table.column_names, table.columns, strict=True):
        if column.type in nullable and column.null_count:
            dtype: Any = pd.api.types.pandas_dtype(_NULLABLE[str(column.type)])
            whole[name] = column.to_pandas(types_mapper={column.type: dtype}.get)
    return whole


def _to_batch(reader: pa.RecordBatchReader) -> pa.RecordBatch:
    batches = reader.read_all().combine_chunks().to_batches()
    return batches[0] if batches else pa.RecordBatch.from_pylist([], reader.schema)


def _to_dataset(reader: pa.RecordBatchReader) -> Any:
    from pyarrow.dataset import dataset

    return dataset(reader.read_all())


def _open_dataset(schema: pa.Schema, open_rows: OpenRows) -> Any:
    from neurolake_dagster.ncf.dataset import ScanDataset

    return ScanDataset(schema, open_rows)


def _from_dataset(dataset: Any) -> pa.RecordBatchReader:
    """Row group by row group where they are known: Arrow's scanner reads a gigabyte ahead."""
    try:
        fragments = dataset.get_fragments()
    except (ValueError, NotImplementedError):  # filtered, or one of ours, which streams
        filtered: pa.RecordBatchReader = dataset.scanner().to_reader()
        return filtered
    parts = (part for fragment in fragments for part in _row_groups(fragment))
    batches = (batch for part in parts for batch in part.to_batches(schema=dataset.schema))
    return pa.RecordBatchReader.from_batches(dataset.schema, batches)


def _row_groups(fragment: Any) -> Sequence[Any]:
    from pyarrow.dataset import ParquetFileFragment

    is_parquet = isinstance(fragment, ParquetFileFragment)
    return fragment.split_by_row_group() if is_parquet else [fragment]


def _from_polars(frame: "pl.DataFrame") -> pa.Table:
    import polars as pl

    _refuse_without_arrow(frame.schema)
    return frame.to_arrow(compat_level=pl.CompatLevel.oldest())


def _refuse_without_arrow(schema: "pl.Schema") -> None:
    """Refuse what polars gives to Arrow as something else: an object as its address in memory."""
    import polars as pl

    def is_lacking(type_: Any) -> bool:
        if isinstance(type_, pl.Struct):
            return any(is_lacking(field.dtype) for field in type_.fields)
        inner = getattr(type_, "inner", None)
        if inner is not None:
            return is_lacking(inner)
        return any(type_ == one for one in (pl.Object, pl.Int128, pl.UInt128))

    lacking = [f"{name!r} is {type_}" for name, type_ in schema.items() if is_lacking(type_)]
    if lacking:
        raise UnsupportedTypeError(
            f"Arrow has no such types: columns {', '.join(lacking)}; cast them, for example to "
            "polars.Decimal or polars.String"
        )


def _from_lazy(frame: "pl.LazyFrame") -> pa.RecordBatchReader:
    """The query runs while its rows are written."""
    import polars as pl

    schema = _from_polars(pl.DataFrame(schema=frame.collect_schema())).schema
    parts = frame.collect_batches(lazy=True)
    batches = (one for part in parts for one in fit_table(_from_polars(part), schema).to_batches())
    return pa.RecordBatchReader.from_batches(schema, batches)


def _to_polars(reader: pa.RecordBatchReader) -> "pl.DataFrame":
    found: pl.DataFrame = polars_frame(reader.read_all())
    return found


class _Kind(NamedTuple):
    """A type that assets may use, and its ways to Arrow and back."""

    module: str
    name: str
    write: Callable[[Any], pa.Table | pa.RecordBatchReader]
    read: Callable[[pa.RecordBatchReader], Any]
    open: Callable[[pa.Schema, OpenRows], Any] | None = None

    def type(self) -> type | None:
        """The type; None while nobody has imported its library, so that none of it exists."""
        found: type | None = getattr(sys.modules.get(self.module), self.name, None)
        return found


_NULLABLE = {
    "int8": "Int8",
    "int16": "Int16",
    "int32": "Int32",
    "int64": "Int64",
    "uint8": "UInt8",
    "uint16": "UInt16",
    "uint32": "UInt32",
    "uint64": "UInt64",
    "bool": "boolean",
}

_KINDS = (
    _Kind("pyarrow", "Table", lambda value: value, lambda reader: reader.read_all()),
    _Kind("pyarrow", "RecordBatch", lambda value: pa.Table.from_batches([value]), _to_batch),
    _Kind("pyarrow", "RecordBatchReader", lambda value: value, lambda reader: reader),
    _Kind(
        "pyarrow.dataset",
        "Dataset",
        _from_dataset,
        _to_dataset,
        _open_dataset,
    ),
    _Kind("pandas", "DataFrame", _from_pandas, _to_pandas),
    _Kind("polars", "DataFrame", _from_polars, _to_polars),
    _Kind("polars", "LazyFrame", _from_lazy, lambda reader: _to_polars(reader).lazy(), lazy_frame),
)
