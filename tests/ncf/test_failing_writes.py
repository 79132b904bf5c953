"""A write that fails in any way leaves the old file or none, never a part of the new one."""

import io
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from neurolake_dagster import ncf

OLD = pa.table({"n": [1, 2, 3]})
BATCH = pa.record_batch({"n": pa.array(range(1000), pa.int64())})


def failing_reader(after: int) -> pa.RecordBatchReader:
    def batches() -> Iterator[pa.RecordBatch]:
        for _ in range(after):
            yield BATCH
        raise RuntimeError("the source broke")

    return pa.RecordBatchReader.from_batches(BATCH.schema, batches())


@pytest.mark.parametrize("there", [True, False], ids=["over a file", "anew"])
@pytest.mark.parametrize("after", [0, 1, 5])
def test_a_source_that_breaks_publishes_nothing(tmp_path: Path, there: bool, after: int) -> None:
    path = tmp_path / "t.ncf"
    if there:
        ncf.write_table(OLD, path)
    before = sorted(tmp_path.iterdir())
    writer = ncf.NCFWriter(path, BATCH.schema, row_group_size=1500)
    with pytest.raises(RuntimeError, match="the source broke"), writer:
        writer.write_reader(failing_reader(after))
    assert sorted(tmp_path.iterdir()) == before
    if there:
        assert ncf.read_table(path).equals(OLD)


def test_a_file_that_could_not_get_its_name_has_no_metadata(tmp_path: Path) -> None:
    writer = ncf.NCFWriter(tmp_path / "t.ncf", BATCH.schema)
    writer.write_batch(BATCH)
    (tmp_path / "t.ncf").mkdir()
    with pytest.raises(IsADirectoryError):
        writer.close()
    assert [path.name for path in tmp_path.iterdir()] == ["t.ncf"]
    with pytest.raises(ValueError, match=r"t\.ncf: no file was published"):
        _ = writer.metadata


def test_a_schema_that_no_file_can_hold_is_refused_before_there_is_a_file(tmp_path: Path) -> None:
    schema = pa.schema([(str(number), pa.int8()) for number in range(10_001)])
    with pytest.raises(ValueError, match="at most 10000"):
        ncf.NCFWriter(tmp_path / "wide.ncf", schema)
    assert list(tmp_path.iterdir()) == []


def test_a_sink_that_breaks_raises_its_own_error() -> None:
    class Full(io.RawIOBase):
        def writable(self) -> bool:
            return True

        def write(self, data: object) -> int:
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        ncf.write_table(OLD, Full())


WRITE = """
import resource, sys
import numpy as np, pyarrow as pa
from neurolake_dagster import ncf
path, limit = sys.argv[1], int(sys.argv[2])
table = pa.table({"n": np.random.default_rng(1).integers(0, 2**62, 200_000)})
if limit:
    import signal
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
with ncf.NCFWriter(path, table.schema, row_group_size=10_000) as writer:
    print("writing", flush=True)
    for _ in range(1 if limit else 10_000):
        writer.write_table(table)
"""


