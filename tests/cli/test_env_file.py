"""`.env` of the working directory: the commands look at the lake that it names, as Dagster does."""

import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from neurolake_dagster import ncf


def neurolake(
    folder: Path, *arguments: str, **environment: str
) -> "subprocess.CompletedProcess[str]":
    """Run the command as a user does: in a folder, in a process of its own."""
    code = "from neurolake_dagster.cli import main; main(prog_name='neurolake')"
    kept = {k: v for k, v in os.environ.items() if not k.startswith("NEUROLAKE_STORAGE_")}
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=folder,
        env=kept | {"PYTHONPATH": str(Path(__file__).parents[2])} | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_commands_look_at_the_lake_that_env_names(tmp_path: Path) -> None:
    """They looked at `data`, Dagster at what the file says."""
    (tmp_path / ".env").write_text("NEUROLAKE_STORAGE__ROOT=elsewhere\n")
    lines = neurolake(tmp_path, "doctor").stdout.splitlines()
    (settings,) = (line for line in lines if " settings " in line)
    assert settings.endswith(f"storage at elsewhere (read {tmp_path / '.env'})")


def test_what_is_exported_stays_and_doctor_warns(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("NEUROLAKE_STORAGE__ROOT=elsewhere\n")
    found = neurolake(tmp_path, "doctor", NEUROLAKE_STORAGE__ROOT="exported").stdout
    assert "storage at exported" in found
    assert "NEUROLAKE_STORAGE__ROOT exported with another value" in found


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"NEUROLAKE_SPARK__EXECUTOR_MEMORY=lots", "expected a size such as 512m"),
        (b"NEUROLAKE_STORAGE__ROOF=x", "did you mean NEUROLAKE_STORAGE__ROOT"),
        (b"A=\xe9", "expected lines NAME=value in UTF-8"),
    ],
    ids=["value", "name", "encoding"],
)
def test_doctor_fails_on_what_is_wrong_in_env(tmp_path: Path, text: bytes, words: str) -> None:
    (tmp_path / ".env").write_bytes(text)
    result = neurolake(tmp_path, "doctor")
    assert result.returncode == 1
    assert words in result.stdout + result.stderr
    assert "Traceback" not in result.stderr


def test_file_tools_do_without_env(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("NEUROLAKE_SPARK__EXECUTOR_MEMORY=lots\n")
    ncf.write_table(pa.table({"a": [1]}), tmp_path / "t.ncf")
    assert neurolake(tmp_path, "cat", "t.ncf").stdout == '"a"\n1\n'
