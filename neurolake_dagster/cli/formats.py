"""Which format a file has, and its rows in and out of it: the file tools' only reader and writer.

Rows stream through as Arrow record batches in bounded memory. pyarrow's own errors become one
line here; NCF's are clear already.
"""

import functools
import io
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any, Literal

import click
import pyarrow as pa
import pyarrow.ipc as pa_ipc
import pyarrow.parquet as pq

from neurolake_dagster import ncf
from neurolake_dagster.cli.arrow_writer import ArrowWriter
from neurolake_dagster.cli.csv_text import open_csv, read_types
from neurolake_dagster.ncf.sink import PathSink

Format = Literal["ncf", "parquet", "arrow", "csv"]

LABELS: dict[str, str] = {"ncf": "NCF", "parquet": "Parquet", "arrow": "Arrow IPC", "csv": "CSV"}
SUFFIXES: dict[str, Format] = {
    ".ncf": "ncf",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".ipc": "arrow",
    ".arrows": "arrow",
    ".csv": "csv",
}
_ENCRYPTED_MAGIC = b"PARE"
# Behind a footer that is plain though columns are encrypted: its signature, in bytes.
_SIGNATURE_BYTES = 28
_STREAM_MAGIC = b"\xff\xff\xff\xff"
_MAGIC: dict[bytes, Format] = {
    b"NCF": "ncf",
    b"PAR1": "parquet",
    b"ARROW1": "arrow",
    _STREAM_MAGIC: "arrow",
}


def detect_format(path: Path) -> Format:
    """Tell a file's format by its first bytes; CSV has none, so there its name decides."""
    if not path.is_file():
        raise click.ClickException(
            f"{path}: a pipe or a device, expected a file, which is read from its end; "
            "save it to one first"
        )
    with path.open("rb") as file:
        start = file.read(6)
    for magic, name in _MAGIC.items():
        if start.startswith(magic):
            return name
    if start.startswith(_ENCRYPTED_MAGIC):
        raise _encrypted(path)
    if SUFFIXES.get(path.suffix.lower()) == "csv":
        return "csv"
    raise click.ClickException(
        f"{path}: neither NCF, Parquet nor Arrow IPC by its first bytes {start!r}, "
        "and not named .csv"
    )


def _encrypted(path: Path) -> click.ClickException:
    return click.ClickException(
        f"{path}: encrypted Parquet, for which no keys are known here; expected columns that "
        "anyone can read; decrypt it with the tool that wrote it"
    )


@contextmanager
def translated(path: Path, *, write: bool = False) -> Iterator[None]:
    """Word what pyarrow and the file system say about `path` as one line."""
    try:
        yield
    except BrokenPipeError:
        raise  # whoever read our output has enough of it: click ends quietly
    except pa.ArrowException as exc:
        ability = "writable" if write else "readable"
        raise click.ClickException(f"{path}: not {ability}: {exc}") from exc
    except UnicodeDecodeError as exc:
        raise click.ClickException(
            f"{path}: expected names and texts in UTF-8, got {exc.object[:40]!r}; write it anew "
            "in UTF-8 (of Latin-1: iconv -f latin1 -t utf-8)"
        ) from exc
    except KeyError as exc:
        raise click.ClickException(f"{path}: {exc.args[0]}") from exc
    except OSError as exc:
        raise click.ClickException(f"{path}: {exc.strerror or exc}") from exc


_Opened = tuple[pa.Schema, Iterator[pa.RecordBatch]]
_Rows = Iterator[_Opened]


@contextmanager
def open_rows(
    path: Path, columns: Sequence[str] | None = None, row_limit: int | None = None
) -> _Rows:
    """Open any file that `detect_format` knows, as a schema and its record batches.

    Parameters
    ----------
    columns
        Names in the order wanted; None is all.
    row_limit
        How many rows will be taken, so that CSV behind them need not be looked at.
    """
    opener: dict[Format, Callable[..., AbstractContextManager[_Opened]]] = {
        "ncf": _ncf_rows,
        "parquet": _parquet_rows,
        "arrow": _arrow_rows,
        "csv": functools.partial(_csv_rows, row_limit=row_limit),
    }
    wanted = None if columns is None else list(columns)
    with translated(path), opener[detect_format(path)](path, wanted) as (schema, batches):
        yield schema, _translated_batches(path, batches)


