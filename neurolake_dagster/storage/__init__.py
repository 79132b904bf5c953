"""Bytes in and out on local disk and S3-compatible stores: the only user of obstore.

Owns roots, keys, ranged reads, atomic writes and the translation of every storage failure
into one of our errors. Knows no file format and reads no environment.
"""

from neurolake_dagster.storage.failures import translated
from neurolake_dagster.storage.files import RangedFile, StorageWriter
from neurolake_dagster.storage.options import StorageOptions
from neurolake_dagster.storage.store import Storage, StorageEntry

__all__ = ["RangedFile", "Storage", "StorageEntry", "StorageOptions", "StorageWriter", "translated"]
