from pathlib import Path

import pytest

from neurolake_dagster.errors import JavaNotFoundError
from neurolake_dagster.spark import find_java, require_java


def make_java(home: Path, version: str) -> None:
    command = home / "bin" / "java"
    command.parent.mkdir(parents=True)
    command.write_text(f"#!/bin/sh\necho 'openjdk version \"{version}\"' >&2\n")
    command.chmod(0o755)


def test_empty_path_tells_how_to_get_java(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_java() is None
    with pytest.raises(JavaNotFoundError, match=r"none on the PATH; Spark needs Java 17 .*apt-get"):
        require_java()


def test_java_home_without_java_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(JavaNotFoundError, match=f"JAVA_HOME '{tmp_path}' holds none"):
        require_java()


@pytest.mark.parametrize("version", ["1.8.0_402", "11.0.22"])
def test_old_java_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    make_java(tmp_path, version)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(JavaNotFoundError, match=r"found (8|11) in .*needs Java 17"):
        require_java()


def test_java_home_wins_over_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_java(tmp_path, "21.0.2")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    found = require_java()
    assert (found.home, found.major) == (tmp_path, 21)
