"""What one output or input asks for: from a Dagster context to a plan.

Owns what settings mean together, and which of them are refused. Knows no format.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Literal, get_args

import dagster as dg
import pyarrow as pa

from neurolake_dagster.errors import PartitionsNotFoundError, TableError
from neurolake_dagster.io_managers.asked import INPUT_KEYS, OUTPUT_KEYS, Asked
from neurolake_dagster.io_managers.partitions import (
    missing_partitions,
    scope_of,
    windows_of,
)
from neurolake_dagster.io_managers.paths import dataset_path
from neurolake_dagster.io_managers.privacy import without_values
from neurolake_dagster.io_managers.run_partitions import (
    keys_of_run,
    keys_to_write,
    partitions_to_write,
    reads_all,
)
from neurolake_dagster.io_managers.values import Wanted
from neurolake_dagster.tables.conditions import Predicate
from neurolake_dagster.tables.merging import WhenGone, WhenMatched, WhenNew
from neurolake_dagster.tables.partitions import partition_folder
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
        The partitions it writes; None for an asset without partitions.
    asked
        All partitions of the run: those beside keep what they hold.
    windows
        What the keys of its dimensions of time mean, by `windows_of`.
    transaction
        The same for a run and its re-executions, which carry out once what cannot be done twice:
        an append, a merge, and what mode ``error`` then would refuse.
    properties
        Kept with the commit.
    schema_mode
        ``strict`` refuses rows of another schema, ``merge`` adds their new columns, ``overwrite``
        takes theirs. None is ``overwrite`` where the whole table is replaced, else ``strict``.
    table_properties
        Kept with the table.
    constraints, partition_columns
        Delta's own; constraints are SQL tests by name.
    """

    where: str
    path: str
    scope: Scope | None
    asked: Scope | None
    windows: str = ""
    mode: Mode
    transaction: str | None
    properties: Mapping[str, str]
    merge: MergePlan | None = None
    schema_mode: SchemaMode | None = None
    table_properties: Mapping[str, str]
    constraints: Mapping[str, str]
    partition_columns: tuple[str, ...] | None = None
    pii_columns: tuple[str, ...] = ()
    column_descriptions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ReadPlan:
    """One input: what is read of which place.

    Parameters
    ----------
    scope
        None reads all.
    windows
        What the keys of its dimensions of time mean, by `windows_of`.
    allow_missing
        Partitions, or a whole table, that were never written give no rows instead of an error.
    reads_all
        It asks for whatever partitions there are.
    own
        Partitions of an asset that reads its own past which the run itself is to write.
    is_optional
        Where nothing that is asked for was written, that is to be told instead of no rows.
    is_streamed
        The rows are wanted one batch after the other, in bounded memory.
    narrowed_by
        What a query of a lazy value keeps of the rows, as an Arrow expression.
    held
        The facts of `version`, where they were read before.
    pii_columns
        As the asset's definition says.
    """

    name: str
    path: str
    scope: Scope | None = None
    windows: str = ""
    columns: tuple[str, ...] | None = None
    where: Predicate | None = None
    version: int | datetime | None = None
    allow_missing: bool = False
    reads_all: bool = False
    own: frozenset[str] = frozenset()
    is_optional: bool = False
    is_streamed: bool = False
    narrowed_by: Any = None
    held: Any = None
    pii_columns: tuple[str, ...] = ()

    @property
    def may_be_first(self) -> bool:
        """Whether it is no error that the table was never written."""
        if self.version is not None:
            return False
        keys = () if self.scope is None else self.scope.keys
        before_first = self.scope is not None and all(key.name in self.own for key in keys)
        return self.allow_missing or before_first

    def may_miss(self, name: str) -> bool:
        """Whether it is no error that a partition was never written."""
        return self.allow_missing or self.reads_all or name in self.own

    def present(self, written: Collection[str]) -> Scope:
        """The scope of the asked partitions that were written.

        Raises
        ------
        PartitionError
            Naming those that must not miss.
        PartitionsNotFoundError
            If that is to be told of none.
        """
        assert self.scope is not None
        keys = [key for key in self.scope.keys if key.name in written]
        missing = [key.name for key in self.scope.keys if key.name not in written]
        refused = [name for name in missing if not self.may_miss(name)]
        if refused:
            raise missing_partitions(self.name, refused, len(keys))
        if self.is_optional and not keys:
            raise PartitionsNotFoundError(f"{self.name}: none of the partitions was ever written")
        return replace(self.scope, keys=tuple(keys))


def build_write_plan(context: dg.OutputContext, default_mode: str) -> WritePlan:
    """What an output asks for.

    Parameters
    ----------
    default_mode
        The manager's.
    """
    where, path = _output_place(context)
    definition = context.definition_metadata or {}
    asked = Asked(where, (context.output_metadata, definition), OUTPUT_KEYS)
    scope, windows = None, ""
    if context.has_asset_partitions:
        windows = windows_of(context.asset_partitions_def)
        expr = _partition_expr(asked, definition)
        scope = scope_of(context.asset_partitions_def, partitions_to_write(context, where), expr)
        for key in scope.keys:
            partition_folder(key.place)  # refuses names that are too long, of any format
    keys = [] if scope is None else [key.name for key in scope.keys]
    step = context.step_context
    mode = _mode(asked, default_mode, is_partitioned=scope is not None)
    root_run = step.dagster_run.root_run_id or step.run_id
    transaction = "/".join([root_run, step.step.key, context.name, *keys])
    return WritePlan(
        where=where,
        path=path,
        scope=scope,
        asked=scope,
        windows=windows,
        mode=mode,
        transaction=transaction if mode in ("append", "merge", "error") else None,
        merge=_merge(asked, mode),
        schema_mode=_schema_mode(asked, mode, is_partitioned=scope is not None),
        properties={
            "dagster/run_id": step.run_id,
            "dagster/step_key": step.step.key,
            "dagster/partition": ", ".join(keys) if len(keys) <= 3 else f"{keys[0]}...{keys[-1]}",
        },
        table_properties=asked.mapping("table_properties"),
        constraints=asked.mapping("constraints"),
        partition_columns=asked.names("partition_columns"),
        pii_columns=asked.names("pii_columns") or (),
        column_descriptions=asked.mapping("column_descriptions"),
    )


