"""NCF as a Spark format: ``spark.read.format("ncf")`` and ``df.write.format("ncf")``.

Owns the options of the format and where its credentials come from. Reading is
`neurolake_dagster.spark.reading`'s, writing `neurolake_dagster.spark.writing`'s.

Options of both: ``endpoint``, ``access_key``, ``secret_key``, ``session_token``, ``region``,
``secure`` of an S3-compatible store; not set, the session's own settings hold.
Of reading: ``path``, ``paths`` (JSON list), ``columns`` (JSON list, or names divided by commas),
``mergeSchema``, ``version`` of a table, ``maxPartitionBytes``, ``where`` (only rows that pass:
comparisons, ``IN``, ``IS NULL``, joined by ``AND``), ``pushdown`` (take the filters of a query).

``pushdown`` is off unless asked for: Spark 4.2 keeps what a query's filters left of a DataFrame
in Python's formats for its next queries too, and for its other uses in the same one, so that
``rows.where(a).union(rows.where(b))`` gives wrong rows. It is right only where a DataFrame is
used once; ``where`` and ``columns`` belong to the DataFrame and are always right.
Of writing: ``path``, ``ifExists`` (``append``, ``error``, ``ignore``), ``partitionBy``,
``partitionOverwriteMode`` (``static``, ``dynamic``).

Every session imports this module to register the format, and few then use it: what reads and
writes is imported by the methods that do.
"""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, ClassVar

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


class NCFDataSource(DataSource):
    """The format ``ncf``. Use `configured` to register it with a session's settings."""

    # Of the session; a class attribute travels to the workers and shows in no plan.
    storage: ClassVar[StorageOptions | None] = None
    parallelism: ClassVar[int] = 8
    pushdown: ClassVar[bool] = True

    @classmethod
    def name(cls) -> str:
        """The name of the format."""
        return "ncf"

    def schema(self) -> StructType:
        """The schema of the files: a table's from its log, else from the footers."""
        import pyarrow as pa

        from neurolake_dagster.spark.locations import read_schema
        from neurolake_dagster.spark.types import spark_schema

        schema = read_schema(self._found(), merge=self._flag("mergeSchema"))
        columns = self._names("columns")
        unknown = [name for name in columns if name not in schema.names]
        if unknown:
            raise TableError(
                f"{self._uris()[0]}: no columns {unknown!r}; expected some of {schema.names!r}"
            )
        return spark_schema(
            pa.schema([schema.field(name) for name in columns]) if columns else schema
        )

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

        found = self._found()
        asked = arrow_schema(schema)
        terms, tested = self._where(found, asked)
        plan = ScanPlan(
            files=found.files,
            table_schema=found.schema,
            schema=pa.schema([*asked, *tested]),
            sent=len(asked),
            parallelism=self.parallelism,
            partition_bytes=int(self.options.get("maxPartitionBytes", PARTITION_BYTES)),
            allows_missing=self._flag("mergeSchema"),
            terms=terms,
        )
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
        storage, name = place_of(uri[0], self._storage_options())
        return NCFTableWriter(
            table=Table(storage, name, "ncf"),
            schema=arrow_schema(schema),
            mode="overwrite" if overwrite else self._mode(),
            partition_by=tuple(self._names("partitionBy")),
            is_dynamic=self.options.get("partitionOverwriteMode", "static").lower() == "dynamic",
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
        asked = str(self.options.get("ifExists", "append")).lower()
        if asked not in IF_EXISTS:
            raise SettingsError(
                f"ncf: option ifExists: expected one of {', '.join(IF_EXISTS)}, got {asked!r}"
            )
        return IF_EXISTS[asked]

    def _found(self) -> "Found":
        from neurolake_dagster.spark.locations import find_files

        version = self.options.get("version")
        return find_files(
            self._uris(), self._storage_options(), None if version is None else int(version)
        )

    def _uris(self) -> list[str]:
        uris = [str(uri) for uri in json.loads(self.options.get("paths", "[]"))]
        path = self.options.get("path")
        uris = [path, *uris] if path else uris
        if not uris:
            raise SettingsError('ncf: no path; expected .load("/folder") or option("path", ...)')
        return uris

    def _names(self, option: str) -> list[str]:
        text = self.options.get(option, "").strip()
        if text.startswith("["):
            return [str(name) for name in json.loads(text)]
        return [name.strip() for name in text.split(",") if name.strip()]

    def _flag(self, option: str) -> bool:
        return str(self.options.get(option, "false")).lower() == "true"

    def _storage_options(self) -> StorageOptions:
        base = self.storage or options_of(StorageSettings.load())
        given = {
            name: self.options[name]
            for name in ("endpoint", "region", *SECRETS)
            if name in self.options
        }
        secure = self._flag("secure") if "secure" in self.options else base.secure
        return StorageOptions(**{**asdict(base), **given, "secure": secure})


def configured(storage: StorageOptions, *, parallelism: int, pushdown: bool) -> type[NCFDataSource]:
    """The format with a session's settings.

    A class of its own, so that Spark sends its attributes along: credentials as options would
    be read in plans and in the UI.

    Parameters
    ----------
    parallelism
        Tasks that the session runs at once.
    pushdown
        Whether Spark is to hand filters down.
    """

    class Configured(NCFDataSource):
        pass

    Configured.storage = storage
    Configured.parallelism = parallelism
    Configured.pushdown = pushdown
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
