import json
from pathlib import Path

import pytest

from neurolake_dagster.errors import JarsNotFoundError
from neurolake_dagster.spark import find_jars, resolve_jars
from neurolake_dagster.spark.jars import MANIFEST, installed_set


def fill_cache(cache: Path) -> Path:
    folder = installed_set().folder(cache)
    folder.mkdir(parents=True)
    (folder / "a.jar").write_bytes(b"12345")
    (folder / MANIFEST).write_text(json.dumps({"a.jar": 5}))
    return folder


def test_empty_cache_tells_the_command(tmp_path: Path) -> None:
    with pytest.raises(JarsNotFoundError, match="run `neurolake jars` once"):
        find_jars(tmp_path)


def test_resolved_jars_are_found_without_java_or_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = fill_cache(tmp_path)
    monkeypatch.setenv("JAVA_HOME", "/nowhere")
    assert resolve_jars(tmp_path) == [folder / "a.jar"]


@pytest.mark.parametrize("damage", ["cut", "missing"])
def test_damaged_jar_is_named(tmp_path: Path, damage: str) -> None:
    jar = fill_cache(tmp_path) / "a.jar"
    jar.write_bytes(b"123")
    if damage == "missing":
        jar.unlink()
    with pytest.raises(JarsNotFoundError, match=r"1 of 1 jars .*'a.jar'; delete the folder"):
        find_jars(tmp_path)


def test_the_slim_set_names_no_bundle() -> None:
    coordinates = installed_set().coordinates
    assert not [one for one in coordinates if "bundle" in one]
    assert f"org.apache.hadoop:hadoop-aws:{installed_set().hadoop}" in coordinates
