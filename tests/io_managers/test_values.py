"""The types that assets may return and ask for, in real runs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pytest

from neurolake_dagster.io_managers import ParquetIOManager
from neurolake_dagster.io_managers.base import LakehouseIOManager
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
    ],
    ids=["none", "list"],
)
def test_other_types_are_refused_naming_the_known(
    manager: LakehouseIOManager, instance: dg.DagsterInstance, value: Any, told: str
) -> None:
    @dg.asset
    def made() -> Any:
        return value

    result = run([made], manager, instance, raise_on_error=False)
    assert told in str(failure(result))


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
