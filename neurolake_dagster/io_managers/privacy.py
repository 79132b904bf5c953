"""What is about persons, and that no error of an asset shows a value of it.

Owns the flags of columns, and the door through which errors of IO managers go.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager

import dagster as dg
import pyarrow as pa

from neurolake_dagster.errors import NeuroLakeError, PredicateError, TableError
from neurolake_dagster.io_managers.values import is_spark

PII_KEYS = (b"ncf.pii", b"pii")


def is_pii(field: pa.Field) -> bool:
    """Whether a field, or one below it, says that it is about persons."""
    flags = [(field.metadata or {}).get(key, b"") for key in PII_KEYS]
    if any(flag.lower() not in (b"", b"0", b"false", b"no") for flag in flags):
        return True
    type_ = field.type
    return any(is_pii(type_.field(number)) for number in range(type_.num_fields))


def has_pii(value: object) -> bool:
    """Whether a column of an output says that it is about persons."""
    if isinstance(value, Mapping):
        return any(map(has_pii, value.values()))
    if is_spark(value):
        names = {key.decode() for key in PII_KEYS}
        return any(names & set(field.metadata or {}) for field in value.schema)  # type: ignore[attr-defined] # a DataFrame
    # Frames of others keep nothing that fields say; a lazy one would run for its schema.
    is_polars = type(value).__module__.startswith("polars")
    schema = None if is_polars else getattr(value, "schema", None)
    return isinstance(schema, pa.Schema) and any(map(is_pii, schema))


@contextmanager
def without_values(where: str, *, is_private: Callable[[], bool]) -> Iterator[None]:
    """Raise errors without what they quote of rows, where an asset is about persons.

    Of others' errors, which may quote anything, only the kind is told.

    Parameters
    ----------
    is_private
        Asked where there is an error.

    Raises
    ------
    TableError
        In place of an error that is neither ours nor Dagster's.
    """
    try:
        yield
    except (dg.DagsterError, dg.Failure, dg.RetryRequested):
        raise
    except Exception as exc:
        if not is_private():
            raise
        if isinstance(exc, PredicateError):
            raise TableError(
                f"{where}: its predicate (where) is not understood, or compares columns with what "
                "they do not hold; it is not shown, since columns are about persons"
            ) from None
        if isinstance(exc, NeuroLakeError):
            raise exc.without_quotes() from None
        raise TableError(
            f"{where}: {_kind(exc)}; what it says may quote rows and is not shown, since columns "
            "are about persons (pii_columns, or their fields); its traceback tells the place"
        ).with_traceback(exc.__traceback__) from None


def _kind(exc: Exception) -> str:
    """An error's type, and by which name Spark knows it."""
    name = f"{type(exc).__module__}.{type(exc).__qualname__}"
    condition = getattr(exc, "getCondition", None)
    told = condition() if callable(condition) else None
    return f"{name} [{told}]" if told else name


def hidden_columns(named: Collection[str], schemas: Collection[pa.Schema]) -> set[str]:
    """The columns of which no value is shown; a name like ``person.mail`` hides ``person``."""
    asked = {part.casefold() for name in named for part in (name, name.split(".")[0])}
    return {
        field.name
        for schema in schemas
        for field in schema
        if field.name.casefold() in asked or is_pii(field)
    }
