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
from neurolake_dagster.resources.fields import (
    refuse_unknown,
    require_resource,
    require_storage,
)

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
    spark: dg.ResourceDependency[SparkResource | None] = Field(
        default=None,  # type: ignore[arg-type]  # Dagster types no default
        description="For assets that take or return Spark DataFrames.",
    )
    format: str = Field(
        default="ncf", description=f"Of assets that name none: one of {tuple(MANAGERS)}."
    )
    mode: str = Field(default="overwrite", description="As of the formats' own managers.")

    def __init__(self, **data: Any) -> None:
        refuse_unknown(type(self), data)
        require_storage(type(self), data.get("storage"))
        require_resource(type(self), SparkResource, spark=data.get("spark"))
        super().__init__(**data)
        check_mode(self.mode, type(self).__name__)
        if not isinstance(self.format, dg.EnvVar) and self.format not in MANAGERS:
            raise TableError(
                f"{type(self).__name__}: format {self.format!r}, expected one of {tuple(MANAGERS)}"
            )

    def handle_output(self, context: dg.OutputContext, obj: Any) -> None:
        """Write an output in its format."""
        key = context.asset_key if context.has_asset_key else None
        name = self.format_of(key, context.definition_metadata or {})
        told = plain(context.output_metadata.get("format"))
        if told not in (None, name):
            raise TableError(
                f"{_where(key)}: the run says format {told!r}, the definition {name!r}, by which "
                "it is read; say the format in the asset's own metadata"
            )
        self.manager(name).handle_output(context, obj)

    def load_input(self, context: dg.InputContext) -> Any:
        """Read an input in the format that it was written in."""
        key = context.asset_key if context.has_asset_key else None
        upstream = context.upstream_output
        metadata = (upstream.definition_metadata if upstream is not None else None) or {}
        return self.manager(self.format_of(key, metadata)).load_input(context)

    def format_of(self, asset_key: dg.AssetKey | None, metadata: Mapping[str, Any]) -> str:
        """The format of an asset, by its definition.

        Raises
        ------
        TableError
            If the metadata or the config names a format that is not known.
        """
        by_key = asset_key.path[0] if asset_key and asset_key.path[0] in MANAGERS else None
        name = str(plain(metadata.get("format")) or by_key or self.format)
        if name not in MANAGERS:
            raise TableError(
                f"{_where(asset_key)}: format {name!r}, expected one of {tuple(MANAGERS)}"
            )
        return name

    def manager(self, name: str) -> LakehouseIOManager:
        """The manager of a format, with this one's storage, Spark and mode."""
        return MANAGERS[name](storage=self.storage, spark=self.spark, mode=self.mode)


def _where(asset_key: dg.AssetKey | None) -> str:
    return "output" if asset_key is None else f"asset {asset_key.to_user_string()}"
