"""Spark: session, jars, Java, and NCF as a Spark format.

The front of the room. Importing it starts no JVM and does not import pyspark.
"""

from neurolake_dagster.spark.converting import (
    FileConversion,
    convert_ncf_to_parquet,
    convert_parquet_to_ncf,
)
from neurolake_dagster.spark.effective import Effective, effective
from neurolake_dagster.spark.jars import find_jars, resolve_jars
from neurolake_dagster.spark.java import Java, find_java, require_java
from neurolake_dagster.spark.notebook import get_spark_config, get_spark_session
from neurolake_dagster.spark.reach import require_reach
from neurolake_dagster.spark.saving import write_ncf
from neurolake_dagster.spark.session import get_session, stop_session
from neurolake_dagster.spark.work import SparkWork, Watch, measured

__all__ = [
    "Effective",
    "FileConversion",
    "Java",
    "SparkWork",
    "Watch",
    "convert_ncf_to_parquet",
    "convert_parquet_to_ncf",
    "effective",
    "find_jars",
    "find_java",
    "get_session",
    "get_spark_config",
    "get_spark_session",
    "measured",
    "require_java",
    "require_reach",
    "resolve_jars",
    "stop_session",
    "write_ncf",
]
