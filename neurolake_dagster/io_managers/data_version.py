"""Which data version an output has: the one that Dagster was told of these rows, or a new one.

Dagster gives all partitions of a run one data version, and holds what is below a partition for
stale where it is not the one that the partition had. So a run takes what its unchanged partitions
have; where they have several, or others changed, those that need another version are told apart.
Never is a change hidden: the run's version is new to what changed.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import dagster as dg
import xxhash

from neurolake_dagster.io_managers.metadata import CONTENT_DIGEST

# What Dagster writes on a materialization and a run.
DATA_VERSION_TAG = "dagster/data_version"
IS_OWN_VERSION_TAG = "dagster/data_version_is_user_provided"
CODE_VERSION_TAG = "dagster/code_version"
INPUT_VERSION_TAG = "dagster/input_data_version"
INPUT_EVENT_TAG = "dagster/input_event_pointer"
DIMENSION_TAG = "dagster/partition"
DEFERRED_TAG = "dagster/defer_asset_events"
NO_INPUT_VERSION, NO_INPUT_EVENT = "INITIAL", "NULL"
# Versions that no asset gives itself.
OURS = "rows-"
# Each with its table's statistics and preview.
RECORDS_AT_ONCE = 100


@dataclass(frozen=True)
class _Last:
    """What Dagster was told last of a partition.

    Parameters
    ----------
    number
        Of the event in Dagster's log.
    version
        The data version; empty where it told none.
    is_kept
        Whether it was told of just the rows that are there now.
    is_ours
        Whether version and tags are what an IO manager and Dagster write by themselves.
    """

    number: int
    version: str
    is_kept: bool
    is_ours: bool


def settle_data_version(context: dg.OutputContext, digests: Mapping[str, Sequence[str]]) -> None:
    """Give the output its data version, unless the asset did.

    After all metadata of the output, which what is told apart has too.

    Parameters
    ----------
    digests
        As of `Written`.
    """
    step = context.step_context
    if not context.has_asset_key or step.has_data_version(context.asset_key):
        return
    told = dict(_last_told(context, digests))
    kept = {key: one for key, one in told.items() if one.is_kept}
    if kept and len(kept) == len(told):
        version = Counter(one.version for one in kept.values()).most_common(1)[0][0]
    else:
        version = _new_version(digests)
    others = {key: one for key, one in kept.items() if one.version != version}
    # What an asset gives with its output, version or tags, is not told here: Dagster adds it.
    is_ours = all(one.is_ours for one in told.values())
    if others and is_ours and DEFERRED_TAG not in step.dagster_run.tags:
        _tell_apart(context, others)
    step.set_data_version(context.asset_key, dg.DataVersion(version))


def _tell_apart(context: dg.OutputContext, others: Mapping[str, _Last]) -> None:
    """Materialize partitions with the versions that they have, and leave the rest to Dagster.

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
    origin, left, asked = _origin(context), list[str](), context.asset_partition_keys
    for start in range(0, len(asked), RECORDS_AT_ONCE):
        some = asked[start : start + RECORDS_AT_ONCE]
        now = _numbers(context, some)
        for key in some:
            # What another run told meanwhile is no more what is there.
            if key not in others or now.get(key) != others[key].number:
                left.append(key)
                continue
            event = dg.AssetMaterialization(
                asset_key,
                partition=key,
                metadata={**whole, **(step.get_asset_metadata(asset_key, key) or {})},
                tags=origin | {DATA_VERSION_TAG: others[key].version} | _dimensions(key),
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


def _last_told(
    context: dg.OutputContext, digests: Mapping[str, Sequence[str]]
) -> Iterator[tuple[str, _Last]]:
    """What Dagster was told of each partition by its key, "" for an asset without any."""
    instance, asset_key = context.step_context.instance, context.asset_key
    if not context.has_asset_partitions:
        yield from _told(instance, dg.AssetRecordsFilter(asset_key=asset_key), 1, digests)
        return
    numbers = list(_numbers(context, context.asset_partition_keys).values())
    for start in range(0, len(numbers), RECORDS_AT_ONCE):
        some = numbers[start : start + RECORDS_AT_ONCE]
        asked = dg.AssetRecordsFilter(asset_key=asset_key, storage_ids=some)
        yield from _told(instance, asked, len(some), digests)


def _numbers(context: dg.OutputContext, keys: Sequence[str]) -> Mapping[str, int]:
    """The number of the last materialization of each partition that has one."""
    return context.step_context.instance.get_latest_storage_id_by_partition(
        context.asset_key, dg.DagsterEventType.ASSET_MATERIALIZATION, set(keys)
    )


def _told(
    instance: dg.DagsterInstance,
    asked: dg.AssetRecordsFilter,
    limit: int,
    digests: Mapping[str, Sequence[str]],
) -> Iterator[tuple[str, _Last]]:
    for one in instance.fetch_materializations(asked, limit=limit).records:
        if one.asset_materialization is None:
            continue
        key, event = one.partition_key or "", one.asset_materialization
        known, tags = event.metadata.get(CONTENT_DIGEST), event.tags or {}
        found = set() if known is None else set(str(known.value).split())
        version = tags.get(DATA_VERSION_TAG, "")
        is_kept = bool(version and found & set(digests.get(key, ())))
        is_ours = version.startswith(OURS) and all(name.startswith("dagster/") for name in tags)
        yield key, _Last(one.storage_id, version, is_kept, is_ours)


def _new_version(digests: Mapping[str, Sequence[str]]) -> str:
    """A version of the run's rows.

    With the keys: partitions of equal rows have versions of their own, else one that joins
    others later would get theirs, and again when its rows are theirs.
    """
    told = [f"{key}\0{found[0]}" for key, found in sorted(digests.items())]
    return OURS + xxhash.xxh3_128_hexdigest("\n".join(told).encode())
