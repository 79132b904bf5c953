"""What a process imports that step processes are forked from; named to Dagster's executor.

Owns the imports that are made late elsewhere. None of them starts a thread that does not
survive a fork, a session or a channel.
"""

import gc

from pyspark.sql import functions  # noqa: F401

from neurolake_dagster.spark import datasource  # noqa: F401
from neurolake_dagster.spark.client import import_client

import_client()
# Nothing of this is ever garbage: neither the steps nor the end of the process look at it again.
gc.freeze()
