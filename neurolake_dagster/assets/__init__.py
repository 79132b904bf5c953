"""All assets and their checks, wired to one another.

The front of the room: `assets` and `asset_checks` are what `neurolake_dagster.definitions`
serves.
"""

import dagster as dg

from neurolake_dagster.assets.analytics import delays, delays_export
from neurolake_dagster.assets.checks import build_parity_checks
from neurolake_dagster.assets.conversions import build_conversion
from neurolake_dagster.assets.daily import flights_daily
from neurolake_dagster.assets.nycflights import TABLES
from neurolake_dagster.assets.sources import source_assets

__all__ = ["asset_checks", "assets"]

_PARQUET_FLIGHTS = dg.AssetKey(["parquet", "flights"])
_DELTA_FLIGHTS = dg.AssetKey(["delta", "flights"])
_ROUNDTRIP = dg.AssetKey(["parquet", "flights_roundtrip"])

_CONVERSIONS = [
    *((dg.AssetKey(["parquet", t.name]), dg.AssetKey(["ncf", t.name])) for t in TABLES),
    (dg.AssetKey(["ncf", "flights"]), _DELTA_FLIGHTS),
    (_DELTA_FLIGHTS, _ROUNDTRIP),
]

assets: list[dg.AssetsDefinition] = [
    *source_assets,
    *(build_conversion(source, target) for source, target in _CONVERSIONS),
    delays,
    delays_export,
    flights_daily,
]

asset_checks: list[dg.AssetChecksDefinition] = [
    *(build_parity_checks(source, target) for source, target in _CONVERSIONS),
    build_parity_checks(_PARQUET_FLIGHTS, _ROUNDTRIP, prefix="roundtrip_"),
]
