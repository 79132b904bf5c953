"""What Spark forks its Python workers from: its own daemon, with the imports made before the fork.

Spark's daemon leaves all imports to each worker: over a second for a reader of NCF, paid again
whenever a worker is given up, as those are that a ``limit`` cuts short. Run by Spark as
``python -m neurolake_dagster.spark.daemon``, where the workers' Python is this one.

Of the imports, OpenBLAS and jemalloc start a thread each, and start it again in a fork.
"""

import gc

import pyspark.worker  # noqa: F401
from pyspark.daemon import manager

import neurolake_dagster.spark.reading
import neurolake_dagster.spark.writing  # noqa: F401

if __name__ == "__main__":
    # Nothing of this is ever garbage; a worker that looked for some would copy all its memory.
    gc.freeze()
    manager()
