"""The one error tree. Owns every exception the package raises; imports nothing.

A leaf exists only where a caller acts differently on it::

    NeuroLakeError
    ├── SettingsError (ValueError)         a setting is unknown, malformed or contradicts another
    ├── UnsupportedTypeError (TypeError)   a Python, Arrow or Spark type we do not take
    ├── PartitionError (ValueError)        rows or keys do not fit the asked partitions
    ├── NCFError (ValueError)
    │   ├── NotNCFError                    the bytes are another format
    │   ├── NCFCorruptError                the bytes are damaged or forged
    │   └── NCFVersionError                written by a newer version, needs a feature we lack
    ├── StorageError (OSError)
    │   ├── StorageNotFoundError (FileNotFoundError)
    │   ├── StorageExistsError (FileExistsError)      put-if-absent lost the race
    │   ├── StorageAccessError (PermissionError)      wrong key, no rights
    │   └── StorageUnavailableError (ConnectionError) refused, timed out, no such bucket
    ├── TableError (ValueError)            a table's log or request is wrong
    │   ├── TableNotFoundError (LookupError)
    │   │   └── PartitionsNotFoundError    the table is there, none of the asked partitions is
    │   ├── PredicateError                 a predicate, which it quotes, is wrong
    │   ├── SchemaMismatchError            the rows' schema is not the table's
    │   └── CommitConflictError            somebody else committed first
    ├── ConversionError (ValueError)       a conversion plan is wrong
    │   └── ParityError                    source and target differ
    └── SparkError (RuntimeError)
        ├── JavaNotFoundError
        ├── JarsNotFoundError
        └── SessionConflictError           a running JVM cannot take these settings

Message form: *where: what is wrong, expected, got*, and what to do about it. What is quoted of
rows, which may be about persons, is no part of it: it stands in a note.
"""

from typing import Self


class NeuroLakeError(Exception):
    """Base of everything this package raises on purpose."""

    def quoting(self, text: object) -> Self:
        """The error with a note that quotes rows, or what others say of them."""
        self.add_note(str(text))
        return self

    def whole(self) -> str:
        """The message and what it quotes, in one line, for who asked for the rows."""
        return ": ".join([str(self), *getattr(self, "__notes__", [])])

    def without_quotes(self) -> Self:
        """The error without its notes."""
        self.__notes__: list[str] = []
        return self


class SettingsError(NeuroLakeError, ValueError):
    """One or more settings are wrong; the message lists all of them."""


class UnsupportedTypeError(NeuroLakeError, TypeError):
    """A Python, Arrow or Spark type that is not taken here; the message names the known ones."""


class PartitionError(NeuroLakeError, ValueError):
    """Rows or keys do not fit the partitions that were asked for."""


class NCFError(NeuroLakeError, ValueError):
    """Base of the format's errors."""


class NotNCFError(NCFError):
    """The bytes are not an NCF file."""


class NCFCorruptError(NCFError):
    """The bytes of an NCF file are damaged or forged.

    Parameters
    ----------
    path
        Name of the source, as the caller gave it.
    reason
        What is wrong, expected and got.
    row_group, column, page
        Where, as far as it is known: indexes from 0 and the column's name.
    """

    def __init__(
        self,
        path: str,
        reason: str,
        *,
        row_group: int | None = None,
        column: str | None = None,
        page: int | None = None,
    ) -> None:
        self.path = path
        self.reason = reason
        self.row_group = row_group
        self.column = column
        self.page = page
        where = [path]
        if row_group is not None:
            where.append(f"row group {row_group}")
        if column is not None:
            where.append(f"column {column!r}")
        if page is not None:
            where.append(f"page {page}")
        super().__init__(f"{', '.join(where)}: {reason}")

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild_corrupt, (self.path, self.reason, self.row_group, self.column, self.page)


def _rebuild_corrupt(
    path: str, reason: str, row_group: int | None, column: str | None, page: int | None
) -> NCFCorruptError:
    return NCFCorruptError(path, reason, row_group=row_group, column=column, page=page)


class NCFVersionError(NCFError):
    """The file needs a version or a feature that this reader does not know."""


class StorageError(NeuroLakeError, OSError):
    """Base of the storage errors."""


class StorageNotFoundError(StorageError, FileNotFoundError):
    """Nothing lies at that location."""


class StorageExistsError(StorageError, FileExistsError):
    """Something lies there already, and the write was to create it."""


class StorageAccessError(StorageError, PermissionError):
    """The credentials are wrong or lack the right."""


class StorageUnavailableError(StorageError, ConnectionError):
    """The store refused the connection, timed out, or has no such bucket."""


class TableError(NeuroLakeError, ValueError):
    """A table's log is damaged, or what is asked of the table is wrong."""


class TableNotFoundError(TableError, LookupError):
    """No table, or no such version of it, lies at that location."""


class PartitionsNotFoundError(TableNotFoundError):
    """The table, or its asked version, is there, but none of the asked partitions is in it."""


class PredicateError(TableError):
    """A predicate is not understood, or does not compare with the columns; it is quoted."""


class SchemaMismatchError(TableError):
    """The rows' schema does not fit the table's."""


class CommitConflictError(TableError):
    """Another commit changed what this one was based on."""


class ConversionError(NeuroLakeError, ValueError):
    """A conversion plan is wrong, or a conversion failed."""


class ParityError(ConversionError):
    """Source and target of a conversion differ."""


class SparkError(NeuroLakeError, RuntimeError):
    """Base of the Spark errors."""


class JavaNotFoundError(SparkError):
    """No Java, or one too old for this Spark."""


class JarsNotFoundError(SparkError):
    """The jars that the settings need are not in the jar folder."""


class SessionConflictError(SparkError):
    """A running JVM cannot take these settings any more."""
