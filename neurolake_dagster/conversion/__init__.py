"""Conversions between Parquet, NCF and Delta: plan, engine, parity.

The front of the room: what is to be converted (`ConversionPlan`), the pass that does it
(`convert`), and the proof that nothing changed (`profile`, `compare`). Knows neither Dagster
nor Spark.
"""

from neurolake_dagster.conversion.engine import ConversionResult, convert
from neurolake_dagster.conversion.parity import (
    ASPECTS,
    Aspect,
    AspectResult,
    ParityReport,
    TableProfile,
    compare,
    profile,
)
from neurolake_dagster.conversion.plan import FORMATS, ConversionPlan, Dataset, Format

__all__ = [
    "ASPECTS",
    "FORMATS",
    "Aspect",
    "AspectResult",
    "ConversionPlan",
    "ConversionResult",
    "Dataset",
    "Format",
    "ParityReport",
    "TableProfile",
    "compare",
    "convert",
    "profile",
]
