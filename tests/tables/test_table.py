"""Tables on disk and on a real S3 server: versions, partitions, failures."""

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from neurolake_dagster.errors import (
    CommitConflictError,
    PartitionError,
    SchemaMismatchError,
    TableError,
    TableNotFoundError,
)
from neurolake_dagster.storage import Storage, StorageOptions
from neurolake_dagster.tables import (
    Partition,
    Table,
    column_statistics,
    evolve_schema,
    restore,
    set_properties,
    vacuum,
)
from tests.s3_server import S3Server

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

FORMATS = ["ncf", "parquet"]
ODD_KEYS = [
    "../../evil", "/abs", "..", ".", "a/b", "a%2Fb", "a*[x]?", "2013-01-01-00:00", "é", "_a",
]  # fmt: skip


@pytest.fixture(params=["local", "s3"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "local":
        return Storage(str(tmp_path / "lake"))
    server: S3Server = request.getfixturevalue("s3_server")
    options = StorageOptions(
        endpoint=server.endpoint, access_key=server.access_key, secret_key=server.secret_key
    )
    return Storage(f"s3://{server.bucket}/{tmp_path.name}", options)


@pytest.fixture(params=FORMATS)
def table(request: pytest.FixtureRequest, storage: Storage) -> Table:
    return Table(storage, f"{request.param}/t", request.param)


@pytest.fixture
def local(tmp_path: Path) -> Table:
    return Table(Storage(str(tmp_path / "lake")), "parquet/t", "parquet")


def rows(*ids: int, day: str = "a") -> pa.Table:
    days = pa.array([day] * len(ids), pa.string())
    return pa.table({"id": pa.array(ids, pa.int64()), "day": days})


def by_day(batch: pa.RecordBatch) -> Iterator[tuple[Partition, pa.RecordBatch]]:
    days = batch.column("day")
    for day in days.unique().to_pylist():
        yield (("partition_key", day),), batch.filter(pa.compute.equal(days, day))


def ids(found: pa.Table) -> list[int]:
    return sorted(found["id"].to_pylist())


def test_a_written_table_is_read_back(table: Table) -> None:
    assert not table.exists()
    commit = table.write(rows(1, 2, 3))

    assert (commit.version, commit.row_count, commit.table_row_count) == (0, 3, 3)
    assert commit.bytes == sum(file.bytes for file in table.files()) > 0
    assert commit.timestamp == table.history()[0].timestamp == table.snapshot().timestamp
    assert abs(datetime.now(UTC) - commit.timestamp) < timedelta(minutes=5)
    assert table.read().equals(rows(1, 2, 3))
    assert table.scan().read_all().equals(rows(1, 2, 3))
    assert table.snapshot().schema.equals(rows().schema)


def test_columns_and_filters_are_pushed_into_the_read(table: Table) -> None:
    table.write(rows(1, 2, 3))
    assert table.read(columns=["day"]).column_names == ["day"]
    assert table.read(filters=[("id", ">", 1)])["id"].to_pylist() == [2, 3]
    assert table.read(columns=["day"], filters=[("id", "=", 9)]).num_rows == 0
    assert table.scan(columns=["id"], filters=[("id", "<", 3)]).read_all().num_rows == 2
    with pytest.raises(TableError, match="'id', 'day'"):
        table.read(columns=["nope"])


def test_overwriting_replaces_rows_and_schema(table: Table) -> None:
    table.write(rows(1))
    commit = table.write(pa.table({"other": ["x"]}))
    assert commit.version == 1
    assert len(commit.files_removed) == 1
    assert table.read().to_pylist() == [{"other": "x"}]


def test_partitions_are_replaced_one_by_one(table: Table) -> None:
    table.write(rows(1, 2), partition="2013-01-01")
    table.write(rows(3), partition="2013-01-02")
    commit = table.write(rows(4), partition="2013-01-01")

    assert commit.table_row_count == 2
    assert ids(table.read()) == [3, 4]
    assert ids(table.read(partitions=["2013-01-02"])) == [3]
    assert table.read(partitions=["2013-01-09"]).num_rows == 0


def test_one_write_replaces_several_partitions_and_no_other(table: Table) -> None:
    for day in "abc":
        table.write(rows(1, day=day), partition=day)
    both = pa.concat_tables([rows(7, day="b"), rows(8, day="a")])
    commit = table.write(both, split=by_day, partitions=["a", "b"])

    assert commit.version == 3
    assert ids(table.read(partitions=["b", "a"])) == [7, 8]
    assert ids(table.read(partitions=["c"])) == [1]


def test_a_whole_table_is_replaced_by_divided_rows_of_another_schema(table: Table) -> None:
    """Their columns were refused, though no row stayed; those of undivided rows were taken."""
    table.write(rows(1, day="a"), split=by_day)
    new = pa.table({"day": ["b"], "n": [1.5]})
    table.write(new, split=by_day)
    assert table.read().equals(new)


def test_a_partition_without_rows_is_written_empty(table: Table) -> None:
    table.write(rows(1, day="a"), split=by_day, partitions=["a", "b"])
    assert len(table.snapshot().partitions) == 2
    table.write(rows(), partition="a")
    assert table.read().num_rows == 0
    assert table.read().schema.equals(rows().schema)


def test_rows_outside_the_asked_partitions_are_refused(table: Table) -> None:
    table.write(rows(1), partition="a")
    stray = pa.concat_tables([rows(2, day="a"), rows(3, day="b")])
    with pytest.raises(PartitionError, match="'b'"):
        table.write(stray, split=by_day, partitions=["a"])
    assert ids(table.read()) == [1]
    assert table.snapshot().version == 0


def failing_rows() -> pa.RecordBatchReader:
    def batches() -> Iterator[pa.RecordBatch]:
        yield rows(*range(1000)).to_batches()[0]
        raise RuntimeError("the transform failed")

    return pa.RecordBatchReader.from_batches(rows().schema, batches())


@pytest.mark.parametrize("partition", [None, "a"])
def test_a_failed_write_leaves_the_former_version_and_no_file(
    table: Table, partition: str | None
) -> None:
    table.write(rows(1), partition=partition)
    before = [entry.key for entry in table.folder.list()]
    with pytest.raises(RuntimeError, match="transform"):
        table.write(failing_rows(), partition=partition)
    assert ids(table.read()) == [1]
    assert [entry.key for entry in table.folder.list()] == before


def test_a_first_write_that_fails_leaves_no_table(table: Table) -> None:
    with pytest.raises(RuntimeError):
        table.write(failing_rows())
    assert not table.exists()
    with pytest.raises(TableNotFoundError, match=r"/t: no table here"):
        table.read()


def test_rows_of_another_schema_are_refused_in_a_partition(table: Table) -> None:
    table.write(rows(1), partition="a")
    wrong = pa.table({"id": ["x"], "more": [1]})
    with pytest.raises(SchemaMismatchError) as caught:
        table.write(wrong, partition="b")
    for problem in ("'day' is missing", "'id' is string, expected int64", "'more' is not in"):
        assert problem in str(caught.value)


def test_forms_of_the_same_type_fit_into_a_partition(table: Table) -> None:
    table.write(rows(1), partition="a")
    polars = pl.DataFrame({"day": ["b"], "id": [2]}, schema_overrides={"id": pl.Int32}).to_arrow()
    table.write(polars, partition="b")
    assert table.read().schema.equals(rows().schema)
    assert ids(table.read()) == [1, 2]


def test_modes_append_refuse_and_ignore(table: Table) -> None:
    table.write(rows(1), mode="error")
    table.write(rows(2), mode="append")
    assert ids(table.read()) == [1, 2]
    with pytest.raises(TableError, match="exists already"):
        table.write(rows(3), mode="error")
    assert table.write(rows(3), mode="ignore").operation == "none"
    assert ids(table.read()) == [1, 2]


def test_an_append_carried_out_twice_adds_once(table: Table) -> None:
    first = table.write(rows(1), mode="append", transaction="run/step/a")
    again = table.write(rows(1), mode="append", transaction="run/step/a")
    assert again.version == first.version
    assert again.files_added == first.files_added
    assert ids(table.read()) == [1]


def test_parallel_writers_of_different_partitions_all_succeed(table: Table) -> None:
    """M13: parallel first writes of one table failed with a changed protocol."""
    failures: list[BaseException] = []

    def write(number: int) -> None:
        try:
            table.write(rows(number), partition=f"p{number}")
        except BaseException as exc:  # noqa: BLE001 - told in the test's own thread
            failures.append(exc)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert ids(table.read()) == list(range(8))
    assert table.snapshot().version == 7


def test_a_conflict_names_both_commits_and_changes_nothing(table: Table) -> None:
    table.write(rows(1), partition="a")

    def overtaken() -> Iterator[pa.RecordBatch]:
        table.write(rows(2), partition="a")
        yield rows(3).to_batches()[0]

    data = pa.RecordBatchReader.from_batches(rows().schema, overtaken())
    with pytest.raises(CommitConflictError, match=r"on version 0.* version 1 .*partition_key"):
        table.write(data, partition="a")
    assert ids(table.read()) == [2]
    assert len({entry.key for entry in table.folder.list() if "part-" in entry.key}) == (
        1 if table.format == "parquet" else 2
    )


def test_versions_go_on_past_checkpoints(local: Table) -> None:
    for number in range(25):
        local.write(rows(number), partition=f"p{number}")
    snapshot = local.snapshot()
    assert (snapshot.version, snapshot.row_count) == (24, 25)
    assert ids(local.read()) == list(range(25))
    assert local.snapshot(7).row_count == 8
    assert local.snapshot(20).row_count == 21
    assert [entry.version for entry in local.history()] == list(range(24, -1, -1))
    with pytest.raises(TableNotFoundError, match="no version 99"):
        local.snapshot(99)


def test_partition_keys_never_leave_the_table_or_collide(table: Table) -> None:
    for number, key in enumerate(ODD_KEYS):
        table.write(rows(number), partition=key)
    for number, key in enumerate(ODD_KEYS):
        assert ids(table.read(partitions=[key])) == [number]
    assert all(entry.key.startswith(f"{table.format}/t/") for entry in table.storage.list())


def test_parquet_stays_a_plain_folder(local: Table) -> None:
    for _ in range(2):
        local.write(rows(1, 2), partition="2013-01-01")
        local.write(rows(3), partition="2013/01:02 %")

    plain = duckdb.sql(
        f"select count(*), max(partition_key) from read_parquet('{local.uri}/**/*.parquet')"
    ).fetchall()
    assert plain == [(3, "2013/01:02 %")]
    found = ds.dataset(local.uri, format="parquet", partitioning="hive").to_table()
    assert ids(found) == [1, 2, 3]
    assert set(found["partition_key"].to_pylist()) == {"2013-01-01", "2013/01:02 %"}
    assert pq.read_table(local.uri).num_rows == 3


def test_spark_reads_parquet_as_a_plain_folder(local: Table, spark: "SparkSession") -> None:
    for _ in range(2):
        local.write(rows(1, 2), partition="2013-01-01")
        local.write(rows(3), partition="2013/01:02 %")
    plain = spark.read.parquet(local.spark_uri).toArrow()
    assert ids(plain) == [1, 2, 3]
    assert set(plain["partition_key"].to_pylist()) == {"2013-01-01", "2013/01:02 %"}


def test_parquet_keeps_former_files_if_asked(local: Table) -> None:
    local.write(rows(1))
    set_properties(local, {"neurolake.keep_former_files": "true"})
    local.write(rows(2))
    local.write(rows(3))
    assert ids(local.read(version=1)) == [1]
    assert vacuum(local, retention=timedelta(days=1)).paths == ()
    restore(local, 1)
    assert ids(local.read()) == [1]

    set_properties(local, {"neurolake.keep_former_files": "false"})
    assert ids(pq.read_table(local.uri)) == [1], "those of other versions are gone"
    assert vacuum(local, retention=timedelta(days=1)).paths == ()


def test_ncf_and_parquet_are_not_mixed(local: Table) -> None:
    local.write(rows(1))
    with pytest.raises(TableError, match="holds parquet"):
        Table(local.storage, local.path, "ncf").read()


def test_a_damaged_log_is_told(local: Table) -> None:
    local.write(rows(1))
    (entry,) = local.folder.list("_log")
    local.folder.put(entry.key, b"{")
    with pytest.raises(TableError, match="damaged"):
        local.snapshot()


def test_files_written_by_others_are_committed_in_one_go(table: Table) -> None:
    table.write(rows(1))
    with table.stage() as stage:
        with table.folder.open_output(f"{stage.path}/part-0.parquet") as sink:
            pq.write_table(rows(5, 6), pa.PythonFile(sink, mode="w"))
        if table.format == "parquet":
            staged = stage.collect()
            table.commit(staged.files, schema=staged.schema)
            assert ids(table.read()) == [5, 6]
    assert not list(table.folder.list("_staging"))


def test_tables_are_read_while_they_are_overwritten(local: Table) -> None:
    """Parquet keeps no old files: a reader whose file is gone reads the newer version."""
    local.write(rows(1))
    stop = threading.Event()

    def overwrite() -> None:
        number = 1
        while not stop.is_set():
            number += 1
            local.write(rows(number))

    writer = threading.Thread(target=overwrite)
    writer.start()
    try:
        for _ in range(30):
            assert local.read().num_rows == 1
    finally:
        stop.set()
        writer.join()


NAN_FILTERS = {
    "unequal": pc.field("f") != 1.0,
    "not": ~(pc.field("f") <= 1.0),
    "is_nan": pc.field("f").is_nan(),
    "nan_is_null": pc.field("f").is_null(nan_is_null=True),
    "and": (pc.field("id") > 1) & (pc.field("f") != 1.0),
    "or": (pc.field("f") > 1.0) | pc.field("f").is_nan(),
    "nested": pc.field("s", "f") != 1.0,
    "by number": pc.field(2) != 1.0,
    "list": [("f", "!=", 1.0)],
}


@pytest.mark.parametrize("filters", NAN_FILTERS.values(), ids=NAN_FILTERS.keys())
def test_nan_passes_the_same_filters_in_each_format(table: Table, filters: object) -> None:
    """Row groups of Parquet were skipped by statistics of floats, which leave NaN out."""
    floats = pa.array([1.0, float("nan")])
    nested = pa.StructArray.from_arrays([floats], ["f"])
    table.write(pa.table({"id": [1, 2], "s": nested, "f": floats}))

    assert table.read(columns=["id"], filters=filters)["id"].to_pylist() == [2]
    assert table.scan(columns=["id"], filters=filters).read_all()["id"].to_pylist() == [2]


def test_statistics_conclude_nothing_of_comparisons_with_nan(table: Table) -> None:
    """Arrow takes `id <= NaN` for true of a bounded id, so its opposite lost all rows."""
    table.write(rows(1, 2))
    table.write(rows(3), mode="append")

    for filters in (~(pc.field("id") <= float("nan")), pc.field("id") != float("nan")):
        assert table.read(filters=filters)["id"].to_pylist() == [1, 2, 3]


SKIPPING = {
    "integers": pc.field("id") >= 10,
    "texts": pc.field("day") == "b",
    "a float": pc.field("f") > 5.0,
    "NaN may pass": (pc.field("id") >= 10) & (pc.field("f") != 1.0),
}


@pytest.mark.parametrize("filters", SKIPPING.values(), ids=SKIPPING.keys())
def test_row_groups_that_cannot_match_are_not_read(
    local: Table, tmp_path: Path, filters: pc.Expression, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first group's data are overwritten: whoever decodes them fails."""
    monkeypatch.setattr("neurolake_dagster.tables.formats.ROW_GROUP_ROWS", 3)
    both = pa.concat_tables([rows(1, 2, 3), rows(10, 11, 12, day="b")])
    local.write(both.append_column("f", both["id"].cast(pa.float64())))
    path = next(tmp_path.rglob("*.parquet"))
    second = pq.read_metadata(path).row_group(1).column(0)
    end = second.dictionary_page_offset or second.data_page_offset
    path.write_bytes(bytes(end) + path.read_bytes()[end:])

    assert local.read(filters=filters)["id"].to_pylist() == [10, 11, 12]
    assert local.scan(filters=filters).read_all()["id"].to_pylist() == [10, 11, 12]
    with pytest.raises(TableError):
        local.read()


@pytest.mark.parametrize("is_evolved", [False, True], ids=["plain", "evolved"])
def test_rows_without_columns_are_counted(table: Table, is_evolved: bool) -> None:
    """Arrow forgets the number of rows where batches or tables have no columns."""
    table.write(rows(1, 2, 3))
    table.write(rows(4), mode="append")
    if is_evolved and table.format == "ncf":
        evolve_schema(table, add={"f": pa.float64()}, drop=["day"])

    assert table.read(columns=[]).num_rows == 4
    assert table.scan(columns=[]).read_all().num_rows == 4
    for filters in (pc.field("id") > 1, ~(pc.field("id") / 2.0 <= 0.5), "id > 1"):
        assert table.read(columns=[], filters=filters).num_rows == 3
        assert table.scan(columns=[], filters=filters).read_all().num_rows == 3


def test_a_name_with_a_dot_is_no_field_of_a_struct(local: Table) -> None:
    """The file's bounds of `a.b` were those of the b within a: rows were skipped."""
    for number in range(3):
        rows = {"a.b": [number], "x": [float(number)], "a": [{"b": 1000}]}
        local.write(pa.table(rows), mode="append")
    assert local.read(["a.b"], "`a.b` = 1").to_pydict() == {"a.b": [1]}
    assert local.read(["a.b"], "`a.b` = 1 AND x != 5").to_pydict() == {"a.b": [1]}
    assert column_statistics(local.snapshot())[0].maximum == 2


@pytest.mark.parametrize("type_", [pa.timestamp("us", "UTC"), pa.date32()], ids=str)
def test_times_beyond_those_of_python_are_written(table: Table, type_: pa.DataType) -> None:
    """A raw OverflowError from Parquet's statistics."""
    far = 2**62 if pa.types.is_timestamp(type_) else 2**31 - 1
    column = pa.array([far, 0], pa.int64() if pa.types.is_timestamp(type_) else pa.int32())
    rows = pa.table({"x": column.cast(type_)})
    table.write(rows)
    table.write(rows, mode="append")
    assert table.read(filters="x > '2000-01-01'").num_rows == 2
    assert column_statistics(table.snapshot())[0].null_count == 0


def test_extensions_are_asked_for_null(table: Table) -> None:
    """A raw ArrowNotImplementedError from Parquet's scanner."""
    table.write(pa.table({"x": pa.array([b"0123456789abcdef", None], pa.uuid())}))
    assert table.read(filters="x IS NULL").num_rows == 1
    assert table.scan(filters="x IS NOT NULL").read_all().num_rows == 1


def test_what_parquet_cannot_hold_is_told(local: Table) -> None:
    rows = pa.table({"x": pa.array([pa.MonthDayNano([1, 2, 3])])})
    with pytest.raises(
        TableError, match=r"(?s)parquet file cannot hold these rows.*month_day_nano"
    ):
        local.write(rows)
    assert not list(local.folder.list())


def test_dictionaries_with_null_among_their_values_are_written(table: Table) -> None:
    indices = pa.array([0, 1, None], pa.int8())
    values = pa.DictionaryArray.from_arrays(indices, pa.array(["a", None]))
    table.write(pa.table({"x": values}))
    assert table.read()["x"].to_pylist() == ["a", None, None]


def test_long_texts_are_looked_for_beside_a_long_name(table: Table) -> None:
    """A raw UnicodeDecodeError: Arrow shortened the filter's text within a character."""
    name, text = "x" * 300, "\U0010ffff" * 50
    table.write(pa.table({name: [text, "b"]}))
    table.write(pa.table({name: ["c", None]}), mode="append")
    found = table.read(filters=f"{name} IN ('{text}', 'c', 'd') OR {name} IS NULL")
    assert found[name].to_pylist() == [text, "c", None]
