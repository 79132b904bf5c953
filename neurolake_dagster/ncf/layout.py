"""The fixed bytes of an NCF v2 file: header and tail. The only user of `struct`.

File, little-endian, written strictly forward::

    HEADER  16 B
    ROW GROUP 0: a chunk per column, in any order; each starts 64-byte aligned
    ROW GROUP 1: ...
    SECTIONS     one zone map per column that has more than one page per row group; bloom filters
    FOOTER       one zstd frame of msgpack (footer.py)
    TAIL    40 B

Offsets in the footer are absolute; offsets inside a chunk are relative to their page
(column.py), so a chunk can be copied to another place byte for byte.
"""

import struct
import zlib
from dataclasses import dataclass

from neurolake_dagster.errors import NCFVersionError, NotNCFError
from neurolake_dagster.ncf.checks import Damage

MAGIC = b"NCF\x02"
V1_MAGIC = b"NCF\x01"
TAIL_MAGIC = b"2FCN"
MAJOR, MINOR = 2, 1
CHUNK_ALIGNMENT = 64

# magic, major, minor, flags, crc32 of the 12 bytes before it
_HEADER = struct.Struct("<4sHHII")
# footer offset, footer compressed bytes, footer raw bytes, xxh3_64 of the compressed footer,
# major, minor, flags | crc32 of the 32 bytes before it, magic
_TAIL = struct.Struct("<QIIQHHI")
_TAIL_END = struct.Struct("<I4s")
HEADER_BYTES = _HEADER.size
TAIL_BYTES = _TAIL.size + _TAIL_END.size
MIN_FILE_BYTES = HEADER_BYTES + TAIL_BYTES

MAX_FOOTER_BYTES = 64 << 20
MAX_FOOTER_RAW_BYTES = 256 << 20
MAX_FOOTER_RATIO = 1000
# A raw footer takes many times its size as Python objects: small files get small footers.
FREE_FOOTER_RAW_BYTES = 16 << 20


@dataclass(frozen=True, kw_only=True)
class Tail:
    """Where the footer lies, and what its bytes hash to."""

    footer_offset: int
    footer_bytes: int
    footer_raw_bytes: int
    footer_xxh3: int
    minor: int = MINOR
    flags: int = 0


def encode_header() -> bytes:
    """Return the 16 bytes every NCF v2 file begins with."""
    body = _HEADER.pack(MAGIC, MAJOR, MINOR, 0, 0)[:12]
    return body + zlib.crc32(body).to_bytes(4, "little")


def decode_header(raw: bytes, name: str) -> None:
    """Check the first 16 bytes of a file: magic, checksum, major version, flags.

    Raises
    ------
    NotNCFError
        If the magic is another one.
    NCFVersionError
        If the major version or a flag is unknown here.
    """
    magic, major, minor, flags, crc = _HEADER.unpack(raw)
    if magic != MAGIC:
        raise NotNCFError(f"{name}: not an NCF v2 file, expected {MAGIC!r}, got {magic!r}")
    if zlib.crc32(raw[:12]) != crc:
        raise Damage("header: checksum differs")
    _check_version(name, major, minor, flags)


def encode_tail(tail: Tail) -> bytes:
    """Return the last 40 bytes of a file."""
    body = _TAIL.pack(
        tail.footer_offset,
        tail.footer_bytes,
        tail.footer_raw_bytes,
        tail.footer_xxh3,
        MAJOR,
        tail.minor,
        tail.flags,
    )
    return body + _TAIL_END.pack(zlib.crc32(body), TAIL_MAGIC)


def decode_tail(raw: bytes, file_bytes: int, name: str) -> Tail:
    """Check the last 40 bytes before any length in them is used.

    Parameters
    ----------
    raw
        Exactly 40 bytes.
    file_bytes
        Size of the whole file; the footer must end where the tail begins.
    """
    crc, magic = _TAIL_END.unpack_from(raw, _TAIL.size)
    if magic != TAIL_MAGIC:
        raise Damage(f"tail: expected {TAIL_MAGIC!r} as last 4 bytes, got {magic!r}: cut short?")
    if zlib.crc32(raw[: _TAIL.size]) != crc:
        raise Damage("tail: checksum differs")
    offset, size, raw_size, digest, major, minor, flags = _TAIL.unpack_from(raw)
    _check_version(name, major, minor, flags)
    if offset < HEADER_BYTES or offset + size != file_bytes - TAIL_BYTES:
        raise Damage(
            f"tail: footer at {offset} of {size} bytes does not end at the tail of "
            f"a file of {file_bytes} bytes"
        )
    if size > MAX_FOOTER_BYTES or raw_size > MAX_FOOTER_RAW_BYTES:
        raise Damage(f"tail: footer of {size} bytes ({raw_size} raw) is too large")
    if raw_size > min(MAX_FOOTER_RATIO * size, FREE_FOOTER_RAW_BYTES + file_bytes):
        raise Damage(f"tail: footer of {size} bytes cannot hold {raw_size}")
    return Tail(
        footer_offset=offset,
        footer_bytes=size,
        footer_raw_bytes=raw_size,
        footer_xxh3=digest,
        minor=minor,
        flags=flags,
    )


def padding(position: int) -> bytes:
    """Return the zero bytes that bring ``position`` to the next chunk boundary."""
    return bytes(-position % CHUNK_ALIGNMENT)


def _check_version(name: str, major: int, minor: int, flags: int) -> None:
    if major != MAJOR:
        raise NCFVersionError(
            f"{name}: NCF version {major}.{minor}, this reader knows {MAJOR}.x; update the reader"
        )
    if flags:
        raise NCFVersionError(
            f"{name}: flags 0x{flags:08x} (such as encryption) are unknown to this reader"
        )
