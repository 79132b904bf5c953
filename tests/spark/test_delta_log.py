"""Delta's log on S3, as delta-spark writes it: no commit takes the place of another."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from neurolake_dagster.errors import StorageExistsError
from neurolake_dagster.settings import SparkSettings
from neurolake_dagster.spark.conf import jar_conf
from neurolake_dagster.spark.jvm import DELTA_LOG
from neurolake_dagster.storage import Storage
from tests.s3_server import S3Server
from tests.test_storage import s3_options

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

Put = Callable[[str, str], None]
S3A_LOG = "spark.delta.logStore.s3a.impl"


@pytest.fixture
def storage(s3_server: S3Server, tmp_path: Path) -> Storage:
    return Storage(f"s3://{s3_server.bucket}/{tmp_path.name}", s3_options(s3_server))


@pytest.fixture
def put_by_spark(spark: "SparkSession", storage: Storage) -> Put:
    """How the session puts a commit of one line."""
    from py4j.protocol import Py4JJavaError

    jvm: Any = spark._jvm
    options = storage.options
    conf = jvm.org.apache.hadoop.conf.Configuration()
    for key, value in {
        "impl": "org.apache.hadoop.fs.s3a.S3AFileSystem",
        "endpoint": options.endpoint_url,
        "endpoint.region": options.region,
        "access.key": options.access_key,
        "secret.key": options.secret_key,
        "path.style.access": "true",
    }.items():
        conf.set(f"fs.s3a.{key}", value)
    log = jvm
    for name in spark.sparkContext.getConf().get(S3A_LOG, "").split("."):
        log = getattr(log, name)
    log = log(conf)

    def put(key: str, line: str) -> None:
        path = jvm.org.apache.hadoop.fs.Path(storage.spark_uri(key))
        lines = jvm.java.util.ArrayList()
        lines.add(line)
        try:
            log.write(path, lines.iterator(), False, conf)
        except Py4JJavaError as exc:
            if "java.nio.file.FileAlreadyExistsException" in str(exc):
                raise StorageExistsError(key) from exc
            raise

    return put


def test_of_racing_commits_exactly_one_stands(put_by_spark: Put, storage: Storage) -> None:
    """Delta's own log looked first: a commit that came in between was overwritten, and lost."""

    def won(put: Put, key: str, line: str) -> bool:
        try:
            put(key, line)
        except StorageExistsError:
            return False
        return True

    writers: dict[str, Put] = {
        "spark": put_by_spark,
        "arrow": lambda key, line: storage.put_if_absent(key, line.encode()),
    }
    with ThreadPoolExecutor(len(writers)) as pool:
        for version in range(20):
            key = f"_delta_log/{version:020d}.json"
            racing = {name: pool.submit(won, put, key, name) for name, put in writers.items()}
            winners = [name for name, done in racing.items() if done.result()]
            assert winners == [storage.read(key).decode().strip()]


def test_a_commit_whose_answer_was_lost_is_known_again(put_by_spark: Put, storage: Storage) -> None:
    put_by_spark("_delta_log/1.json", "mine")
    put_by_spark("_delta_log/1.json", "mine")
    with pytest.raises(StorageExistsError):
        put_by_spark("_delta_log/1.json", "other")
    assert storage.read("_delta_log/1.json") == b"mine\n"


@pytest.mark.parametrize(
    ("jar", "configs", "log"),
    [
        ("delta-log-4.2.0-1.jar", {}, DELTA_LOG),
        ("delta-log-4.2.0-1.jar", {"spark.delta.logStore.class": "own.Log"}, None),
        ("ncf-spark-4.2.0-1.jar", {}, None),
    ],
    ids=["ours", "another was named", "no jar"],
)
def test_delta_uses_the_log_where_its_jar_is(
    jar: str, configs: dict[str, str], log: str | None
) -> None:
    settings = SparkSettings.load({}, extra_configs=configs)
    assert jar_conf([Path(jar)], settings).get(S3A_LOG) == log
