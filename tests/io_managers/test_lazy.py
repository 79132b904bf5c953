"""Lazy inputs and outputs: each query reads what it needs, of the version of its run."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pytest

from neurolake_dagster.errors import NeuroLakeError
from neurolake_dagster.io_managers import DeltaIOManager, NCFIOManager, ParquetIOManager
from neurolake_dagster.io_managers.base import LakehouseIOManager
from neurolake_dagster.resources import StorageResource

FORMATS: dict[str, type[LakehouseIOManager]] = {
    "ncf": NCFIOManager,
    "parquet": ParquetIOManager,
    "delta": DeltaIOManager,
}
DAYS = dg.StaticPartitionsDefinition(["1", "2"])
ROWS = 200_000


@pytest.fixture(params=list(FORMATS))
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> LakehouseIOManager:
    return FORMATS[request.param](storage=StorageResource(root=str(tmp_path)))


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as found:
        yield found


def run(
    assets: list[Any], manager: LakehouseIOManager, instance: dg.DagsterInstance, **options: Any
) -> dg.ExecuteInProcessResult:
    return dg.materialize(assets, resources={"io_manager": manager}, instance=instance, **options)


def load(
    asset: Any, manager: LakehouseIOManager, instance: dg.DagsterInstance, wanted: type
) -> Any:
    """What a downstream asset gets."""
    seen: list[Any] = []

    @dg.asset(ins={"rows": dg.AssetIn(asset.key)})
    def used(rows: wanted) -> None:  # type: ignore[valid-type] # the type is the parameter
        seen.append(rows)

    stored = next(iter(asset.specs)).replace_attributes(deps=[])
    assert run([stored, used], manager, instance).success
    return seen[0]


def bytes_read() -> int:
    """By this process, of files."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(dict(line.split(": ") for line in lines)["rchar"])


def cost_of(query: Callable[[], Any]) -> int:
    """Bytes that a query reads the second time: the first one also imports modules."""
    query()
    start = bytes_read()
    query()
    return bytes_read() - start


@dg.asset
def wide() -> pa.Table:
    noise = np.random.default_rng(1).bytes(40 * ROWS)
    wide = pa.FixedSizeBinaryArray.from_buffers(pa.binary(40), ROWS, [None, pa.py_buffer(noise)])
    return pa.table({"id": np.arange(ROWS), "wide": wide.cast(pa.binary())})


@dg.asset(partitions_def=DAYS, metadata={"partition_expr": "day"})
def daily(context: dg.AssetExecutionContext) -> pa.Table:
    return pa.table({"day": [context.partition_key] * 3, "value": [1, 2, 3]})


def test_a_query_of_a_lazy_frame_reads_its_columns(
    manager: LakehouseIOManager, instance: dg.DagsterInstance
) -> None:
    run([wide], manager, instance)
    frame = load(wide, manager, instance, pl.LazyFrame)
    query = frame.filter(pl.col("id") >= ROWS - 2).select(twice=pl.col("id") * 2)
    assert query.collect()["twice"].to_list() == [2 * ROWS - 4, 2 * ROWS - 2]
    few, whole = cost_of(query.collect), cost_of(frame.collect)
    assert whole > 40 * ROWS
    assert few < whole / 3


def test_a_query_of_a_dataset_reads_its_columns(
    manager: LakehouseIOManager, instance: dg.DagsterInstance
) -> None:
    run([wide], manager, instance)
    dataset = load(wide, manager, instance, ds.Dataset)
    connection = duckdb.connect().register("wide", dataset)

    def query() -> list[Any]:
        return connection.sql("select sum(id) from wide where id >= 199998").fetchall()

    assert query() == [(2 * ROWS - 3,)]
    few, whole = cost_of(query), cost_of(dataset.to_table)
    assert whole > 40 * ROWS
    assert few < whole / 3
    assert dataset.count_rows() == ROWS
    assert dataset.to_table(columns=[]).num_rows == ROWS
    assert dataset.scanner(columns=[], filter=pc.field("id") < 2).count_rows() == 2
    assert dataset.to_table(filter=pc.field("id") == 7).column("id").to_pylist() == [7]
    named = dataset.to_table(columns={"next": pc.field("id") + 1}, filter=pc.field("id") < 2)
    assert named.to_pydict() == {"next": [1, 2]}


