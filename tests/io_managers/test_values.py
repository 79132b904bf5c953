"""The types that assets may return and ask for, in real runs."""

import gc
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from neurolake_dagster.io_managers import ParquetIOManager
from neurolake_dagster.io_managers.base import LakehouseIOManager
from neurolake_dagster.io_managers.values import to_arrow
from neurolake_dagster.resources import StorageResource
from tests.io_managers.test_io_managers import TABLE, failure, instance, manager, run

__all__ = ["instance", "manager"]


def pandas_frame() -> pd.DataFrame:
    return pd.DataFrame({"id": pd.array([1, None, 3], "Int64"), "name": ["a", "b", None]})


@pytest.mark.parametrize(
    ("build", "annotation"),
    [
        (lambda: TABLE, pa.Table),
        (TABLE.to_reader, pa.RecordBatchReader),
        (lambda: TABLE.to_batches()[0], pa.RecordBatch),
        (lambda: ds.dataset(TABLE), ds.Dataset),
        (pandas_frame, pd.DataFrame),
        (lambda: pl.from_arrow(TABLE), pl.DataFrame),
        (lambda: pl.from_arrow(TABLE).lazy(), pl.LazyFrame),
    ],
    ids=["table", "reader", "batch", "dataset", "pandas", "polars", "lazy"],
)
def test_each_type_is_written_and_read_as_every_other(
    manager: LakehouseIOManager,
    instance: dg.DagsterInstance,
    build: Callable[[], Any],
    annotation: Any,
) -> None:
    seen: dict[str, Any] = {}

    @dg.asset
    def made() -> Any:
        return build()

    @dg.asset
    def as_same(made: annotation) -> None:
        seen["same"] = made

    @dg.asset
    def as_arrow(made: pa.Table) -> None:
        seen["arrow"] = made

    @dg.asset
    def as_pandas(made: pd.DataFrame) -> None:
        seen["pandas"] = made

    @dg.asset
    def as_polars(made: pl.DataFrame | None) -> None:
        seen["polars"] = made

    assert run([made, as_same, as_arrow, as_pandas, as_polars], manager, instance).success
    assert isinstance(seen["same"], annotation)
    assert seen["arrow"].to_pylist() == TABLE.to_pylist()
    assert seen["pandas"]["id"].dtype == pd.Int64Dtype()
    assert seen["polars"].to_dicts() == TABLE.to_pylist()


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (None, "-> None"),
        ([1, 2], "builtins.list, expected one of pyspark.sql.DataFrame, pyarrow.Table"),
        (pl.DataFrame({"o": [object()]}, {"o": pl.Object}), "columns 'o' is Object; cast them"),
        (pl.LazyFrame({"i": [[1]]}, {"i": pl.List(pl.Int128)}), "'i' is List(Int128); cast them"),
        (pd.DataFrame({"c": [1, "a"]}), "made: returned a pandas DataFrame that cannot be"),
    ],
    ids=["none", "list", "object", "int128", "mixed"],
)
def test_what_is_no_table_is_refused(
    manager: LakehouseIOManager, instance: dg.DagsterInstance, value: Any, told: str
) -> None:
    """Of polars' objects the addresses in memory were written."""

    @dg.asset
    def made() -> Any:
        return value

    result = run([made], manager, instance, raise_on_error=False)
    assert "UnsupportedTypeError" in str(failure(result))
    assert told in str(failure(result))


NESTED = {
    "views": pa.array([[1, None], None, []], pa.list_view(pa.int32())),
    "views in lists": pa.array([[[1], None], None, []], pa.list_(pa.list_view(pa.int8()))),
    "maps": pa.array([[("a", 200)], None, []], pa.map_(pa.string(), pa.uint8())),
    "fixed": pa.array([[200, 1], None, [3, 4]], pa.list_(pa.uint8(), 2)),
    "texts": pa.array([["a"], None, []], pa.list_(pa.string())),
    "nulls": pa.array([[None, None], None, []], pa.list_view(pa.null())),
    "nulls in structs": pa.array([{"a": [None, None], "b": "c"}, None, {"a": [], "b": ""}]),
    "texts in structs": pa.array([{"a": [{"b": "c"}]}, None, {"a": []}]),
}


