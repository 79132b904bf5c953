"""Streams: runs of bytes of one page, raw or one zstd frame. Owns codecs and profiles.

A stream in a node is ``[codec, offset, stored_bytes, raw_bytes]``: codec 0 = raw, 1 = one zstd
frame that states its content size; the offset counts from the first byte of the page.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa

from neurolake_dagster.ncf.checks import Damage, NDArray, Node, need_int, need_list

RAW, ZSTD = 0, 1
# A call of the codec costs 8 to 15 us on reading, most of it for a new context: more than a short
# stream is worth, or a plane that shrinks by little.
MIN_ZSTD_BYTES = 65
_MIN_SAVED_BYTES = 2048
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_DICT_ID_BYTES = (0, 1, 2, 4)
_MAX_FRAME_HEADER_BYTES = 18
_LEVELS = range(1, 23)
_GLANCED_ROWS = 65536
_PATIENT_LEVEL = 7


@dataclass(frozen=True, kw_only=True)
class Profile:
    """How hard to compress.

    Parameters
    ----------
    plane_level, text_level
        zstd levels of byte planes and of text or interleaved words; 0 stores raw.
    raw_share
        A plane whose sample keeps more than this share of its size is stored raw.
    min_saved_bytes
        A plane that shrinks by less is stored raw: inflating it would cost more than its bytes.
    """

    plane_level: int = 1
    text_level: int = 3
    raw_share: float = 0.94
    min_saved_bytes: int = _MIN_SAVED_BYTES

    def plans_at_sight(self, row_count: int) -> bool:
        """Whether a chunk is planned at a glance: where a sample would cost as much as its rows.

        Not where size is worth time.
        """
        return row_count <= _GLANCED_ROWS and self.text_level < _PATIENT_LEVEL


PROFILES = {
    "zstd": Profile(),
    "fast": Profile(text_level=1, raw_share=0.87),
    "archive": Profile(text_level=9, raw_share=0.97, min_saved_bytes=0),
    "none": Profile(plane_level=0, text_level=0),
}


def build_profile(compression: str | None, level: int | None) -> Profile:
    """Return the profile of ``compression`` (zstd, fast, archive, none) and an optional level."""
    name = "none" if compression is None else str(compression).lower()
    if name not in PROFILES:
        raise ValueError(f"compression: expected one of {', '.join(PROFILES)}, got {compression!r}")
    if level is None:
        return PROFILES[name]
    if name == "none" or isinstance(level, bool) or level not in _LEVELS:
        raise ValueError(f"compression_level: expected 1..22 with zstd, got {level!r} with {name}")
    return Profile(text_level=level, raw_share=0.97 if level >= _PATIENT_LEVEL else 0.94)


@lru_cache
def codec(level: int) -> Any:
    """Return the shared zstd codec of ``level``; its one-shot calls are thread-safe."""
    return pa.Codec("zstd", compression_level=level)


def compressed_size(data: NDArray, level: int = 1) -> int:
    """Return the bytes that zstd makes of a contiguous array."""
    return int(codec(level).compress(pa.py_buffer(data)).size) if data.nbytes else 0


class StreamWriter:
    """Collects the streams of one page, in order."""

    __slots__ = ("parts", "profile", "size")

    def __init__(self, profile: Profile) -> None:
        self.profile = profile
        self.parts: list[Any] = []
        self.size = 0

    def put(self, data: Any, level: int, min_saved: int = 0) -> Node:
        """Append ``data`` (array or buffer), by zstd ``level`` where it pays; 0 = raw."""
        raw = data if isinstance(data, pa.Buffer) else pa.py_buffer(data)
        size = raw.size
        kind, stored = RAW, raw
        if level and size >= max(MIN_ZSTD_BYTES, min_saved):
            packed = codec(level).compress(raw)
            if size - packed.size > max(size >> 5, min_saved):
                kind, stored = ZSTD, packed
        self.parts.append(stored)
        node = [kind, self.size, stored.size, size]
        self.size += stored.size
        return node

    def put_plane(self, data: Any) -> Node:
        """Append a byte plane at the profile's plane level."""
        return self.put(data, self.profile.plane_level, self.profile.min_saved_bytes)

    def put_text(self, data: Any) -> Node:
        """Append text or interleaved words at the profile's text level."""
        return self.put(data, self.profile.text_level)


class StreamReader:
    """Reads the streams of one page; every range is checked against the page."""

    __slots__ = ("page",)

    def __init__(self, page: Any) -> None:
        self.page = page

    def read_buffer(self, stream: object, raw_bytes: int) -> Any:
        """Return one stream as a `pyarrow.Buffer` of exactly ``raw_bytes``; raw ones are views."""
        kind, offset, stored, size = need_list(stream, 4, "stream")
        limit = self.page.size
        # The same checks as calls would take as long as the rest.
        if type(offset) is not int or not 0 <= offset <= limit:
            need_int(offset, 0, limit, "stream offset")
        if type(stored) is not int or not 0 <= stored <= limit - offset:
            need_int(stored, 0, limit - offset, "stream bytes")
        if size != raw_bytes:
            raise Damage(f"stream: expected {raw_bytes} raw bytes, got {size!r}")
        data = self.page.slice(offset, stored)
        if kind == RAW:
            if stored != raw_bytes:
                raise Damage(f"raw stream: expected {raw_bytes} bytes, got {stored}")
            return data
        if kind != ZSTD:
            raise Damage(f"stream: unknown codec {kind!r}")
        return decompress(data, raw_bytes)

    def read(self, stream: object, raw_bytes: int) -> NDArray:
        """Return one stream as uint8, read-only."""
        return np.frombuffer(self.read_buffer(stream, raw_bytes), np.uint8)


def decompress(data: Any, raw_bytes: int) -> Any:
    """Inflate one zstd frame that must state ``raw_bytes`` as its content size.

    The codec never writes more than ``raw_bytes``, but does not tell when it wrote less: the
    frame's own content size, which zstd enforces, closes that gap.
    """
    stated = _content_size(bytes(memoryview(data)[:_MAX_FRAME_HEADER_BYTES]))
    if stated != raw_bytes:
        raise Damage(f"zstd frame: expected {raw_bytes} raw bytes, frame states {stated}")
    try:
        return codec(1).decompress(data, raw_bytes)
    except (pa.ArrowException, OSError) as exc:
        raise Damage(f"zstd frame: {exc}") from exc


def _content_size(head: bytes) -> int | None:
    """Return the content size in a zstd frame header (RFC 8878 3.1.1.1), None without one."""
    if len(head) < 6 or head[:4] != _ZSTD_MAGIC:
        return None
    descriptor = head[4]
    single_segment = (descriptor >> 5) & 1
    flag = descriptor >> 6
    width = (1 if single_segment else 0) if flag == 0 else 1 << flag
    at = 5 + (1 - single_segment) + _DICT_ID_BYTES[descriptor & 3]
    if width == 0 or len(head) < at + width:
        return None
    size = int.from_bytes(head[at : at + width], "little")
    return size + 256 if width == 2 else size
