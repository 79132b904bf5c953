"""The package as an archive, for executors that do not have it installed.

Owns what is in the archive. What the package needs itself (pyarrow, numpy, obstore, ...) is
binary and has to be there: installed, or shipped by ``spark.archives``.
"""

import zipfile
from pathlib import Path

import neurolake_dagster

SUFFIXES = (".py", ".json")
# Zip knows no earlier day; the same day always, so that the same package is the same archive.
DAY = (1980, 1, 1, 0, 0, 0)


def build_archive(folder: Path) -> Path:
    """Write the package's own modules as a zip that Python can import from.

    Parameters
    ----------
    folder
        Where the archive goes; made if it is missing. An older archive is replaced.
    """
    assert neurolake_dagster.__file__ is not None
    package = Path(neurolake_dagster.__file__).parent
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{package.name}-{neurolake_dagster.__version__}.zip"
    scratch = target.with_suffix(".part")
    with zipfile.ZipFile(scratch, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(package.rglob("*")):
            if path.suffix in SUFFIXES:
                name = str(Path(package.name) / path.relative_to(package))
                archive.writestr(zipfile.ZipInfo(name, DAY), path.read_bytes())
    scratch.replace(target)
    return target
