"""Row-level changes and housekeeping of tables, on NCF and Parquet."""

import math
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from neurolake_dagster.errors import (
    CommitConflictError,
    PartitionError,
    SchemaMismatchError,
    TableError,
    TableNotFoundError,
)
from neurolake_dagster.storage import Storage
from neurolake_dagster.tables import (
    PartFiles,
    Table,
    delete_rows,
    evolve_schema,
    merge_rows,
    optimize,
    restore,
    set_properties,
    vacuum,
)
from neurolake_dagster.tables.delta import DeltaDataset
from neurolake_dagster.tables.formats import NCFFormat, ParquetFormat
from neurolake_dagster.tables.merging import WhenGone, WhenMatched, WhenNew
from neurolake_dagster.tables.partitions import Partition
from neurolake_dagster.tables.skipping import matching_files


@pytest.fixture(params=["ncf", "parquet"])
def table(request: pytest.FixtureRequest, tmp_path: Path) -> Table:
    return Table(Storage(str(tmp_path)), "t", request.param)


@pytest.fixture
def ncf(tmp_path: Path) -> Table:
    return Table(Storage(str(tmp_path)), "t", "ncf")


def people(*rows: tuple[int | None, str | None]) -> pa.Table:
    ids, names = [row[0] for row in rows], [row[1] for row in rows]
    return pa.table({"id": pa.array(ids, pa.int64()), "name": pa.array(names, pa.string())})


def content(table: Table) -> set[tuple[int | None, str | None]]:
    return {(row["id"], row["name"]) for row in table.read().to_pylist()}


def test_deleting_takes_the_rows_that_match_and_touches_no_other_file(table: Table) -> None:
    table.write(people((1, "a"), (2, "b"), (3, None)), mode="append")
    table.write(people((10, "x")), mode="append")
    untouched = table.files()[1].path
    commit = delete_rows(table, [("id", ">=", 2), ("id", "<", 9)])

    assert commit.metrics == {"rows_deleted": 2, "rows_copied": 1}
    assert content(table) == {(1, "a"), (10, "x")}
    assert untouched in [file.path for file in table.files()]


def test_texts_say_which_rows_are_deleted_and_read(table: Table) -> None:
    table.write(people((1, "a"), (2, "b"), (3, None)))
    assert table.read(filters="id >= 2 AND name IS NOT NULL")["id"].to_pylist() == [2]
    assert table.scan(filters="id < 2").read_all()["name"].to_pylist() == ["a"]
    assert delete_rows(table, "id > 1.5 AND name != 'z'").metrics["rows_deleted"] == 1
    assert content(table) == {(1, "a"), (3, None)}
    for act in (delete_rows, lambda table, where: table.read(filters=where)):
        with pytest.raises(TableError, match="no column 'x'"):
            act(table, "x > 1")


def test_rows_whose_predicate_is_null_stay(table: Table) -> None:
    table.write(people((1, "a"), (2, None)))
    assert delete_rows(table, pc.field("name") == "a").metrics["rows_deleted"] == 1
    assert content(table) == {(2, None)}
    assert delete_rows(table, [("name", "=", "zz")]).operation == "none"


def test_merging_updates_inserts_and_counts_exactly(table: Table) -> None:
    table.write(people((1, "a"), (2, "b")), mode="append")
    table.write(people((5, "e"), (6, "f")), mode="append")
    commit = merge_rows(table, people((2, "B"), (5, "E"), (9, "new")), ["id"])

    assert commit.metrics == {
        "rows_inserted": 1, "rows_updated": 2, "rows_deleted": 0, "rows_copied": 2,
    }  # fmt: skip
    assert content(table) == {(1, "a"), (2, "B"), (5, "E"), (6, "f"), (9, "new")}


