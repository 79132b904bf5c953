"""What the IO managers of all formats share: the way from a Dagster context to a plan and back.

One order of settings, everywhere: what the run said (output metadata) is stronger than what the
asset's definition says, which is stronger than the manager's config.
Knows no format: subclasses write and read.
"""

import time
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import dagster as dg
import pyarrow as pa
from pydantic import Field

from neurolake_dagster.errors import (
    PartitionError,
    PartitionsNotFoundError,
    TableError,
    TableNotFoundError,
)
from neurolake_dagster.io_managers.partitions import rows_by_partition, rows_of_keys
from neurolake_dagster.io_managers.plans import (
    MODES,
    ReadPlan,
    WritePlan,
    build_read_plan,
    build_write_plan,
    check_mode,
    input_name,
    sparing,
)
from neurolake_dagster.io_managers.privacy import has_pii, is_pii, without_values
from neurolake_dagster.io_managers.report import Written, describe_output
from neurolake_dagster.io_managers.spark_digest import FrameDigest
from neurolake_dagster.io_managers.spark_rows import (
    check_names,
    check_scope,
    empty_frame,
    frame_of_keys,
)
from neurolake_dagster.io_managers.values import (
    PEEKED_ROWS,
    Peek,
    Wanted,
    from_arrow,
    is_spark,
    open_lazily,
    to_arrow,
    wanted_type,
)
from neurolake_dagster.resources import (
    SparkResource,
    StorageResource,
    watch_step,
    work_of_step,
)
from neurolake_dagster.resources.fields import (
    refuse_unknown,
    require_resource,
    require_storage,
)
from neurolake_dagster.spark import require_reach
from neurolake_dagster.storage import Storage


