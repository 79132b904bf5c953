"""Storage on disk and on a real S3 server: the same calls, the same outcomes."""

import io
import multiprocessing
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from neurolake_dagster.errors import (
    SettingsError,
    StorageAccessError,
    StorageError,
    StorageExistsError,
    StorageNotFoundError,
    StorageUnavailableError,
    TableNotFoundError,
)
from neurolake_dagster.storage import Storage, StorageOptions, translated
from neurolake_dagster.tables import Table
from neurolake_dagster.tables.delta import DeltaDataset
from tests.doctor.strange_s3 import Fault, strange_s3
from tests.s3_server import S3Server, open_client

TOLD_WITHIN_S = 15


def s3_options(server: S3Server, **changes: object) -> StorageOptions:
    asked = {
        "endpoint": server.endpoint,
        "access_key": server.access_key,
        "secret_key": server.secret_key,
        "region": server.region,
    }
    return StorageOptions(**(asked | changes))


@pytest.fixture(params=["local", "s3"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "local":
        return Storage(str(tmp_path / "lake"))
    server = request.getfixturevalue("s3_server")
    return Storage(f"s3://{server.bucket}/{tmp_path.name}", s3_options(server))


def test_small_objects_come_back_and_are_listed(storage: Storage) -> None:
    odd = "a/part key=1/x~2E %41:*[é].bin"
    storage.put("a/one", b"1")
    storage.put(odd, b"two")

    found = {entry.key: entry.bytes for entry in storage.list("a")}
    assert found == {"a/one": 1, odd: 3}
    assert storage.read(odd) == b"two"
    assert [entry.key for entry in storage.list("a", after="a/one")] == [odd]
    assert list(storage.list("none")) == []


def test_only_writes_make_the_root(tmp_path: Path) -> None:
    """Asking for a table made its folder, or failed where none could be made."""
    storage = Storage(str(tmp_path / "lake"))
    assert not storage.exists("a")
    assert list(storage.list()) == list(storage.unfinished()) == []
    assert storage.children() == ()
    storage.delete(["a"])
    for read in (storage.read, storage.open_input, storage.size):
        with pytest.raises(StorageNotFoundError, match="lake/a: nothing there"):
            read("a")
    with pytest.raises(StorageNotFoundError):
        storage.move("a", "b")
    assert list(tmp_path.iterdir()) == []
    storage.put("a", b"1")
    assert storage.read("a") == b"1"


def test_of_racing_writers_exactly_one_creates(storage: Storage) -> None:
    won: list[int] = []
    lost: list[int] = []

    def create(number: int) -> None:
        try:
            storage.put_if_absent("log/0", str(number).encode())
        except StorageExistsError:
            lost.append(number)
        else:
            won.append(number)

    threads = [threading.Thread(target=create, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(won) == 1
    assert len(lost) == 15
    assert storage.read("log/0") == str(won[0]).encode()


def test_ranges_stop_at_the_end_of_the_object(storage: Storage) -> None:
    storage.put("r", bytes(range(100)))
    opened = storage.open_input("r")

    assert opened.size() == 100
    assert bytes(opened.read_at(10, 5)) == bytes(range(10, 15))
    assert bytes(opened.read_at(95, 50)) == bytes(range(95, 100))
    assert bytes(opened.read_at(100, 1)) == b""
    with opened.as_file() as file:
        file.seek(-3, io.SEEK_END)
        assert file.read() == bytes(range(97, 100))


def test_a_small_object_is_asked_for_once(storage: Storage) -> None:
    """A footer and three columns of a small part file were five requests."""
    storage.put("small", bytes(range(100)))
    opened = storage.open_input("small")
    assert bytes(opened.read_at(90, 10)) == bytes(range(90, 100))
    storage.delete(["small"])
    assert bytes(opened.read_at(0, 5)) == bytes(range(5))


def test_parquet_is_written_and_read_through_the_files(storage: Storage) -> None:
    table = pa.table({"id": range(10_000), "name": [f"n{i}" for i in range(10_000)]})
    with storage.open_output("t.parquet") as sink:
        pq.write_table(table, pa.PythonFile(sink, mode="w"))

    with storage.open_input("t.parquet").as_file() as source:
        assert pq.read_table(source, columns=["name"]).equals(table.select(["name"]))


def test_a_large_object_is_written_in_parts(storage: Storage) -> None:
    block = bytes(range(256)) * 4096
    with storage.open_output("big") as sink:
        for _ in range(20):
            sink.write(block)

    opened = storage.open_input("big")
    assert opened.size() == 20 * len(block)
    assert bytes(opened.read_at(19 * len(block), len(block))) == block


@pytest.mark.parametrize("size", [10, 20 << 20], ids=["small", "multipart"])
def test_a_failed_write_publishes_nothing(storage: Storage, size: int) -> None:
    def write_and_fail() -> None:
        with storage.open_output("broken") as sink:
            sink.write(b"x" * size)
            raise KeyError("the transform failed")

    with pytest.raises(KeyError):
        write_and_fail()

    dropped = storage.open_output("dropped")
    dropped.write(b"x" * size)
    dropped.abort()
    dropped.close()
    assert list(storage.list()) == []


def test_an_object_is_moved_and_deleted(storage: Storage) -> None:
    storage.put("from/a", b"a")
    storage.move("from/a", "to/deep/b")
    assert storage.read("to/deep/b") == b"a"
    assert not storage.exists("from/a")

    storage.delete(["to/deep/b", "never/was"])
    assert not storage.exists("to/deep/b")


@pytest.mark.parametrize("key", ["../x", "/x", "a//b", "a/./b", "a/../b", "", "a\0b"])
def test_a_key_that_could_leave_the_root_is_refused(tmp_path: Path, key: str) -> None:
    storage = Storage(str(tmp_path))
    with pytest.raises(StorageError, match="plain segments"):
        storage.put(key, b"x")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_object_is_told_with_its_address(storage: Storage) -> None:
    for call in (storage.read, storage.size, lambda key: storage.open_input(key).read_at(0, 1)):
        with pytest.raises(StorageNotFoundError, match="no/such"):
            call("no/such")


@pytest.mark.parametrize(
    "root",
    [
        *("", "gs://bucket/x", "s3://", "s3:///x", "s3:/bucket/x"),
        *("s3://b/a//b", "s3://b/../x", "s3://b/a\\b", "s3://b/a\tb"),
    ],
)
def test_a_root_we_do_not_know_is_refused(root: str) -> None:
    with pytest.raises(SettingsError, match="storage root"):
        Storage(root)


def test_addresses_follow_the_reader(tmp_path: Path) -> None:
    local = Storage(f"file://{tmp_path}/a%20b")
    assert local.uri("x/y") == local.spark_uri("x/y") == f"{tmp_path}/a b/x/y"
    assert Storage(f"file:{tmp_path}/a%20b") == local
    remote = Storage("s3://bucket/p/").child("q")
    assert remote.uri("x") == "s3://bucket/p/q/x"
    assert remote.spark_uri("x") == "s3a://bucket/p/q/x"
    assert remote.local_path("x") is None


def test_secrets_are_not_in_the_repr() -> None:
    options = StorageOptions(access_key="AKIDX", secret_key="hush", session_token="tok")
    storage = Storage("s3://bucket", options)
    assert not any(secret in repr(storage) for secret in ("AKIDX", "hush", "tok'"))


def test_storage_travels_to_another_process(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        pool.apply(storage.put, ("x", b"from afar"))
    assert storage.read("x") == b"from afar"


def _write_large(storage: Storage) -> None:
    with storage.open_output("x") as sink:
        sink.write(b"x" * (9 << 20))


@pytest.mark.parametrize(
    ("broken", "expected"),
    [
        (lambda s: Storage("s3://lake", s3_options(s, secret_key="wrong")), StorageAccessError),
        (lambda s: Storage("s3://lake", s3_options(s, access_key="wrong")), StorageAccessError),
        (lambda s: Storage("s3://absent", s3_options(s)), StorageUnavailableError),
        (
            lambda s: Storage("s3://lake", s3_options(s, endpoint="http://127.0.0.1:9")),
            StorageUnavailableError,
        ),
    ],
    ids=["wrong secret", "wrong access key", "missing bucket", "refused"],
)
@pytest.mark.parametrize(
    "act",
    [
        lambda storage: storage.put_if_absent("x", b""),
        lambda storage: list(storage.list("x")),
        _write_large,
    ],
    ids=["put", "list", "write"],
)
def test_an_unusable_store_is_told_soon(
    s3_server: S3Server,
    broken: Callable[[S3Server], Storage],
    expected: type[StorageError],
    act: Callable[[Storage], object],
) -> None:
    storage = broken(s3_server)
    started = time.monotonic()
    with pytest.raises(expected) as caught:
        act(storage)
    assert time.monotonic() - started < TOLD_WITHIN_S
    assert "\n" not in str(caught.value)
    assert s3_server.secret_key not in str(caught.value)


@pytest.mark.parametrize(
    ("fault", "expected", "told"),
    [
        ("another region", StorageUnavailableError, "another region .*set the storage's region"),
        ("expired token", StorageAccessError, "refused .ExpiredToken.; the session token"),
    ],
)
def test_what_a_store_refuses_reading_for_is_told(
    fault: Fault, expected: type[StorageError], told: str
) -> None:
    """A store that answered was said not to."""
    with strange_s3(fault) as endpoint:
        options = StorageOptions(endpoint=endpoint, access_key="a", secret_key="s")
        with pytest.raises(expected, match=told):
            Storage("s3://lake", options).read("x")


def test_a_refused_deletion_is_a_matter_of_rights() -> None:
    with strange_s3("refuses deletion") as endpoint:
        options = StorageOptions(endpoint=endpoint, access_key="a", secret_key="s")
        with pytest.raises(StorageAccessError, match=r"x: access refused \(AccessDenied\)"):
            Storage("s3://lake", options).delete(["x"])


def test_folders_markers_of_other_tools_are_no_objects(s3_server: S3Server, tmp_path: Path) -> None:
    """A table with one for its log could be read and written no more: a bare IndexError."""
    storage = Storage(f"s3://{s3_server.bucket}/{tmp_path.name}", s3_options(s3_server))
    with closing(open_client(s3_server)) as client:
        for folder in ("", "t/", "t/_log/"):
            key = f"{tmp_path.name}/{folder}"
            client.put_object(Bucket=s3_server.bucket, Key=key, Body=b"")
    assert list(storage.list("t/_log")) == []
    assert storage.children() == ("t",)
    table = Table(storage, "t", "ncf")
    table.write(pa.table({"x": [1]}))
    assert table.read().num_rows == 1


@pytest.fixture
def stray_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """What obstore and deltalake would mix into explicit settings: each made every call fail."""
    strays = {
        "SESSION_TOKEN": "stray",
        "ENDPOINT_URL": "http://127.0.0.1:9",
        "ENDPOINT_URL_S3": "http://127.0.0.1:9",
        "CONDITIONAL_PUT": "disabled",
        "SKIP_SIGNATURE": "true",
        "VIRTUAL_HOSTED_STYLE_REQUEST": "true",
    }
    for name, value in strays.items():
        monkeypatch.setenv(f"AWS_{name}", value)


@pytest.mark.usefixtures("stray_variables")
def test_aws_variables_of_the_environment_are_not_mixed_in(
    s3_server: S3Server, tmp_path: Path
) -> None:
    storage = Storage(f"s3://{s3_server.bucket}/{tmp_path.name}", s3_options(s3_server))
    storage.put_if_absent("x", b"1")
    assert storage.read("x") == b"1"


@pytest.fixture
def profile(s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StorageOptions:
    """Options without keys, which a profile of AWS has."""
    file = tmp_path / "credentials"
    file.write_text(
        "[default]\naws_access_key_id = not\naws_secret_access_key = these\n"
        f"[dev]\naws_access_key_id = {s3_server.access_key}\n"
        f"aws_secret_access_key = {s3_server.secret_key}\n"
    )
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    monkeypatch.setenv("AWS_PROFILE", "dev")
    return s3_options(s3_server, access_key=None, secret_key=None)


def test_without_keys_the_profile_in_force_has_them(
    profile: StorageOptions, tmp_path: Path
) -> None:
    """obstore reads no profiles: it asked for an instance's role, and was refused."""
    storage = Storage(f"s3://lake/{tmp_path.name}", profile)
    storage.put("x", b"1")
    assert storage.read("x") == b"1"


@pytest.mark.parametrize("engine", [lambda s: s.read("x"), lambda s: DeltaDataset(s, "t").open()])
@pytest.mark.parametrize("kind", ["profile", "variables"])
def test_credentials_that_are_renewed_while_a_process_lives_are_taken(
    profile: StorageOptions,
    s3_server: S3Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    engine: Callable[[Storage], object],
) -> None:
    """A process whose credentials had expired was refused until it was started anew."""
    file = tmp_path / "credentials"
    good = file.read_text()
    if kind == "profile":
        file.write_text(good.replace(s3_server.secret_key, "expired"))
    else:
        monkeypatch.delenv("AWS_PROFILE")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3_server.access_key)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "expired")
    storage = Storage(f"s3://lake/{tmp_path.name}", profile)
    with pytest.raises(StorageAccessError):
        engine(storage)
    file.write_text(good)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3_server.secret_key)
    with pytest.raises((StorageNotFoundError, TableNotFoundError)):
        engine(storage)


def test_a_profile_that_is_not_there_is_named(
    profile: StorageOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_PROFILE", "gone")
    with pytest.raises(StorageAccessError, match=r"profile \(gone\) could not be found.*correct"):
        Storage("s3://lake/gone", profile).read("x")


@pytest.mark.parametrize("engine", [lambda s: s.read("x"), lambda s: DeltaDataset(s, "t").open()])
@pytest.mark.parametrize(
    ("endpoint", "cause"),
    [
        ("http://127.0.0.1:9", "nothing listens there"),
        ("http://no-such-host.invalid", "no host has that name"),
        ("https://{place}", "speaks no TLS"),
    ],
)
def test_it_is_told_why_a_store_does_not_answer(
    s3_server: S3Server, engine: Callable[[Storage], object], endpoint: str, cause: str
) -> None:
    place = s3_server.endpoint.removeprefix("http://")
    options = s3_options(s3_server, endpoint=endpoint.format(place=place))
    with pytest.raises(StorageUnavailableError, match=f"the store does not answer: .*{cause}"):
        engine(Storage("s3://lake", options))


def test_it_is_told_what_makes_a_certificate_trusted() -> None:
    text = "Generic S3 error: HTTP error: client error: invalid peer certificate: UnknownIssuer"
    told = pytest.raises(StorageUnavailableError, match="not trusted here; set SSL_CERT_FILE")
    with told, translated("s3://lake"):
        raise OSError(text)


def test_an_aborted_multipart_upload_leaves_no_parts(s3_server: S3Server) -> None:
    storage = Storage(f"s3://{s3_server.bucket}/aborted", s3_options(s3_server))
    sink = storage.open_output("x")
    sink.write(b"x" * (20 << 20))
    sink.abort()
    with closing(open_client(s3_server)) as client:
        assert "Uploads" not in client.list_multipart_uploads(Bucket=s3_server.bucket)


def test_a_root_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match="file"):
        Storage(str(tmp_path / "file")).put("x", b"1")


def test_a_fork_of_a_process_that_used_a_store_is_told(tmp_path: Path) -> None:
    """It waited for ever for threads that are not there."""
    storage = Storage(str(tmp_path))
    storage.put("a", b"1")
    context = multiprocessing.get_context("fork")
    told = context.SimpleQueue()

    def read() -> None:
        try:
            told.put(storage.read("a"))
        except StorageError as exc:
            told.put(str(exc))

    child = context.Process(target=read, daemon=True)
    child.start()
    child.join(TOLD_WITHIN_S)
    assert child.exitcode == 0
    assert "is a fork of one that used a store" in told.get()
