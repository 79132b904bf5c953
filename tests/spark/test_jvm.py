"""The Java side of the format ncf: compiled once, by Spark's own compiler."""

import zipfile
from pathlib import Path

import pytest

from neurolake_dagster.errors import JarsNotFoundError
from neurolake_dagster.spark import find_java, jvm

pytestmark = pytest.mark.spark


@pytest.fixture(autouse=True)
def java() -> None:
    if find_java() is None:
        pytest.skip("no Java on this machine")


def test_the_jar_is_compiled_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jar = jvm.format_jar(tmp_path)
    with zipfile.ZipFile(jar) as archive:
        assert archive.read(jvm.SERVICE) == b"neurolake.spark.NCFSource\n"
        assert "neurolake/spark/NCFSource.class" in archive.namelist()
    assert [path.name for path in jar.parent.iterdir()] == [jar.name]
    monkeypatch.setenv("JAVA_HOME", "/no/java/here")
    monkeypatch.setenv("PATH", "")
    assert jvm.format_jar(tmp_path) == jar


def test_another_spark_is_told(tmp_path: Path) -> None:
    source = tmp_path / "Later.java"
    source.write_text(
        "import org.apache.spark.sql.NoSuchClassYet; class Later extends NoSuchClassYet {}"
    )
    with pytest.raises(JarsNotFoundError, match=r"does not compile .*NoSuchClassYet.*lock"):
        jvm._compile([source], tmp_path)