def build_read_plan(context: dg.InputContext, wanted: Wanted) -> ReadPlan:
    """What an input asks for."""
    asked = Asked(input_name(context), (context.definition_metadata,), INPUT_KEYS)
    upstream = context.upstream_output
    told = None if upstream is None else upstream.definition_metadata
    theirs = Asked(asked.where, (told,), ())
    pii_columns = theirs.names("pii_columns") or ()
    plan = ReadPlan(
        name=asked.where,
        path=_input_path(context),
        columns=asked.names("columns"),
        where=_predicate(asked, pii_columns),
        version=_asked_version(asked),
        allow_missing=asked.flag("allow_missing_partitions") or wanted.is_optional,
        is_optional=wanted.is_optional,
        is_streamed=wanted.type is pa.RecordBatchReader,
        pii_columns=pii_columns,
    )
    if not context.has_asset_partitions:
        return plan
    definition = context.asset_partitions_def
    keys = keys_of_run(context) or context.asset_partition_keys
    scope = scope_of(definition, keys, theirs.get("partition_expr"))
    return replace(
        plan,
        scope=scope,
        windows=windows_of(definition),
        reads_all=reads_all(context, keys),
        own=keys_to_write(context),
    )


def sparing(plan: WritePlan, written: Collection[str]) -> WritePlan:
    """The plan of mode ``error`` or ``ignore`` for partitions: each is decided by itself.

    Parameters
    ----------
    written
        The names of the plan's partitions that are there.

    Raises
    ------
    TableError
        For mode ``error`` where one is there.
    """
    assert plan.scope is not None
    if plan.mode == "error" and written:
        shown = ", ".join(sorted(written)[:5])
        raise TableError(
            f"{plan.where}: {len(written)} partitions exist already, mode 'error' refuses them: "
            f"{shown}; nothing was changed"
        )
    free = tuple(key for key in plan.scope.keys if key.name not in written)
    if not free:
        return plan
    return replace(plan, mode="overwrite", scope=replace(plan.scope, keys=free))


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


def check_mode(name: object, where: str) -> None:
    """Refuse what is no mode of writing; the value of an `EnvVar` is not known yet."""
    if name not in MODES and not isinstance(name, dg.EnvVar):
        raise TableError(f"{where}: mode {name!r}, expected one of {MODES}")


def input_name(context: dg.InputContext) -> str:
    """What to call an input in messages."""
    name = f"input {context.name!r}" if context.has_input_name else "input"
    if context.has_asset_key:
        return f"{name} (asset {context.asset_key.to_user_string()})"
    return name


def _partition_expr(asked: Asked, definition: Mapping[str, Any]) -> object:
    """The asset's own: whoever reads it does not see what a run says."""
    found = Asked(asked.where, (definition,), OUTPUT_KEYS).get("partition_expr")
    if asked.get("partition_expr") != found:
        raise TableError(
            f"{asked.where}: partition_expr is {asked.get('partition_expr')!r} for this run and "
            f"{found!r} in the definition; expected it there alone"
        )
    return found


def _mode(asked: Asked, default: str, *, is_partitioned: bool) -> Mode:
    name = asked.get("mode") or default
    check_mode(name, asked.where)
    if name == "create_or_replace":
        if is_partitioned:
            raise TableError(
                f"{asked.where}: mode 'create_or_replace' would drop all partitions of the asset; "
                "use 'overwrite', which replaces those of the run"
            )
        return "overwrite"
    found: Mode = name  # type: ignore[assignment] # as checked above
    return found


def _merge(asked: Asked, mode: Mode) -> MergePlan | None:
    names = ("merge_keys", "when_matched", "when_new", "when_gone")
    if mode != "merge":
        given = [name for name in names if asked.get(name) is not None]
        # A run may overwrite what is merged otherwise.
        if given and "merge" not in asked.all("mode"):
            raise TableError(
                f"{asked.where}: {', '.join(given)} mean nothing in mode {mode!r}; "
                'expected "mode": "merge" beside them'
            )
        return None
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


def _predicate(asked: Asked, pii_columns: tuple[str, ...]) -> Predicate | None:
    """The rows that an input asks for; None for all."""
    terms = asked.terms("where")
    with without_values(asked.where, is_private=lambda: bool(pii_columns)):
        return None if terms is None else read_predicate(terms)


def _asked_version(asked: Asked) -> int | datetime | None:
    """The version an input asks for: by number (``version``) or by moment (``as_of``)."""
    version, moment = asked.number("version"), asked.moment("as_of")
    if version is not None and moment is not None:
        raise TableError(f"{asked.where}: version and as_of are both given, expected one of them")
    return moment if version is None else version


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
