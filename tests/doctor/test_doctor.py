"""Each thing that the doctor can find, made to happen."""

import json
import sys
from pathlib import Path

import dagster as dg
import psutil
import pytest
from click.testing import CliRunner

from neurolake_dagster.cli import main
from neurolake_dagster.doctor import Finding, build_preflight_check, diagnose
from neurolake_dagster.doctor.engine import check_jars, check_java, check_workers
from neurolake_dagster.doctor.machine import (
    check_dagster_home,
    check_memory,
    check_packages,
    check_python,
)
from neurolake_dagster.doctor.store import check_storage
from neurolake_dagster.resources import SparkResource, StorageResource
from neurolake_dagster.settings import CacheSettings, SparkSettings, StorageSettings
from neurolake_dagster.spark.jars import installed_set
from neurolake_dagster.storage import Storage, StorageOptions
from tests.doctor.strange_s3 import Fault, strange_s3
from tests.s3_server import S3Server


def spark(**options: object) -> SparkSettings:
    return SparkSettings.load({}, **options)


def by_check(findings: list[Finding]) -> dict[str, Finding]:
    return {one.check: one for one in findings}


def make_command(path: Path, script: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


def test_here_nothing_fails(tmp_path: Path) -> None:
    findings = diagnose(storage=StorageResource(root=str(tmp_path / "data")))
    assert not [one for one in findings if one.status == "failure"]
    assert {"python", "java", "jars", "delta jar", "hadoop jar", "workers", "storage write"} <= set(
        by_check(findings)
    )
    assert not (tmp_path / "data").exists()


def install(folder: Path, name: str, *lines: str) -> None:
    """Put the metadata of a distribution there, as pip does."""
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    text = "\n".join(["Metadata-Version: 2.1", f"Name: {name}", "Version: 1.0", *lines])
    (info / "METADATA").write_text(text)


@pytest.mark.parametrize("needs", [">=3.99", "<3.11", "==2.7.*"])
def test_a_python_that_does_not_fit(
    tmp_path: Path, needs: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, "picky", f"Requires-Python: {needs}")
    monkeypatch.syspath_prepend(str(tmp_path))
    found = check_python("picky")
    assert (found.status, found.expected) == ("failure", f"Python {needs}")
    assert check_python().status == "ok"
    assert check_python("never-installed").status == "skipped"


def test_packages_that_are_missing_or_too_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs = [
        "click>=999",
        "no-such-package",
        "of-an-extra; extra == 'x'",
        "old; python_version<'3'",
    ]
    install(tmp_path, "wanting", *(f"Requires-Dist: {one}" for one in needs))
    monkeypatch.syspath_prepend(str(tmp_path))
    found = check_packages("wanting")
    assert found.status == "failure"
    assert found.found.startswith("click ")
    assert found.found.endswith("expected >=999; no-such-package: not installed")
    assert check_packages("never-installed").status == "warning"


def test_wrong_settings_hide_what_depends_on_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEUROLAKE_SPARK__EXECUTER_CORES", "2")
    monkeypatch.setenv("NEUROLAKE_STORAGE__ENDPOINT", "ftp://here")
    findings = by_check(diagnose())
    assert findings["settings"].status == "failure"
    assert "did you mean NEUROLAKE_SPARK__EXECUTOR_CORES" in findings["settings"].found
    assert "NEUROLAKE_STORAGE__ENDPOINT: expected http" in findings["settings"].found
    assert findings["spark"].status == findings["storage"].status == "skipped"


@pytest.mark.parametrize(
    ("home", "status", "found"),
    [
        ("", "warning", "not set"),
        ("relative", "failure", "not an absolute path"),
        ("/no/such/folder", "failure", "no such folder"),
        ("/proc", "failure", "not writable"),
    ],
)
def test_dagster_home(home: str, status: str, found: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGSTER_HOME", home)
    finding = check_dagster_home()
    assert (finding.status, found in finding.found) == (status, True)


@pytest.mark.parametrize("text", ["run_storage: [1", "no_such_key: 1"])
def test_a_broken_dagster_yaml(tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    assert check_dagster_home().status == "ok"
    (tmp_path / "dagster.yaml").write_text(text)
    finding = check_dagster_home()
    assert finding.status == "failure"
    assert "dagster.yaml" in finding.found


def test_no_java(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    java, vector = check_java(spark())
    assert (java.status, vector.status) == ("failure", "skipped")
    assert "openjdk-17" in java.fix
    assert {one.status for one in check_java(spark(remote="sc://elsewhere:15002"))} == {"skipped"}


@pytest.mark.parametrize(("version", "failing"), [("11.0.2", "java"), ("17.0.2", "java vector")])
def test_a_java_too_old_or_cut_down(
    tmp_path: Path, version: str, failing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = f'[ "$1" = -version ] && echo \'openjdk version "{version}"\' || echo java.base'
    make_command(tmp_path / "bin" / "java", script)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    assert [one.check for one in check_java(spark()) if one.status == "failure"] == [failing]


def test_jars_that_are_missing_or_damaged(tmp_path: Path) -> None:
    cache = CacheSettings(dir=tmp_path)
    assert by_check(check_jars(spark(), cache))["jars"].fix == "run `neurolake jars`"
    folder = installed_set().folder(tmp_path)
    folder.mkdir(parents=True)
    (folder / "jars.json").write_text('{"a.jar": 5}')
    assert "damaged" in by_check(check_jars(spark(), cache))["jars"].found
    gone = spark(jars=[str(tmp_path / "gone.jar")])
    assert "gone.jar" in by_check(check_jars(gone, cache))["jars"].found
    bare = spark(delta_enabled=False, s3_enabled=False)
    assert check_jars(bare, cache)[0].status == "skipped"


def test_jars_of_another_version_than_the_wheels(tmp_path: Path) -> None:
    names = ["io.delta_delta-spark_4.2_2.13-4.3.0.jar", "delta-storage-4.4.0.jar"]
    jars = [tmp_path / name for name in names]
    for jar in jars:
        jar.touch()
    settings = spark(jars=[str(jar) for jar in jars])
    findings = by_check(check_jars(settings, CacheSettings(dir=tmp_path)))
    assert (findings["delta jar"].status, findings["delta jar"].found) == ("failure", names[0])
    assert (findings["hadoop jar"].status, findings["hadoop jar"].found) == ("failure", "none")


@pytest.mark.parametrize(
    ("script", "found"),
    [
        ("echo \"No module named 'pyarrow'\" >&2; exit 1", "No module named 'pyarrow'"),
        ("echo 3.9", "Python 3.9"),
    ],
)
def test_workers_with_another_python(
    tmp_path: Path, script: str, found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYSPARK_PYTHON", make_command(tmp_path / "python", script))
    finding = check_workers(spark())
    assert (finding.status, found in finding.found) == ("failure", True)
    assert check_workers(spark(master="spark://host:7077")).status == "skipped"
    monkeypatch.setenv("PYSPARK_PYTHON", "/nowhere/python")
    assert "no such command" in check_workers(spark()).found


STORAGE = StorageSettings.load({})


def test_memory_that_the_machine_lacks() -> None:
    total = psutil.virtual_memory().total >> 20
    assert check_memory(spark(driver_memory=f"{total + 1}m"), STORAGE).status == "failure"
    assert check_memory(spark(driver_memory=f"{total - 1}m"), STORAGE).status == "warning"
    assert check_memory(spark(driver_memory="450m"), STORAGE).status == "ok"


@pytest.mark.parametrize(
    ("options", "executors"),
    [
        ({"master": "local[2]"}, 0),
        ({"master": "local-cluster[3,1,1024]"}, 3),
        ({"master": "spark://localhost:7077"}, 2),
        ({"master": "spark://localhost:7077", "dynamic_allocation_initial_executors": 5}, 5),
        (
            {
                "master": "spark://127.0.0.1:7077",
                "dynamic_allocation_enabled": False,
                "executor_instances": 4,
            },
            4,
        ),
        ({"master": "spark://elsewhere:7077"}, 0),
    ],
)
def test_memory_counts_the_executors_of_this_machine(
    options: dict[str, object], executors: int
) -> None:
    """Only the driver's was looked at."""
    share = (psutil.virtual_memory().total >> 20) // max(executors, 1)
    settings = spark(driver_memory="450m", executor_memory=f"{share}m", **options)
    finding = check_memory(settings, STORAGE)
    assert (f"{executors} executors" in finding.found) == bool(executors)
    assert finding.status == ("failure" if executors else "ok")


def test_a_memory_that_is_no_size() -> None:
    """`_bytes` fell over it."""
    settings = spark(extra_configs={"spark.driver.memory": "banana"})
    finding = check_memory(settings, STORAGE)
    assert (finding.status, finding.found) == ("failure", "no size: spark.driver.memory=banana")
    assert "EXTRA_CONFIGS" in finding.fix


def test_a_check_that_falls_over_is_one_finding(tmp_path: Path) -> None:
    resource = SparkResource(extra_configs={"spark.ui.port": "many"})
    findings = by_check(diagnose(resource, StorageResource(root=str(tmp_path))))
    assert findings["ports"].status == "failure"
    assert "fell over: ValueError" in findings["ports"].found
    assert findings["storage delete"].status == "ok"


def failures(storage: Storage) -> dict[str, str]:
    return {
        one.check.removeprefix("storage "): one.fix
        for one in check_storage(storage)
        if one.status in ("failure", "warning")
    }


@pytest.mark.parametrize(
    ("fault", "failing"),
    [
        ("none", None),
        ("ignores conditions", "conditional put"),
        ("garbles", "read"),
        ("lists nothing", "list"),
        ("keeps", "delete"),
        ("slow clock", "clock"),
        ("fast clock", "clock"),
    ],
)
def test_a_store_with_a_fault(fault: Fault, failing: str | None) -> None:
    with strange_s3(fault) as endpoint:
        options = StorageOptions(endpoint=endpoint, access_key="a", secret_key="b")
        assert list(failures(Storage("s3://bucket/p", options))) == ([failing] if failing else [])


def test_a_store_that_cannot_be_reached_or_refuses(s3_server: S3Server) -> None:
    right = {"access_key": s3_server.access_key, "secret_key": s3_server.secret_key}
    good = StorageOptions(endpoint=s3_server.endpoint, **right)
    assert failures(Storage(f"s3://{s3_server.bucket}/doctor", good)) == {}
    wrong = StorageOptions(endpoint=s3_server.endpoint, access_key="no", secret_key="no")
    assert "ACCESS_KEY" in failures(Storage(f"s3://{s3_server.bucket}/p", wrong))["write"]
    assert "bucket" in failures(Storage("s3://no-such-bucket/p", good))["write"]
    dead = StorageOptions(endpoint="127.0.0.1:1", **right)
    assert "ENDPOINT" in failures(Storage("s3://b/p", dead))["write"]


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    findings = check_storage(Storage(str(tmp_path / "file" / "data")))
    assert [one.status for one in findings] == ["failure", *["skipped"] * 5]
    assert "ROOT" in findings[0].fix


def test_the_command_exits_by_what_it_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEUROLAKE_STORAGE__ROOT", str(tmp_path))
    found = CliRunner().invoke(main, ["doctor", "--json"])
    page = json.loads(found.stdout)
    assert (found.exit_code, page["ok"]) == (0, True)
    assert set(page["findings"][0]) == {"check", "status", "found", "expected", "fix"}
    monkeypatch.setenv("JAVA_HOME", "/nowhere")
    failed = CliRunner().invoke(main, ["doctor"])
    assert failed.exit_code == 1
    assert "FAIL  java" in failed.stdout
    assert "fix: Spark needs Java 17" in failed.stdout
    assert json.loads(CliRunner().invoke(main, ["doctor", "--json"]).stdout)["ok"] is False


def test_the_asset_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    @dg.asset
    def table() -> None: ...

    resources = {
        "spark": SparkResource(),
        "storage": StorageResource(root=str(tmp_path)),
    }
    definitions = [table, build_preflight_check("table", blocking=False)]

    def run() -> dg.AssetCheckEvaluation:
        result = dg.materialize(definitions, resources=resources)
        (evaluation,) = result.get_asset_check_evaluations()
        return evaluation

    good = run()
    assert good.passed
    assert len(good.metadata["findings"].value.records) >= 15
    monkeypatch.setenv("PYSPARK_PYTHON", "/nowhere/python")
    bad = run()
    assert not bad.passed
    assert "workers: '/nowhere/python': no such command" in (bad.description or "")
    assert sys.executable not in (bad.description or "")
