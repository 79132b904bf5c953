"""Whether a table's files are still those that were committed.

Owns the comparison of each live file with what the log says of it; changes nothing. Of Delta
tables the engine refuses files of another size by itself.
"""

from collections.abc import Iterator

import pyarrow as pa

from neurolake_dagster.errors import SchemaMismatchError
from neurolake_dagster.tables.schemas import check_fit
from neurolake_dagster.tables.table import Table


def changed_files(table: Table) -> Iterator[str]:
    """Each live file that is not as it was committed, in words.

    A file with a digest in the log is read once, by parts; of the others, which somebody else
    wrote, the size and the columns count.
    """
    snapshot, folder = table.snapshot(), table.folder
    for file in snapshot.files:
        schema, where = snapshot.schemas[file.schema_id].schema, folder.uri(file.path)
        size = folder.size(file.path)
        digest = None if file.digest is None else folder.digest(file.path)
        is_same = (size, digest) == (file.bytes, file.digest)
        if is_same and digest is not None:
            continue
        own = table.files_format.describe(folder, file.path).schema
        if is_same:
            yield from _misfits(own, schema, where)
        else:
            yield (
                f"{where}: changed since its commit: expected "
                f"{_told(file.bytes, file.digest, schema, own)}, got "
                f"{_told(size, digest, own, schema)}"
            )


def _misfits(own: pa.Schema, schema: pa.Schema, where: str) -> Iterator[str]:
    """Why a file's columns are not the table's; narrower types and missing columns are."""
    try:
        check_fit(own, schema, where, may_miss=True)
    except SchemaMismatchError as exc:
        yield str(exc)


def _told(size: int, digest: str | None, schema: pa.Schema, other: pa.Schema) -> str:
    """A file in words: its size, its digest, and the columns that the other has not there."""
    columns = ", ".join(
        f"{field.name!r} {field.type}"
        for place, field in enumerate(schema)
        if not (place < len(other) and field.equals(other.field(place)))
    )
    xxh3 = f" of xxh3 {digest}" if digest else ""
    return f"{size:,} bytes{xxh3}{f' with columns {columns}' if columns else ''}"
