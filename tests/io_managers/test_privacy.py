"""No event of a run shows a value of a column about persons, whatever goes wrong."""

from collections.abc import Callable, Iterator
from typing import Any

import dagster as dg
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from neurolake_dagster.io_managers.base import LakehouseIOManager
from neurolake_dagster.io_managers.privacy import has_pii
from tests.io_managers.test_io_managers import failure, instance, manager, run

__all__ = ["instance", "manager"]
SECRET = "078-05-1120"
NUMBER = 10**18 + 780_511_209
KEYS = dg.StaticPartitionsDefinition(["a", "b"])
FLAGGED = pa.schema([pa.field("ssn", pa.string(), metadata={"ncf.pii": "true"})])


def failing_reader() -> pa.RecordBatchReader:
    def batches() -> Iterator[pa.RecordBatch]:
        yield pa.record_batch([pa.array([SECRET]).cast(pa.int64())], names=["ssn"])

    return pa.RecordBatchReader.from_batches(pa.schema([("ssn", pa.int64())]), batches())


class Odd:
    def __repr__(self) -> str:
        return SECRET


def shown(instance: dg.DagsterInstance, result: dg.ExecuteInProcessResult) -> list[str]:
    events = map(dg.serialize_value, instance.all_logs(result.run_id))
    return [one for one in events if SECRET in one or str(NUMBER) in one]


ROWS: dict[str, Callable[[], Any]] = {
    "stray": lambda: pa.table({"ssn": [SECRET], "n": [1]}),
    "stray field": lambda: pa.table({"ssn": [SECRET]}, schema=FLAGGED),
    "stray reader": lambda: pa.table({"ssn": [SECRET], "n": [1]}).to_reader(),
    "dict": lambda: {"a": pa.table({"ssn": [SECRET]})},
    "mixed pandas": lambda: pd.DataFrame({"ssn": [1, SECRET]}),
    "large pandas": lambda: pd.DataFrame({"ssn": [NUMBER, 2**70]}),
    "object": lambda: pd.DataFrame({"ssn": [Odd()]}),
    "lazy cast": lambda: pl.LazyFrame({"ssn": [SECRET]}).cast(pl.Int64),
    "reader": failing_reader,
    "out of range": lambda: pa.table({"ssn": pa.array([NUMBER], pa.uint64())}),
    "nanoseconds": lambda: pa.table({"ssn": pa.array([NUMBER], pa.timestamp("ns"))}),
}


@pytest.mark.parametrize("name", ROWS)
def test_no_failed_write_shows_a_person(
    manager: LakehouseIOManager, instance: dg.DagsterInstance, name: str
) -> None:
    """Errors quoted rows, as did the causes that Dagster keeps with them."""
    flags = {} if name == "stray field" else {"pii_columns": ["ssn"]}

    @dg.asset(partitions_def=KEYS, metadata={"partition_expr": "ssn"} | flags)
    def people() -> Any:
        return ROWS[name]()

    result = run([people], manager, instance, partition_key="a", raise_on_error=False)
    assert not result.success
    assert shown(instance, result) == []


@pytest.mark.parametrize(
    "where", [f"ssn = {NUMBER}", f"ssn = '{SECRET}' AND", [("ssn", "=", [SECRET])]]
)
def test_no_predicate_shows_a_person(
    manager: LakehouseIOManager, instance: dg.DagsterInstance, where: Any
) -> None:
    @dg.asset(metadata={"pii_columns": ["ssn"]})
    def people() -> pa.Table:
        return pa.table({"ssn": [SECRET]})

    @dg.asset(ins={"people": dg.AssetIn(metadata={"where": where})})
    def used(people: pa.Table) -> None:
        raise AssertionError(people)

    result = run([people, used], manager, instance, raise_on_error=False)
    assert "not understood, or compares columns" in str(failure(result))
    assert shown(instance, result) == []


def test_others_rows_are_quoted(manager: LakehouseIOManager, instance: dg.DagsterInstance) -> None:
    @dg.asset(partitions_def=KEYS, metadata={"partition_expr": "k"})
    def places() -> pa.Table:
        return pa.table({"k": ["Rome"]})

    result = run([places], manager, instance, partition_key="a", raise_on_error=False)
    assert any(
        "{'k': 'Rome'}" in dg.serialize_value(one) for one in instance.all_logs(result.run_id)
    )


@pytest.mark.parametrize(
    "value",
    [pd.DataFrame({"schema": [1, 2]}), pl.LazyFrame({"n": ["x"]}).select(missing=pl.col("m"))],
    ids=["column named schema", "lazy frame that fails"],
)
def test_what_keeps_no_flags_is_not_asked_for_any(value: Any) -> None:
    """An error of its own took the place of the one that was to be told."""
    assert not has_pii(value)
