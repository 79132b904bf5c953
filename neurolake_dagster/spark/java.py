"""Java: which one there is, and a clear error where there is none."""

import dataclasses
import os
import re
import shutil
import subprocess
from pathlib import Path

from neurolake_dagster.errors import JavaNotFoundError

OLDEST = 17
HOW = (
    "Spark needs Java 17 or newer (Debian: apt-get install openjdk-17-jre-headless; "
    "macOS: brew install openjdk@17), or JAVA_HOME set to one; everything without a Spark "
    "DataFrame runs without it"
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Java:
    """A Java of this machine."""

    home: Path
    major: int


def find_java() -> Java | None:
    """The Java that Spark would start: JAVA_HOME's, else the one on the PATH."""
    home = os.environ.get("JAVA_HOME")
    command = shutil.which("java", path=str(Path(home) / "bin")) if home else shutil.which("java")
    if command is None:
        return None
    result = subprocess.run([command, "-version"], capture_output=True, text=True, check=False)
    version = re.search(r'version "(?:1\.)?(\d+)', result.stderr + result.stdout)
    if result.returncode or version is None:
        return None
    return Java(home=Path(command).resolve().parent.parent, major=int(version[1]))


def require_java() -> Java:
    """The Java that Spark will start.

    Raises
    ------
    JavaNotFoundError
        If there is none, or it is older than Spark needs.
    """
    java = find_java()
    if java is None:
        home = os.environ.get("JAVA_HOME")
        where = f"JAVA_HOME {home!r} holds none" if home else "none on the PATH"
        raise JavaNotFoundError(f"Java: {where}; {HOW}")
    if java.major < OLDEST:
        raise JavaNotFoundError(f"Java: found {java.major} in {java.home}; {HOW}")
    return java
