"""NCF for query engines: DuckDB by a pyarrow dataset (`dataset`), polars by a LazyFrame.

Owns the translation of polars' predicates. Each query opens the file anew, so a scan can be kept
and used from several threads.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from neurolake_dagster.errors import UnsupportedTypeError
from neurolake_dagster.ncf.reader import NCFFile, read_schema

_COMPARISONS = {
    "Eq": "__eq__",
    "NotEq": "__ne__",
    "Lt": "__lt__",
    "LtEq": "__le__",
    "Gt": "__gt__",
    "GtEq": "__ge__",
}
_MIRRORED = {"Lt": "Gt", "LtEq": "GtEq", "Gt": "Lt", "GtEq": "LtEq"}


def scan(source: Any) -> Any:
    """Return a dataset over an NCF file that DuckDB queries by name, and pyarrow scans.

    >>> flights = ncf.scan("flights.ncf")  # doctest: +SKIP
    >>> duckdb.sql("select carrier, count(*) from flights group by 1")  # doctest: +SKIP
    """
    # Imported here: pyarrow.dataset brings pandas along, a second that no plain read should pay.
    from neurolake_dagster.ncf.dataset import NCFDataset

    return NCFDataset(source)


def scan_polars(source: Any) -> Any:
    """Return a polars LazyFrame over an NCF file, with projection and predicate pushdown.

    Statistics rule out pages by what of the predicate Arrow knows; polars then applies all of
    it, in its own meaning of NaN and nulls.
    """
    return lazy_frame(read_schema(source), lambda *asked: NCFFile(source).scan(*asked))


def lazy_frame(schema: Any, open_rows: Callable[[Any, Any], Any]) -> Any:
    """Return a polars LazyFrame that opens its rows anew for each query.

    Parameters
    ----------
    open_rows
        Given names (None for all) and an Arrow filter (or None), a reader of these rows at least.
    """
    from polars.io.plugins import register_io_source

    def read(
        columns: list[str] | None, predicate: Any, n_rows: int | None, _batch_size: int | None
    ) -> Iterator[Any]:
        # `n_rows` are counted before the predicate is applied: it may leave out none of them.
        may_skip = predicate is not None and n_rows is None
        filters = necessary_condition(predicate, schema) if may_skip else None
        left = n_rows
        for batch in open_rows(columns, filters):
            frame = polars_frame(batch.slice(0, left))
            yield frame if predicate is None else frame.filter(predicate)
            if left is not None:
                left -= frame.height
                if left <= 0:
                    return

    with _told_by_polars(schema):
        known = polars_frame(pa.Table.from_batches([], schema)).schema
        return register_io_source(read, schema=known, is_pure=True)


def polars_frame(rows: Any) -> Any:
    """Return Arrow rows as a polars DataFrame.

    Raises
    ------
    UnsupportedTypeError
        Naming the columns that polars does not take.
    """
    import polars as pl

    with _told_by_polars(rows.schema):
        # polars would call a column without a name ``column_0``.
        numbered = rows.rename_columns([str(index) for index in range(len(rows.schema))])
        frame = pl.DataFrame(pl.from_arrow(numbered))
        frame.columns = rows.schema.names
    return frame


@contextmanager
def _told_by_polars(schema: Any) -> Iterator[None]:
    """Translate what polars says of columns; of some types it is a panic."""
    import polars as pl

    kinds = (
        pa.ArrowException,
        pl.exceptions.PolarsError,
        pl.exceptions.PanicException,
        TypeError,
        ValueError,
    )

    def is_taken(field: Any) -> bool:
        try:
            return (
                pl.DataFrame(pl.from_arrow(pa.Table.from_batches([], pa.schema([field])))).width
                == 1
            )
        except kinds:
            return False

    try:
        yield
    except UnsupportedTypeError:
        raise
    except kinds as exc:
        bad = [field for field in schema if not is_taken(field)] or schema
        told = ", ".join(f"{field.name!r} ({field.type})" for field in bad)
        raise UnsupportedTypeError(
            f"polars does not take columns {told}; leave them out, or read the rows as Arrow"
        ).quoting(exc) from exc


def necessary_condition(predicate: Any, schema: Any) -> Any:
    """Return an Arrow condition that all rows meet which a polars predicate keeps.

    None where nothing is known: Arrow and polars differ in NaN, and not every expression has a
    counterpart.
    """
    node = json.loads(predicate.meta.serialize(format="json"))
    match node:
        case {"BinaryExpr": {"op": "And"}}:
            parts = [necessary_condition(part, schema) for part in predicate.meta.pop()]
            known = [part for part in parts if part is not None]
            return known[0] & known[1] if len(known) == 2 else known[0] if known else None
        case {"BinaryExpr": {"op": "Or"}}:
            left, right = (necessary_condition(part, schema) for part in predicate.meta.pop())
            return None if left is None or right is None else left | right
        case {"BinaryExpr": {"op": op, "left": {"Column": name}, "right": {"Literal": _}}}:
            return _comparison(name, op, predicate.meta.pop()[0], schema)
        case {"BinaryExpr": {"op": op, "left": {"Literal": _}, "right": {"Column": name}}}:
            return _comparison(name, _MIRRORED.get(op, op), predicate.meta.pop()[1], schema)
        case {"Function": {"input": [{"Column": name}], "function": {"Boolean": "IsNull"}}}:
            return pc.field(name).is_null()
        case {"Function": {"input": [{"Column": name}], "function": {"Boolean": "IsNotNull"}}}:
            return pc.field(name).is_valid()
    return None


def _comparison(name: str, op: str, literal: Any, schema: Any) -> Any:
    """Return ``column op literal``; NaN passes, for polars holds it above all numbers."""
    import polars as pl

    kind = schema.field(name).type
    if op not in _COMPARISONS or not _is_comparable(kind):
        return None
    try:
        value = pl.select(literal).to_arrow().column(0).combine_chunks()[0].cast(kind)
    except pa.ArrowException:
        return None
    if not value.is_valid or (pa.types.is_floating(kind) and value.as_py() != value.as_py()):
        return None
    condition = getattr(pc.field(name), _COMPARISONS[op])(value)
    return condition | pc.field(name).is_nan() if pa.types.is_floating(kind) else condition


def _is_comparable(kind: Any) -> bool:
    types: Sequence[Any] = (
        pa.types.is_integer,
        pa.types.is_float32,
        pa.types.is_float64,
        pa.types.is_string,
        pa.types.is_large_string,
        pa.types.is_date32,
        pa.types.is_timestamp,
        pa.types.is_decimal128,
        pa.types.is_boolean,
    )
    return any(matches(kind) for matches in types)
