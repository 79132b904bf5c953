"""Whether a session finds the objects of a storage, or those of the same name in another store.

Owns what makes two endpoints the same store. Changes no session.
"""

import re
from typing import TYPE_CHECKING

from neurolake_dagster.errors import SessionConflictError
from neurolake_dagster.settings.checks import LOOPBACK, default_tls
from neurolake_dagster.spark.conf import S3A, SWITCHES
from neurolake_dagster.spark.effective import running_value
from neurolake_dagster.storage import Storage

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

AWS = "AWS"


def require_reach(session: "SparkSession", storage: Storage) -> None:
    """Refuse a session whose Spark looks for a bucket in another store than the storage.

    The same names may lie in both, as in one for development and one for production.

    Raises
    ------
    SessionConflictError
    """
    if storage.is_local:
        return
    bucket = storage.root.split("/")[2]
    own = f"{S3A}bucket.{bucket}.endpoint"
    endpoint = running_value(session, own) or running_value(session, f"{S3A}endpoint")
    if endpoint is None and not _tells_all(session):
        return
    if store_of(endpoint) != store_of(storage.options.endpoint):
        raise SessionConflictError(
            f"{storage.root}: this Spark session looks for the bucket at {store_of(endpoint)}, "
            f"expected {store_of(storage.options.endpoint)}, where the storage has it; give the "
            "SparkResource the storage, SparkResource(storage=...), or for a second store "
            f"extra_configs with {own} and the bucket's keys, or use Arrow rows"
        )


def store_of(endpoint: str | None) -> str:
    """The store behind an endpoint, one name for its spellings."""
    if default_tls(endpoint):
        return AWS
    place = re.sub(r"^\w+://", "", endpoint or "").rstrip("/").lower()
    place = re.sub(r":(80|443)$", "", place)
    host, _, port = place.rpartition(":") if re.search(r":\d+$", place) else (place, "", "")
    name = "localhost" if LOOPBACK.fullmatch(host) else host
    return f"{name}:{port}" if port else name


def _tells_all(session: "SparkSession") -> bool:
    """Whether an endpoint that is not told is AWS: a foreign server may hide its own."""
    ours = next(iter(SWITCHES["s3_enabled"]))
    return hasattr(session, "_jsc") or running_value(session, ours) is not None
