"""Column lineage of our assets: which upstream columns each column comes from.

Owns the declarations; `neurolake_dagster.io_managers.metadata` renders them.
"""

from collections.abc import Mapping, Sequence

import dagster as dg

ColumnLineage = Mapping[str, Sequence[tuple[dg.AssetKey, str]]]


def identity_lineage(columns: Sequence[str], source: dg.AssetKey) -> ColumnLineage:
    """Each column comes from the source's column of the same name."""
    return {column: [(source, column)] for column in columns}