@pytest.mark.parametrize("when_matched", ["update", "delete"])
@pytest.mark.parametrize("when_gone", ["keep", "delete"])
@pytest.mark.parametrize(
    "rows",
    [((0, "a"), (1, "b")), ((0, "a"), (1, "b"), (3, "C")), ((0, "A"), (20, "n"))],
    ids=["nothing changes", "one changes", "one is new"],
)
def test_merges_are_counted_as_delta_counts_them(
    table: Table,
    tmp_path: Path,
    rows: tuple[tuple[int, str], ...],
    when_matched: WhenMatched,
    when_gone: WhenGone,
) -> None:
    """Updates that change nothing, in files that stay, gave -2 rows copied."""
    delta = DeltaDataset(Storage(str(tmp_path)), "delta")
    for file in (people((0, "a"), (10, "p")), people((1, "b")), people((3, "c"), (13, "r"))):
        table.write(file, mode="append")
        delta.write(file, mode="append")
    clauses: dict[str, Any] = {"when_matched": when_matched, "when_gone": when_gone}
    delta.merge(people(*rows), ["id"], **clauses, transaction="m")
    theirs = delta.commit("m")
    assert theirs is not None
    assert merge_rows(table, people(*rows), ["id"], **clauses).metrics == theirs.merged_rows


def test_merging_can_delete_what_is_gone(table: Table) -> None:
    table.write(people((1, "a"), (2, "b"), (3, "c")))
    commit = merge_rows(table, people((2, "B"), (4, "d")), ["id"], when_gone="delete")
    assert (commit.metrics["rows_deleted"], commit.metrics["rows_inserted"]) == (2, 1)
    assert content(table) == {(2, "B"), (4, "d")}


def test_merging_can_only_insert_or_only_delete(table: Table) -> None:
    table.write(people((1, "a"), (2, "b")))
    merge_rows(table, people((1, "A"), (3, "c")), ["id"], when_matched="ignore")
    assert content(table) == {(1, "a"), (2, "b"), (3, "c")}
    merge_rows(table, people((1, "A"), (7, "g")), ["id"], when_matched="delete", when_new="ignore")
    assert content(table) == {(2, "b"), (3, "c")}


def by_name(batch: pa.RecordBatch) -> Iterator[tuple[Partition, pa.RecordBatch]]:
    for name in batch["name"].unique().to_pylist():
        yield (("partition_key", name),), batch.filter(pc.field("name") == name)


def test_merged_rows_lie_in_their_own_partition(table: Table) -> None:
    """Updated rows stayed in the partition where their key was found."""
    table.write(people((1, "a"), (2, "b"), (3, "b")), split=by_name)
    commit = merge_rows(
        table, people((1, "b"), (3, "a"), (4, "a")), ["id"], split=by_name, partitions=["a", "b"]
    )
    assert commit.metrics == {
        "rows_inserted": 1, "rows_updated": 2, "rows_deleted": 0, "rows_copied": 1,
    }  # fmt: skip
    found = {name: sorted(table.read(partitions=[name])["id"].to_pylist()) for name in "ab"}
    assert found == {"a": [3, 4], "b": [1, 2]}

    merge_rows(table, people((3, "b"), (4, "b")), ["id"], split=by_name, partitions=["a", "b"])
    assert [file.row_count for file in table.files(["a"])] == [0]  # empty, not missing


@pytest.mark.parametrize("when_new", ["insert", "ignore"])
@pytest.mark.parametrize("id_", [1, 9], ids=["known", "new"])
def test_merged_rows_of_no_asked_partition_are_refused(
    table: Table, id_: int, when_new: WhenNew
) -> None:
    """Rows that were in the table, or were ignored, passed."""

    def merge() -> None:
        rows = people((2, "a"), (id_, "c"))
        merge_rows(table, rows, ["id"], when_new=when_new, split=by_name, partitions=["a", "b"])

    with pytest.raises(PartitionError, match="'c'"):
        merge()
    assert not table.exists()
    table.write(people((1, "a"), (2, "b")), split=by_name)
    with pytest.raises(PartitionError, match=r"'c'.* was not asked for"):
        merge()
    assert content(table) == {(1, "a"), (2, "b")}


def test_merging_into_nothing_creates_the_table(table: Table) -> None:
    commit = merge_rows(table, people((1, "a")), ["id"])
    assert commit.metrics["rows_inserted"] == 1
    assert content(table) == {(1, "a")}


