"""`neurolake run` tells why a run failed, by starting the real command."""

from pathlib import Path

import pytest

from tests.project import Project, make_project

BAD_MEMORY = {"NEUROLAKE_SPARK__EXECUTOR_MEMORY": "lots"}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return make_project(tmp_path_factory.mktemp("project"))


@pytest.mark.parametrize(
    ("arguments", "environment", "words"),
    [
        (("nope",), {}, 's: Job "nope" not found'),
        pytest.param(
            ("convert_flights_daily", "--partition", "2020-01-01"),
            {},
            "Could not find a partition with key `2020-01-01`",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            ("convert_flights",),
            BAD_MEMORY,
            "s: SettingsError: NEUROLAKE_SPARK__EXECUTOR_MEMORY: ",
            marks=pytest.mark.slow,
        ),
    ],
    ids=["no such job", "no such partition", "wrong setting"],
)
def test_a_run_that_does_not_start_tells_why(
    project: Project, arguments: tuple[str, ...], environment: dict[str, str], words: str
) -> None:
    """Only the path of the log was printed."""
    result = project.run("neurolake", "run", *arguments, check=False, **environment)
    assert result.returncode == 1
    assert words in result.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("root", "kind"),
    [
        pytest.param("/proc/lake", "TableNotFoundError", marks=pytest.mark.slow),
        ("s3://nobucket/x", "StorageAccessError"),
    ],
    ids=["disk", "S3"],
)
def test_a_failed_step_tells_our_error_in_one_line(project: Project, root: str, kind: str) -> None:
    """The library's error below it was printed: without a path, or 20 lines of Rust."""
    environment = {"NEUROLAKE_STORAGE__ROOT": root, "AWS_EC2_METADATA_DISABLED": "true"}
    result = project.run("neurolake", "run", "convert_flights_daily", check=False, **environment)
    _command, *failures = result.stdout.strip().splitlines()
    assert len(failures) == 1
    assert f"ncf__flights_daily: {kind}" in failures[0]
    assert f"{root}/ncf/flights" in failures[0]


def test_a_run_outside_of_a_project_tells_so(project: Project, tmp_path: Path) -> None:
    result = project.run(
        "env", "-C", str(tmp_path), "neurolake", "run", "convert_flights", check=False
    )
    assert "must be run inside a Dagster project" in result.stderr.splitlines()[-1]
