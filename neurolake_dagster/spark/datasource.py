"""NCF as a Spark format: ``spark.read.format("ncf")`` and ``df.write.format("ncf")``.

Owns the options of the format and where its credentials come from. Reading is
`neurolake_dagster.spark.reading`'s, writing `neurolake_dagster.spark.writing`'s.

Options of both: ``endpoint``, ``access_key``, ``secret_key``, ``session_token``, ``region``,
``secure`` of an S3-compatible store; not set, the session's own settings hold.
Of reading: ``path``, ``paths`` (JSON list), ``columns`` (JSON list, or names divided by commas),
``mergeSchema``, ``version`` of a table, ``maxPartitionBytes``, ``where`` (only rows that pass:
comparisons, ``IN``, ``IS NULL``, joined by ``AND``), ``pushdown`` (take the filters of a query).
Of writing: ``path``, ``ifExists`` (``append``, ``error``, ``ignore``), ``partitionBy``,
``partitionOverwriteMode`` (``static``, ``dynamic``; else as the session's setting of that name
says). Any other option is refused.

Where `jvm/NCFSource.java` is at hand, that is in each session of ours, a query's columns and
filters are pushed down by themselves, and ``mode`` and ``partitionBy`` of ``df.write`` are enough.
All queries of a DataFrame read the version that a table had when it was loaded, where its schema
was given when it was first queried: no query sees a part of what others commit meanwhile. Files
that are no table's are looked for at each query.

On a foreign Connect server ``columns`` and ``where`` have to be named, and ``pushdown`` is off
unless asked for: Spark 4.2 keeps what a query's filters left of a DataFrame in Python's formats
for its next queries too, so that ``rows.where(a).union(rows.where(b))`` gives wrong rows.

Every session imports this module to register the format, and few then use it: what reads and
writes is imported by the methods that do.
"""

import difflib
import gc
import json
import re
import sys
from collections.abc import Mapping
from dataclasses import asdict
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from pyspark.sql.datasource import DataSource, DataSourceReader, DataSourceWriter
from pyspark.sql.types import StructType

from neurolake_dagster.errors import SettingsError, TableError
from neurolake_dagster.settings import StorageSettings
from neurolake_dagster.storage import StorageOptions

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import SparkSession

    from neurolake_dagster.spark.filters import Term
    from neurolake_dagster.spark.locations import Found
    from neurolake_dagster.tables.table import Mode

# By which jvm/NCFSource.java asks for this class.
INNER_NAME = "ncf_python"
SECRETS = ("access_key", "secret_key", "session_token")
IF_EXISTS: dict[str, "Mode"] = {
    "append": "append",
    "error": "error",
    "errorifexists": "error",
    "ignore": "ignore",
}


OPTIONS = (
    *("path", "paths", "columns", "where", "pushdown", "mergeSchema", "version"),
    *("maxPartitionBytes", "ifExists", "partitionBy", "partitionOverwriteMode"),
    *("endpoint", "region", "secure", *SECRETS),
)
# Options by which Spark itself tells what was asked for, and what there is instead.
REFUSED = {
    "location": "Spark's catalog holds no NCF tables, so CREATE TABLE makes none; read the path: "
    "spark.read.format('ncf').load(path), or in SQL "
    "CREATE TEMPORARY VIEW name USING ncf OPTIONS (path '...')",
    "__clustering_columns": "clusterBy is not supported; sort the rows before they are written, "
    "or use partitionBy",
}


