"""Preflight: is everything there that assets, Spark and the store need?

The front of the room. Each check looks at one thing and tells what, found, expected and fix;
none of them changes anything that outlives it.
"""

from neurolake_dagster.doctor.diagnosis import diagnose
from neurolake_dagster.doctor.finding import Finding, Status
from neurolake_dagster.doctor.preflight import build_preflight_check

__all__ = ["Finding", "Status", "build_preflight_check", "diagnose"]
