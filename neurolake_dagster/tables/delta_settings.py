"""What a Delta table is, beside its rows: partition columns, properties, constraints.

Owns making a table so, through `deltalake` whoever writes its rows: the log then binds
delta-spark and `deltalake` alike.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable

from neurolake_dagster.errors import TableError
from neurolake_dagster.tables.delta_commit import MADE

CONSTRAINT = "delta.constraints."


@dataclass(frozen=True, kw_only=True)
class DeltaSettings:
    """What a table shall be.

    Parameters
    ----------
    partition_columns
        Of a new table; one that exists must have the same. None asks for none.
    properties
        Set where they differ; others stay. Unknown ones that begin with ``delta.`` are refused.
    constraints
        SQL tests by name, true for every row; added where the table lacks them.
    """

    partition_columns: tuple[str, ...] | None = None
    properties: Mapping[str, str] = field(default_factory=dict)
    constraints: Mapping[str, str] = field(default_factory=dict)

    @property
    def are_for_tables_only(self) -> bool:
        """Whether a table must exist to have them: a write of rows cannot bring them."""
        return bool(self.properties or self.constraints)

    def create(
        self, uri: str, schema: pa.Schema, default_columns: list[str], options: dict[str, str]
    ) -> DeltaTable:
        """Make a table without rows; one that exists meanwhile stays. `apply` brings the rest.

        Until rows are committed, or none, it counts as one that was never written.
        """
        columns = default_columns if self.partition_columns is None else self.partition_columns
        return DeltaTable.create(
            uri,
            schema,
            mode="ignore",
            partition_by=list(columns) or None,
            configuration=dict(self.properties) or None,
            storage_options=options,
            commit_properties=CommitProperties(custom_metadata={MADE: "true"}),
            raise_if_key_not_exists=_are_delta(self.properties),
        )

    def apply(self, table: DeltaTable, where: str) -> None:
        """Bring a table to them; commits only what differs.

        Raises
        ------
        TableError
            If its partition columns or a constraint of a name are others, or rows that are
            there break a new constraint.
        """
        metadata = table.metadata()
        held = metadata.configuration
        columns = tuple(metadata.partition_columns)
        if self.partition_columns is not None and columns != self.partition_columns:
            raise TableError(
                f"{where}: partition_columns {list(self.partition_columns)!r}, but the table has "
                f"{list(columns)!r}; delete the table to partition it anew"
            )
        other = {
            name: held[CONSTRAINT + name]
            for name, test in self.constraints.items()
            if held.get(CONSTRAINT + name, test) != test
        }
        if other:
            raise TableError(
                f"{where}: constraints {other!r} are there already and say something else; "
                "give the new ones other names, or drop the old ones"
            )
        changed = {name: one for name, one in self.properties.items() if held.get(name) != one}
        if changed:
            table.alter.set_table_properties(changed, raise_if_not_exists=_are_delta(changed))
        for name, test in self.constraints.items():
            if CONSTRAINT + name not in held:
                table.alter.add_constraint({name: test})


def _are_delta(properties: Mapping[str, str]) -> bool:
    return bool(properties) and all(name.startswith("delta.") for name in properties)