class NCFDataSource(DataSource):
    """The format ``ncf``. Use `configured` to register it with a session's settings.

    Raises
    ------
    SettingsError
        If an option is unknown, or has a value that it cannot have.
    """

    # Of the session; a class attribute travels to the workers and shows in no plan.
    storage: ClassVar[StorageOptions | None] = None
    buckets: ClassVar[Mapping[str, StorageOptions]] = {}
    parallelism: ClassVar[int] = 8
    pushdown: ClassVar[bool] = True
    folder: ClassVar[str | None] = ""

    def __init__(self, options: dict[str, str]) -> None:
        super().__init__(options)
        known = {name.lower(): name for name in OPTIONS}
        for name, reason in REFUSED.items():
            if name in options:
                raise SettingsError(f"ncf: {reason}")
        for name in options:
            if name.lower() not in known:
                near = difflib.get_close_matches(name.lower(), known, 1) or list(known)
                raise SettingsError(
                    f"ncf: unknown option {name!r}; did you mean "
                    f"{' or '.join(known[one] for one in near)}?"
                )
        self._versions: dict[str, int] = {}
        if "pushdown" in options:
            # Said by jvm/NCFSource.java, which reads only; it asks no schema where one is given.
            self._versions = self._found.versions

    def __getstate__(self) -> dict[str, Any]:
        """Without the files, which may be many: Spark keeps this for all queries of a DataFrame."""
        return {name: value for name, value in vars(self).items() if name != "_found"}

    @classmethod
    def name(cls) -> str:
        """The name of the format."""
        return "ncf"

    def schema(self) -> StructType:
        """The schema of the files: a table's from its log, else from the footers."""
        import pyarrow as pa

        from neurolake_dagster.spark.locations import read_schema
        from neurolake_dagster.spark.types import match_names, spark_schema

        merge = self._flag("mergeSchema")
        self._versions = self._found.versions
        schema = read_schema(self._found, merge=merge)
        columns = self._names("columns")
        held = match_names(columns, schema.names, self._uris()[0])
        unknown = [name for name, found in zip(columns, held, strict=True) if found is None]
        if unknown:
            raise TableError(
                f"{self._uris()[0]}: no columns {unknown!r}; expected some of {schema.names!r}"
            )
        _freeze_imports()
        return spark_schema(pa.schema([schema.field(name) for name in held]) if held else schema)

    def reader(self, schema: StructType) -> DataSourceReader:
        """A reader of the schema's columns only."""
        import pyarrow as pa

        from neurolake_dagster.spark.reading import (
            PARTITION_BYTES,
            FilteringReader,
            NCFReader,
            ScanPlan,
        )
        from neurolake_dagster.spark.types import arrow_schema

        found = self._found
        asked = arrow_schema(schema)
        terms, tested = self._where(found, asked)
        plan = ScanPlan(
            files=found.files,
            table_schema=found.schema,
            schema=pa.schema([*asked, *tested]),
            sent=len(asked),
            parallelism=self.parallelism,
            partition_bytes=self._number("maxPartitionBytes") or PARTITION_BYTES,
            allows_missing=self._flag("mergeSchema"),
            terms=terms,
        )
        _freeze_imports()
        takes_filters = self.pushdown and self._flag("pushdown")
        return FilteringReader(plan) if takes_filters else NCFReader(plan)

    def writer(self, schema: StructType, overwrite: bool) -> DataSourceWriter:
        """A writer of one table; what it writes shows by one commit, or never."""
        from neurolake_dagster.spark.locations import place_of
        from neurolake_dagster.spark.types import arrow_schema
        from neurolake_dagster.spark.writing import NCFTableWriter
        from neurolake_dagster.tables import Table

        uri = self._uris()
        if len(uri) != 1:
            raise SettingsError(f"ncf: one path is written at a time, got {uri!r}")
        storage, name = place_of(uri[0], self._storage_options(uri[0]))
        _freeze_imports()
        return NCFTableWriter(
            table=Table(storage, name, "ncf"),
            schema=arrow_schema(schema, is_stored=True),
            mode="overwrite" if overwrite else self._mode(),
            partition_by=tuple(self._names("partitionBy")),
            is_dynamic=self._one_of("partitionOverwriteMode", "static", "dynamic") == "dynamic",
        )

    def _where(
        self, found: "Found", asked: "pa.Schema"
    ) -> "tuple[tuple[Term, ...], list[pa.Field]]":
        """The terms of ``where``, and the columns they test that are not asked for."""
        from neurolake_dagster.spark.filters import read_where
        from neurolake_dagster.spark.locations import read_schema
        from neurolake_dagster.spark.types import arrow_schema, spark_schema
        from neurolake_dagster.tables.predicate import read_predicate

        where = self.options.get("where")
        if where is None:
            return (), []
        tested = []
        more = [name for name in read_predicate(where).columns() if name not in asked.names]
        if more:
            held = read_schema(found, merge=self._flag("mergeSchema"))
            held = arrow_schema(spark_schema(held))
            tested = [held.field(name) for name in more if name in held.names]
        return read_where(where, {one.name: one.type for one in [*asked, *tested]}), tested

    def _mode(self) -> "Mode":
        return IF_EXISTS[self._one_of("ifExists", *IF_EXISTS)]

    @cached_property
    def _found(self) -> "Found":
        from neurolake_dagster.spark.locations import find_files

        uris = self._uris()
        options = {self._storage_options(uri) for uri in uris}
        if len(options) > 1:
            raise TableError(
                f"{', '.join(uris)}: buckets that are reached in other ways cannot be read in one "
                "go; read them one by one and union them"
            )
        version = self._number("version")
        return find_files(uris, options.pop(), version, versions=self._versions)

    def _uris(self) -> list[str]:
        path = self.options.get("path")
        uris = [*([path] if path else []), *self._list("paths", self.options.get("paths", "[]"))]
        if not uris:
            raise SettingsError('ncf: no path; expected .load("/folder") or option("path", ...)')
        return [self._absolute(uri) for uri in uris]

    def _absolute(self, uri: str) -> str:
        """A path below the session's folder; a server's workers run in one that goes with it."""
        if self.folder == "" or uri.startswith("/") or re.match(r"\w+:", uri):
            return uri
        if self.folder is None:
            raise SettingsError(
                f"ncf: {uri}: expected an absolute path or s3://bucket/..., for a Connect server "
                "has no working directory of yours"
            )
        return f"{self.folder}/{uri}"

    def _names(self, option: str) -> list[str]:
        text = self.options.get(option, "").strip()
        if text.startswith("["):
            return self._list(option, text)
        return [name.strip() for name in text.split(",") if name.strip()]

    def _list(self, option: str, text: str) -> list[str]:
        try:
            return [str(name) for name in json.loads(text)]
        except ValueError as exc:
            raise SettingsError(
                f"ncf: option {option}: expected a JSON list, got {text!r}"
            ) from exc

    def _flag(self, option: str) -> bool:
        return self._one_of(option, "false", "true") == "true"

    def _one_of(self, option: str, default: str, *others: str) -> str:
        value = str(self.options.get(option, default)).lower()
        if value not in (default, *others):
            raise SettingsError(
                f"ncf: option {option}: expected {' or '.join((default, *others))}, got {value!r}"
            )
        return value

    def _number(self, option: str) -> int | None:
        text = self.options.get(option)
        if text is not None and not text.isdecimal():
            raise SettingsError(f"ncf: option {option}: expected a whole number, got {text!r}")
        return None if text is None else int(text)

    def _storage_options(self, uri: str) -> StorageOptions:
        base = self.storage or options_of(StorageSettings.load())
        bucket = re.match(r"s3a?://([^/]+)", uri)
        if bucket is not None:
            base = self.buckets.get(bucket[1], base)
        given = {
            name: self.options[name]
            for name in ("endpoint", "region", *SECRETS)
            if name in self.options
        }
        secure = self._flag("secure") if "secure" in self.options else base.secure
        return StorageOptions(**{**asdict(base), **given, "secure": secure})