def test_a_limit_ends_the_query(manager: LakehouseIOManager, instance: dg.DagsterInstance) -> None:
    run([wide], manager, instance)
    frame = load(wide, manager, instance, pl.LazyFrame)
    assert frame.select("id").head(3).collect().height == 3
    assert frame.filter(pl.col("id") > 10).select("id").head(3).collect()["id"].min() > 10
    assert frame.head(ROWS).filter(pl.col("id") == 5).collect().height == 1


@pytest.mark.parametrize("kind", ["ncf", "parquet"])
def test_a_query_opens_no_file_that_statistics_rule_out(
    kind: str, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    manager = FORMATS[kind](storage=StorageResource(root=str(tmp_path)))
    for day in DAYS.get_partition_keys():
        run([daily], manager, instance, partition_key=day)
    frame = load(daily, manager, instance, pl.LazyFrame)
    assert frame.collect().height == 6
    first, _second = sorted(tmp_path.rglob(f"*.{kind}"), key=lambda path: path.stat().st_mtime_ns)
    first.write_bytes(b"")
    assert frame.filter(pl.col("day") == "2").collect().height == 3
    with pytest.raises(NeuroLakeError, match=f"part-.*{kind}: not a"):
        frame.collect()


@pytest.mark.parametrize("kind", ["ncf", "delta"])
@pytest.mark.parametrize("wanted", [pl.LazyFrame, ds.Dataset])
def test_queries_see_the_version_of_their_run(
    kind: str, wanted: type, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    manager = FORMATS[kind](storage=StorageResource(root=str(tmp_path)))

    @dg.asset
    def counted(context: dg.AssetExecutionContext) -> pa.Table:
        return pa.table({"n": [1, 2] if context.run.tags.get("again") else [1]})

    run([counted], manager, instance)
    rows = load(counted, manager, instance, wanted)
    run([counted], manager, instance, tags={"again": "yes"})
    found = rows.collect() if wanted is pl.LazyFrame else rows.to_table()
    assert list(found["n"].to_numpy()) == [1]
    assert load(counted, manager, instance, pl.DataFrame)["n"].to_list() == [1, 2]


def test_a_lazy_frame_is_computed_while_it_is_written(
    manager: LakehouseIOManager, instance: dg.DagsterInstance
) -> None:
    @dg.asset
    def made() -> pl.LazyFrame:
        return pl.LazyFrame({"n": range(300_000)}).with_columns(text=pl.col("n").cast(pl.String))

    @dg.asset
    def copied(made: pl.LazyFrame) -> pl.LazyFrame:
        return made.filter(pl.col("n") % 2 == 0).select("text")

    assert run([made, copied], manager, instance).success
    rows = load(copied, manager, instance, pl.DataFrame)
    assert rows["text"].cast(pl.Int64).sort().to_list() == list(range(0, 300_000, 2))


def test_a_query_that_fails_leaves_the_table_as_it_was(
    manager: LakehouseIOManager, instance: dg.DagsterInstance
) -> None:
    @dg.asset
    def made(context: dg.AssetExecutionContext) -> pl.LazyFrame:
        frame = pl.LazyFrame({"text": ["1"] * 200_000 + ["x"]})
        return frame.select(pl.col("text").cast(pl.Int64)) if context.run.tags.get("bad") else frame

    run([made], manager, instance)
    with pytest.raises(pl.exceptions.InvalidOperationError, match="conversion"):
        run([made], manager, instance, tags={"bad": "yes"})
    assert load(made, manager, instance, pl.DataFrame).height == 200_001
