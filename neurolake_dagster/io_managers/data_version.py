"""Which data version an output has: the one that Dagster was told of these rows, or a new one.

Dagster gives all partitions of a run one data version, and holds what is below a partition for
stale where it is not the one that the partition had. So a run takes what its unchanged partitions
have; where they have several, or others changed, those that need another version are told apart.
Never is a change hidden: the run's version is new to what changed.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import dagster as dg
import xxhash

from neurolake_dagster.io_managers.metadata import CONTENT_DIGEST

# Of a materialization, as Dagster writes them.
DATA_VERSION_TAG = "dagster/data_version"
IS_OWN_VERSION_TAG = "dagster/data_version_is_user_provided"
CODE_VERSION_TAG = "dagster/code_version"
INPUT_VERSION_TAG = "dagster/input_data_version"
INPUT_EVENT_TAG = "dagster/input_event_pointer"
DIMENSION_TAG = "dagster/partition"
OUR_VERSION = re.compile(r"[0-9a-f]{32}")
NO_INPUT_VERSION, NO_INPUT_EVENT = "INITIAL", "NULL"
# Each with its table's statistics and preview.
RECORDS_AT_ONCE = 100


def settle_data_version(
    context: dg.OutputContext, digests: Mapping[str, Sequence[str]], rows_digest: str | None
) -> None:
    """Give the output its data version, unless the asset did.

    After all metadata of the output, which what is told apart has too.

    Parameters
    ----------
    digests, rows_digest
        As of `Written`.
    """
    if not context.has_asset_key or context.step_context.has_data_version(context.asset_key):
        return
    told = {key: _kept_version(last, digests.get(key, ())) for key, last in _last_told(context)}
    kept = {key: version for key, version in told.items() if version is not None}
    if kept and len(kept) == len(told):
        version = Counter(kept.values()).most_common(1)[0][0]
    else:
        version = rows_digest or _new_version(digests)
    context.step_context.set_data_version(context.asset_key, dg.DataVersion(version))
    others = {key: one for key, one in kept.items() if one != version}
    # Others are the asset's own: where it gave one with its output, that is not told here.
    if others and all(map(OUR_VERSION.fullmatch, others.values())):
        _tell_apart(context, others)


def _kept_version(last: dg.AssetMaterialization, digests: Sequence[str]) -> str | None:
    """The data version of the last materialization, if it was of just these rows."""
    known = last.metadata.get(CONTENT_DIGEST)
    if known is None or not set(str(known.value).split()) & set(digests):
        return None
    return (last.tags or {}).get(DATA_VERSION_TAG)


def _tell_apart(context: dg.OutputContext, versions: Mapping[str, str]) -> None:
    """Materialize partitions with versions of their own, and leave the others to Dagster.

    Dagster does so for what the context calls its partitions, and offers no other way to narrow
    that. Should it stop to look there, its events come after these: what is below is stale for
    nothing.
    """
    step, asset_key = context.step_context, context.asset_key
    whole = {
        **context.output_metadata,
        **context.get_logged_metadata(),
        **(step.get_asset_metadata(asset_key) or {}),
    }
    origin, left = _origin(context), []
    for key in context.asset_partition_keys:
        if key not in versions:
            left.append(key)
            continue
        event = dg.AssetMaterialization(
            asset_key,
            partition=key,
            metadata={**whole, **(step.get_asset_metadata(asset_key, key) or {})},
            tags=origin | {DATA_VERSION_TAG: versions[key]} | _dimensions(key),
        )
        context.log_event(event)
    subset = context.asset_partitions_def.subset_with_partition_keys(left)
    context._asset_partitions_subset = subset  # noqa: SLF001


def _origin(context: dg.OutputContext) -> dict[str, str]:
    """What Dagster tells of the code and the inputs of a materialization."""
    step = context.step_context
    node = step.job_def.asset_layer.get(context.asset_key)
    found = {CODE_VERSION_TAG: node.code_version or step.run_id, IS_OWN_VERSION_TAG: "true"}
    for key in node.parent_keys:
        name, last = key.to_user_string(), step.maybe_fetch_and_get_input_asset_version_info(key)
        version = last.data_version.value if last and last.data_version else NO_INPUT_VERSION
        found[f"{INPUT_VERSION_TAG}/{name}"] = version
        found[f"{INPUT_EVENT_TAG}/{name}"] = str(last.storage_id) if last else NO_INPUT_EVENT
    return found


def _dimensions(key: str) -> dict[str, str]:
    """Of the key of a multi-partition, each dimension's own."""
    if not isinstance(key, dg.MultiPartitionKey):
        return {}
    return {f"{DIMENSION_TAG}/{name}": one for name, one in key.keys_by_dimension.items()}


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
