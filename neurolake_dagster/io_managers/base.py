"""What the IO managers of all formats share: the way from a Dagster context to a plan and back.

Owns how settings are found. One order, everywhere: what the run said (output metadata) is
stronger than what the asset's definition says, which is stronger than the manager's config.
Knows no format: subclasses write and read.
"""

import time
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Literal, get_args

import dagster as dg
import pyarrow as pa
from pydantic import Field

from neurolake_dagster.errors import PartitionError, TableError, TableNotFoundError
from neurolake_dagster.io_managers.metadata import partitions_metadata, table_metadata
from neurolake_dagster.io_managers.partitions import scope_of
from neurolake_dagster.io_managers.paths import dataset_path
from neurolake_dagster.io_managers.values import (
    Peek,
    Wanted,
    from_arrow,
    is_spark,
    to_arrow,
    wanted_type,
)
from neurolake_dagster.resources import SparkResource, StorageResource
from neurolake_dagster.storage import Storage
from neurolake_dagster.tables.predicate import Predicate, read_predicate
from neurolake_dagster.tables.scope import Scope

# Metadata that differs between the partitions of a single run: rows and bytes of each.
PER_PARTITION = ("dagster/partition_row_count", "bytes")
Mode = Literal["overwrite", "append", "error", "ignore", "merge"]
MODES = (*get_args(Mode), "create_or_replace")


@dataclass(frozen=True, kw_only=True)
class WritePlan:
    """One output: where it goes, and how.

    Parameters
    ----------
    path
        The asset's folder below the storage's root.
    scope
        The partitions it replaces; None for an asset without partitions.
    transaction
        For an append or merge, the same for a run and its re-executions: it is carried out once.
    """

    where: str
    path: str
    scope: Scope | None
    mode: Mode
    transaction: str | None
    properties: Mapping[str, str]
    merge_keys: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ReadPlan:
    """One input: what is read of which place.

    Parameters
    ----------
    scope
        None reads all.
    allow_missing
        Partitions that were never written give no rows instead of an error.
    """

    name: str
    path: str
    scope: Scope | None = None
    columns: tuple[str, ...] | None = None
    where: Predicate | None = None
    version: int | datetime | None = None
    allow_missing: bool = False


@dataclass(frozen=True, kw_only=True)
class Written:
    """What a write did, as its commit and footers tell.

    Parameters
    ----------
    row_count
        Of the whole table; None where the format does not tell.
    written_rows, bytes, files
        Of this write.
    data_version
        The same for the same rows; None where that is not known.
    by_partition
        Rows and bytes of each partition written; bytes are None where files hold several.
    """

    uri: str
    version: int
    schema: pa.Schema
    row_count: int | None
    written_rows: int | None
    bytes: int
    files: int
    by_partition: Mapping[str, tuple[int, int | None]] = field(default_factory=dict)
    preview: pa.Table | None = None
    replaced: str = ""
    metrics: Mapping[str, int] = field(default_factory=dict)
    data_version: str | None = None


