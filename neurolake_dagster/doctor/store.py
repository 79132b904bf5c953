"""Checks of the store: each thing that tables do with it, done once in a scratch prefix."""

import contextlib
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from neurolake_dagster.doctor.finding import Finding, advise, judge, skip
from neurolake_dagster.errors import (
    StorageAccessError,
    StorageError,
    StorageExistsError,
    StorageUnavailableError,
)
from neurolake_dagster.storage import Storage

SCRATCH = "_doctor"
CONTENT = b"neurolake doctor"
STEPS: dict[str, str] = {
    "write": "an object can be written",
    "read": "it reads as it was written",
    "list": "it is listed",
    "conditional put": "a second writer of the same key is refused",
    "clock": "the store's clock is within 5 s of this machine's",
    "delete": "it can be deleted",
}
SKEW_WARNING_S, SKEW_FAILURE_S = 5.0, 300.0


def check_storage(
    storage: Storage, now: Callable[[], datetime] = lambda: datetime.now(UTC)
) -> list[Finding]:
    """Write, read, list, put on condition and delete below ``_doctor/``, which is left clean.

    Parameters
    ----------
    now
        This machine's clock, compared with the time the store gives to what was written.
    """
    key = f"{SCRATCH}/{uuid.uuid4().hex}/probe"
    is_new = storage.is_local and not Path(storage.root).exists()
    findings: list[Finding] = []
    try:
        for step in STEPS:
            findings.append(_take(step, storage, key, now))
            if step == "write" and findings[-1].status == "failure":
                rest = [one for one in STEPS if one != "write"]
                findings += [_skip(one) for one in rest]
                break
    finally:
        _clean(storage, key, is_new)
    return findings


def _take(step: str, storage: Storage, key: str, now: Callable[[], datetime]) -> Finding:
    """One step; a refusal of the store is its finding."""
    try:
        if step == "clock":
            return _check_clock(storage, key, now)
        found, fits = _ACTS[step](storage, key)
    except StorageError as error:
        return judge(f"storage {step}", False, str(error), STEPS[step], _fix(error))
    fix = "use a store that keeps what it acknowledged"
    if step == "conditional put":
        fix = (
            "use a store with If-None-Match (AWS S3, MinIO since 2024, SeaweedFS): without it "
            "two writers at once lose one's commit"
        )
    return judge(f"storage {step}", fits, found, STEPS[step], fix)


def _write(storage: Storage, key: str) -> tuple[str, bool]:
    storage.put(key, CONTENT)
    return f"written to {storage.root}", True


def _read(storage: Storage, key: str) -> tuple[str, bool]:
    content = storage.read(key)
    return f"{len(content)} of {len(CONTENT)} bytes", content == CONTENT


def _list(storage: Storage, key: str) -> tuple[str, bool]:
    keys = [entry.key for entry in storage.list(key.rpartition("/")[0])]
    return f"{len(keys)} objects", keys == [key]


def _put_again(storage: Storage, key: str) -> tuple[str, bool]:
    try:
        storage.put_if_absent(key, b"another writer")
    except StorageExistsError:
        return "refused", True
    return "the second writer overwrote the first", False


def _delete(storage: Storage, key: str) -> tuple[str, bool]:
    storage.delete([key])
    is_gone = not storage.exists(key)
    return "deleted" if is_gone else "still there", is_gone


_ACTS: dict[str, Callable[[Storage, str], tuple[str, bool]]] = {
    "write": _write,
    "read": _read,
    "list": _list,
    "conditional put": _put_again,
    "delete": _delete,
}


def _check_clock(storage: Storage, key: str, now: Callable[[], datetime]) -> Finding:
    before = now()
    storage.put(key, CONTENT)
    after = now()
    times = [entry.modified for entry in storage.list(key.rpartition("/")[0])]
    if not times:
        return skip("storage clock", "what was written is not listed", STEPS["clock"])
    modified = times[0]
    # S3 tells whole seconds, cut off.
    late = max((before - modified).total_seconds() - 1, (modified - after).total_seconds(), 0.0)
    found = f"{late:.1f} s apart"
    fix = "set this machine's clock by NTP; S3 refuses requests that are 15 minutes off"
    is_near = late <= SKEW_WARNING_S
    make = judge if late > SKEW_FAILURE_S else advise
    return make("storage clock", is_near, found, STEPS["clock"], fix)


def _skip(step: str) -> Finding:
    return skip(f"storage {step}", "nothing could be written", STEPS[step])


def _fix(error: StorageError) -> str:
    if isinstance(error, StorageAccessError):
        return "check NEUROLAKE_STORAGE__ACCESS_KEY, __SECRET_KEY and their rights on this root"
    if isinstance(error, StorageUnavailableError):
        return "check NEUROLAKE_STORAGE__ENDPOINT, __SECURE and the bucket in __ROOT"
    return "check NEUROLAKE_STORAGE__ROOT"


def _clean(storage: Storage, key: str, is_new: bool) -> None:
    """Leave no probe, and on disk no empty folder of ours."""
    # What could not be written or deleted has its finding already.
    with contextlib.suppress(StorageError):
        storage.delete([key])
    place = storage.local_path(key)
    if place is None:
        return
    folders = [place.parent, place.parent.parent]
    if is_new:
        folders.append(Path(storage.root))
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.rmdir()
