"""Blocking asset checks that prove conversions: nothing changed on the way.

Owns the checks' specs and their results' metadata; `neurolake_dagster.conversion.parity` owns
the proof. A check reads both sides again from storage, so it can be run at any time.
"""

from collections.abc import Iterator

import dagster as dg

from neurolake_dagster.conversion import (
    ASPECTS,
    FORMATS,
    Aspect,
    AspectResult,
    Dataset,
    Format,
    ParityReport,
    compare,
    profile,
)
from neurolake_dagster.errors import ConversionError
from neurolake_dagster.io_managers import dataset_path
from neurolake_dagster.resources import StorageResource

QUESTIONS: dict[Aspect, str] = {
    "row_count": "As many rows on both sides.",
    "schema": "The same columns, in the same order, of the same logical types, "
    "in files that are as they were committed.",
    "nulls": "As many nulls in each column.",
    "digest": "The same values in each column, and the same values together in each row.",
}

_SHOWN = {
    "column": "string",
    "source nulls": "int",
    "target nulls": "int",
    "source digest": "string",
    "target digest": "string",
}


def require_format(key: dg.AssetKey) -> Format:
    """The format that an asset key ``[format, dataset]`` begins with.

    Raises
    ------
    ConversionError
        If its first part is not a format, or its only one.
    """
    for known in FORMATS:
        if key.path[0] == known and len(key.path) > 1:
            return known
    raise ConversionError(
        f"asset key {key.path!r}: expected [format, dataset], the format one of {FORMATS}"
    )


def dataset_of(key: dg.AssetKey, storage: StorageResource) -> Dataset:
    """The dataset behind an asset key ``[format, dataset]``.

    Raises
    ------
    ConversionError
        If the key's first part is not a format.
    """
    return Dataset(
        format=require_format(key),
        storage=storage.storage(),
        path=dataset_path(key),
    )


def build_parity_checks(
    source: dg.AssetKey, target: dg.AssetKey, prefix: str = ""
) -> dg.AssetChecksDefinition:
    """Build the four blocking checks of `target` against `source`.

    Parameters
    ----------
    source, target
        Asset keys ``[format, dataset]``.
    prefix
        Put before the checks' names, where a target is compared with two sources.

    Raises
    ------
    ConversionError
        If a key's first part is not a format.
    """
    for key in (source, target):
        require_format(key)
    name = prefix + source.to_user_string().replace("/", "_")

    @dg.multi_asset_check(
        name=f"{target.to_python_identifier()}_equals_{name}",
        specs=[
            dg.AssetCheckSpec(
                f"{prefix}{aspect}",
                asset=target,
                additional_deps=[source],
                blocking=True,
                description=f"{QUESTIONS[aspect]} Compared with `{source.to_user_string()}`.",
            )
            for aspect in ASPECTS
        ],
        can_subset=True,
    )
    def check_parity(
        context: dg.AssetCheckExecutionContext, storage: StorageResource
    ) -> Iterator[dg.AssetCheckResult]:
        before = profile(dataset_of(source, storage).scan())
        after = profile(dataset_of(target, storage).scan())
        report = compare(before, after, dataset_of(target, storage).changed_files())
        wanted = {key.name for key in context.selected_asset_check_keys}
        for result in report.results:
            if prefix + result.aspect in wanted:
                yield _check_result(report, result, target, prefix)

    return check_parity


def _check_result(
    report: ParityReport, result: AspectResult, target: dg.AssetKey, prefix: str
) -> dg.AssetCheckResult:
    metadata: dict[str, dg.MetadataValue] = {
        "source": dg.MetadataValue.text(result.source),
        "target": dg.MetadataValue.text(result.target),
    }
    if result.aspect in ("nulls", "digest"):
        metadata["columns"] = _column_table(report)
    return dg.AssetCheckResult(
        asset_key=target,
        check_name=f"{prefix}{result.aspect}",
        passed=result.is_equal,
        severity=dg.AssetCheckSeverity.ERROR,
        description="; ".join(result.differences) or None,
        metadata=metadata,
    )


def _column_table(report: ParityReport) -> dg.TableMetadataValue:
    """Nulls and digests of each column, side by side."""
    source, target = report.source, report.target
    records = [
        dg.TableRecord(
            {
                "column": name,
                "source nulls": source.null_counts[name],
                "target nulls": target.null_counts.get(name),
                "source digest": f"{source.digests[name]:016x}",
                "target digest": f"{target.digests[name]:016x}" if name in target.digests else None,
            }
        )
        for name in source.schema.names
    ]
    columns = [dg.TableColumn(name, type_) for name, type_ in _SHOWN.items()]
    return dg.MetadataValue.table(records, dg.TableSchema(columns))
