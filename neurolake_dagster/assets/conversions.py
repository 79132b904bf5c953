"""Assets that are conversions of other assets: Parquet <-> NCF <-> Delta.

Owns the factory that turns two asset keys into an asset with lineage and run metadata. The
rows are moved by `neurolake_dagster.conversion`, without an IO manager in between.
"""

from typing import Any

import dagster as dg

from neurolake_dagster.assets.checks import dataset_of, require_format
from neurolake_dagster.assets.lineage import identity_lineage
from neurolake_dagster.conversion import ConversionPlan, convert
from neurolake_dagster.io_managers.metadata import lineage_metadata, table_metadata
from neurolake_dagster.resources import StorageResource

KINDS = {"parquet": "parquet", "ncf": "ncf", "delta": "deltalake"}
OWNERS = ["team:lakehouse"]


def build_conversion(source: dg.AssetKey, target: dg.AssetKey) -> dg.AssetsDefinition:
    """Build the asset `target`, a conversion of the asset `source`.

    Parameters
    ----------
    source, target
        Asset keys ``[format, dataset]``, for example ``["parquet", "flights"]``.

    Raises
    ------
    ConversionError
        If a key's first part is not a format.
    """
    for key in (source, target):
        require_format(key)
    name, origin = target.to_user_string(), source.to_user_string()

    @dg.asset(
        key=target,
        deps=[source],
        io_manager_key=f"{target.path[0]}_io_manager",
        kinds={KINDS[target.path[0]]},
        group_name="conversions",
        owners=OWNERS,
        description=f"`{name}`: all rows of `{origin}`, converted to **{target.path[0]}**.\n\n"
        "One streamed pass and one commit: a failed conversion leaves the former version.",
    )
    def conversion(
        context: dg.AssetExecutionContext, storage: StorageResource
    ) -> dg.MaterializeResult[Any]:
        plan = ConversionPlan(
            source=dataset_of(source, storage), target=dataset_of(target, storage)
        )
        result = convert(plan, {"dagster/run_id": context.run.run_id})
        context.log.info(f"{origin} -> {name}: {result.row_count} rows in {result.seconds:.2f} s")
        metadata = table_metadata(
            uri=plan.target.uri,
            schema=result.schema,
            row_count=result.row_count,
            bytes=result.target.bytes,
            seconds=result.seconds,
            version=result.target.version,
        )
        metadata["source"] = dg.MetadataValue.asset(source)
        metadata["source_bytes"] = dg.MetadataValue.int(result.source.bytes)
        metadata["size_ratio"] = dg.MetadataValue.float(round(result.size_ratio, 4))
        lineage = lineage_metadata(identity_lineage(result.schema.names, source))
        return dg.MaterializeResult(
            metadata=metadata | lineage, data_version=dg.DataVersion(result.profile.digest())
        )

    return conversion