class LakehouseIOManager(dg.ConfigurableIOManager):
    """Assets as tables of one format below a storage's root."""

    storage: dg.ResourceDependency[StorageResource]
    spark: dg.ResourceDependency[SparkResource | None] = Field(
        default=None,  # type: ignore[arg-type]  # Dagster types no default
        description="For assets that take or return Spark DataFrames.",
    )
    mode: str = Field(
        default="overwrite",
        description=f"What a write does to what is there: one of {MODES}.",
    )

    def __init__(self, **data: Any) -> None:
        refuse_unknown(type(self), data)
        require_storage(type(self), data.get("storage"))
        require_resource(type(self), SparkResource, spark=data.get("spark"))
        super().__init__(**data)
        check_mode(self.mode, type(self).__name__)

    def handle_output(self, context: dg.OutputContext, obj: Any) -> None:
        """Write an output in one commit and describe it on the materialization.

        A subclass adds metadata of its own before: partitions may have been told by the end.
        """
        started = time.perf_counter()
        asked = build_write_plan(context, self.mode)
        with without_values(asked.where, is_private=lambda: self._is_private(asked, obj)):
            plan, written = self._write(asked, obj)
        describe_output(context, plan, written, time.perf_counter() - started)

    def _write(self, asked: WritePlan, obj: Any) -> tuple[WritePlan, Written]:
        """Write an output; what was written of what was asked."""
        plan = self._sparing(asked)
        if is_spark(obj):
            watch_step(obj.sparkSession)
            check_names(obj, plan.where)
            frame = frame_of_keys(obj, plan.asked, plan.scope, plan.where)
            written = replace(self._write_frame(plan, frame), preview=self._first_rows(plan))
        elif isinstance(obj, dict) and plan.asked is not None and plan.scope is not None:
            values = rows_by_partition(obj, plan.asked, plan.where)
            rows = {key.name: values[key.name] for key in plan.scope.keys}
            written = replace(self._write_arrow(plan, rows), preview=self._first_rows(plan))
        else:
            peek = Peek(rows_of_keys(to_arrow(obj, plan.where), plan.asked, plan.scope))
            written = replace(self._write_arrow(plan, peek.data), preview=peek.rows)
        written = replace(written, spark=work_of_step(), is_by_spark=is_spark(obj))
        if plan.asked and plan.scope and plan.scope is not plan.asked:
            written = written.beside(plan.asked, plan.scope)
        return plan, written

    def _is_private(self, plan: WritePlan | ReadPlan, obj: object = None) -> bool:
        """Whether columns of an asset are about persons: as it, its rows or its table say."""
        if plan.pii_columns or has_pii(obj):
            return True
        path = plan.path
        with suppress(Exception):
            return any(map(is_pii, self._schema(ReadPlan(name=path, path=path))))
        return False

    def load_input(self, context: dg.InputContext) -> Any:
        """Read an input in the type that its annotation asks for."""
        wanted = wanted_type(context.dagster_type.typing_type, input_name(context))
        plan = build_read_plan(context, wanted)
        with without_values(plan.name, is_private=lambda: self._is_private(plan)):
            return self._read(plan, wanted)

    def _read(self, plan: ReadPlan, wanted: Wanted) -> Any:
        """Read a value, or one for each partition, all of one version where those are kept."""
        if not wanted.is_by_partition:
            return self._load(plan, wanted)
        if plan.scope is None:
            raise PartitionError(f"{plan.name}: dict[str, ...] is for partitioned assets only")
        # Tells of all partitions that are missing; where none has to be there, nor the table.
        with suppress(TableNotFoundError, PartitionsNotFoundError):
            plan = self._pinned(plan)
            self._schema(plan)
        assert plan.scope is not None
        plans = {one.keys[0].name: replace(plan, scope=one) for one in plan.scope.single()}
        found = {
            name: self._load(replace(one, is_optional=plan.may_miss(name)), wanted)
            for name, one in plans.items()
        }
        found = {name: value for name, value in found.items() if value is not None}
        return None if wanted.is_optional and not found else found

    def dataset_storage(self) -> Storage:
        """The storage that the assets lie in."""
        return self.storage.storage()

    @abstractmethod
    def _written_names(self, plan: WritePlan) -> set[str]:
        """Which of the plan's partitions are there already."""

    @abstractmethod
    def _is_done(self, plan: WritePlan) -> bool:
        """Whether the plan's transaction was carried out already."""

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
    def _schema(self, plan: ReadPlan) -> pa.Schema:
        """The Arrow schema of the rows, from the log: opening them may begin to read."""

    @abstractmethod
    def _pinned(self, plan: ReadPlan) -> ReadPlan:
        """The plan for what there is now, also when it is carried out later."""

    @abstractmethod
    def _read_spark(self, plan: ReadPlan, session: Any) -> Any:
        """Open the rows as a Spark DataFrame."""

    def _sparing(self, plan: WritePlan) -> WritePlan:
        """The plan for the partitions that its mode lets it write."""
        if plan.scope is None or plan.mode not in ("error", "ignore"):
            return plan
        if plan.mode == "error" and self._is_done(plan):
            return plan
        return sparing(plan, self._written_names(plan))

    def _load(self, plan: ReadPlan, wanted: Wanted) -> Any:
        """Read a value; None or no rows where nothing was written and the plan allows it."""
        is_before_first = plan.scope is not None and not plan.scope.keys
        if is_before_first and plan.is_optional:
            return None
        try:
            if wanted.is_spark:
                return self._read_spark(plan, self._session(plan.name))
            if wanted.is_lazy:
                return self._open_lazily(plan, wanted.type)
            return from_arrow(self._read_arrow(plan), wanted.type)
        except PartitionsNotFoundError:
            return None
        except TableNotFoundError:
            if plan.is_optional and plan.version is None:
                return None
            if not plan.may_be_first:
                raise
            return self._no_rows(plan, wanted)

    def _write_frame(self, plan: WritePlan, frame: Any) -> Written:
        """Write a Spark DataFrame, whose rows tell their digest on their way."""
        if plan.mode != "overwrite":
            return self._write_spark(plan, frame)
        check_scope(frame, plan.scope, plan.where)
        digest = FrameDigest(frame, plan.scope)
        written = self._write_spark(plan, digest.frame)
        return written.of_rows(digest.by_partition())

    def _no_rows(self, plan: ReadPlan, wanted: Wanted) -> Any:
        """No rows of a table that nobody wrote; of its columns only those asked for are known."""
        schema = pa.schema([(name, pa.null()) for name in plan.columns or ()])
        if wanted.is_spark:
            return empty_frame(self._session(plan.name), schema)
        return from_arrow(pa.RecordBatchReader.from_batches(schema, []), wanted.type)

    def _first_rows(self, plan: WritePlan) -> pa.Table | None:
        """The first rows of what was written, read back: a frame's own would be a Spark job."""
        read = ReadPlan(name=plan.where, path=plan.path, scope=plan.scope, is_streamed=True)
        # Another run may have replaced them by now.
        with suppress(TableError, PartitionError), self._read_arrow(read) as rows:
            for batch in rows:
                if batch.num_rows:
                    return pa.Table.from_batches([batch.slice(0, PEEKED_ROWS)])
        return None

    def _open_lazily(self, plan: ReadPlan, wanted: type) -> Any:
        """A value whose queries read what they need, of the version that there is now."""
        pinned = replace(self._pinned(plan), is_streamed=True)

        def open_rows(columns: Sequence[str] | None, narrowed_by: Any) -> pa.RecordBatchReader:
            names = plan.columns if columns is None else tuple(columns)
            return self._read_arrow(replace(pinned, columns=names, narrowed_by=narrowed_by))

        return open_lazily(self._schema(pinned), open_rows, wanted)

    def _session(self, where: str) -> Any:
        if self.spark is None:
            raise TableError(
                f"{where}: a Spark DataFrame is asked for, but {type(self).__name__} has no "
                "Spark; give it spark=SparkResource()"
            )
        session = self.spark.session(self.storage)
        self._require_reach(session)
        return session

    def _require_reach(self, session: Any) -> None:
        """Refuse a session that looks for the storage's objects in another store.

        Unless the endpoint is Spark's own: a cluster may call the store otherwise.

        Raises
        ------
        SessionConflictError
        """
        settings = (self.spark or SparkResource()).settings()
        if settings.origin("s3_endpoint") == "default":
            require_reach(session, self.dataset_storage())
