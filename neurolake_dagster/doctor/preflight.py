"""The doctor as an asset check."""

import dagster as dg

from neurolake_dagster.doctor.diagnosis import diagnose
from neurolake_dagster.doctor.finding import Finding
from neurolake_dagster.resources import SparkResource, StorageResource


def build_preflight_check(
    asset: dg.AssetKey | str, *, blocking: bool = True
) -> dg.AssetChecksDefinition:
    """Build a check of `asset` that passes where the doctor finds no failure.

    A check runs after its asset: name one that lies before the assets which use Spark. It takes
    two to three seconds and starts no session::

        defs = dg.Definitions(
            assets=[raw, on_spark],
            asset_checks=[build_preflight_check("raw")],
            resources={"spark": SparkResource(), "storage": StorageResource(), ...},
        )

    Parameters
    ----------
    blocking
        Whether a failure keeps what lies downstream from running.
    """

    @dg.asset_check(
        asset=asset,
        name="preflight",
        blocking=blocking,
        description="Everything is there that Spark and the store need (`neurolake doctor`).",
    )
    def preflight(spark: SparkResource, storage: StorageResource) -> dg.AssetCheckResult:
        findings = diagnose(spark, storage)
        failures = [one for one in findings if one.status == "failure"]
        return dg.AssetCheckResult(
            passed=not failures,
            description="; ".join(f"{one.check}: {one.found}. {one.fix}" for one in failures),
            metadata={"findings": _as_table(findings), "failures": len(failures)},
        )

    return preflight


def _as_table(findings: list[Finding]) -> dg.TableMetadataValue:
    records = [dg.TableRecord(vars(finding)) for finding in findings]
    return dg.MetadataValue.table(records)
