import dataclasses
import json
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from click.testing import CliRunner

from neurolake_dagster.cli import main
from neurolake_dagster.errors import JarsNotFoundError
from neurolake_dagster.settings import CacheSettings
from neurolake_dagster.spark import find_jars, resolve_jars
from neurolake_dagster.spark.jars import MANIFEST, _reason, installed_set


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


@pytest.mark.parametrize("text", ["", "[]", "{"])
def test_a_damaged_manifest_is_named(tmp_path: Path, text: str) -> None:
    (fill_cache(tmp_path) / MANIFEST).write_text(text)
    with pytest.raises(JarsNotFoundError, match=r"jars\.json: damaged.*delete the folder"):
        find_jars(tmp_path)


def test_several_processes_bring_the_jars_once(tmp_path: Path) -> None:
    """One deleted the folder that another had just filled: "Directory not empty", jars missing."""
    filled = fill_cache(tmp_path / "other")
    names = [f"{number}.jar" for number in range(300)]
    for name in names:
        (filled / name).write_bytes(b"1")
    (filled / MANIFEST).write_text(json.dumps(dict.fromkeys(names, 1)))
    mirror = str(tmp_path / "other")
    with ThreadPoolExecutor(8) as pool:
        found = pool.map(lambda _: resolve_jars(tmp_path, mirror=mirror), range(8))
        assert [len(jars) for jars in found] == [300] * 8


def test_offline_never_resolves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEUROLAKE_CACHE__DIR", str(tmp_path))
    found = CliRunner().invoke(main, ["jars", "--offline"])
    assert (found.exit_code, "run `neurolake jars` once" in found.stderr) == (1, True)
    fill_cache(tmp_path)
    assert CliRunner().invoke(main, ["jars", "--offline"]).exit_code == 0


@pytest.mark.parametrize("below", ["", "jars"])
def test_the_cache_of_another_machine_is_a_mirror(
    tmp_path: Path, below: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    jar = fill_cache(tmp_path / "other") / "a.jar"
    mirror = str(tmp_path / "other" / below)
    monkeypatch.setenv("JAVA_HOME", "/nowhere")
    found = resolve_jars(tmp_path / "cache", mirror=mirror, offline=True)
    assert found == [installed_set().folder(tmp_path / "cache") / "a.jar"]
    assert found[0].read_bytes() == b"12345"
    jar.write_bytes(b"1")
    with pytest.raises(JarsNotFoundError, match="damaged"):
        resolve_jars(tmp_path / "cache2", mirror=mirror)
    with pytest.raises(JarsNotFoundError, match="no such folder"):
        resolve_jars(tmp_path / "cache2", mirror=str(tmp_path / "gone"))


def publish(repository: Path, coordinate: str, *, with_jar: bool = True) -> None:
    """Put an artifact without dependencies into a Maven repository on disk."""
    group, name, version = coordinate.split(":")
    folder = repository / group.replace(".", "/") / name / version
    folder.mkdir(parents=True, exist_ok=True)
    facts = f"<groupId>{group}</groupId><artifactId>{name}</artifactId><version>{version}</version>"
    text = f"<project><modelVersion>4.0.0</modelVersion>{facts}</project>"
    (folder / f"{name}-{version}.pom").write_text(text)
    if with_jar:
        with zipfile.ZipFile(folder / f"{name}-{version}.jar", "w") as jar:
            jar.writestr("empty", "")


@pytest.mark.slow
def test_ivy_resolves_from_a_mirror_and_tells_what_it_lacks(tmp_path: Path) -> None:
    mirror, wanted = tmp_path / "maven", installed_set()
    mirror.mkdir()
    first, *others = wanted.coordinates
    for one in others:
        publish(mirror, one)
    with pytest.raises(JarsNotFoundError, match=r"maven lacks io\.delta#delta-spark.*fill the"):
        resolve_jars(tmp_path, mirror=str(mirror), offline=True)
    publish(mirror, first, with_jar=False)
    with pytest.raises(JarsNotFoundError, match=r"half-filled.*delete that artifact's folder"):
        resolve_jars(tmp_path, mirror=str(mirror))
    publish(mirror, first)
    assert len(resolve_jars(tmp_path, mirror=mirror.as_uri())) == len(wanted.coordinates)


@pytest.mark.slow
def test_a_dead_network_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dead = "-Dhttps.proxyHost=127.0.0.1 -Dhttps.proxyPort=1"
    monkeypatch.setenv("JAVA_TOOL_OPTIONS", dead)
    with pytest.raises(JarsNotFoundError, match=r"Maven Central does not answer.*--mirror"):
        resolve_jars(tmp_path)


def test_a_wheel_without_a_jar_is_told() -> None:
    """What Ivy says of delta-spark 4.4.1, whose wheel exists and whose jar does not."""
    wanted = dataclasses.replace(installed_set(), delta="4.4.1")
    log = "\t\t:: io.delta#delta-spark_4.2_2.13;4.4.1: not found\n"
    assert "delta-spark 4.4.1 has no jar for Spark" in _reason(wanted, log, None)


def test_the_resolved_set_is_slim() -> None:
    jars = find_jars(CacheSettings.load().dir)
    assert sum(jar.stat().st_size for jar in jars) <= 35_000_000
    assert not [jar for jar in jars if "bundle" in jar.name]


def test_the_slim_set_names_no_bundle() -> None:
    coordinates = installed_set().coordinates
    assert not [one for one in coordinates if "bundle" in one]
    assert f"org.apache.hadoop:hadoop-aws:{installed_set().hadoop}" in coordinates
