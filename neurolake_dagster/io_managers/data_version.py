"""Which data version an output has: the one that Dagster was told of these rows, or a new one.

Dagster gives all partitions of a run one data version, and holds what is below a partition for
stale where it is not the one that the partition had. So a run keeps what all its unchanged
partitions have, where the others are new to Dagster. Where others changed it is a new one, and
what is below the unchanged ones is stale for nothing: never is a change hidden.
"""

from collections.abc import Iterator, Mapping, Sequence

import dagster as dg
import xxhash

from neurolake_dagster.io_managers.metadata import CONTENT_DIGEST

# Of a materialization, as Dagster writes it.
DATA_VERSION_TAG = "dagster/data_version"
# Each with its table's statistics and preview.
RECORDS_AT_ONCE = 100


def settle_data_version(
    context: dg.OutputContext, digests: Mapping[str, Sequence[str]], rows_digest: str | None
) -> None:
    """Give the output its data version, unless the asset did.

    Parameters
    ----------
    digests, rows_digest
        As of `Written`.
    """
    if not context.has_asset_key or context.step_context.has_data_version(context.asset_key):
        return
    version = _held_version(context, digests) or rows_digest or _new_version(digests)
    context.step_context.set_data_version(context.asset_key, dg.DataVersion(version))


def _held_version(context: dg.OutputContext, digests: Mapping[str, Sequence[str]]) -> str | None:
    """What Dagster was told of just these rows; None where it was not, or not of one version."""
    held: set[str | None] = set()
    for key, last in _last_told(context):
        known = last.metadata.get(CONTENT_DIGEST)
        if known is None or not set(str(known.value).split()) & set(digests.get(key, ())):
            return None
        held.add((last.tags or {}).get(DATA_VERSION_TAG))
        if len(held) > 1:
            return None
    return held.pop() if held else None


def _last_told(context: dg.OutputContext) -> Iterator[tuple[str, dg.AssetMaterialization]]:
    """The last materialization of each partition by its key, "" for an asset without any."""
    instance, asset_key = context.step_context.instance, context.asset_key
    if not context.has_asset_partitions:
        yield from _told(instance, dg.AssetRecordsFilter(asset_key=asset_key), 1)
        return
    found = instance.get_latest_storage_id_by_partition(
        asset_key, dg.DagsterEventType.ASSET_MATERIALIZATION, set(context.asset_partition_keys)
    )
    numbers = list(found.values())
    for start in range(0, len(numbers), RECORDS_AT_ONCE):
        some = numbers[start : start + RECORDS_AT_ONCE]
        asked = dg.AssetRecordsFilter(asset_key=asset_key, storage_ids=some)
        yield from _told(instance, asked, len(some))


def _told(
    instance: dg.DagsterInstance, asked: dg.AssetRecordsFilter, limit: int
) -> Iterator[tuple[str, dg.AssetMaterialization]]:
    for one in instance.fetch_materializations(asked, limit=limit).records:
        if one.asset_materialization is not None:
            yield one.partition_key or "", one.asset_materialization


def _new_version(digests: Mapping[str, Sequence[str]]) -> str:
    """A version of the run's rows: of a single partition its own."""
    if len(digests) == 1:
        return next(iter(digests.values()))[0]
    told = [f"{key}\0{found[0]}" for key, found in sorted(digests.items())]
    return xxhash.xxh3_128_hexdigest("\n".join(told).encode())
