"""What a path means: a file, a folder, a table, or a glob of them. No session is needed."""

import os
from pathlib import Path

import pyarrow as pa
import pytest

from neurolake_dagster import ncf
from neurolake_dagster.errors import StorageError, StorageNotFoundError, TableError
from neurolake_dagster.spark.locations import find_files, read_schema
from neurolake_dagster.storage import Storage, StorageOptions
from neurolake_dagster.tables import Table
from tests.s3_server import S3Server

ROWS = pa.table({"id": [1, 2, 3]})
LOCAL = StorageOptions()


def put(storage: Storage, *keys: str) -> None:
    for key in keys:
        with storage.open_output(key) as sink:
            ncf.write_table(ROWS, sink)


def found(uri: str, storage: Storage) -> list[str]:
    """The keys below the storage's root of what lies at a path."""
    files = find_files([uri], storage.options).files
    return [one.uri.removeprefix(f"{storage.root}/") for one in files]


@pytest.mark.parametrize("name", ["br[1]x", "st*r", "wh?t", "{a,b}", "[open", "{open", "a^b"])
def test_names_with_signs_of_globs_are_read(tmp_path: Path, name: str) -> None:
    """A literal ``br[1]x`` was nothing that matches this pattern."""
    here = Storage(str(tmp_path))
    file = f"{name}/{name}.ncf"
    put(here, file, "other/plain.ncf")
    Table(here, f"table {name}", "ncf").write(ROWS)
    assert found(f"{tmp_path}/{name}", here) == [file]
    assert found(f"{tmp_path}/{file}", here) == [file]
    assert found(f"{tmp_path}/{name}/*.ncf", here) == [file]
    (live,) = found(f"{tmp_path}/table {name}", here)
    assert live.startswith(f"table {name}/part-")
    assert file in found(f"{tmp_path}/*/*.ncf", here)


def test_what_a_glob_matches_is_not_a_glob_again(tmp_path: Path) -> None:
    here = Storage(str(tmp_path))
    put(here, "br[1]/rows.ncf", "br1/rows.ncf")
    assert found(f"{tmp_path}/b*", here) == ["br1/rows.ncf", "br[1]/rows.ncf"]
    # The very name wins over what the pattern would match.
    assert found(f"{tmp_path}/br[1]", here) == ["br[1]/rows.ncf"]
    assert found(f"{tmp_path}/br[12]", here) == ["br1/rows.ncf"]


@pytest.mark.parametrize(
    ("glob", "expected"),
    [
        ("*", ["a1/x.ncf", "a2/deep/y.ncf", "b/z.ncf"]),
        ("a?", ["a1/x.ncf", "a2/deep/y.ncf"]),
        ("a[!1]", ["a2/deep/y.ncf"]),
        ("a[^1]", ["a2/deep/y.ncf"]),
        ("{a1,b}/*.ncf", ["a1/x.ncf", "b/z.ncf"]),
        ("{a{1,2},b}", ["a1/x.ncf", "a2/deep/y.ncf", "b/z.ncf"]),
        ("*/deep/*", ["a2/deep/y.ncf"]),
        ("a*/../b", None),
        ("c*", None),
        ("empt*", None),
    ],
)
def test_globs(tmp_path: Path, glob: str, expected: list[str] | None) -> None:
    here = Storage(str(tmp_path))
    put(here, "a1/x.ncf", "a2/deep/y.ncf", "b/z.ncf", "_hidden/h.ncf", "b/_h.ncf")
    (tmp_path / "empty").mkdir()
    if expected is not None:
        assert found(f"{tmp_path}/{glob}", here) == expected
        return
    with pytest.raises(OSError, match=r"nothing matches this as a pattern|not a relative path"):
        found(f"{tmp_path}/{glob}", here)


def test_a_glob_lists_only_the_folders_on_its_way(tmp_path: Path) -> None:
    """It listed all that lies below its fixed beginning, and so fell over any name there."""
    here = Storage(str(tmp_path))
    put(here, "a/2024/x.ncf", "b/2024/y.ncf")
    off_the_way = tmp_path / "b" / "other"
    off_the_way.mkdir()
    (Path(os.fsdecode(os.fsencode(off_the_way) + b"/\xff.ncf"))).touch()
    with pytest.raises(StorageError):
        list(here.list())
    assert found(f"{tmp_path}/*/2024/*.ncf", here) == ["a/2024/x.ncf", "b/2024/y.ncf"]


def test_versions_and_tables_through_a_glob(tmp_path: Path) -> None:
    """A version asked of a glob was left out without a word."""
    here = Storage(str(tmp_path))
    for name in ("t1", "t2"):
        table = Table(here, name, "ncf")
        table.write(ROWS)
        table.write(ROWS, mode="append")
    both = find_files([f"{tmp_path}/t*"], LOCAL)
    assert len(both.files) == 4
    assert read_schema(both, merge=False).names == ["id"]
    assert len(find_files([f"{tmp_path}/t*"], LOCAL, version=0).files) == 2
    put(here, "plain/x.ncf")
    with pytest.raises(TableError, match="only a table has versions"):
        find_files([f"{tmp_path}/plain"], LOCAL, version=0)
    with pytest.raises(TableError, match="cannot be read in one go"):
        find_files([f"{tmp_path}/*"], LOCAL)


def test_globs_on_s3(s3_server: S3Server) -> None:
    options = StorageOptions(
        endpoint=s3_server.endpoint,
        access_key=s3_server.access_key,
        secret_key=s3_server.secret_key,
    )
    root = f"s3://{s3_server.bucket}/locations"
    here = Storage(root, options)
    put(here, "a[1]/x.ncf", "a1/y.ncf", "b/deep/z.ncf")
    assert found(f"{root}/a[1]", here) == ["a[1]/x.ncf"]
    assert found(f"{root.replace('s3:', 's3a:')}/*/*.ncf", here) == ["a1/y.ncf", "a[1]/x.ncf"]
    assert found(f"{root}/{{b,c}}/deep", here) == ["b/deep/z.ncf"]
    with pytest.raises(StorageNotFoundError, match="no NCF file"):
        found(f"{root}/nothing", here)