@pytest.mark.parametrize(
    ("rows", "keys", "told"),
    [
        (people((1, "a"), (1, "b")), ["id"], "repeat a key"),
        (people((None, "a")), ["id"], "is null in 1 rows"),
        (people((1, "a")), ["nope"], "'nope'"),
    ],
    ids=["twice", "null", "unknown"],
)
def test_ambiguous_merges_are_refused(
    table: Table, rows: pa.Table, keys: list[str], told: str
) -> None:
    table.write(people((1, "z")))
    with pytest.raises(TableError, match=told):
        merge_rows(table, rows, keys)
    assert content(table) == {(1, "z")}


@pytest.mark.parametrize(
    ("values", "told"),
    [
        (pa.array([1, 2], pa.decimal256(50, 2)), r"decimal256\(50, 2\)"),
        (pa.array([1, 2], pa.float64()).cast(pa.float16()), "halffloat"),
        (pa.array([{"x": 1}, {"x": 2}]), "struct<x: int64>"),
    ],
    ids=["decimal256", "float16", "struct"],
)
def test_keys_that_cannot_be_matched_are_refused(table: Table, values: pa.Array, told: str) -> None:
    """Errors of Arrow and a panic of polars, which is no Exception."""
    rows = pa.table({"k": values, "v": [1, 2]})
    table.write(rows)
    with pytest.raises(TableError, match=f"merge key 'k' is {told}, which cannot be matched"):
        merge_rows(table, rows, ["k"])
    assert table.snapshot().version == 0


def test_keys_that_the_table_holds_too_wide_are_refused(table: Table) -> None:
    table.write(pa.table({"k": pa.array([1, 2], pa.decimal256(50, 2))}))
    rows = pa.table({"k": pa.array([1], pa.decimal128(20, 2))})
    with pytest.raises(TableError, match="decimal256"):
        merge_rows(table, rows, ["k"])


@pytest.mark.parametrize("type_", [pa.duration("us"), pa.decimal64(12, 2)], ids=str)
def test_merging_by_what_has_no_least_value(table: Table, type_: pa.DataType) -> None:
    """A raw ArrowNotImplementedError: min_max."""
    rows = pa.table({"k": pa.array([1, 2, 3], type_), "v": [1, 2, 3]})
    for one in range(2):
        table.write(rows.slice(one, 1), mode="append")
    commit = merge_rows(table, rows.slice(1), ["k"])
    assert (commit.metrics["rows_updated"], commit.metrics["rows_inserted"]) == (1, 1)


def test_zeros_of_both_signs_are_one_key(table: Table) -> None:
    """They passed as two, and the merge ended in an ArrowInvalid about lengths."""
    table.write(pa.table({"k": [0.0, 1.0]}))
    with pytest.raises(TableError, match="1 rows to merge repeat a key"):
        merge_rows(table, pa.table({"k": [0.0, -0.0]}), ["k"])
    assert merge_rows(table, pa.table({"k": [-0.0]}), ["k"]).metrics["rows_updated"] == 1


@pytest.mark.parametrize(
    "zeros",
    [pa.array([0.0, -0.0]), pa.array([[0.0], [-0.0]], pa.list_(pa.float32()))],
    ids=["plain", "within a list"],
)
def test_an_update_changes_the_sign_of_a_zero(table: Table, zeros: pa.Array) -> None:
    """It was counted, and not written: Arrow takes 0.0 and -0.0 for equal."""
    table.write(pa.table({"k": [1, 2], "x": zeros}))
    commit = merge_rows(table, pa.table({"k": [1], "x": zeros.slice(1)}), ["k"])
    assert commit.metrics["rows_updated"] == 1
    assert str(table.read()["x"].to_pylist()) == str([zeros[1].as_py()] * 2)


def test_what_changes_nothing_commits_nothing_beside_nan(table: Table) -> None:
    """A file with NaN was written anew by a delete of no rows."""
    rows = pa.table({"k": [1, 2], "x": [math.nan, 1.0]})
    table.write(rows)
    assert delete_rows(table, "k > 2 OR x > 3").operation == "none"
    assert merge_rows(table, rows.slice(0, 1), ["k"]).operation == "none"