class LakehouseIOManager(dg.ConfigurableIOManager):
    """Assets as tables of one format below a storage's root."""

    storage: dg.ResourceDependency[StorageResource]
    spark: SparkResource | None = Field(
        default=None, description="For assets that take or return Spark DataFrames."
    )
    mode: str = Field(
        default="overwrite",
        description=f"What a write does to what is there: one of {MODES}.",
    )

    def handle_output(self, context: dg.OutputContext, obj: Any) -> None:
        """Write an output in one commit and describe it on the materialization."""
        started = time.perf_counter()
        plan = self._write_plan(context)
        if is_spark(obj):
            written = self._write_spark(plan, obj)
        elif isinstance(obj, dict) and plan.scope is not None:
            written = self._write_arrow(plan, _by_partition(obj, plan))
        else:
            peek = Peek(to_arrow(obj, plan.where))
            written = replace(self._write_arrow(plan, peek.data), preview=peek.rows)
        found = _described(context, plan, written, time.perf_counter() - started)
        if len(written.by_partition) > 1:
            found |= partitions_metadata(
                [
                    {"partition": key, "rows": count, "bytes": size}
                    for key, (count, size) in written.by_partition.items()
                ]
            )
            _describe_partitions(context, written)
            # The whole run's numbers would hide each partition's own.
            found = {key: value for key, value in found.items() if key not in PER_PARTITION}
        context.add_output_metadata(found)
        is_one = plan.scope is None or len(plan.scope.keys) == 1
        if written.data_version is not None and context.has_asset_key and is_one:
            version = dg.DataVersion(written.data_version)
            context.step_context.set_data_version(context.asset_key, version)

    def load_input(self, context: dg.InputContext) -> Any:
        """Read an input in the type that its annotation asks for."""
        wanted = wanted_type(context.dagster_type.typing_type, _input_name(context))
        plan = self._read_plan(context, wanted)
        if not wanted.is_by_partition:
            return self._load(plan, wanted)
        if plan.scope is None:
            raise PartitionError(f"{plan.name}: dict[str, ...] is for partitioned assets only")
        plans = {one.keys[0].name: replace(plan, scope=one) for one in plan.scope.single()}
        return {
            name: self._load(one, wanted)
            for name, one in plans.items()
            if not plan.allow_missing or self._has_partition(one)
        }

    def dataset_storage(self) -> Storage:
        """The storage that the assets lie in."""
        return self.storage.storage()

    @abstractmethod
    def _write_arrow(
        self, plan: WritePlan, data: "pa.Table | pa.RecordBatchReader | Mapping[str, pa.Table]"
    ) -> Written:
        """Write Arrow rows; a mapping holds them by partition key."""

    @abstractmethod
    def _write_spark(self, plan: WritePlan, frame: Any) -> Written:
        """Write a Spark DataFrame."""

    @abstractmethod
    def _read_arrow(self, plan: ReadPlan) -> pa.RecordBatchReader:
        """Open the rows; `TableNotFoundError` where there are none."""

    @abstractmethod
    def _read_spark(self, plan: ReadPlan, session: Any) -> Any:
        """Open the rows as a Spark DataFrame."""

    @abstractmethod
    def _has_partition(self, plan: ReadPlan) -> bool:
        """Whether the one partition in scope was written."""

    def _load(self, plan: ReadPlan, wanted: Wanted) -> Any:
        """Read a value; before the first partition of an asset that reads its own past, none."""
        is_before_first = plan.scope is not None and not plan.scope.keys
        if is_before_first and wanted.is_optional:
            return None
        try:
            if wanted.is_spark:
                return self._read_spark(plan, self._session(plan.name))
            return from_arrow(self._read_arrow(plan), wanted.type)
        except TableNotFoundError:
            if wanted.is_optional:
                return None
            if is_before_first and not wanted.is_spark:
                return from_arrow(pa.RecordBatchReader.from_batches(pa.schema([]), []), wanted.type)
            raise

    def _session(self, where: str) -> Any:
        if self.spark is None:
            raise TableError(
                f"{where}: a Spark DataFrame is asked for, but {type(self).__name__} has no "
                "Spark; give it spark=SparkResource()"
            )
        return self.spark.session(self.storage)

    def _write_plan(self, context: dg.OutputContext) -> WritePlan:
        definition = context.definition_metadata or {}
        where, path = _output_place(context)
        scope = None
        if context.has_asset_partitions:
            keys = [str(key) for key in context.asset_partition_keys]
            scope = scope_of(context.asset_partitions_def, context.asset_partition_keys, definition)
        else:
            keys = []
        step = context.step_context
        mode = self._mode(context, where)
        root_run = step.dagster_run.root_run_id or step.run_id
        transaction = "/".join([root_run, step.step.key, context.name, *keys])
        return WritePlan(
            where=where,
            path=path,
            scope=scope,
            mode=mode,
            transaction=transaction if mode in ("append", "merge") else None,
            merge_keys=self._merge_keys(context, where) if mode == "merge" else (),
            properties={
                "dagster/run_id": step.run_id,
                "dagster/step_key": step.step.key,
                "dagster/partition": ", ".join(keys)
                if len(keys) <= 3
                else f"{keys[0]}...{keys[-1]}",
            },
        )

    def _mode(self, context: dg.OutputContext, where: str) -> Mode:
        asked = _strongest(
            ("mode", "write_mode"), context.output_metadata or {}, context.definition_metadata or {}
        )
        name = getattr(asked, "value", asked) or self.mode
        if name == "create_or_replace":
            if context.has_asset_partitions:
                raise TableError(
                    f"{where}: mode 'create_or_replace' would drop all partitions of the asset; "
                    "use 'overwrite', which replaces those of the run"
                )
            return "overwrite"
        for known in get_args(Mode):
            if name == known:
                return known  # type: ignore[no-any-return]
        raise TableError(f"{where}: mode {name!r}, expected one of {MODES}")

    def _merge_keys(self, context: dg.OutputContext, where: str) -> tuple[str, ...]:
        keys = _strongest(
            ("merge_keys",), context.output_metadata or {}, context.definition_metadata or {}
        )
        if isinstance(keys, str):
            return (keys,)
        if not keys:
            raise TableError(
                f'{where}: mode "merge" needs the columns that identify a row, in the asset\'s '
                'metadata: {"merge_keys": ["id"]}'
            )
        return tuple(str(key) for key in keys)

    def _read_plan(self, context: dg.InputContext, wanted: Wanted) -> ReadPlan:
        metadata = context.definition_metadata or {}
        where = _input_name(context)
        columns = metadata.get("columns")
        plan = ReadPlan(
            name=where,
            path=_input_path(context),
            columns=None if columns is None else tuple(columns),
            where=read_predicate(metadata["where"]) if metadata.get("where") else None,
            version=_asked_version(metadata, where),
            allow_missing=bool(metadata.get("allow_missing_partitions")) or wanted.is_optional,
        )
        if not context.has_asset_partitions:
            return plan
        upstream = context.upstream_output
        definition = context.asset_partitions_def
        keys = _keys_of_run(context) or context.asset_partition_keys
        scope = scope_of(definition, keys, (upstream and upstream.definition_metadata) or {})
        covers_all = len(keys) >= len(
            definition.get_partition_keys(dynamic_partitions_store=context.instance)
        )
        allow_missing = plan.allow_missing or (covers_all and len(keys) > 1)
        return replace(plan, scope=scope, allow_missing=allow_missing)


