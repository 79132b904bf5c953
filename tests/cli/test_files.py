"""The file tools: what they print, and how they end."""

import base64
import csv
import io
import json
import os
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.ipc as pa_ipc
import pyarrow.parquet as pq
import pyarrow.parquet.encryption as pq_encryption
import pytest
from click.testing import CliRunner, Result

from neurolake_dagster import __version__, ncf
from neurolake_dagster.cli import COMMANDS, main


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def sample(rows: int = 30) -> pa.Table:
    labels = {"ncf.semantic": "pii_email", "ncf.pii": "true", "ncf.description": "where to write"}
    schema = pa.schema(
        [
            pa.field("id", pa.int64(), nullable=False),
            pa.field("mail", pa.string(), metadata=labels),
            pa.field("price", pa.decimal128(9, 2)),
            pa.field("at", pa.timestamp("us", "UTC")),
            pa.field("tags", pa.list_(pa.string())),
            pa.field("raw", pa.binary()),
        ]
    )
    return pa.table(
        {
            "id": range(rows),
            "mail": [None if i % 7 == 0 else f"u{i}@x.org" for i in range(rows)],
            "price": [Decimal(i) / 4 for i in range(rows)],
            "at": [datetime(2024, 1, 1, i % 24, tzinfo=UTC) for i in range(rows)],
            "tags": [["a", None], [], None] * (rows // 3),
            "raw": [b"\x00\xff"] * rows,
        },
        schema=schema,
    )


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    table = sample()
    paths = {kind: tmp_path / f"t.{kind}" for kind in ("ncf", "parquet", "arrow", "csv")}
    ncf.write_table(table, paths["ncf"], row_group_size=12)
    pq.write_table(table, paths["parquet"], row_group_size=12)
    with pa_ipc.new_file(paths["arrow"], table.schema) as writer:
        writer.write_table(table, max_chunksize=12)
    pa_csv.write_csv(table.select(["id", "mail"]), paths["csv"])
    return paths


@pytest.mark.parametrize("kind", ["ncf", "parquet", "arrow"])
def test_inspect_shows_schema_labels_groups_and_statistics(
    kind: str, files: dict[str, Path]
) -> None:
    result = run("inspect", files[kind])
    assert result.exit_code == 0
    for word in ("30 rows", "pii_email", "where to write", "not null", "Row groups", "list<"):
        assert word in result.output
    if kind != "arrow":
        assert "u10@x.org" in result.output


@pytest.mark.parametrize("kind", ["ncf", "parquet", "arrow", "csv"])
def test_inspect_as_json(kind: str, files: dict[str, Path]) -> None:
    found = json.loads(run("inspect", "--json", files[kind]).output)
    assert found["format"] == kind
    assert found["columns"][0]["name"] == "id"
    assert found["bytes"] == files[kind].stat().st_size
    if kind != "csv":
        assert [group["rows"] for group in found["row_groups"]] == [12, 12, 6]
        assert found["columns"][1]["pii"] is True
    if kind in ("ncf", "parquet"):
        chunk = found["row_groups"][1]["columns"][0]
        assert (chunk["column"], chunk["low"], chunk["high"]) == ("id", 12, 23)
        assert chunk["encoding"]


def test_inspect_shows_a_v1_file() -> None:
    from tests.ncf.v1_files import FIXTURES

    result = run("inspect", FIXTURES / "groups_pii.ncf")
    assert result.exit_code == 0
    for word in ("NCF 1", "3 rows", "contact address", "pii_name"):
        assert word in result.output


@pytest.mark.parametrize("kind", ["ncf", "parquet", "arrow", "csv"])
def test_head_prints_the_first_rows(kind: str, files: dict[str, Path]) -> None:
    result = run("head", "-n", 15, "-c", "mail,id", "--json", files[kind])
    rows = [json.loads(line) for line in result.output.splitlines()]
    assert [row["id"] for row in rows] == list(range(15))
    assert next(iter(rows[1].items())) == ("mail", "u1@x.org")
    assert "u3@x.org" in run("head", "-n", 4, files[kind]).output


def test_cat_prints_every_row_as_csv(files: dict[str, Path]) -> None:
    result = run("cat", files["ncf"])
    rows = list(csv.DictReader(io.StringIO(result.output)))
    assert len(rows) == 30
    assert rows[1]["mail"] == "u1@x.org"
    assert rows[1]["price"] == "0.25"
    assert rows[0]["tags"] == '["a", null]'
    assert rows[0]["raw"] == "AP8="
    assert rows[3]["at"] == "2024-01-01 03:00:00+00:00"


@pytest.mark.parametrize("kind", ["ncf", "parquet", "arrow"])
@pytest.mark.parametrize("target", ["ncf", "parquet", "arrow"])
def test_convert_keeps_every_value(
    kind: str, target: str, files: dict[str, Path], tmp_path: Path
) -> None:
    path = tmp_path / f"new.{target}"
    result = run("convert", "--json", files[kind], path)
    assert result.exit_code == 0, result.output
    assert json.loads(result.output)["rows"] == 30
    again = tmp_path / "again.arrow"
    assert run("convert", path, again).exit_code == 0
    with pa_ipc.open_file(again) as file:
        assert file.read_all().equals(sample())


def test_cat_ends_quietly_when_its_reader_leaves(files: dict[str, Path]) -> None:
    big = files["ncf"].with_name("big.ncf")
    ncf.write_table(pa.table({"n": range(300_000)}), big)
    code = f"from neurolake_dagster.cli import main\nmain(['cat', {str(big)!r}])"
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b'"n"\n'
        process.stdout.close()
        assert process.stderr.read() == b""


def test_convert_reads_csv_with_chosen_columns(files: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "new.ncf"
    assert run("convert", "-c", "mail", files["csv"], path).exit_code == 0
    assert ncf.read_table(path).column_names == ["mail"]


def test_csv_over_a_mebibyte_may_hold_line_breaks(tmp_path: Path) -> None:
    """What `cat` printed could not be read again."""
    table = pa.table({"id": range(60_000), "note": ['line one\nline two, "q"'] * 60_000})
    path, new = tmp_path / "t.csv", tmp_path / "t.ncf"
    ncf.write_table(table, tmp_path / "source.ncf")
    path.write_text(run("cat", tmp_path / "source.ncf").output)
    assert run("verify", path).exit_code == 0
    assert run("convert", path, new).exit_code == 0
    assert ncf.read_table(new).equals(table)


def test_a_fault_of_the_source_names_the_source(tmp_path: Path) -> None:
    """The target was blamed: its writer asks for the batches."""
    path = tmp_path / "t.csv"
    path.write_text("a,b\n" + "1,2\n" * 400_000 + "3\n")
    result = run("convert", path, tmp_path / "t.ncf")
    assert result.exit_code == 1
    assert result.output.startswith(f"Error: {path}: not readable: CSV parse error")


@pytest.mark.parametrize("kind", ["ncf", "parquet", "arrow", "csv"])
def test_columns_of_one_name_are_all_there(kind: str, tmp_path: Path) -> None:
    """Parquet, Arrow IPC and CSV failed, JSON lost one."""
    path, table = tmp_path / f"t.{kind}", pa.table([[1], [2], [3]], names=["a", "a", "b"])
    pa_csv.write_csv(table, tmp_path / "source.csv")
    if kind == "csv":
        (tmp_path / "source.csv").rename(path)
    else:
        assert run("convert", tmp_path / "source.csv", path).exit_code == 0
    assert run("cat", path).output == '"a","a","b"\n1,2,3\n'
    for command in ("head", "verify", "inspect"):
        assert run(command, path).exit_code == 0
    assert run("convert", path, tmp_path / "new.ncf").exit_code == 0
    assert ncf.read_table(tmp_path / "new.ncf").equals(table)
    assert run("cat", "--json", "-c", "b", path).output == '{"b": 3}\n'
    for call in (("cat", "--json"), ("head", "--json"), ("cat", "-c", "a")):
        refused = run(*call, path)
        assert refused.exit_code == 1
        assert "columns ['a'] are there more than once" in refused.output


@pytest.mark.parametrize(
    ("first", "last", "kind"),
    [
        ("", "late", pa.string()),
        ("", "2024-01-01", pa.date32()),
        ("1", "1.5", pa.float64()),
        ("1", "x", pa.string()),
        ("1.5", "x", pa.string()),
        ("true", "7", pa.string()),
        ("2024-01-01", "2024-01-01 10:00:00", pa.string()),
        ("x", b"\xe9", pa.binary()),
        ("7", "", pa.int64()),
        ("1", "007", pa.string()),
        ("9007199254740993", "1.5", pa.string()),
        ("1", "18446744073709551615", pa.string()),
        ("9007199254740993", "0", pa.int64()),
        ("-0.5", "123456789012345", pa.float64()),
    ],
)
def test_late_values_decide_on_the_types_of_csv(
    first: str, last: str | bytes, kind: pa.DataType, tmp_path: Path
) -> None:
    """The first MiB did: convert failed behind it, verify took the file for damaged.

    Zip codes lost their zeros, long numbers their last digits.
    """
    path, new = tmp_path / "t.csv", tmp_path / "t.ncf"
    end = last.encode() if isinstance(last, str) else last
    path.write_bytes(b"id,v\n" + f"1,{first}\n".encode() * 400_000 + b"2," + end + b"\n")
    assert run("verify", path).exit_code == 0
    assert run("convert", path, new).exit_code == 0
    table = ncf.read_table(new)
    assert table.num_rows == 400_001
    assert table.schema.types == [pa.int64(), kind]
    if pa.types.is_string(kind):
        assert (table["v"][0].as_py(), table["v"][-1].as_py()) == (first, last)


def test_head_looks_at_no_more_csv_than_it_prints(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("a,b\n" + "1,2\n" * 400_000 + "3\n")
    result = run("head", "--json", "-n", "2", path)
    assert result.output == '{"a": 1, "b": 2}\n' * 2


@pytest.mark.parametrize("command", ["inspect", "head", "cat", "convert", "verify"])
def test_a_csv_header_that_is_not_utf8_is_refused(command: str, tmp_path: Path) -> None:
    """It ended in a traceback, and `verify` looked at no file behind it."""
    path, other = tmp_path / "t.csv", tmp_path / "other.csv"
    path.write_bytes("nam\xe9,x\ncaf,1\n".encode("latin-1"))
    other.write_text("a\n1\n")
    rest = {"convert": [tmp_path / "t.ncf"], "verify": [other]}.get(command, [])
    result = run(command, path, *rest)
    assert result.exit_code == 1
    assert f"{path}: expected names and texts in UTF-8, got b'nam\\xe9'" in result.output
    assert (f"{other}: sound" in result.output) == (command == "verify")


def dictionaries(*groups: list[Any], kind: pa.DataType) -> pa.Table:
    """One column, whose batches have dictionaries of their own."""
    return pa.table({"c": pa.chunked_array([pa.array(group, kind) for group in groups])})


BYTE_CODES = pa.dictionary(pa.int8(), pa.string())


@pytest.mark.parametrize(
    "kind",
    [
        BYTE_CODES,
        pa.dictionary(pa.int32(), pa.large_string()),
        pa.list_(BYTE_CODES),
        pa.large_list(pa.list_(BYTE_CODES, 2)),
        pa.struct([("c", BYTE_CODES)]),
        pa.map_(pa.string(), BYTE_CODES),
    ],
    ids=str,
)
def test_dictionaries_of_row_groups_become_one_in_arrow(kind: pa.DataType, tmp_path: Path) -> None:
    """The second row group's was refused."""

    def value(text: str) -> object:
        if pa.types.is_dictionary(kind):
            return text
        if pa.types.is_struct(kind):
            return {"c": text}
        if pa.types.is_map(kind):
            return [("key", text)]
        return [text] if pa.types.is_list(kind) else [[text, "z"]]

    groups = [[value("a"), value("b"), None], [value("x"), None, value("a")]]
    source, target = tmp_path / "t.arrows", tmp_path / "t.arrow"
    table = dictionaries(*groups, kind=kind)
    with pa_ipc.new_stream(source, table.schema) as writer:
        writer.write_table(table)
    result = run("convert", source, target)
    assert result.exit_code == 0, result.output
    with pa_ipc.open_file(target) as file:
        written = file.read_all()
    assert written["c"].to_pylist() == table["c"].to_pylist()
    assert pa.types.is_dictionary(kind) == (written.schema == table.schema)
    assert run("verify", target).exit_code == 0


def test_dictionaries_of_floats_become_plain_in_arrow(tmp_path: Path) -> None:
    """NaN made a dictionary another one."""
    kind = pa.dictionary(pa.int8(), pa.float64())
    table = dictionaries([1.5, float("nan")], [2.5, float("nan"), None], kind=kind)
    ncf.write_table(table, tmp_path / "t.ncf", row_group_size=2)
    assert run("convert", tmp_path / "t.ncf", tmp_path / "t.arrow").exit_code == 0
    with pa_ipc.open_file(tmp_path / "t.arrow") as file:
        assert str(file.read_all()["c"].to_pylist()) == "[1.5, nan, 2.5, nan, None]"


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (BYTE_CODES, "too many values"),
        (pa.dictionary(pa.int8(), pa.string(), ordered=True), "it is ordered"),
    ],
    ids=["too many", "ordered"],
)
def test_dictionaries_that_cannot_be_one_are_refused(
    kind: pa.DataType, words: str, tmp_path: Path
) -> None:
    groups = [[f"{group}{row}" for row in range(100)] for group in "ab"]
    groups = [group[:3] for group in groups] if kind.ordered else groups
    ncf.write_table(
        dictionaries(*groups, kind=kind), tmp_path / "t.ncf", row_group_size=len(groups[0])
    )
    result = run("convert", tmp_path / "t.ncf", tmp_path / "t.arrow")
    assert result.exit_code == 1
    assert words in result.output
    assert "column 'c'" in result.output
    assert not (tmp_path / "t.arrow").exists()


def test_nanoseconds_of_times_are_shown(tmp_path: Path) -> None:
    """Python's times have none: 999 ns was shown as midnight, as a bound too."""
    path = tmp_path / "t.ncf"
    ncf.write_table(pa.table({"t": pa.array([999, 5000], pa.time64("ns"))}), path)
    shown = [json.loads(line)["t"] for line in run("head", path, "--json").output.splitlines()]
    assert shown == ["00:00:00.000000999", "00:00:00.000005000"]
    (column,) = ncf.read_metadata(path).row_groups[0].columns
    assert (column.statistics.min, str(column.statistics.max)) == (None, "00:00:00.000005")


def test_types_that_the_target_has_not_are_told(tmp_path: Path) -> None:
    path, target = tmp_path / "t.ncf", tmp_path / "t.parquet"
    ncf.write_table(pa.table({"i": pa.nulls(1, pa.month_day_nano_interval())}), path)
    result = run("convert", path, target)
    assert result.exit_code == 1
    assert result.output.startswith(f"Error: {target}: not writable: ")
    assert not target.exists()


def test_convert_replaces_only_when_told(files: dict[str, Path]) -> None:
    refused = run("convert", files["ncf"], files["parquet"])
    assert refused.exit_code == 2
    assert "--overwrite" in refused.output
    assert run("convert", "--overwrite", files["csv"], files["parquet"]).exit_code == 0
    assert pq.read_schema(files["parquet"]).names == ["id", "mail"]


def test_a_failing_convert_leaves_the_target(files: dict[str, Path]) -> None:
    whole = files["ncf"].read_bytes()
    files["ncf"].write_bytes(whole[:100] + b"\xff" * 8 + whole[108:])
    before = files["parquet"].read_bytes()
    result = run("convert", "--overwrite", files["ncf"], files["parquet"])
    assert result.exit_code == 1
    assert files["parquet"].read_bytes() == before
    assert len(list(files["ncf"].parent.iterdir())) == len(files)


def test_convert_writes_into_a_pipe_and_through_a_link(
    files: dict[str, Path], tmp_path: Path
) -> None:
    """Both were replaced by a regular file."""
    pipe, link, aim = tmp_path / "pipe.arrow", tmp_path / "link.parquet", tmp_path / "aim"
    os.mkfifo(pipe)
    aim.touch(mode=0o640)
    link.symlink_to(aim)
    with ThreadPoolExecutor(1) as thread:
        got = thread.submit(pipe.read_bytes)
        assert run("convert", "--overwrite", files["ncf"], pipe).exit_code == 0
        assert pa_ipc.open_file(got.result(30)).read_all().equals(sample())
    assert run("convert", "--overwrite", files["ncf"], link).exit_code == 0
    assert pipe.is_fifo()
    assert link.is_symlink()
    assert pq.read_table(aim).num_rows == 30
    assert stat.S_IMODE(aim.stat().st_mode) == 0o640


def test_the_report_stays_out_of_the_rows(files: dict[str, Path], tmp_path: Path) -> None:
    """Behind the rows in a pipe it was taken for some of them."""
    pipe = tmp_path / "pipe.arrow"
    os.mkfifo(pipe)
    with ThreadPoolExecutor(1) as thread:
        thread.submit(pipe.read_bytes)
        result = run("convert", "--overwrite", "--json", files["ncf"], pipe)
    assert result.stdout == ""
    report = json.loads(result.stderr)
    assert (report["rows"], report["target_bytes"]) == (30, None)


def test_a_file_that_replaces_itself_is_measured_before(files: dict[str, Path]) -> None:
    before = files["arrow"].stat().st_size
    report = json.loads(
        run("convert", "--overwrite", "--json", files["arrow"], files["arrow"]).output
    )
    assert report["source_bytes"] == before
    assert report["target_bytes"] == files["arrow"].stat().st_size != before


@pytest.mark.parametrize("command", [("head",), ("verify",), ("convert", "new.ncf")])
def test_a_pipe_is_not_read(command: tuple[str, ...], tmp_path: Path) -> None:
    """`convert` waited for ever for a second writer."""
    pipe = tmp_path / "pipe.csv"
    os.mkfifo(pipe)
    result = run(command[0], pipe, *command[1:])
    assert result.exit_code == 1
    assert f"{pipe}: a pipe or a device, expected a file" in result.output


class Keys(pq_encryption.KmsClient):
    """Wraps keys by nothing: what matters is that columns are encrypted."""

    def wrap_key(self, key_bytes: bytes, master_key_identifier: str) -> bytes:
        return base64.b64encode(key_bytes)


@pytest.mark.parametrize("plaintext_footer", [True, False])
@pytest.mark.parametrize("command", ["inspect", "head", "verify", "cat", "convert"])
def test_encrypted_parquet_is_refused(command: str, plaintext_footer: bool, tmp_path: Path) -> None:
    """pyarrow ended the whole process where only the columns are encrypted."""
    table, path = pa.table({"a": [1], "b": [2]}), tmp_path / "t.parquet"
    how = pq_encryption.EncryptionConfiguration(
        footer_key="k", column_keys={"k": ["b"]}, plaintext_footer=plaintext_footer
    )
    factory = pq_encryption.CryptoFactory(lambda _: Keys())
    properties = factory.file_encryption_properties(pq_encryption.KmsConnectionConfig(), how)
    pq.write_table(table, path, encryption_properties=properties)
    target = (tmp_path / "new.ncf",) if command == "convert" else ()
    result = run(command, path, *target)
    assert result.exit_code == 1
    assert f"{path}: encrypted Parquet" in result.output


def test_characters_that_a_terminal_has_not_are_escaped(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("a\nü\n")
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    command = [sys.executable, "-c", "from neurolake_dagster.cli import main; main()", "head"]
    done = subprocess.run([*command, path], capture_output=True, check=True, env=environment)
    assert b"\\xfc" in done.stdout


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_behind_our_output_is_one_line(files: dict[str, Path]) -> None:
    command = [sys.executable, "-c", "from neurolake_dagster.cli import main; main()", "inspect"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([*command, files["ncf"]], stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 1
    assert done.stderr.count(b"\n") == 1


def test_arrow_streams_are_read(tmp_path: Path) -> None:
    path, table = tmp_path / "t.arrows", sample()
    with pa_ipc.new_stream(path, table.schema) as writer:
        writer.write_table(table, max_chunksize=12)
    assert "Arrow IPC stream, 30 rows" in run("inspect", path).output
    assert run("verify", path).exit_code == 0
    assert run("convert", path, tmp_path / "t.ncf").exit_code == 0
    assert ncf.read_table(tmp_path / "t.ncf").equals(table)


def test_values_that_python_has_not_are_shown_as_numbers(tmp_path: Path) -> None:
    """inspect, head and cat ended in a traceback on sound files."""
    path = tmp_path / "t.ncf"
    seconds = pa.array([2**62, 5]).cast(pa.timestamp("s"))
    zoned = pa.array([1, 2]).cast(pa.timestamp("us")).cast(pa.timestamp("us", "UTC"))
    unknown = zoned.cast(pa.int64()).view(pa.timestamp("us", "No/Where"))
    lists = pa.ListArray.from_arrays([0, 1, 2], seconds)
    ncf.write_table(pa.table({"at": seconds, "zone": unknown, "list": lists}), path)
    for command in ("inspect", "head", "cat", "verify"):
        result = run(command, path)
        assert result.exit_code == 0, result.output
    rows = [json.loads(line) for line in run("head", "--json", path).output.splitlines()]
    assert rows[0]["at"] == "4611686018427387904 (timestamp[s])"
    assert rows[1]["at"] == "1970-01-01 00:00:05"
    assert rows[1]["zone"] == "2 (timestamp[us, tz=No/Where])"


def test_a_column_with_a_comma_in_its_name_is_chosen_in_quotes(tmp_path: Path) -> None:
    ncf.write_table(pa.table({"a,b": [1], "c": [2]}), tmp_path / "t.ncf")
    result = run("head", "--json", "-c", 'c,"a,b"', tmp_path / "t.ncf")
    assert json.loads(result.output) == {"c": 2, "a,b": 1}


def test_verify_tells_sound_from_damaged(files: dict[str, Path]) -> None:
    assert run("verify", *files.values()).exit_code == 0
    for kind in ("ncf", "parquet", "arrow"):
        whole = files[kind].read_bytes()
        files[kind].write_bytes(whole[: len(whole) // 2])
    result = run("verify", "--json", *files.values())
    found = {row["path"]: row for row in map(json.loads, result.output.splitlines())}
    assert result.exit_code == 1
    assert [found[str(path)]["ok"] for path in files.values()] == [False, False, False, True]


def bad_calls(files: dict[str, Path]) -> dict[str, tuple[tuple[Any, ...], int, str]]:
    other = files["ncf"].with_name("other.bin")
    other.write_bytes(b"what is this")
    return {
        "missing file": (("inspect", "no/such/file"), 2, "does not exist"),
        "other format": (("inspect", other), 1, "neither NCF, Parquet nor Arrow"),
        "no such column": (("head", "-c", "nope", files["ncf"]), 1, "nope"),
        "no such column in parquet": (("cat", "-c", "nope", files["parquet"]), 1, "nope"),
        "unknown suffix": (("convert", files["ncf"], "x.txt"), 2, "--to"),
        "unknown option": (("head", "--rowz", "3", files["ncf"]), 2, "--rows"),
        "unknown command": (("inspekt", files["ncf"]), 2, "No such command"),
        "unknown codec": (
            ("convert", "--compression", "zip9", files["csv"], files["ncf"].with_name("z.parquet")),
            2,
            "zip9",
        ),
        "unknown codec of NCF": (
            ("convert", "--compression", "foo", files["csv"], files["ncf"].with_name("z.ncf")),
            2,
            "archive",
        ),
        "level too high": (
            ("convert", "--level", "99", files["csv"], files["ncf"].with_name("z.ncf")),
            2,
            "1..22",
        ),
        "level without levels": (
            ("convert", "--compression", "snappy", "--level", "3", files["csv"], "z.arrow"),
            2,
            "snappy",
        ),
    }


@pytest.mark.parametrize(
    "name",
    [
        "missing file",
        "other format",
        "no such column",
        "no such column in parquet",
        "unknown suffix",
        "unknown option",
        "unknown command",
        "unknown codec",
        "unknown codec of NCF",
        "level too high",
        "level without levels",
    ],
)
def test_wrong_calls_end_with_one_clear_error(name: str, files: dict[str, Path]) -> None:
    arguments, code, words = bad_calls(files)[name]
    result = run(*arguments)
    assert result.exit_code == code
    assert words in result.output
    assert "Traceback" not in result.output


def test_help_lists_every_command() -> None:
    result = run("--help")
    assert result.exit_code == 0
    for name in COMMANDS:
        assert name in result.output
    assert __version__ in run("--version").output


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_loads_and_says_how_it_is_used(name: str) -> None:
    result = run(name, "--help")
    assert result.exit_code == 0
    assert "Usage" in result.output


def test_the_file_tools_import_neither_dagster_nor_spark(files: dict[str, Path]) -> None:
    code = (
        "import sys\n"
        "from neurolake_dagster.cli import main\n"
        f"main(['inspect', {str(files['ncf'])!r}], standalone_mode=False)\n"
        "main(['--help'], standalone_mode=False)\n"
        "print(sorted({'dagster', 'pyspark', 'deltalake'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