def test_changes_read_files_in_pieces_and_of_others_the_columns_that_tell(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whole files were in memory, with all columns also where no row of them matched."""
    many = 300_000
    rows = pa.table({"id": range(many), "x": ["a"] * many, "y": ["b"] * many})
    last = pa.table({"id": [10**9], "x": ["z"], "y": ["b"]})
    table.write(pa.concat_tables([rows, last]))
    asked: list[set[str]] = []
    for kind in (NCFFormat, ParquetFormat):
        for name in ("read", "scan"):
            plain = getattr(kind, name)

            def noted(*args: Any, plain: Any = plain) -> Any:
                asked.append(set(args[3]))
                return plain(*args)

            monkeypatch.setattr(kind, name, noted)

    assert delete_rows(table, "x = 'c'").operation == "none"
    new = pa.table({"id": [10**8], "x": ["a"], "y": ["b"]})
    assert merge_rows(table, new, ["id"]).metrics["rows_inserted"] == 1
    assert asked == [{"x"}, {"id"}]

    picked = pa.table({"id": [0, 200_000, 10**9, many], "x": ["n"] * 4, "y": ["n"] * 4})
    counts = merge_rows(table, picked, ["id"]).metrics
    assert counts == {
        "rows_inserted": 1, "rows_updated": 3, "rows_deleted": 0, "rows_copied": many - 2
    }  # fmt: skip
    assert delete_rows(table, "x = 'n' AND id > 0").metrics["rows_deleted"] == 3
    left = table.read().to_pandas().set_index("id")
    assert len(left) == many
    assert left.loc[0].to_list() == ["n", "n"]
    assert left.loc[[10**8, 1, 199_999, 200_001]].to_numpy().tolist() == [["a", "b"]] * 4


def test_a_merge_by_a_key_that_the_table_lacks_finds_no_row(ncf: Table) -> None:
    ncf.write(pa.table({"x": [1, 2]}))
    rows = pa.table({"x": [3], "id": [1]})
    counts = merge_rows(ncf, rows, ["id"], schema_mode="merge", when_gone="delete").metrics
    assert (counts["rows_inserted"], counts["rows_deleted"]) == (1, 2)
    assert ncf.read().to_pylist() == [{"x": 3, "id": 1}]


def test_merging_by_a_dictionary_of_texts(table: Table) -> None:
    """A raw ArrowNotImplementedError: bounds of a dictionary."""
    keys = pa.array(["x", "y"]).dictionary_encode()
    table.write(pa.table({"k": keys, "v": [1, 2]}))
    rows = pa.table({"k": pa.array(["y", "z"]).dictionary_encode(), "v": [20, 30]})
    commit = merge_rows(table, rows, ["k"])
    assert (commit.metrics["rows_updated"], commit.metrics["rows_inserted"]) == (1, 1)
    found = {row["k"]: row["v"] for row in table.read().to_pylist()}
    assert found == {"x": 1, "y": 20, "z": 30}
    with pytest.raises(TableError, match="repeat a key"):
        merge_rows(table, rows.take([0, 0]), ["k"])


def test_a_merge_brings_its_columns_in_the_one_commit(ncf: Table) -> None:
    """The schema changed in a commit of its own, and stayed when the merge then failed."""
    ncf.write(people((1, "a"), (2, "b")))
    rows = people((2, "B"), (3, "c")).append_column("age", pa.array([20, 30]))
    with pytest.raises(TableError, match="repeat a key"):
        merge_rows(ncf, rows.take([0, 0]), ["id"], schema_mode="merge")
    with pytest.raises(SchemaMismatchError, match="'age' is not in the table"):
        merge_rows(ncf, rows, ["id"])
    assert ncf.snapshot().version == 0

    commit = merge_rows(ncf, rows, ["id"], schema_mode="merge", table_properties={"a": "b"})
    assert commit.version == 1
    assert ncf.snapshot().properties == {"a": "b"}
    assert {tuple(row.values()) for row in ncf.read().to_pylist()} == {
        (1, "a", None), (2, "B", 20), (3, "c", 30),
    }  # fmt: skip


def test_columns_that_a_merge_lacks_keep_their_values(table: Table) -> None:
    table.write(people((1, "a"), (2, "b")))
    rows = pa.table({"id": [2, 3]})
    with pytest.raises(SchemaMismatchError, match="'name' is missing"):
        merge_rows(table, rows, ["id"])
    commit = merge_rows(table, rows, ["id"], schema_mode="merge")
    assert commit.metrics["rows_updated"] == 1
    assert content(table) == {(1, "a"), (2, "b"), (3, None)}


def test_parquet_takes_no_new_columns_by_a_merge(tmp_path: Path) -> None:
    table = Table(Storage(str(tmp_path)), "t", "parquet")
    table.write(people((1, "a")))
    with pytest.raises(TableError, match="read by others"):
        merge_rows(table, pa.table({"id": [1], "age": [2]}), ["id"], schema_mode="merge")
    assert content(table) == {(1, "a")}


def test_former_versions_are_read_by_number_and_moment(ncf: Table) -> None:
    ncf.write(people((1, "a")))
    time.sleep(0.01)
    between = datetime.now(UTC)
    time.sleep(0.01)
    ncf.write(people((2, "b")))

    assert ncf.read(version=0)["id"].to_pylist() == [1]
    assert ncf.read(version=between)["id"].to_pylist() == [1]
    assert ncf.read(version=datetime.now(UTC))["id"].to_pylist() == [2]
    with pytest.raises(TableNotFoundError, match="first one is of"):
        ncf.read(version=between - timedelta(days=1))


def test_restoring_brings_back_rows_and_schema(ncf: Table) -> None:
    ncf.write(people((1, "a")))
    ncf.write(pa.table({"other": [1.5]}))
    commit = restore(ncf, 0)
    assert commit.version == 2
    assert content(ncf) == {(1, "a")}
    assert ncf.read(version=1).to_pylist() == [{"other": 1.5}]
    ncf.write(people((2, "b")), mode="append")
    assert content(ncf) == {(1, "a"), (2, "b")}


def test_parquet_cannot_restore_what_it_does_not_keep(tmp_path: Path) -> None:
    table = Table(Storage(str(tmp_path)), "t", "parquet")
    table.write(people((1, "a")))
    table.write(people((2, "b")))
    with pytest.raises(TableError, match="keeps no former versions unless neurolake"):
        restore(table, 0)
    told = "version 0 are gone; parquet keeps no former versions unless neurolake.keep_former_files"
    for read in (table.read, lambda version: table.scan(version=version).read_all()):
        with pytest.raises(TableNotFoundError, match=told):
            read(version=0)


def test_optimizing_joins_small_files_and_keeps_the_rows(table: Table) -> None:
    for number in range(6):
        table.write(people((number, "x")), mode="append")
    commit = optimize(table)
    assert commit.metrics == {"files_before": 6, "files_after": 1}
    assert content(table) == {(number, "x") for number in range(6)}
    assert optimize(table).operation == "none"


def test_an_order_by_what_has_none_is_refused(table: Table) -> None:
    table.write(pa.table({"id": [1], "tags": [["a"]]}))
    for name in ("zz", "tags"):
        with pytest.raises(TableError, match=rf"\['{name}'\], expected some of \['id'\]"):
            optimize(table, sort_by=[name])


def test_optimizing_by_columns_lets_reads_skip_files(table: Table) -> None:
    for start in (1, 0):
        ids = range(start, 4000, 2)
        table.write(pa.table({"id": ids, "pad": [f"{i:064x}" for i in ids]}), mode="append")
    filters = [("id", "<", 500)]
    assert len(matching_files(table.snapshot(), table.files(), filters)) == 2

    commit = optimize(table, sort_by=["id"], target_file_bytes=table.snapshot().bytes // 4)
    assert 4 <= len(commit.files_added) <= 5
    assert table.read()["id"].to_pylist() == list(range(4000))
    assert len(matching_files(table.snapshot(), table.files(), filters)) == 1
    assert table.read(filters=filters).num_rows == 500


def test_vacuum_deletes_exactly_what_no_kept_version_needs(ncf: Table) -> None:
    ncf.write(people((1, "a")), partition="p")
    first = ncf.files()[0]
    ncf.write(people((2, "b")), partition="q")
    ncf.write(people((3, "c")), partition="p")
    ncf.folder.put("part-of-a-failed-write.ncf", b"12345")

    assert vacuum(ncf, retention=timedelta(days=1)).paths == ()
    planned = vacuum(ncf, retention=timedelta(0), dry_run=True)
    assert set(planned.paths) == {first.path, "part-of-a-failed-write.ncf"}
    assert planned.bytes == first.bytes + 5
    assert ncf.folder.exists(first.path)

    assert vacuum(ncf, retention=timedelta(0)).paths == planned.paths
    assert content(ncf) == {(2, "b"), (3, "c")}
    for read in (ncf.read, lambda version: ncf.scan(version=version).read_all()):
        with pytest.raises(TableNotFoundError, match="files of version 0 are gone; a vacuum"):
            read(version=0)
    with pytest.raises(TableError, match="vacuum"):
        restore(ncf, 0)


def test_columns_are_added_renamed_widened_and_dropped_without_rewriting(ncf: Table) -> None:
    narrow = pa.table({"id": pa.array([1, 2], pa.int32()), "name": ["a", "b"], "old": [1, 2]})
    ncf.write(narrow)
    files = ncf.files()
    evolve_schema(
        ncf, add={"extra": pa.float64()}, drop=["old"], rename={"name": "title"},
        widen={"id": pa.int64()},
    )  # fmt: skip
    assert [file.path for file in ncf.files()] == [file.path for file in files]
    expected = {"id": pa.int64(), "title": pa.string(), "extra": pa.float64()}
    assert {field.name: field.type for field in ncf.read().schema} == expected
    wide = pa.table({"id": [1 << 40], "title": ["c"], "extra": [0.5]})
    ncf.write(wide, mode="append")
    assert ncf.read(filters=[("title", "in", ["b", "c"])]).to_pylist() == [
        {"id": 2, "title": "b", "extra": None},
        {"id": 1 << 40, "title": "c", "extra": 0.5},
    ]


def test_a_dropped_column_does_not_come_back_with_its_values(ncf: Table) -> None:
    ncf.write(people((1, "secret")))
    evolve_schema(ncf, drop=["name"])
    evolve_schema(ncf, add={"name": pa.string()})
    assert ncf.read().to_pylist() == [{"id": 1, "name": None}]


def test_changes_with_loss_are_refused_all_at_once(ncf: Table) -> None:
    ncf.write(people((1, "a")))
    with pytest.raises(SchemaMismatchError) as caught:
        evolve_schema(ncf, widen={"id": pa.int32()}, rename={"nope": "x"}, add={"name": pa.int8()})
    for told in ("int32 does not hold", "'nope' is not in", "'name' would come twice"):
        assert told in str(caught.value)


def test_columns_are_given_types_by_arrows_names_too(ncf: Table) -> None:
    """Some were taken, others ended in a raw TypeError."""
    ncf.write(pa.table({"id": pa.array([1], pa.int8())}))
    evolve_schema(ncf, widen={"id": "int64"}, add={"x": "string"})  # type: ignore[dict-item]
    assert ncf.snapshot().schema.types == [pa.int64(), pa.string()]
    for wrong in ("texts", int):
        with pytest.raises(SchemaMismatchError, match="expected an Arrow type"):
            evolve_schema(ncf, widen={"id": wrong})  # type: ignore[dict-item]


def test_properties_stay_with_the_table(table: Table) -> None:
    table.write(people((1, "a")), properties={"run": "r1"})
    set_properties(table, {"owner": "team"})
    table.write(people((2, "b")))
    assert table.snapshot().properties == {"owner": "team"}
    assert table.history()[-1].info == {"run": "r1"}


def test_properties_are_set_with_the_rows(table: Table) -> None:
    table.write(people((1, "a")), table_properties={"owner": "team", "tier": "gold"})
    table.write(people((2, "b")), mode="append", table_properties={"tier": "silver"})
    assert table.snapshot().properties == {"owner": "team", "tier": "silver"}
    assert table.snapshot(0).properties == {"owner": "team", "tier": "gold"}
    for act in (
        lambda: set_properties(table, {"a": 1}),  # type: ignore[dict-item]
        lambda: table.write(people((3, "c")), table_properties={"a": 1}),  # type: ignore[dict-item]
    ):
        with pytest.raises(TableError, match=r"\{'a': 1\}, expected texts"):
            act()
    assert table.snapshot().version == 1


def test_the_history_is_told_newest_first_and_in_part(table: Table) -> None:
    for number in range(12):
        table.write(people((number, "a")), mode="append", properties={"run": str(number)})
    assert [entry.info["run"] for entry in table.history(3)] == ["11", "10", "9"]
    assert [entry.version for entry in table.history(50)] == list(range(11, -1, -1))


def test_schemas_are_kept_as_long_as_a_file_has_them(ncf: Table) -> None:
    """Each overwrite by other columns added one to all later checkpoints and snapshots."""
    ncf.write(people((1, "a")))
    evolve_schema(ncf, rename={"name": "first"})
    for number in range(23):
        ncf.write(pa.table({("id" if number % 2 else "x"): [number]}))
    assert len(ncf.snapshot().schemas) == 1
    restore(ncf, 1)
    expected = [{"id": 1, "first": "a"}]
    assert ncf.read().to_pylist() == expected
    assert len(ncf.snapshot().schemas) == 2
    for number in range(11):
        set_properties(ncf, {"n": str(number)})
    assert Table(ncf.storage, ncf.path, "ncf").read().to_pylist() == expected
    assert ncf.read(version=5).column_names == ["id"]


@pytest.mark.parametrize("by", ["evolving", "overwriting"])
def test_a_restore_gives_back_a_column_that_was_dropped_and_added_again(
    ncf: Table, by: str
) -> None:
    """It has the same name and is another column: the restored rows had nulls there."""
    first = pa.table({"id": [1, 2], "v": [10, 20]})
    ncf.write(first)
    if by == "evolving":
        evolve_schema(ncf, drop=["v"])
        evolve_schema(ncf, add={"v": pa.int64()})
    else:
        ncf.write(first.select(["id"]))
        ncf.write(first)
    restore(ncf, 0)
    assert ncf.read().equals(first)
    assert ncf.read(filters=[("v", "=", 20)])["id"].to_pylist() == [2]


def test_times_in_nanoseconds_are_told_apart(table: Table) -> None:
    """Python's times have microseconds: the log's bounds of a file were cut, and it was skipped."""
    times = [pa.array([ns]).cast(pa.time64("ns")) for ns in (1, 1001)]
    for one in times:
        table.write(pa.table({"c": one}), mode="append")
    assert table.read(filters=pc.field("c") == times[1][0]).num_rows == 1
    commit = merge_rows(table, pa.table({"c": times[1]}), ["c"])
    assert commit.metrics["rows_inserted"] == 0


def test_rows_are_clustered_by_categories(table: Table) -> None:
    """A raw ArrowNotImplementedError: dictionary."""
    for texts in (["b", "a", None], ["c", "a", "b"]):
        column = pa.array(texts).dictionary_encode()
        table.write(pa.table({"x": column}), mode="append")
    optimize(table, sort_by=["x"])
    assert table.read()["x"].to_pylist() == ["a", "a", "b", "b", "c", None]


@pytest.mark.parametrize(
    "column",
    [pa.array([1.0], pa.float16()), pa.array([pa.MonthDayNano([1, 2, 3])])],
    ids=["half", "interval"],
)
def test_an_order_that_arrow_does_not_know_is_refused(tmp_path: Path, column: pa.Array) -> None:
    table = Table(Storage(str(tmp_path)), "t", "ncf")
    table.write(pa.table({"x": column, "i": [1]}))
    with pytest.raises(TableError, match=r"sort_by names \['x'\], expected some of \['i'\]"):
        optimize(table, sort_by=["x"])


def test_rows_without_columns_are_kept_by_what_looks_after_them(ncf: Table) -> None:
    """An NCFCorruptError from optimize, a raw ValueError from a new column."""
    rows = pa.table({"x": [1, 2, 3]}).select([])
    ncf.write(rows)
    ncf.write(rows, mode="append")
    assert optimize(ncf).operation == "none"
    evolve_schema(ncf, add={"y": pa.int8()})
    assert ncf.read()["y"].to_pylist() == [None] * 6


def test_a_vacuum_takes_any_retention_but_a_negative_one(ncf: Table) -> None:
    ncf.write(pa.table({"x": [1]}))
    assert vacuum(ncf, retention=timedelta.max).paths == ()
    for wrong in (-timedelta(days=1), 7):
        for name in ("retention", "log_retention"):
            with pytest.raises(TableError, match=f"{name} .*expected a timedelta"):
                vacuum(ncf, **{name: wrong})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "act",
    [
        lambda table: delete_rows(table, "x = 1"),
        lambda table: merge_rows(table, pa.table({"x": [1], "y": [2]}), ["x"]),
        lambda table: optimize(table, sort_by=["x"]),
    ],
    ids=["delete", "merge", "optimize"],
)
def test_files_that_another_commit_took_away_are_a_conflict(tmp_path: Path, act: Any) -> None:
    """A StorageNotFoundError, which nobody tries again after."""

    class Overtaken(Table):
        def open_parts(self, *args: Any) -> PartFiles:
            Table(self.storage, self.path, "parquet").write(rows)
            return super().open_parts(*args)

    rows = pa.table({"x": [1], "y": [1]})
    table = Table(Storage(str(tmp_path)), "t", "parquet")
    table.write(rows)
    with pytest.raises(CommitConflictError, match=r"version 1 came .* files of version 0"):
        act(Overtaken(table.storage, table.path, "parquet"))
    assert [path.name for path in (tmp_path / "t" / "_staging").rglob("*.parquet")] == []


UNKNOWN_OPTIONS: dict[str, tuple[Any, str]] = {
    "mode": (lambda table, rows: table.write(rows, mode="upsert"), "mode 'upsert', expected"),
    "schema mode": (
        lambda table, rows: table.write(rows, mode="append", schema_mode="x"),
        "schema_mode 'x', expected",
    ),
    "matched": (
        lambda table, rows: merge_rows(table, rows, ["id"], when_matched="insert"),  # type: ignore[arg-type]
        "when_matched 'insert', expected",
    ),
    "version": (lambda table, _: table.read(version="0"), "version '0', expected a number"),
    "flag": (lambda table, _: table.read(version=True), "version True, expected a number"),
    "columns": (lambda table, _: table.scan(["id", "id"]), r"\['id'\] are asked for twice"),
    "file size": (lambda table, _: optimize(table, target_file_bytes=0), "expected 1 or more"),
    "predicate": (lambda table, _: delete_rows(table, None), "expected which rows to delete"),  # type: ignore[arg-type]
    "rows": (lambda table, rows: table.write(rows.to_pandas()), "expected a pyarrow.Table"),
    "info": (lambda table, rows: table.write(rows, properties={"run": 1}), "expected texts"),
    "merge mode": (
        lambda table, rows: merge_rows(table, rows, ["id"], schema_mode="overwrite"),
        "schema_mode 'overwrite'",
    ),
}


@pytest.mark.parametrize("option", UNKNOWN_OPTIONS)
def test_unknown_options_are_refused_and_change_nothing(table: Table, option: str) -> None:
    """A misspelt mode replaced the whole table, and others ended in raw errors."""
    table.write(people((1, "a")))
    table.write(people((2, "b")), mode="append")
    act, told = UNKNOWN_OPTIONS[option]
    with pytest.raises(TableError, match=told):
        act(table, people((3, "c")))
    assert table.snapshot().version == 1


def test_a_name_given_twice_counts_once(table: Table) -> None:
    table.write(people((2, "b"), (1, "a")))
    merge_rows(table, people((2, "c")), ["id", "id"])
    optimize(table, sort_by=["id", "id"])
    assert table.read()["name"].to_pylist() == ["a", "c"]


def test_a_dropped_column_is_not_changed_too(ncf: Table) -> None:
    """It was dropped, and its new name was nowhere."""
    ncf.write(people((1, "a")))
    with pytest.raises(SchemaMismatchError, match="'name' is to be dropped, and changed too"):
        evolve_schema(ncf, drop=["name"], rename={"name": "first"})