@pytest.mark.parametrize("limit", [1000, 100_000, 1_000_000])
def test_a_full_disk_leaves_the_old_file(tmp_path: Path, limit: int) -> None:
    path = tmp_path / "t.ncf"
    ncf.write_table(OLD, path)
    command = [sys.executable, "-c", WRITE, str(path), str(limit)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert "OSError" in done.stderr or "StorageError" in done.stderr
    assert ncf.read_table(path).equals(OLD)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("there", [True, False], ids=["over a file", "anew"])
def test_a_killed_writer_leaves_the_old_file_or_none(tmp_path: Path, there: bool) -> None:
    path = tmp_path / "t.ncf"
    if there:
        ncf.write_table(OLD, path)
    command = [sys.executable, "-c", WRITE, str(path), "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "writing\n"
        time.sleep(0.3)
        process.send_signal(signal.SIGKILL)
        assert process.wait(30) == -signal.SIGKILL
    if there:
        assert ncf.read_table(path).equals(OLD)
    else:
        assert not path.exists()


def test_a_link_stays_and_its_file_is_replaced_with_its_mode(tmp_path: Path) -> None:
    """A link became a regular file, and a private file readable for all."""
    target, link = tmp_path / "target.ncf", tmp_path / "link.ncf"
    ncf.write_table(OLD, target)
    target.chmod(0o600)
    link.symlink_to(target.name)
    ncf.write_table(OLD.slice(1), link)
    assert link.is_symlink()
    assert ncf.read_table(target).num_rows == 2
    assert stat.S_IMODE(target.stat().st_mode) == 0o600


def test_a_link_to_nothing_gets_its_file(tmp_path: Path) -> None:
    link = tmp_path / "link.ncf"
    link.symlink_to("later.ncf")
    ncf.write_table(OLD, link)
    assert link.is_symlink()
    assert ncf.read_table(tmp_path / "later.ncf").equals(OLD)


def test_a_pipe_is_written_into(tmp_path: Path) -> None:
    """It was replaced by a regular file; so would a device be."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with ThreadPoolExecutor(1) as thread:
        got = thread.submit(pipe.read_bytes)
        ncf.write_table(OLD, pipe)
        assert ncf.read_table(got.result(30)).equals(OLD)
    assert pipe.is_fifo()


def test_a_name_as_long_as_the_file_system_allows_is_written(tmp_path: Path) -> None:
    path = tmp_path / ("n" * 251 + ".ncf")
    ncf.write_table(OLD, path)
    assert ncf.read_table(path).equals(OLD)


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError):
        ncf.write_table(OLD, tmp_path)


def test_a_sink_that_takes_no_bytes_is_left() -> None:
    """The writer offered it the same bytes for ever."""

    class Stuck(io.RawIOBase):
        def write(self, data: object) -> int:
            return 0

    with pytest.raises(OSError, match="no more bytes"):
        ncf.write_table(OLD, Stuck())


class FullFor:
    """A file that takes no bytes for a while."""

    def __init__(self) -> None:
        self.data = io.BytesIO()
        self.is_full = False

    def write(self, data: bytes) -> int:
        if self.is_full:
            raise OSError(28, "No space left on device")
        return self.data.write(data)


def test_a_writer_that_failed_once_publishes_nothing(tmp_path: Path) -> None:
    """The disk had room again, and a file whose middle was missing replaced the old one."""
    file = FullFor()
    writer = ncf.NCFWriter(file, BATCH.schema, row_group_size=1000)
    writer.write_batch(BATCH)
    file.is_full = True
    with pytest.raises(OSError, match="No space left"):
        writer.write_batch(BATCH)
    file.is_full = False
    for act in (lambda: writer.write_batch(BATCH), writer.close):
        with pytest.raises(ValueError, match=r"given up.*No space left"):
            act()
    path = tmp_path / "t.ncf"
    ncf.write_table(OLD, path)
    other = ncf.NCFWriter(path, BATCH.schema)
    with pytest.raises(RuntimeError, match="the source broke"):
        other.write_reader(failing_reader(1))
    with pytest.raises(ValueError, match=r"given up.*the source broke"):
        other.close()
    assert ncf.read_table(path).equals(OLD)
    assert len(list(tmp_path.iterdir())) == 1


TEXT = pa.StringArray.from_buffers(
    2, pa.py_buffer(np.array([0, 1, 2], np.int32)), pa.py_buffer(b"a" + bytes([0xFF]))
)
BAD = {
    "text": TEXT,
    "index": pa.DictionaryArray.from_arrays(pa.array([0, 9]), pa.array(["a"]), safe=False),
}


@pytest.mark.parametrize("name", BAD)
def test_rows_that_are_not_valid_are_told_by_column(name: str, tmp_path: Path) -> None:
    table = pa.table({"n": [1, 2], "bad": BAD[name]})
    with pytest.raises(ValueError, match=r"column 'bad': .*validate"):
        ncf.write_table(table, tmp_path / "t.ncf")
    assert list(tmp_path.iterdir()) == []


def test_a_batch_that_is_refused_at_once_leaves_the_writer_as_it_was(tmp_path: Path) -> None:
    with ncf.NCFWriter(tmp_path / "t.ncf", OLD.schema) as writer:
        writer.write_table(OLD)
        with pytest.raises(ValueError, match="another schema"):
            writer.write_table(pa.table({"m": [1]}))
    assert ncf.read_table(tmp_path / "t.ncf").equals(OLD)