def _described(
    context: dg.OutputContext, plan: WritePlan, written: Written, seconds: float
) -> dict[str, Any]:
    """The metadata of one write."""
    definition = context.definition_metadata or {}
    found: dict[str, Any] = table_metadata(
        uri=written.uri,
        schema=written.schema,
        row_count=written.row_count,
        partition_row_count=None if plan.scope is None else written.written_rows,
        bytes=written.bytes,
        seconds=seconds,
        files=written.files,
        version=written.version,
        table_name=".".join(plan.path.split("/")),
        preview=written.preview,
        column_descriptions=definition.get("column_descriptions"),
        pii_columns=definition.get("pii_columns", ()),
    )
    found |= {name: dg.MetadataValue.int(count) for name, count in written.metrics.items()}
    if written.replaced:
        found["replaced"] = dg.MetadataValue.text(written.replaced)
    return found


def _describe_partitions(context: dg.OutputContext, written: Written) -> None:
    """Record rows and bytes of each partition of a single run on its own materialization."""
    if not context.has_asset_key:
        return
    for key, (count, size) in written.by_partition.items():
        told = zip(PER_PARTITION, (count, size), strict=True)
        context.step_context.add_asset_metadata(
            {name: value for name, value in told if value is not None}, context.asset_key, key
        )


def missing_partitions(where: str, missing: Sequence[str], written: int) -> PartitionError:
    """The error for partitions that an input needs and nobody wrote."""
    shown = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
    return PartitionError(
        f"{where}: {len(missing)} partitions were never written: {shown} ({written} others were); "
        'materialize them, or set metadata={"allow_missing_partitions": True} on the AssetIn'
    )


def _by_partition(values: Mapping[Any, Any], plan: WritePlan) -> dict[str, pa.Table]:
    """A ``dict`` output: one value for each partition key of the run."""
    assert plan.scope is not None
    asked = {key.name for key in plan.scope.keys}
    if set(values) != asked:
        raise PartitionError(
            f"{plan.where}: a dict with keys {sorted(map(str, values))!r} was returned, expected "
            f"exactly the partitions of the run, {sorted(asked)!r}"
        )
    found = {}
    for name, value in values.items():
        data = to_arrow(value, plan.where)
        found[str(name)] = data if isinstance(data, pa.Table) else data.read_all()
    return found


def _strongest(names: Sequence[str], *places: Mapping[str, Any]) -> Any:
    """The first setting found under any of its names; the first place is the strongest."""
    for place in places:
        for name in names:
            if place.get(name) is not None:
                value = place[name]
                return value.value if isinstance(value, dg.MetadataValue) else value
    return None


def _asked_version(metadata: Mapping[str, Any], where: str) -> int | datetime | None:
    """The version an input asks for: by number (``version``) or by moment (``as_of``)."""
    version, moment = metadata.get("version"), metadata.get("as_of")
    if version is not None and moment is not None:
        raise TableError(f"{where}: version and as_of are both given, expected one of them")
    if version is not None:
        return int(version)
    if moment is None or isinstance(moment, datetime):
        return moment
    try:
        return datetime.fromisoformat(str(moment))
    except ValueError as exc:
        raise TableError(
            f"{where}: as_of {moment!r}, expected a time like 2013-01-31T12:00"
        ) from exc


def _keys_of_run(context: dg.InputContext) -> Sequence[str]:
    """The run's own partitions, for an asset check: Dagster hands an unpartitioned one all."""
    step = context.step_context
    if not step.is_asset_check_step:
        return []
    if step.has_partition_key:
        return [key for key in context.asset_partition_keys if key == step.partition_key]
    if step.has_partition_key_range:
        asked = context.asset_partitions_def.get_partition_keys_in_range(step.partition_key_range)
        return [key for key in context.asset_partition_keys if key in set(asked)]
    return []


def _output_place(context: dg.OutputContext) -> tuple[str, str]:
    """What to call the output in messages, and its folder."""
    if context.has_asset_key:
        key = context.asset_key
        return f"asset {key.to_user_string()}", dataset_path(key)
    identifier = context.get_identifier()
    return f"output {'/'.join(identifier)}", dataset_path(["ops", *identifier])


def _input_path(context: dg.InputContext) -> str:
    if context.has_asset_key:
        return dataset_path(context.asset_key)
    return dataset_path(["ops", *context.get_identifier()])


def _input_name(context: dg.InputContext) -> str:
    name = f"input {context.name!r}" if context.has_input_name else "input"
    if context.has_asset_key:
        return f"{name} (asset {context.asset_key.to_user_string()})"
    return name
