"""Partitions of Delta assets: which were written, and what a commit brought to each.

Owns what Delta itself does not know: it has rows, and columns that it is partitioned by on disk,
but no partitions of Dagster's. All is found in the log where it can be, else in the partition
columns of the files at hand.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from neurolake_dagster.errors import PartitionError
from neurolake_dagster.io_managers.plans import ReadPlan, WritePlan
from neurolake_dagster.io_managers.report import Written
from neurolake_dagster.io_managers.row_digest import files_digest
from neurolake_dagster.tables.delta import DeltaDataset
from neurolake_dagster.tables.delta_commit import DeltaCommit
from neurolake_dagster.tables.delta_partitions import recorded_partitions
from neurolake_dagster.tables.delta_snapshot import DeltaSnapshot
from neurolake_dagster.tables.formats import file_format
from neurolake_dagster.tables.schemas import plain_schema
from neurolake_dagster.tables.scope import Scope
from neurolake_dagster.tables.windows import Numbers


@dataclass(frozen=True)
class PartitionFacts:
    """What a commit brought to each of several partitions; empty for a single one.

    Parameters
    ----------
    by_key
        Rows and bytes by partition key; None where nothing tells them.
    are_bytes_shares
        Whether the bytes are shares, by rows, of files that partitions have in common.
    """

    by_key: Mapping[str, tuple[int | None, int | None]]
    are_bytes_shares: bool


def partition_names(plan: WritePlan) -> list[str]:
    """The partitions that a write brings into being, with or without rows."""
    return [] if plan.scope is None else [key.name for key in plan.scope.keys]


def present_scope(plan: ReadPlan, dataset: DeltaDataset) -> Scope:
    """The asked partitions that were written; the plan says of which it is an error if not.

    Raises
    ------
    PartitionError, TableNotFoundError
    """
    assert plan.scope is not None
    return plan.present(written_names(plan, dataset))


def written_names(plan: ReadPlan, dataset: DeltaDataset) -> set[str]:
    """Which of the asked partitions were ever written.

    Raises
    ------
    PartitionError, TableNotFoundError
    """
    assert plan.scope is not None
    table = dataset.open(plan.version)
    if not plan.scope.columns:
        raise PartitionError(
            f"{plan.name}: the asset's metadata has no partition_expr to find its partitions by"
        )
    schema = plain_schema(pa.schema(table.schema().to_arrow()))
    plan.scope.require_columns(schema, plan.name)
    names = [key.name for key in plan.scope.keys]
    written = recorded_partitions(table, names)
    others = tuple(key for key in plan.scope.keys if key.name not in written)
    if others:
        written |= _with_rows(plan, dataset, Scope(keys=others, columns=plan.scope.columns), schema)
    return written


def record_written(dataset: DeltaDataset, plan: WritePlan, written: Written) -> None:
    """Let partitions count as written that Spark wrote, which cannot say so in its commit.

    Where the table is partitioned by their columns on disk, the log tells of those with rows.
    """
    if plan.scope is None or plan.mode == "ignore":
        return
    names = partition_names(plan)
    counts = {name: count for name, (count, _) in written.by_partition.items()}
    if len(names) == 1 and plan.mode != "merge":
        counts = {names[0]: written.written_rows}
    columns = dataset.open().metadata().partition_columns
    if set(plan.scope.columns) <= set(columns):
        names = [name for name in names if not counts.get(name)]
    if names:
        dataset.record_partitions(names)


def facts_by_partition(
    dataset: DeltaDataset,
    plan: WritePlan,
    commit: DeltaCommit,
    files: pa.Table,
    counts: Mapping[str, int] | None,
) -> PartitionFacts:
    """Rows and bytes that a commit brought to each of several partitions.

    Files of a table that is partitioned on disk by other columns may hold rows of several, and
    kept rows beside: each gets its rows' share of their bytes. Rows that nobody counted are read
    back, of no other columns than the partitions'.

    Parameters
    ----------
    files
        Those of the commit's version, by `DeltaSnapshot`.
    counts
        Rows by partition, where they were seen on their way.
    """
    if plan.scope is None or len(plan.scope.keys) == 1:
        return PartitionFacts({}, are_bytes_shares=False)
    added = {unquote(path) for path in commit.added}
    is_added = [unquote(str(path)) in added for path in files["path"]]
    mine = files.filter(pa.array(is_added, pa.bool_()))
    numbers = _keys_of_files(mine, plan.scope)
    if numbers is None:
        rows = counts or _count_rows(dataset, mine, plan.scope)
        counted = [(key.name, rows.get(key.name, 0)) for key in plan.scope.keys]
        shares = {name: (count, _share(mine, count)) for name, count in counted}
        return PartitionFacts(shares, are_bytes_shares=True)
    size, found = np.zeros((2, len(plan.scope.keys)), np.int64)
    np.add.at(size, numbers, mine["size_bytes"].to_numpy())
    if counts is None:
        np.add.at(found, numbers, mine["num_records"].to_numpy().astype(np.int64))
        counts = {key.name: int(found[i]) for i, key in enumerate(plan.scope.keys)}
    names = [key.name for key in plan.scope.keys]
    facts = {name: (counts[name], int(size[i])) for i, name in enumerate(names)}
    return PartitionFacts(facts, are_bytes_shares=False)


def held_digests(plan: WritePlan, snapshot: DeltaSnapshot) -> dict[str, str]:
    """What stands for the rows that each partition asked for holds: files are never written again.

    Where files may hold several partitions, all of them stand for each.
    """
    names = [unquote(path) for path in snapshot.files["path"].to_pylist()]
    # The version where paths do not tell of all that a commit changed.
    names += [f"version {snapshot.version}"] if snapshot.hides_rows else []
    if plan.asked is None:
        return {"": files_digest(snapshot.schema, names)}
    numbers = _keys_of_files(snapshot.files, plan.asked)
    if numbers is None:
        whole = files_digest(snapshot.schema, names)
        return {key.name: whole for key in plan.asked.keys}
    found: list[list[str]] = [[] for _ in plan.asked.keys]
    for name, number in zip(names, numbers, strict=False):
        if number >= 0:
            found[number].append(name)
    common = names[len(numbers) :]
    return {
        key.name: files_digest(snapshot.schema, [*one, *common])
        for key, one in zip(plan.asked.keys, found, strict=True)
    }


def _share(files: pa.Table, row_count: int) -> int | None:
    """The bytes of some rows of files, as if all rows were equally long; None if not told."""
    if files["num_records"].null_count:
        return None
    rows, size = (pc.sum(files[name]).as_py() or 0 for name in ("num_records", "size_bytes"))
    return int(size * row_count // rows) if rows else 0


def _with_rows(plan: ReadPlan, dataset: DeltaDataset, scope: Scope, schema: pa.Schema) -> set[str]:
    """Those that have rows, of partitions that no commit of ours tells of."""
    table = dataset.open(plan.version)
    if set(scope.columns) <= set(table.metadata().partition_columns):
        numbers = _keys_of_files(pa.table(table.get_add_actions(flatten=True)), scope)
        assert numbers is not None
        return {scope.keys[number].name for number in numbers if number >= 0}
    test = scope.predicate(schema)
    batches = dataset.scan(columns=scope.columns, where=test, version=plan.version)
    return {name for batch in batches for name in scope.check(batch)}


def _keys_of_files(actions: pa.Table, scope: Scope) -> Numbers | None:
    """For each file the number of its key, by the log; None where files may hold several."""
    names = [f"partition.{column}" for column in scope.columns]
    if not set(names) <= set(actions.column_names):
        return None
    rows = actions.select(names).rename_columns(list(scope.columns)).combine_chunks()
    parts = [scope.numbers(batch) for batch in rows.to_batches()]
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)


def _count_rows(dataset: DeltaDataset, actions: pa.Table, scope: Scope) -> dict[str, int]:
    """Rows of each key in some files, by their partition columns.

    Others are passed over: a file that held rows to replace beside others was written anew.
    """
    counts = np.zeros(len(scope.keys), np.int64)
    for row in actions.to_pylist():
        for batch in _columns_of(dataset, row, scope):
            numbers = scope.numbers(batch)
            counts += np.bincount(numbers[numbers >= 0], minlength=len(counts))
    return {key.name: int(count) for key, count in zip(scope.keys, counts, strict=True)}


def _columns_of(
    dataset: DeltaDataset, action: Mapping[str, object], scope: Scope
) -> Iterator[pa.RecordBatch]:
    """The scope's columns of one file; those that it is partitioned by lie in the log."""
    held = {name: action[f"partition.{name}"] for name in scope.columns
            if f"partition.{name}" in action}  # fmt: skip
    read = [name for name in scope.columns if name not in held]
    folder = dataset.storage.child(dataset.path)
    for batch in file_format("parquet").scan(folder, unquote(str(action["path"])), read, None):
        columns = [
            pa.array([held[name]] * batch.num_rows) if name in held else batch.column(name)
            for name in scope.columns
        ]
        yield pa.RecordBatch.from_arrays(columns, names=list(scope.columns))
