"""Text of at most 16 distinct bytes: two characters per byte, first one in the low bits.

Body ``[alphabet, template, kept_bytes, stream]``. ``template`` is nil, or for rows of one length
``[row, [[start, stop], ...]]``: the bytes outside the ranges are the same in every row (the
dashes of a UUID) and taken from ``row``; only those inside are stored.
"""

from functools import lru_cache

import numpy as np

from neurolake_dagster.ncf.arrow import gather
from neurolake_dagster.ncf.checks import Damage, NDArray, Node, need_bytes, need_int, need_list
from neurolake_dagster.ncf.compression import StreamReader, StreamWriter
from neurolake_dagster.ncf.encodings.packing import packed_bytes
from neurolake_dagster.ncf.memory import Budget

MAX_ALPHABET = 16
_ABSENT = 255


def pack_nibbles(body: NDArray, alphabet: bytes) -> NDArray | None:
    """Return uint8 ``body`` at two characters per byte; None if a byte is not in ``alphabet``."""
    codes = gather(_code_table(alphabet), body)
    if len(codes) and int(codes.max()) == _ABSENT:
        return None
    if len(codes) % 2:
        codes = np.append(codes, np.uint8(0))
    pairs = np.ascontiguousarray(codes).view("<u2")
    packed: NDArray = (pairs | (pairs >> 4)).astype(np.uint8)
    return packed


def variable_ranges(constant: NDArray) -> list[tuple[int, int]]:
    """Return the ranges of a row that a mask of constant bytes leaves over."""
    edges = np.flatnonzero(np.diff(np.concatenate([[True], constant, [True]]).astype(np.int8)))
    return [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def encode_nibbles(
    streams: StreamWriter, rows: NDArray, alphabet: bytes, constant: NDArray | None, level: int
) -> Node | None:
    """Encode a flat body, or rows of shape ``(n, length)`` with a mask of constant bytes.

    None if these bytes break what the sample promised.
    """
    template = None
    kept = rows
    if constant is not None:
        if rows.ndim != 2 or not (rows[:, constant] == rows[0, constant]).all():
            return None
        ranges = variable_ranges(constant)
        kept = np.concatenate([rows[:, a:b] for a, b in ranges], axis=1).ravel()
        template = [rows[0].tobytes(), [[a, b] for a, b in ranges]]
    packed = pack_nibbles(kept, alphabet)
    if packed is None:
        return None
    return [alphabet, template, len(kept), streams.put(packed, level)]


def decode_nibbles(
    streams: StreamReader, node: object, count: int, data_bytes: int, budget: Budget
) -> NDArray:
    """Return the ``data_bytes`` characters of ``count`` rows, uint8."""
    fields = need_list(node, 4, "nibble text")
    alphabet = need_bytes(fields[0], 1, MAX_ALPHABET, "alphabet")
    kept_bytes = need_int(fields[2], 0, data_bytes, "kept characters")
    budget.debit(data_bytes + kept_bytes)
    packed = streams.read(fields[3], packed_bytes(kept_bytes, 4))
    kept = gather(_pair_table(alphabet), packed).view(np.uint8)[:kept_bytes]
    if fields[1] is None:
        if kept_bytes != data_bytes:
            raise Damage(f"nibble text: {kept_bytes} characters, expected {data_bytes}")
        return kept
    return _fill_template(fields[1], kept, count, data_bytes)


def _fill_template(template: object, kept: NDArray, count: int, data_bytes: int) -> NDArray:
    """Spread the stored characters over rows of one template."""
    row_value, ranges = need_list(template, 2, "template")
    row = np.frombuffer(need_bytes(row_value, 1, 1 << 16, "template row"), np.uint8)
    spans = _check_ranges(ranges, len(row))
    width = sum(stop - start for start, stop in spans)
    if len(row) * count != data_bytes or width * count != len(kept):
        raise Damage(f"nibble text: template of {len(row)} does not fit {data_bytes} characters")
    out = np.empty((count, len(row)), np.uint8)
    source = kept.reshape(count, width)
    position = free_from = 0
    for start, stop in [*spans, (len(row), len(row))]:
        for column in range(free_from, start):
            out[:, column] = row[column]
        if stop > start:
            _copy_columns(source, position, out, start, stop - start)
        position += stop - start
        free_from = stop
    return out.ravel()


def _copy_columns(source: NDArray, at: int, out: NDArray, start: int, width: int) -> None:
    """Copy ``width`` columns as one opaque item per row: one loop instead of ``width``."""
    if not len(out):
        return
    item = np.dtype((np.void, width))
    count = len(out)
    to: NDArray = np.ndarray(count, item, out.data, start, (out.shape[1],))
    to[...] = np.ndarray(count, item, source.data, at, (source.shape[1],))


def _check_ranges(ranges: object, length: int) -> list[tuple[int, int]]:
    spans = []
    free_from = 0
    for span in need_list(ranges, None, "template ranges"):
        start, stop = need_list(span, 2, "template range")
        need_int(start, free_from, length, "template range start")
        free_from = need_int(stop, start + 1, length, "template range stop")
        spans.append((start, stop))
    return spans


@lru_cache(maxsize=64)
def _code_table(alphabet: bytes) -> NDArray:
    table = np.full(256, _ABSENT, np.uint8)
    table[np.frombuffer(alphabet, np.uint8)] = np.arange(len(alphabet))
    return table


@lru_cache(maxsize=64)
def _pair_table(alphabet: bytes) -> NDArray:
    """Return for each packed byte its two characters as one little-endian uint16."""
    letters = np.frombuffer(alphabet.ljust(MAX_ALPHABET, b"\0"), np.uint8).astype(np.uint16)
    packed = np.arange(256)
    pairs: NDArray = letters[packed & 15] | (letters[packed >> 4] << 8)
    return pairs
