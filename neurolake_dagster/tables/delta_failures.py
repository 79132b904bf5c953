"""Every failure of deltalake as one of our errors; types that Delta lacks."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise

import pyarrow as pa
from deltalake.exceptions import (
    CommitFailedError,
    DeltaError,
    DeltaProtocolError,
    SchemaMismatchError as DeltaSchemaMismatchError,
    TableNotFoundError as DeltaTableNotFoundError,
)

from neurolake_dagster.errors import (
    CommitConflictError,
    NeuroLakeError,
    SchemaMismatchError,
    TableError,
    TableNotFoundError,
)
from neurolake_dagster.storage import translated as translated_storage

# Of a failure to write a data file, deltalake tells as of one of the file.
_STORE_FAILED = ": Error performing "
_TOO_LONG = "File name too long"
_BROKEN = re.compile(r"(\d+) rows failed validation check")


@contextmanager
def translated(uri: str) -> Iterator[None]:
    """Turn deltalake's errors into ours, once."""
    try:
        yield
    except NeuroLakeError:
        raise
    except OSError:
        with translated_storage(uri):
            raise
    except DeltaTableNotFoundError as exc:
        raise TableNotFoundError(f"{uri}: no Delta table or no such version: {exc}") from exc
    except DeltaSchemaMismatchError as exc:
        raise SchemaMismatchError(f"{uri}: the rows do not fit the table's schema").quoting(
            exc
        ) from exc
    except CommitFailedError as exc:
        if "Table features" in str(exc):
            raise SchemaMismatchError(f"{uri}: the table lacks what the rows need: {exc}") from exc
        raise CommitConflictError(f"{uri}: another commit came first: {exc}") from exc
    except (DeltaError, DeltaProtocolError) as exc:
        text = str(exc)
        if _TOO_LONG in text:
            raise long_folder(uri) from None
        if _STORE_FAILED in text:
            with translated_storage(uri):
                raise OSError(text) from exc
        broken = _BROKEN.search(text)
        if broken is not None:
            # The engine shows whole rows, which may be about persons.
            raise TableError(
                f"{uri}: {broken[1]} rows failed the table's constraints; nothing was changed, "
                "correct them or leave them out"
            ) from None
        if "required 'timestampNtz' feature" in text:
            raise TableError(
                f"{uri}: deltalake makes no table whose only times without a zone are in maps; "
                "give them the zone UTC, or keep them in structs"
            ) from exc
        # The rest is a backtrace of the engine's.
        told = text.partition("\n   0: ")[0]
        raise TableError(f"{uri}: deltalake refuses to go on").quoting(told) from exc


def long_folder(where: str) -> TableError:
    """The error for partition values, as the table's folders have them, that no disk takes."""
    return TableError(
        f"{where}: a value of a partition column is longer than the name of a folder can be, 255 "
        "bytes with the column's name (all but letters and digits may take 3 a byte); nothing was "
        'changed, shorten it, or make the table with other columns: {"partition_columns": []}'
    )


def check_types(schema: pa.Schema, uri: str) -> None:
    """Refuse types that Delta lacks: deltalake raises a bare `Exception` for them."""
    if not schema.names:
        raise TableError(f"{uri}: Delta has no tables without columns; give the rows one")
    names = sorted(schema.names, key=str.lower)
    alike = [pair for pair in pairwise(names) if pair[0].lower() == pair[1].lower()]
    if alike:
        raise TableError(
            f"{uri}: Delta tells columns {alike[0]!r} not apart, whose names differ by case; "
            "rename one"
        )
    lacking = [f"{field.name!r} is {field.type}" for field in schema if _is_lacking(field.type)]
    if lacking:
        raise TableError(
            f"{uri}: Delta has no such types: columns {', '.join(lacking)}; cast them first"
        )


def _is_lacking(type_: pa.DataType) -> bool:
    if pa.types.is_dictionary(type_) or pa.types.is_run_end_encoded(type_):
        return _is_lacking(type_.value_type)
    if isinstance(type_, pa.BaseExtensionType):
        # The values come back in a storage that the type does not take.
        return _is_lacking(type_.storage_type) or not _is_kept(type_.storage_type)
    if pa.types.is_struct(type_) and type_.num_fields == 0:
        return True
    if pa.types.is_nested(type_) and not pa.types.is_union(type_):
        return any(_is_lacking(type_.field(index).type) for index in range(type_.num_fields))
    if pa.types.is_decimal(type_):
        return bool(type_.bit_width > 128 or type_.scale < 0)
    return any(is_one(type_) for is_one in _LACKING)


def _is_kept(storage: pa.DataType) -> bool:
    return not (pa.types.is_fixed_size_binary(storage) or pa.types.is_fixed_size_list(storage))


_LACKING = (
    pa.types.is_duration,
    pa.types.is_time,
    pa.types.is_interval,
    pa.types.is_float16,
    pa.types.is_union,
)
