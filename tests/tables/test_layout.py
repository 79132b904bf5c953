"""Tables are divided one way: rows of no partition do not mix with partitions."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from neurolake_dagster.errors import PartitionError
from neurolake_dagster.storage import Storage
from neurolake_dagster.tables import Partition, Table, merge_rows

Act = Callable[[Table], object]


@pytest.fixture(params=["ncf", "parquet"])
def table(request: pytest.FixtureRequest, tmp_path: Path) -> Table:
    return Table(Storage(str(tmp_path)), "t", request.param)


def rows(*values: int) -> pa.Table:
    return pa.table({"x": pa.array(values, pa.int64())})


def by_value(batch: pa.RecordBatch) -> Iterator[tuple[Partition, pa.RecordBatch]]:
    for place, value in enumerate(batch.column("x").to_pylist()):
        yield (("partition_key", str(value)),), batch.slice(place, 1)


def files(table: Table) -> set[str]:
    return {entry.key for entry in table.folder.list()}


def commit_staged(table: Table) -> None:
    with table.stage() as stage, table.open_parts(rows().schema) as parts:
        parts.write((), rows(2).to_batches()[0])
        parts.close()
        table.commit(parts.files, schema=rows().schema, mode="append")
        stage.discard()


@pytest.mark.parametrize(
    "act",
    [
        lambda table: table.write(rows(2), mode="append"),
        lambda table: merge_rows(table, rows(2), ["x"]),
        commit_staged,
        lambda table: table.write(rows(2), partition={"other": "a"}),
        lambda table: merge_rows(table, rows(2), ["x"], partitions=[{"other": "a"}]),
    ],
    ids=["append", "merge", "commit", "dimension", "merge of a dimension"],
)
def test_rows_of_no_partition_do_not_join_partitions(table: Table, act: Act) -> None:
    """An append was taken, and every partition's write refused from then on."""
    table.write(rows(1), partition="a")
    before = files(table)
    with pytest.raises(PartitionError, match="partition"):
        act(table)
    assert files(table) == before

    table.write(rows(3), partition="a")
    assert table.read()["x"].to_pylist() == [3]


@pytest.mark.parametrize(
    "act",
    [
        lambda table: table.write(rows(2), partition="a"),
        lambda table: table.write(rows(2), partition="a", mode="append"),
        lambda table: table.write(rows(2), split=by_value, mode="append"),
        lambda table: merge_rows(table, rows(2), ["x"], split=by_value),
        lambda table: merge_rows(table, rows(2), ["x"], split=by_value, partitions=["2"]),
    ],
    ids=["partition", "append", "split", "merge", "merge of partitions"],
)
def test_partitions_do_not_join_rows_of_none(table: Table, act: Act) -> None:
    table.write(rows(1))
    before = files(table)
    with pytest.raises(PartitionError, match="delete the table's folder"):
        act(table)
    assert files(table) == before


def test_whole_tables_are_written_in_another_layout(table: Table) -> None:
    table.write(rows(1, 2), split=by_value)
    table.write(rows(3))
    table.write(rows(4, 5), split=by_value)
    assert len(table.snapshot().partitions) == 2
    table.folder.delete([entry.key for entry in table.folder.list()])
    table.write(rows(6), partition={"day": "x"})
    assert table.read()["x"].to_pylist() == [6]


def test_a_layout_that_came_meanwhile_counts(table: Table) -> None:
    """Two first writes of other layouts both went through."""

    def overtaken() -> Iterator[pa.RecordBatch]:
        table.write(rows(1), partition="a")
        yield rows(2).to_batches()[0]

    stream = pa.RecordBatchReader.from_batches(rows().schema, overtaken())
    with pytest.raises(PartitionError, match="of no partition"):
        table.write(stream, mode="append")
    assert table.read()["x"].to_pylist() == [1]
    assert len([key for key in files(table) if "part-" in key]) == 1
