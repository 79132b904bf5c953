"""A write's commit is told from those of others, before and after it."""

import json
from pathlib import Path

import pyarrow as pa
import pytest

from neurolake_dagster.storage import Storage
from neurolake_dagster.tables.delta import DeltaDataset
from neurolake_dagster.tables.delta_commit import MARK


def rows(count: int) -> pa.Table:
    return pa.table({"id": range(count)})


@pytest.fixture
def dataset(tmp_path: Path) -> DeltaDataset:
    return DeltaDataset(Storage(str(tmp_path)), "delta/t")


def test_anothers_later_commit_is_not_taken_for_ours(dataset: DeltaDataset) -> None:
    dataset.write(rows(3), mode="append", properties={MARK: "mine"})
    dataset.write(rows(5), mode="append", properties={MARK: "theirs"})
    commit = dataset.commit("mine")
    assert commit is not None
    assert (commit.version, commit.written_rows, len(commit.added)) == (0, 3, 1)
    assert dataset.commit("nobody's") is None


def test_a_transaction_names_its_commit(dataset: DeltaDataset) -> None:
    for _attempt in range(2):
        dataset.write(rows(3), mode="append", transaction="run/step")
    dataset.write(rows(1), mode="append")
    commit = dataset.commit("run/step")
    assert commit is not None
    assert commit.version == 0
    assert dataset.snapshot().row_count == 4


def test_replaced_files_are_told_with_their_size(dataset: DeltaDataset) -> None:
    dataset.write(rows(3))
    first = dataset.snapshot()
    dataset.write(rows(2), properties={MARK: "second"})
    commit = dataset.commit("second")
    assert commit is not None
    assert sum(commit.removed.values()) == first.bytes
    assert sum(commit.added.values()) == dataset.snapshot().bytes


def test_a_commit_without_new_files_wrote_no_rows(dataset: DeltaDataset) -> None:
    """Spark does not count them where it replaces rows by none: a partition told no count."""
    dataset.write(rows(3))
    (path,) = dataset.open().get_add_actions(flatten=True)["path"].to_pylist()
    actions = [
        {"commitInfo": {"operation": "WRITE", "operationMetrics": {}, MARK: "emptied"}},
        {"remove": {"path": path, "dataChange": True, "deletionTimestamp": 1}},
    ]
    log = dataset.storage.child(f"{dataset.path}/_delta_log")
    log.put(f"{1:020d}.json", "\n".join(map(json.dumps, actions)).encode())
    commit = dataset.commit("emptied")
    assert commit is not None
    assert (commit.written_rows, list(commit.removed)) == (0, [path])
