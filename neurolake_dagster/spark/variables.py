"""Environment variables of this process while a Spark is launched or reached.

Owns which ones are kept from Spark, and setting others for so long only.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

# By these, Spark would become another than its settings say: one of a server, or of another
# master. Where a remote is set as well, pyspark refuses both, and shows its token.
OVERRULED = ("SPARK_REMOTE", "SPARK_API_MODE", "MASTER")


@contextmanager
def environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set variables inside the block, without the overruled ones: the next may need others."""
    wanted = {**dict.fromkeys(OVERRULED), **variables}
    before = {name: os.environ.get(name) for name in wanted}
    _set(wanted)
    try:
        yield
    finally:
        _set(before)


def _set(variables: Mapping[str, str | None]) -> None:
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
