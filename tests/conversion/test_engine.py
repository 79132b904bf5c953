"""Conversions between the three formats, and what happens when one fails."""

import datetime
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pytest

from neurolake_dagster.conversion import ConversionPlan, Dataset, Format, compare, convert, profile
from neurolake_dagster.conversion.plan import Written
from neurolake_dagster.errors import ConversionError, TableError, TableNotFoundError
from neurolake_dagster.storage import Storage
from neurolake_dagster.tables import Table
from neurolake_dagster.tables.delta import DeltaDataset

ROWS = pa.table(
    {
        "id": pa.array(range(10_000), pa.int64()),
        "carrier": pa.array(["UA", None, "AA", ""] * 2_500),
        "delay": pa.array([1, None, -3, 40] * 2_500, pa.int32()),
        "rate": pa.array([0.5, float("nan"), -0.0, None] * 2_500),
        "price": pa.array([Decimal("1.50"), None] * 5_000, pa.decimal128(10, 2)),
        "day": pa.array([datetime.date(2013, 1, 1), None] * 5_000),
        "at": pa.array([datetime.datetime(2013, 1, 1), None] * 5_000, pa.timestamp("us", "UTC")),
        "legs": pa.array([["EWR"], [], None, ["JFK", None]] * 2_500),
    }
)
FORMATS: list[Format] = ["parquet", "ncf", "delta"]


def dataset(folder: Path, kind: Format, name: str) -> Dataset:
    return Dataset(format=kind, storage=Storage(str(folder)), path=f"{kind}/{name}")


def written(folder: Path, kind: Format, name: str, rows: pa.Table = ROWS) -> Dataset:
    made = dataset(folder, kind, name)
    made.write(rows.to_reader())
    return made


@pytest.mark.parametrize("target", FORMATS)
@pytest.mark.parametrize("source", FORMATS)
def test_a_conversion_changes_nothing(tmp_path: Path, source: Format, target: Format) -> None:
    plan = ConversionPlan(
        source=written(tmp_path, source, "before"), target=dataset(tmp_path, target, "after")
    )
    result = convert(plan)
    report = compare(profile(ROWS.to_reader()), profile(plan.target.scan()))
    assert result.row_count == 10_000
    assert result.target.bytes > 0
    assert report.is_equal, report.results


@pytest.mark.parametrize("kind", FORMATS)
def test_a_conversion_replaces_the_former_rows_and_columns(tmp_path: Path, kind: Format) -> None:
    """Delta refused other columns and advised to overwrite the whole table, as was done."""
    target = written(tmp_path, kind, "t")
    others = pa.table({"id": ["a", "b"], "new": [1.5, None]})
    convert(ConversionPlan(source=written(tmp_path, "ncf", "s", others), target=target))
    assert target.scan().read_all().equals(others)


def test_a_conversion_keeps_how_a_delta_table_is_partitioned(tmp_path: Path) -> None:
    target = dataset(tmp_path, "delta", "t")
    table = DeltaDataset(target.storage, target.path)
    table.write(ROWS.select(["id", "carrier"]), partition_by=["carrier"])
    convert(ConversionPlan(source=written(tmp_path, "ncf", "s"), target=target))
    assert table.open().metadata().partition_columns == ["carrier"]
    assert compare(profile(ROWS.to_reader()), profile(target.scan())).results[3].is_equal


@pytest.mark.parametrize("kind", FORMATS)
def test_a_failed_write_leaves_the_former_rows(tmp_path: Path, kind: Format) -> None:
    def broken() -> Iterator[pa.RecordBatch]:
        yield from ROWS.slice(0, 10).to_batches()
        raise ValueError("the source broke off")

    target = written(tmp_path, kind, "t")
    with pytest.raises((ValueError, OSError), match="the source broke off"):
        target.write(pa.RecordBatchReader.from_batches(ROWS.schema, broken()))
    assert target.scan().read_all().num_rows == 10_000