@cache
def _freeze_imports() -> None:
    """Take what is loaded out of garbage collection, in the workers that Spark plans with.

    They are forked from Spark's own daemon, whatever `spark.daemon` is set to, and it collects
    after each call: of all these modules, for 50 ms of a core that the query needs.
    """
    if getattr(sys.modules["__main__"].__spec__, "name", None) == "pyspark.daemon":
        gc.freeze()


def configured(
    storage: StorageOptions,
    *,
    parallelism: int,
    pushdown: bool,
    folder: str | None = "",
    buckets: Mapping[str, StorageOptions] | None = None,
) -> type[NCFDataSource]:
    """The format with a session's settings.

    A class of its own, so that Spark sends its attributes along: credentials as options would
    be read in plans and in the UI.

    Parameters
    ----------
    parallelism
        Tasks that the session runs at once.
    pushdown
        Whether Spark is to hand filters down.
    folder
        Where relative paths begin: empty is the working directory of Spark's Python; None, that
        there are none.
    buckets
        How single buckets are reached that have options of their own.
    """

    class Configured(NCFDataSource):
        pass

    Configured.storage = storage
    Configured.buckets = dict(buckets or {})
    Configured.parallelism = parallelism
    Configured.pushdown = pushdown
    Configured.folder = folder
    return Configured


def register(session: "SparkSession", source: type[NCFDataSource]) -> None:
    """Offer the format to a session: under its name, and to `jvm/NCFSource.java` under its own.

    Where Spark has that class, ``ncf`` is it: it brings a query's columns and filters here, and
    takes batches as they are. A foreign Connect server has not; there ``ncf`` is this class.
    """
    from pyspark.errors import AnalysisException

    class Inner(source):  # type: ignore[misc, valid-type]
        @classmethod
        def name(cls) -> str:
            return INNER_NAME

    session.dataSource.register(Inner)
    try:
        session.dataSource.register(source)
    except AnalysisException as exc:
        if exc.getCondition() != "DATA_SOURCE_ALREADY_EXISTS":
            raise


def options_of(settings: StorageSettings) -> StorageOptions:
    """The settings as the storage takes them."""
    keys = {
        name: secret.get_secret_value()
        for name in SECRETS
        if (secret := getattr(settings, name)) is not None
    }
    return StorageOptions(
        endpoint=settings.endpoint, region=settings.region, secure=settings.uses_tls, **keys
    )
