"""A root on disk or in a bucket, and what can be done with the objects below it."""

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import unquote, urlsplit

import obstore
import xxhash
from typing_extensions import Buffer

from neurolake_dagster.errors import SettingsError, StorageError, StorageNotFoundError
from neurolake_dagster.storage.failures import translated
from neurolake_dagster.storage.files import RangedFile, StorageWriter
from neurolake_dagster.storage.options import (
    ObjectStore,
    StorageOptions,
    open_store,
)

DIGEST_PART_BYTES = 8 << 20
# How obstore names a local file until it is whole; it takes no key of this form.
_UNFINISHED = re.compile(r"#\d+$")
# One slash is Hadoop's spelling of a file, and a slip of the pen of a bucket.
_SCHEME = re.compile(r"\s*([A-Za-z][A-Za-z0-9+.-]+):(//?)")
# What obstore reads otherwise than it is written, or not at all.
_UNTAKEN = re.compile(r"[\\\x00-\x1f\x7f]|(?:^|/)\.{0,2}(?:/|$)")


@dataclass(frozen=True, kw_only=True)
class StorageEntry:
    """One stored object: its key below the root, its size in bytes, its last change (UTC)."""

    key: str
    bytes: int
    modified: datetime


@dataclass(frozen=True)
class Storage:
    """A folder on disk or a prefix in a bucket. Picklable; connects on first use.

    Keys are relative, ``/``-separated, without empty, ``.`` or ``..`` segments: nothing
    outside the root can be named.

    Parameters
    ----------
    root
        ``/path``, ``file:///path`` or ``s3://bucket/prefix``; a relative path is taken from
        the working directory, once.
    """

    root: str
    options: StorageOptions = field(default_factory=StorageOptions)

    def __post_init__(self) -> None:
        object.__setattr__(self, "root", _normalise_root(self.root))

    @property
    def is_local(self) -> bool:
        """Whether the root is a folder on this machine's file system."""
        return not self.root.startswith("s3://")

    def child(self, prefix: str) -> "Storage":
        """The same store, rooted at `prefix` below this root."""
        return Storage(self.uri(prefix), self.options)

    def uri(self, key: str) -> str:
        """The address people see: a plain absolute path, or ``s3://bucket/...``."""
        return _join(self.root, _checked_key(key, self.root))

    def spark_uri(self, key: str) -> str:
        """The address Spark and Hadoop take: a plain absolute path, or ``s3a://bucket/...``."""
        uri = self.uri(key)
        return uri if self.is_local else "s3a" + uri.removeprefix("s3")

    def local_path(self, key: str) -> Path | None:
        """The file's path when the root is local: readers may map it; else None."""
        return Path(self.uri(key)) if self.is_local else None

    def deltalake_options(self) -> dict[str, str]:
        """The credentials as deltalake's ``storage_options``; empty when local."""
        return {} if self.is_local else self.options.deltalake_options()

    def open_input(self, key: str) -> RangedFile:
        """Open one object for ranged reads; nothing is requested yet."""
        return RangedFile(self._present_store(key), key, self.uri(key))

    def open_output(self, key: str) -> StorageWriter:
        """Open a new object; it appears whole at ``close`` or never."""
        return StorageWriter(self._store(), key, self.uri(key))

    def read(self, key: str) -> bytes:
        """Read one whole small object."""
        with self._at(key):
            return bytes(obstore.get(self._present_store(key), key).bytes())

    def put(self, key: str, data: Buffer) -> None:
        """Write one small object atomically, over whatever was there."""
        with self._at(key):
            obstore.put(self._store(), key, data, use_multipart=False)

    def put_if_absent(self, key: str, data: Buffer) -> None:
        """Write one small object atomically, only if nothing has that key.

        Raises
        ------
        StorageExistsError
            If it exists: of any number of racing writers exactly one succeeds.
        """
        with self._at(key):
            obstore.put(self._store(), key, data, mode="create", use_multipart=False)

    def list(self, prefix: str = "", *, after: str | None = None) -> Iterator[StorageEntry]:
        """Objects below the folder `prefix`, however deep; none if there is no such folder.

        Parameters
        ----------
        after
            Only keys that sort after this one; on S3 the earlier ones are not even listed.
        """
        with self._at(prefix) if prefix else translated(self.root):
            if self.is_local and not Path(self.root).is_dir():
                return
            for page in obstore.list(self._store(), prefix or None, offset=after):
                for found in page:
                    if found["path"] == prefix:  # a folder's own marker, which other tools put
                        continue
                    yield StorageEntry(
                        key=found["path"], bytes=found["size"], modified=found["last_modified"]
                    )

    def folders(self, prefix: str = "") -> tuple[str, ...]:
        """The folders directly in a folder, as keys; none if there is no such folder."""
        return self._directly_in(prefix)[0]

    def children(self, prefix: str = "") -> tuple[str, ...]:
        """The objects and folders directly in a folder, as keys; none if there is none."""
        folders, objects = self._directly_in(prefix)
        return tuple(sorted({*folders, *objects}))

    def unfinished(self) -> Iterator[StorageEntry]:
        """What writers that were killed left on disk; `list` passes over it, `delete` takes it.

        None on S3, where a store drops the parts of such uploads by its lifecycle rule.
        """
        if not self.is_local:
            return
        for folder, _, names in os.walk(self.root):
            for name in filter(_UNFINISHED.search, names):
                path = Path(folder, name)
                with suppress(FileNotFoundError):
                    yield StorageEntry(
                        key=path.relative_to(self.root).as_posix(),
                        bytes=path.stat().st_size,
                        modified=_changed(path),
                    )

    def exists(self, key: str) -> bool:
        """Whether an object has that key."""
        try:
            self.size(key)
        except StorageNotFoundError:
            return False
        return True

    def size(self, key: str) -> int:
        """Size of one object in bytes."""
        return self.open_input(key).size()

    def digest(self, key: str) -> str:
        """The xxh3 of one object's bytes, as `StorageWriter.digest`; read by parts."""
        source, found = self.open_input(key), xxhash.xxh3_64()
        for offset in range(0, source.size(), DIGEST_PART_BYTES):
            found.update(source.read_at(offset, DIGEST_PART_BYTES))
        return found.hexdigest()

    def delete(self, keys: Iterable[str]) -> None:
        """Delete objects; those already gone are passed over."""
        names = list(keys)
        if not names:
            return
        if not self.is_local:
            with self._at(names[0]):
                obstore.delete(self._store(), names)
            return
        for name in names:
            if _UNFINISHED.search(name):
                with self._at(name):
                    Path(self.uri(name)).unlink(missing_ok=True)
                continue
            try:
                with self._at(name):
                    obstore.delete(self._present_store(name), name)
            except StorageNotFoundError:
                continue

    def remove_empty_folders(self, prefix: str, *, until: datetime | None = None) -> None:
        """Remove a folder and those below it, where nothing lies in them; S3 has none.

        Parameters
        ----------
        until
            Only folders in which nothing came or went since then.
        """
        if not self.is_local:
            return
        # Deepest first. All times are taken before any folder goes: that changes the one above.
        found = [Path(folder) for folder, _, _ in os.walk(self.uri(prefix), topdown=False)]
        with suppress(FileNotFoundError):
            found = [one for one in found if until is None or _changed(one) <= until]
        for folder in found:
            with suppress(OSError):
                folder.rmdir()

    def move(self, source: str, target: str) -> None:
        """Rename one object: atomic on disk, copy and delete on S3."""
        with self._at(source):
            obstore.rename(self._present_store(source), source, target)

    def _directly_in(self, prefix: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Folders and objects, without what lies deeper."""
        with self._at(prefix) if prefix else translated(self.root):
            if self.is_local and not Path(self.root, prefix).is_dir():
                return (), ()
            found = obstore.list_with_delimiter(self._store(), prefix or None)
        folders = tuple(sorted(map(str, found["common_prefixes"])))
        objects = (entry["path"] for entry in found["objects"] if entry["path"] != prefix)
        return folders, tuple(sorted(objects))

    def _store(self) -> ObjectStore:
        return open_store(self.root, self.options)

    def _present_store(self, key: str) -> ObjectStore:
        """The client for an object that is there: only writes make a local root."""
        if self.is_local and not Path(self.root).is_dir():
            raise StorageNotFoundError(f"{self.uri(key)}: nothing there")
        return self._store()

    def _at(self, key: str) -> AbstractContextManager[None]:
        return translated(self.uri(key))


def _changed(path: Path) -> datetime:
    return datetime.fromtimestamp(path.stat().st_mtime, UTC)


def _normalise_root(root: str) -> str:
    if not root:
        raise SettingsError("storage root: empty, expected a path or s3://bucket/prefix")
    found = _SCHEME.match(root)
    if found is None:
        return str(Path(root).absolute())
    scheme = found[1].lower()
    if scheme == "file":
        return unquote(urlsplit(root).path) or "/"
    if scheme not in ("s3", "s3a"):
        raise SettingsError(
            f"storage root {root!r}: scheme {scheme!r}, expected a path, file:// or s3://"
        )
    address = root[found.end() :].rstrip("/")
    if found[2] != "//" or not address or address.startswith("/"):
        raise SettingsError(f"storage root {root!r}: no bucket, expected s3://bucket/prefix")
    if _UNTAKEN.search(address):
        raise SettingsError(
            f"storage root {root!r}: expected s3://bucket/prefix with plain names in it, got an "
            "empty one, '.', '..', a backslash or a control character"
        )
    return f"s3://{address}"


def _checked_key(key: str, root: str) -> str:
    if any(segment in ("", ".", "..") for segment in key.split("/")) or "\0" in key:
        raise StorageError(
            f"{root}: key {key!r} is not a relative path of plain segments, nothing was touched"
        )
    return key


def _join(root: str, key: str) -> str:
    return f"{root.rstrip('/')}/{key}"
