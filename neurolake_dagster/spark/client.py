"""Importing Spark Connect's client without pandas.

Owns the stand-ins. pyspark imports pandas wherever the client is used and needs it for pandas'
own frames only; it is 0.9 s of the 2.3 s until a client of a warm server has its first result.
"""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module, metadata
from types import ModuleType
from typing import Any

CLIENT = "pyspark.sql.connect.session"
DEFERRED = ("pandas", "pandas.api", "pandas.api.types")


def import_client() -> None:
    """Import the client; pandas follows when it is first needed, by the client or by others."""
    # Another thread that imports pandas meanwhile would get the stand-in's types.
    is_alone = threading.active_count() == 1
    if is_alone and CLIENT not in sys.modules and "pandas" not in sys.modules:
        with _stand_ins():
            import_module(CLIENT)


class _StandIn(ModuleType):
    """A module that is imported when somebody uses it after the client was imported."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.__path__ = []

    def __getattr__(self, name: str) -> Any:
        if sys.modules.get(self.__name__) is not self:
            return getattr(import_module(self.__name__), name)
        if name == "__version__":
            return metadata.version(self.__name__)
        if name.startswith("__"):
            raise AttributeError(name)
        # While the client is imported: types stand in annotations, functions are called later.
        return self._later(name) if name.startswith("is_") else _Type

    def _later(self, name: str) -> Any:
        return lambda *values: getattr(import_module(self.__name__), name)(*values)


class _Type:
    """A type of pandas in annotations; no value is of it."""


@contextmanager
def _stand_ins() -> Iterator[None]:
    mine = {name: _StandIn(name) for name in DEFERRED}
    sys.modules.update(mine)
    try:
        yield
    finally:
        for name in mine:
            del sys.modules[name]