def test_a_type_that_the_target_would_change_is_refused_before_any_row(tmp_path: Path) -> None:
    rows = pa.table(
        {
            "nanos": pa.array([1], pa.timestamp("ns")),
            "unsigned": pa.array([2**63], pa.uint64()),
            "plain": pa.array([1]),
        }
    )
    source, target = written(tmp_path, "ncf", "s", rows), written(tmp_path, "delta", "t")
    with pytest.raises(ConversionError, match=r"'nanos'.*'unsigned'.*cast them in the source"):
        convert(ConversionPlan(source=source, target=target))
    assert target.scan().read_all().num_rows == 10_000


def test_an_unknown_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match=r"unknown format 'orc'; expected one of"):
        dataset(tmp_path, "orc", "t")  # type: ignore[arg-type]


def test_source_and_target_must_differ(tmp_path: Path) -> None:
    same = dataset(tmp_path, "ncf", "t")
    with pytest.raises(ConversionError, match="the same place"):
        ConversionPlan(source=same, target=same)


def test_a_missing_source_is_told(tmp_path: Path) -> None:
    plan = ConversionPlan(
        source=dataset(tmp_path, "parquet", "nowhere"), target=dataset(tmp_path, "ncf", "t")
    )
    with pytest.raises(TableNotFoundError, match="nowhere"):
        convert(plan)


def test_a_type_that_delta_lacks_is_told_by_its_column_alone(tmp_path: Path) -> None:
    """The place of a probe, a folder long gone, was named with it."""
    rows = pa.table({"x": pa.array([1], pa.duration("us")), "y": pa.array([{}], pa.struct([]))})
    plan = ConversionPlan(
        source=written(tmp_path, "ncf", "s", rows), target=dataset(tmp_path, "delta", "t")
    )
    with pytest.raises(
        ConversionError, match=r"is not held: Delta has no such types.*'y': struct<>"
    ):
        convert(plan)


@pytest.mark.parametrize("kind", ["parquet", "delta"])
def test_rows_without_columns_leave_the_former_rows(tmp_path: Path, kind: Format) -> None:
    """Parquet's commit was made, of no rows; then the conversion failed."""
    source = written(tmp_path, "ncf", "s", ROWS.select([]))
    target = written(tmp_path, kind, "t")
    with pytest.raises(TableError, match="without columns"):
        convert(ConversionPlan(source=source, target=target))
    assert target.scan().read_all().num_rows == 10_000


def test_a_scale_that_the_target_lacks_is_refused(tmp_path: Path) -> None:
    """A raw OSError."""
    rows = pa.table({"x": pa.array([Decimal(100)], pa.decimal128(5, -2))})
    plan = ConversionPlan(
        source=written(tmp_path, "ncf", "s", rows), target=dataset(tmp_path, "parquet", "t")
    )
    with pytest.raises(ConversionError, match=r"column 'x': decimal128\(5, -2\) is not held"):
        convert(plan)


def test_a_source_that_grows_meanwhile_is_told_as_it_was_read(tmp_path: Path) -> None:
    """The size of one version was told beside the rows of the next."""

    class Growing(Dataset):
        def written(self) -> Written:
            found = super().written()
            Table(self.storage, self.path, "ncf").write(ROWS.slice(0, 5), mode="append")
            return found

    source = written(tmp_path, "ncf", "s", ROWS.slice(0, 7))
    growing = Growing(format="ncf", storage=source.storage, path=source.path)
    result = convert(ConversionPlan(source=growing, target=dataset(tmp_path, "parquet", "t")))
    assert (result.source.version, result.source.row_count, result.row_count) == (0, 7, 7)


def test_a_target_that_another_writes_to_is_no_failed_conversion(tmp_path: Path) -> None:
    source = written(tmp_path, "ncf", "s", ROWS.slice(0, 7))

    class Overtaken(Dataset):
        def written(self) -> Written:
            Table(self.storage, self.path, "ncf").write(ROWS.slice(0, 5), mode="append")
            return super().written()

    target = Overtaken(format="ncf", storage=source.storage, path="ncf/t")
    result = convert(ConversionPlan(source=source, target=target))
    assert (result.target.version, result.target.row_count) == (0, 7)
