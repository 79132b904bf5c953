"""What one output or input asks for: from a Dagster context to a plan.

Owns how settings are found, in the order that `base` states, and what is refused of them.
Knows no format.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal, get_args

import dagster as dg
import pyarrow as pa

from neurolake_dagster.errors import TableError
from neurolake_dagster.io_managers.partitions import scope_of
from neurolake_dagster.io_managers.paths import dataset_path
from neurolake_dagster.io_managers.values import Wanted
from neurolake_dagster.tables.conditions import Predicate
from neurolake_dagster.tables.merging import WhenGone, WhenMatched, WhenNew
from neurolake_dagster.tables.predicate import read_predicate
from neurolake_dagster.tables.scope import Scope

Mode = Literal["overwrite", "append", "error", "ignore", "merge"]
MODES = (*get_args(Mode), "create_or_replace")
SchemaMode = Literal["strict", "merge", "overwrite"]


@dataclass(frozen=True, kw_only=True)
class MergePlan:
    """How rows of a run and rows of the table with the same keys come together.

    Parameters
    ----------
    when_gone
        Of the table's rows whose keys the run does not have; in a partitioned asset only of
        the run's partitions.
    """

    keys: tuple[str, ...]
    when_matched: WhenMatched = "update"
    when_new: WhenNew = "insert"
    when_gone: WhenGone = "keep"


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
    properties
        Kept with the commit.
    schema_mode
        ``strict`` refuses rows of another schema, ``merge`` adds their new columns, ``overwrite``
        takes theirs. None is ``overwrite`` where the whole table is replaced, else ``strict``.
    table_properties, constraints, partition_columns
        Delta's own; constraints are SQL tests by name.
    """

    where: str
    path: str
    scope: Scope | None
    mode: Mode
    transaction: str | None
    properties: Mapping[str, str]
    merge: MergePlan | None = None
    schema_mode: SchemaMode | None = None
    table_properties: Mapping[str, str]
    constraints: Mapping[str, str]
    partition_columns: tuple[str, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class ReadPlan:
    """One input: what is read of which place.

    Parameters
    ----------
    scope
        None reads all.
    allow_missing
        Partitions that were never written give no rows instead of an error.
    is_streamed
        The rows are wanted one batch after the other, in bounded memory.
    narrowed_by
        What a query of a lazy value keeps of the rows, as an Arrow expression.
    """

    name: str
    path: str
    scope: Scope | None = None
    columns: tuple[str, ...] | None = None
    where: Predicate | None = None
    version: int | datetime | None = None
    allow_missing: bool = False
    is_streamed: bool = False
    narrowed_by: Any = None


class Asked:
    """The settings of one output: the run's are stronger than the definition's.

    Parameters
    ----------
    where
        The output's name in messages.
    """

    def __init__(self, context: dg.OutputContext, where: str) -> None:
        self.where = where
        self._places = (context.output_metadata or {}, context.definition_metadata or {})

    def get(self, *names: str) -> Any:
        """The first setting found under any of its names, plain; None if there is none."""
        for place in self._places:
            for name in names:
                if place.get(name) is not None:
                    value = place[name]
                    plain = value.value if isinstance(value, dg.MetadataValue) else value
                    return getattr(plain, "value", plain)
        return None

    def choice(self, choices: Sequence[str], *names: str) -> Any:
        """A setting that must be one of a few; None if there is none.

        Raises
        ------
        TableError
            Naming the choices.
        """
        found = self.get(*names)
        if found is None or found in choices:
            return found
        raise TableError(f"{self.where}: {names[0]} {found!r}, expected one of {tuple(choices)}")

    def mapping(self, name: str) -> dict[str, str]:
        """A setting of names and texts; booleans as Delta spells them."""
        found = self.get(name) or {}
        if not isinstance(found, Mapping):
            raise TableError(f'{self.where}: {name} {found!r}, expected a dict like {{"a": "b"}}')
        return {
            str(key): str(value).lower() if isinstance(value, bool) else str(value)
            for key, value in found.items()
        }

    def names(self, name: str) -> tuple[str, ...] | None:
        """A setting of one or several columns."""
        found = self.get(name)
        if found is None:
            return None
        return (found,) if isinstance(found, str) else tuple(str(one) for one in found)


def build_write_plan(context: dg.OutputContext, default_mode: str) -> WritePlan:
    """What an output asks for.

    Parameters
    ----------
    default_mode
        The manager's.
    """
    where, path = _output_place(context)
    asked = Asked(context, where)
    keys: list[str] = []
    scope = None
    if context.has_asset_partitions:
        keys = [str(key) for key in context.asset_partition_keys]
        scope = scope_of(
            context.asset_partitions_def,
            context.asset_partition_keys,
            context.definition_metadata or {},
        )
    step = context.step_context
    mode = _mode(asked, default_mode, is_partitioned=scope is not None)
    root_run = step.dagster_run.root_run_id or step.run_id
    transaction = "/".join([root_run, step.step.key, context.name, *keys])
    return WritePlan(
        where=where,
        path=path,
        scope=scope,
        mode=mode,
        transaction=transaction if mode in ("append", "merge") else None,
        merge=_merge(asked) if mode == "merge" else None,
        schema_mode=_schema_mode(asked, mode, is_partitioned=scope is not None),
        properties={
            "dagster/run_id": step.run_id,
            "dagster/step_key": step.step.key,
            "dagster/partition": ", ".join(keys) if len(keys) <= 3 else f"{keys[0]}...{keys[-1]}",
        },
        table_properties=asked.mapping("table_properties"),
        constraints=asked.mapping("constraints"),
        partition_columns=asked.names("partition_columns"),
    )


def build_read_plan(context: dg.InputContext, wanted: Wanted) -> ReadPlan:
    """What an input asks for."""
    metadata = context.definition_metadata or {}
    where = input_name(context)
    columns = metadata.get("columns")
    plan = ReadPlan(
        name=where,
        path=_input_path(context),
        columns=None if columns is None else tuple(columns),
        where=read_predicate(metadata["where"]) if metadata.get("where") else None,
        version=_asked_version(metadata, where),
        allow_missing=bool(metadata.get("allow_missing_partitions")) or wanted.is_optional,
        is_streamed=wanted.type is pa.RecordBatchReader,
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


def projected(schema: pa.Schema, plan: ReadPlan) -> pa.Schema:
    """The part of a schema that a plan reads.

    Raises
    ------
    TableError
        If it names columns that are not there.
    """
    if plan.columns is None:
        return schema
    unknown = [name for name in plan.columns if name not in schema.names]
    if unknown:
        raise TableError(f"{plan.name}: no columns {unknown!r}; the table has {schema.names!r}")
    return pa.schema([schema.field(name) for name in plan.columns], schema.metadata)


def input_name(context: dg.InputContext) -> str:
    """What to call an input in messages."""
    name = f"input {context.name!r}" if context.has_input_name else "input"
    if context.has_asset_key:
        return f"{name} (asset {context.asset_key.to_user_string()})"
    return name


def _mode(asked: Asked, default: str, *, is_partitioned: bool) -> Mode:
    name = asked.get("mode", "write_mode") or default
    if name == "create_or_replace":
        if is_partitioned:
            raise TableError(
                f"{asked.where}: mode 'create_or_replace' would drop all partitions of the asset; "
                "use 'overwrite', which replaces those of the run"
            )
        return "overwrite"
    for known in get_args(Mode):
        if name == known:
            return known  # type: ignore[no-any-return]
    raise TableError(f"{asked.where}: mode {name!r}, expected one of {MODES}")


def _merge(asked: Asked) -> MergePlan:
    keys = asked.names("merge_keys")
    if not keys:
        raise TableError(
            f'{asked.where}: mode "merge" needs the columns that identify a row, in the asset\'s '
            'metadata: {"merge_keys": ["id"]}'
        )
    clauses = {
        "when_matched": asked.choice(get_args(WhenMatched), "when_matched"),
        "when_new": asked.choice(get_args(WhenNew), "when_new"),
        "when_gone": asked.choice(get_args(WhenGone), "when_gone"),
    }
    plan = MergePlan(keys=keys, **{name: one for name, one in clauses.items() if one is not None})
    if (plan.when_matched, plan.when_new, plan.when_gone) == ("ignore", "ignore", "keep"):
        raise TableError(f"{asked.where}: a merge that updates, inserts and deletes nothing")
    return plan


def _schema_mode(asked: Asked, mode: Mode, *, is_partitioned: bool) -> SchemaMode | None:
    found: SchemaMode | None = asked.choice(get_args(SchemaMode), "schema_mode")
    if found == "overwrite" and (mode != "overwrite" or is_partitioned):
        raise TableError(
            f"{asked.where}: schema_mode 'overwrite' needs a write that replaces the whole table; "
            "'merge' adds columns and keeps the other rows"
        )
    return found


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
