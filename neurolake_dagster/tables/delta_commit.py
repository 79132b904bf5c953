"""One commit of a Delta table, as its own entry in the log tells.

Owns finding a piece of work's commit among those of others: each carries a mark.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from neurolake_dagster.errors import StorageNotFoundError
from neurolake_dagster.storage import Storage

# In the commit's own information; Spark keeps what a writer says of it as one text.
MARK = "neurolake.commit"
# In the first commit of a table that is made for rows which are still to come.
MADE = "neurolake.made"
_MAKING = ("CREATE TABLE", "ADD CONSTRAINT", "SET TBLPROPERTIES")
# Our count -> how deltalake and delta-spark call it.
MERGED = {
    "rows_inserted": ("num_target_rows_inserted", "numTargetRowsInserted"),
    "rows_updated": ("num_target_rows_updated", "numTargetRowsUpdated"),
    "rows_deleted": ("num_target_rows_deleted", "numTargetRowsDeleted"),
    "rows_copied": ("num_target_rows_copied", "numTargetRowsCopied"),
}


@dataclass(frozen=True, kw_only=True)
class DeltaCommit:
    """What one commit did.

    Parameters
    ----------
    written_rows
        As the engine counted them; None where it did not.
    added, removed
        Data files with their size in bytes; 0 where the log does not tell.
    merged_rows
        Of a merge: exact counts ``rows_inserted``, ``rows_updated``, ``rows_deleted`` and
        ``rows_copied``.
    """

    version: int
    written_rows: int | None
    added: Mapping[str, int]
    removed: Mapping[str, int]
    merged_rows: Mapping[str, int] = field(default_factory=dict)


def find_commit(log: Storage, newest: int, mark: str, after: int = -1) -> DeltaCommit | None:
    """The commit that carries a mark, searched from the newest version back.

    Parameters
    ----------
    log
        Rooted at the table's ``_delta_log``.
    mark
        What `MARK` says in its information, or the name of its transaction.
    after
        The version at which the search ends.

    Returns
    -------
    None where no entry that is still in the log carries it.
    """
    for version in range(newest, after, -1):
        actions = _actions(log, version)
        if not actions:
            return None
        if any(_carries(action, mark) for action in actions):
            return _commit(version, actions)
    return None


def is_only_made(log: Storage, newest: int) -> bool:
    """Whether all that was ever committed is the making of the table, for rows that never came."""
    for version in range(newest + 1):
        infos = [one["commitInfo"] for one in _actions(log, version) if "commitInfo" in one]
        if not infos or infos[0].get("operation") not in _MAKING:
            return False
        if version == 0 and MADE not in infos[0]:
            return False
    return True


def committed_at(log: Storage, version: int) -> datetime | None:
    """When a version was committed, as it says itself; None if it does not, or is gone."""
    for action in _actions(log, version):
        moment = action.get("commitInfo", {}).get("timestamp")
        if moment is not None:
            return datetime.fromtimestamp(moment / 1000, UTC)
    return None


def transactions_since(log: Storage, version: int, newest: int) -> set[str]:
    """The names of the transactions that the versions after one carry."""
    return {
        action["txn"]["appId"]
        for number in range(version + 1, newest + 1)
        for action in _actions(log, number)
        if "txn" in action
    }


def _actions(log: Storage, version: int) -> list[dict[str, Any]]:
    """One version's entry; none where the log holds it no more."""
    try:
        text = log.read(f"{version:020d}.json")
    except StorageNotFoundError:
        return []
    return [json.loads(line) for line in text.splitlines() if line]


def _carries(action: Mapping[str, Any], mark: str) -> bool:
    info = action.get("commitInfo", {})
    said = info.get("userMetadata")
    by_spark = json.loads(said).get(MARK) if said and MARK in said else None
    return mark in (info.get(MARK), by_spark, action.get("txn", {}).get("appId"))


def _commit(version: int, actions: list[dict[str, Any]]) -> DeltaCommit:
    files: dict[str, dict[str, int]] = {"add": {}, "remove": {}}
    metrics: dict[str, Any] = {}
    for action in actions:
        metrics |= action.get("commitInfo", {}).get("operationMetrics") or {}
        for kind, found in files.items():
            if kind in action:
                found[action[kind]["path"]] = int(action[kind].get("size") or 0)
    # Of a replacement by no rows, Spark counts none.
    uncounted = None if files["add"] else 0
    rows = metrics.get("num_added_rows", metrics.get("numOutputRows", uncounted))
    merged = {
        name: int(metrics[theirs])
        for name, spellings in MERGED.items()
        for theirs in spellings
        if theirs in metrics
    }
    if merged:
        rows = merged["rows_inserted"] + merged["rows_updated"]
    return DeltaCommit(
        version=version,
        written_rows=None if rows is None else int(rows),
        added=files["add"],
        removed=files["remove"],
        merged_rows=merged,
    )
