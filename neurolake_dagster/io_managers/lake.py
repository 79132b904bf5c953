"""One IO manager for all formats: each asset says its own.

Owns only the choice; the managers of the formats do the work.
"""

from collections.abc import Mapping
from typing import Any

import dagster as dg
from pydantic import Field

from neurolake_dagster.errors import TableError
from neurolake_dagster.io_managers.asked import plain
from neurolake_dagster.io_managers.base import LakehouseIOManager
from neurolake_dagster.io_managers.delta import DeltaIOManager
from neurolake_dagster.io_managers.ncf import NCFIOManager
from neurolake_dagster.io_managers.parquet import ParquetIOManager
from neurolake_dagster.io_managers.plans import check_mode
from neurolake_dagster.resources import SparkResource, StorageResource

MANAGERS: dict[str, type[LakehouseIOManager]] = {
    "ncf": NCFIOManager,
    "parquet": ParquetIOManager,
    "delta": DeltaIOManager,
}


class LakeIOManager(dg.ConfigurableIOManager):
    """Keeps each asset in the format that its metadata or its key names.

    ``metadata={"format": "delta"}`` is stronger than a key that begins with a format
    (``["parquet", "flights"]``), and that than the manager's own `format`.
    """

    storage: dg.ResourceDependency[StorageResource]
    spark: SparkResource | None = Field(
        default=None, description="For assets that take or return Spark DataFrames."
    )
    format: str = Field(
        default="ncf", description=f"Of assets that name none: one of {tuple(MANAGERS)}."
    )
    mode: str = Field(default="overwrite", description="As of the formats' own managers.")

    def __init__(self, **data: Any) -> None:
        super().__init__(**data)
        check_mode(self.mode, type(self).__name__)
        if not isinstance(self.format, dg.EnvVar) and self.format not in MANAGERS:
            raise TableError(
                f"{type(self).__name__}: format {self.format!r}, expected one of {tuple(MANAGERS)}"
            )

    def handle_output(self, context: dg.OutputContext, obj: Any) -> None:
        """Write an output in its format."""
        key = context.asset_key if context.has_asset_key else None
        manager = self.manager(key, context.definition_metadata or {})
        told = plain(context.output_metadata.get("format"))
        if told is not None and MANAGERS.get(str(told)) is not type(manager):
            raise TableError(
                f"{_place(key)}: format is {told!r} for this run, but {type(manager).__name__} "
                "writes and reads it; expected the format in the definition's metadata alone"
            )
        manager.handle_output(context, obj)

    def load_input(self, context: dg.InputContext) -> Any:
        """Read an input in the format that it was written in."""
        key = context.asset_key if context.has_asset_key else None
        upstream = context.upstream_output
        metadata = (upstream.definition_metadata if upstream is not None else None) or {}
        return self.manager(key, metadata).load_input(context)

    def manager(
        self, asset_key: dg.AssetKey | None, metadata: Mapping[str, Any]
    ) -> LakehouseIOManager:
        """The manager of an asset's format.

        Raises
        ------
        TableError
            If the metadata or the config names a format that is not known.
        """
        by_key = asset_key.path[0] if asset_key and asset_key.path[0] in MANAGERS else None
        name = plain(metadata.get("format")) or by_key or self.format
        kind = MANAGERS.get(str(name))
        if kind is None:
            raise TableError(
                f"{_place(asset_key)}: format {name!r}, expected one of {tuple(MANAGERS)}"
            )
        return kind(storage=self.storage, spark=self.spark, mode=self.mode)


def _place(asset_key: dg.AssetKey | None) -> str:
    return "output" if asset_key is None else f"asset {asset_key.to_user_string()}"
