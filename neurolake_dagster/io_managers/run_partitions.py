"""The partitions of a run: those it writes, and what an input of one of its steps asks for.

Owns what Dagster's contexts tell of them, and where Dagster tells it otherwise than it is meant.
"""

from collections.abc import Sequence
from typing import Any

import dagster as dg

from neurolake_dagster.errors import PartitionError


def partitions_to_write(context: dg.OutputContext, where: str) -> Sequence[str]:
    """The run's partitions of the asset; of none Dagster tells no error."""
    keys = context.asset_partition_keys
    if not keys:
        step = context.step_context
        asked = step.partition_key_range if step.has_partition_key_range else None
        shown = "" if asked is None else f" {asked.start!r} to {asked.end!r}"
        raise PartitionError(
            f"{where}: the run has no partitions, expected at least one; is its range{shown} "
            "reversed? Nothing was changed"
        )
    return keys


def reads_all(context: dg.InputContext, keys: Sequence[str]) -> bool:
    """Whether Dagster hands an unpartitioned asset all keys: it asks for what there is."""
    step = _step(context)
    if step is None or step.entity_partitions_def is not None:
        return False
    definition, store = context.asset_partitions_def, context.instance
    return len(keys) >= len(definition.get_partition_keys(dynamic_partitions_store=store))


def keys_to_write(context: dg.InputContext) -> frozenset[str]:
    """The partitions that this run writes of an asset that reads its own."""
    step = _step(context)
    if step is None or not step.has_partition_key_range:
        return frozenset()
    if context.asset_key not in step.get_output_asset_keys():
        return frozenset()
    return _keys_of_range(context)


def keys_of_run(context: dg.InputContext) -> Sequence[str]:
    """The run's own partitions, for an asset check: Dagster hands an unpartitioned one all.

    Of inputs that are partitioned in another way than the checked asset, the run has none.
    """
    step = _step(context)
    if step is None or not step.is_asset_check_step or not _is_as_checked(context):
        return []
    if step.has_partition_key:
        return [key for key in context.asset_partition_keys if key == step.partition_key]
    if step.has_partition_key_range:
        asked = _keys_of_range(context)
        return [key for key in context.asset_partition_keys if key in asked]
    return []


def _is_as_checked(context: dg.InputContext) -> bool:
    """Whether an asset check's input has the partitions of an asset that is checked."""
    step = context.step_context
    assets = step.job_def.asset_layer
    assert step.assets_def is not None
    checked = [key.asset_key for key in step.assets_def.check_keys]
    return context.asset_partitions_def in [
        assets.get(key).partitions_def for key in checked if assets.has(key)
    ]


def _keys_of_range(context: dg.InputContext) -> frozenset[str]:
    """The partitions of the run's range; of dynamic ones the instance tells which there are."""
    asked = context.step_context.partition_key_range
    with dg.partition_loading_context(dynamic_partitions_store=context.instance):
        return frozenset(map(str, context.asset_partitions_def.get_partition_keys_in_range(asked)))


def _step(context: dg.InputContext) -> Any:
    """The step that reads; None outside of a run, as in `dg.Definitions.load_asset_value`."""
    try:
        return context.step_context
    except dg.DagsterInvariantViolationError:
        return None