def test_a_lazy_frame_may_hold_lists_of_nulls() -> None:
    """A raw ArrowInvalid: Arrow's cast to their own type leaves out some."""
    frame = pl.LazyFrame({"tags": [[None, None], [None, None]]})
    found = to_arrow(frame, "made").read_all()
    found.validate(full=True)
    assert found["tags"].to_pylist() == [[None, None], [None, None]]


def test_a_dataset_is_read_hardly_before_its_rows_are_written(tmp_path: Path) -> None:
    """All rows of a gigabyte were in memory before the second batch was written."""
    rows = pa.table({"n": np.random.default_rng(1).random(500_000)})
    for day in range(8):
        (tmp_path / f"day={day}").mkdir()
        pq.write_table(rows, tmp_path / f"day={day}" / "1.parquet", row_group_size=50_000)
    dataset = ds.dataset(tmp_path, partitioning="hive")
    gc.collect()
    before = pa.total_allocated_bytes()
    reader = to_arrow(dataset, "made")
    first = reader.read_next_batch()
    time.sleep(0.3)
    assert pa.total_allocated_bytes() - before < 8 * first.nbytes
    assert pa.Table.from_batches([first, *reader]).equals(dataset.to_table())
    some = to_arrow(dataset.filter(pc.field("day") == 3), "made").read_all()
    assert (some.num_rows, some["day"].unique().to_pylist()) == (500_000, [3])


@pytest.mark.parametrize("name", NESTED)
def test_nested_values_come_back(
    manager: LakehouseIOManager, instance: dg.DagsterInstance, name: str
) -> None:
    """Views could not be written; Delta's maps of unsigned integers never be read again, and its
    lists of texts not as pandas."""
    seen: dict[str, Any] = {}

    @dg.asset
    def made() -> pa.Table:
        return pa.table({"c": NESTED[name]})

    @dg.asset
    def used(made: pa.Table) -> None:
        made.validate(full=True)
        seen["arrow"] = made["c"]

    @dg.asset
    def framed(made: pd.DataFrame) -> None:
        seen["pandas"] = made

    assert run([made, used, framed], manager, instance).success
    assert seen["arrow"].to_pylist() == NESTED[name].to_pylist()
    assert "view" not in str(seen["arrow"].type)
    assert len(seen["pandas"]) == 3


def test_an_unknown_annotation_is_refused_naming_the_known(
    manager: LakehouseIOManager, instance: dg.DagsterInstance
) -> None:
    @dg.asset
    def made() -> pa.Table:
        return TABLE

    @dg.asset
    def used(made: str) -> None: ...

    result = run([made, used], manager, instance, raise_on_error=False)
    assert "expected one of pyspark.sql.DataFrame" in str(failure(result))


def test_values_of_a_fan_in_are_read_one_by_one(manager: LakehouseIOManager) -> None:
    """`list[pa.Table]` was refused as an unknown type."""
    seen: list[Any] = []

    @dg.op(out=dg.DynamicOut(pa.Table))
    def parts() -> Any:
        for number in range(3):
            yield dg.DynamicOutput(pa.table({"n": [number]}), mapping_key=str(number))

    @dg.op
    def same(part: pa.Table) -> pa.Table:
        return part

    @dg.op
    def whole(parts: list[pa.Table]) -> dg.Nothing:
        seen.extend(part["n"].to_pylist() for part in parts)

    @dg.job(resource_defs={"io_manager": manager.get_resource_definition()})
    def fan_in() -> None:
        whole(parts().map(same).collect())

    assert fan_in.execute_in_process().success
    assert seen == [[0], [1], [2]]


def test_a_spark_frame_without_spark_says_what_to_give(
    instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    from pyspark.sql import DataFrame

    manager = ParquetIOManager(storage=StorageResource(root=str(tmp_path)))

    @dg.asset
    def made() -> pa.Table:
        return TABLE

    def used(made: DataFrame) -> None: ...

    result = run([made, dg.asset(used)], manager, instance, raise_on_error=False)
    assert "spark=SparkResource()" in str(failure(result))
