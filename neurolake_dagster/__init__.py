"""Dagster assets for lakehouse tables on Spark: Parquet, Delta and NCF.

This module imports nothing: a Spark executor that needs `neurolake_dagster.ncf`
must not pay for Dagster's import.
"""

__version__ = "0.1.0"
