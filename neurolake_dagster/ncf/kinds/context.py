"""What the kinds share: the prepared chunk's interface and the two contexts. Owns no bytes."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from neurolake_dagster.ncf.checks import MAX_CHILD_ROWS, Damage, Node
from neurolake_dagster.ncf.compression import Profile, StreamReader, StreamWriter
from neurolake_dagster.ncf.memory import Budget
from neurolake_dagster.ncf.statistics import Stats


class Prepared(Protocol):
    """One chunk (or the child of one) with its plan, ready to encode ranges of its rows."""

    def encode(self, streams: StreamWriter, start: int, stop: int) -> Node:
        """Encode rows ``start..stop`` as one array node."""

    def stats(self, start: int, stop: int) -> Stats:
        """Return the statistics of rows ``start..stop``."""

    def names(self) -> list[str]:
        """Return the names of the encodings that the plan chose."""


class Tables(Protocol):
    """Where an encoder puts arrays that all pages of the chunk share."""

    def add(self, array: Any) -> int:
        """Store ``array`` once for the chunk; return its number."""


@dataclass(frozen=True)
class PrepareContext:
    """What preparing a chunk needs.

    Parameters
    ----------
    prepare_array
        Prepares a child of any type.
    share_values
        Whether numbers and text may use tables; not within a table.
    is_one_page
        Whether the chunk is one page, which needs to share nothing.
    """

    profile: Profile
    tables: Tables
    prepare_array: Callable[["PrepareContext", Any], Prepared]
    share_values: bool = True
    is_one_page: bool = False

    def prepare(self, array: Any) -> Prepared:
        """Prepare a child array."""
        return self.prepare_array(self, array)


class TableReader(Protocol):
    """Where a decoder finds the arrays that all pages of the chunk share."""

    def get(self, number: object, kind: Any) -> Any:
        """Return table ``number`` decoded as Arrow type ``kind``."""

    def keep(self, key: tuple[Any, ...], build: Callable[[], Any]) -> Any:
        """Return what ``build`` made for ``key`` the first time it was asked for."""


class DecodeContext(NamedTuple):
    """What decoding a page needs."""

    streams: StreamReader
    tables: TableReader
    budget: Budget
    decode_array: Callable[["DecodeContext", object, Any, int], Any]

    def decode(self, node: object, kind: Any, count: int) -> Any:
        """Decode a child node of ``count`` rows as Arrow type ``kind``."""
        if not 0 <= count <= MAX_CHILD_ROWS:
            raise Damage(f"child: impossible row count {count}")
        return self.decode_array(self, node, kind, count)