def _translated_batches(path: Path, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Blame the source for its faults, also where the target's writer asks for the next batch."""
    with translated(path):
        yield from batches


@contextmanager
def _ncf_rows(path: Path, columns: list[str] | None) -> _Rows:
    with ncf.NCFFile(path) as file:
        yield _selected(file.schema, columns), file.iter_batches(columns=columns)


@contextmanager
def open_parquet(path: Path) -> Iterator[pq.ParquetFile]:
    """Open a Parquet file without encrypted columns: asking for their metadata ends the process."""
    with path.open("rb") as raw, pq.ParquetFile(raw, page_checksum_verification=True) as file:
        raw.seek(-8, os.SEEK_END)
        footer_bytes = int.from_bytes(raw.read(4), "little")
        if footer_bytes - file.metadata.serialized_size == _SIGNATURE_BYTES:
            raise _encrypted(path)
        yield file


@contextmanager
def _parquet_rows(path: Path, columns: list[str] | None) -> _Rows:
    with open_parquet(path) as file:
        schema = _selected(file.schema_arrow, columns)
        batches = file.iter_batches(columns=columns, batch_size=131_072)
        yield schema, _select(batches, columns)


@contextmanager
def open_arrow(path: Path) -> Iterator[tuple[str, pa.Schema, Iterator[pa.RecordBatch]]]:
    """Open an Arrow IPC file or stream: which of the two it is, its schema and its batches."""
    with pa.memory_map(os.fspath(path)) as source:
        if source.read(len(_STREAM_MAGIC)) == _STREAM_MAGIC:
            source.seek(0)
            with pa_ipc.open_stream(source) as stream:
                yield "stream", stream.schema, iter(stream)
            return
        with pa_ipc.open_file(source) as file:
            batches = (file.get_batch(index) for index in range(file.num_record_batches))
            yield "file", file.schema, batches


@contextmanager
def _arrow_rows(path: Path, columns: list[str] | None) -> _Rows:
    with open_arrow(path) as (_, whole, batches):
        schema = _selected(whole, columns)
        yield schema, _select(batches, columns)


@contextmanager
def _csv_rows(path: Path, columns: list[str] | None, row_limit: int | None) -> _Rows:
    with open_csv(path, read_types(path, row_limit)) as file:
        schema = _selected(file.schema, columns)
        yield schema, _select(file, columns)


def _selected(schema: pa.Schema, columns: list[str] | None) -> pa.Schema:
    names = schema.names  # decodes them: names that are not UTF-8 fail here
    if columns is None:
        return schema
    if unknown := [name for name in columns if name not in names]:
        raise KeyError(f"no columns {unknown}, it has {names}")
    if twice := [name for name in columns if names.count(name) > 1]:
        raise KeyError(f"columns {twice} are there more than once; leave -c out to take all")
    return pa.schema([schema.field(name) for name in columns], schema.metadata)


def _select(
    batches: Iterable[pa.RecordBatch], columns: list[str] | None
) -> Iterator[pa.RecordBatch]:
    """Bring the columns into the order wanted; all are not chosen by name, which may be double."""
    return (batch if columns is None else batch.select(columns) for batch in batches)


def check_options(kind: Format, options: dict[str, Any]) -> None:
    """Refuse a compression or level that the format's writer does not take, by a trial."""
    row = pa.record_batch({"n": [1]})
    try:
        with _open_writer(io.BytesIO(), kind, row.schema, options) as writer:
            _row_writer(writer)(row)
    except (pa.ArrowException, ValueError, OSError) as exc:
        raise click.UsageError(f"{LABELS[kind]}: {exc}") from exc


class RowWriter:
    """Writes record batches to a file that appears when all went well.

    Parameters
    ----------
    path
        The target; it keeps what it held until then, also when the process dies.
    kind
        "ncf", "parquet" or "arrow".
    options
        Keyword arguments of `ncf.NCFWriter`, or `compression` for the others.
    """

    def __init__(self, path: Path, kind: Format, schema: pa.Schema, options: dict[str, Any]):
        self._sink = PathSink(str(path))
        with ExitStack() as failed:
            failed.callback(self._sink.discard)
            self._writer = _open_writer(self._sink.file, kind, schema, options)
            failed.pop_all()
        self._write = _row_writer(self._writer)

    def write(self, batch: pa.RecordBatch) -> None:
        """Append one batch."""
        self._write(batch)

    def __enter__(self) -> "RowWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        with ExitStack() as failed:
            failed.callback(self._sink.discard)
            self._writer.__exit__(kind, *rest)
            if kind is None:
                failed.pop_all()
                self._sink.publish()


def _open_writer(file: Any, kind: Format, schema: pa.Schema, options: dict[str, Any]) -> Any:
    if kind == "ncf":
        return ncf.NCFWriter(file, schema, **options)
    if kind == "parquet":
        return pq.ParquetWriter(
            file,
            schema,
            compression=options.get("compression", "zstd"),
            compression_level=options.get("compression_level"),
            write_page_checksum=True,
        )
    name, level = options.get("compression", "zstd"), options.get("compression_level")
    codec = None if name == "none" else pa.Codec(name.lower(), compression_level=level)
    return ArrowWriter(file, schema, codec)


def _row_writer(writer: Any) -> Any:
    return getattr(writer, "write_batch", None) or writer.write
