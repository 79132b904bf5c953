"""Verifying a whole file: every byte decoded, every statistic compared. Owns the report."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from neurolake_dagster.ncf.bloom import Bloom, hash_values
from neurolake_dagster.ncf.checks import Damage, brief
from neurolake_dagster.ncf.chunks import Chunks, Place
from neurolake_dagster.ncf.column import measure_stats
from neurolake_dagster.ncf.memory import Budget
from neurolake_dagster.ncf.statistics import Stats, merge_stats


@dataclass(frozen=True, kw_only=True)
class VerifyReport:
    """What was checked."""

    num_rows: int
    row_groups: int
    pages: int
    file_bytes: int


def verify_chunks(
    chunks: Chunks, limit: int, progress: Callable[[int, int], None] | None = None
) -> VerifyReport:
    """Decode all pages, validate them fully, and compare them with their statistics.

    Parameters
    ----------
    progress
        Told after each chunk: stored bytes read so far, and in all.

    Raises
    ------
    NCFCorruptError
        At the first fault.
    """
    pages = done = 0
    groups = chunks.footer.row_groups
    total = sum(chunk.size for entry in groups for chunk in entry.columns)
    for group, entry in enumerate(groups):
        for column, chunk in enumerate(entry.columns):
            pages += _verify_chunk(chunks, Place(group, column), Budget(limit))
            done += chunk.size
            if progress is not None:
                progress(done, total)
    for section in chunks.footer.sections.values():
        with chunks.faults():
            chunks.read_section(section)
    return VerifyReport(
        num_rows=chunks.footer.rows,
        row_groups=len(chunks.footer.row_groups),
        pages=pages,
        file_bytes=chunks.size,
    )


def _verify_chunk(chunks: Chunks, place: Place, budget: Budget) -> int:
    zones = chunks.zones(place.column)[place.group]
    with chunks.faults(place):
        decoder = chunks.decoder(place, budget)
        arrays = [decoder.decode_page(index) for index in range(len(decoder.meta.pages))]
        if len(zones) != len(arrays):
            raise Damage(f"zone map: {len(zones)} pages stated, {len(arrays)} found")
        found = [
            (len(array), _verify_page(array, *zone, index))
            for index, (array, zone) in enumerate(zip(arrays, zones, strict=True))
        ]
        _compare(chunks.entry(place).stats, merge_stats(found))
        if place.column in chunks.bloom_columns():
            _verify_bloom(chunks.blooms(place.column)[place.group], arrays)
    return len(arrays)


def _verify_page(array: Any, rows: int, stated: Stats, page: int) -> Stats:
    """Check one page and return its statistics."""
    array.validate(full=True)
    found = measure_stats(array)
    try:
        if len(array) != rows:
            raise Damage(f"zone map: {rows} rows stated, {len(array)} found")
        _compare(stated, found)
    except Damage as exc:
        exc.page = page
        raise
    return found


def _compare(stated: Stats, found: Stats) -> None:
    """Refuse statistics that are wrong; those that are left out are not."""
    if found.null_count != stated.null_count:
        raise Damage(f"statistics: {stated.null_count} nulls stated, {found.null_count} found")
    if stated.nan_count is not None and stated.nan_count != (found.nan_count or 0):
        raise Damage(f"statistics: {stated.nan_count} NaN stated, {found.nan_count} found")
    low: Any = stated.min
    high: Any = stated.max
    if low is None and high is None:
        return
    said = f"statistics: bounds {brief(low)}..{brief(high)}"
    if (low is None or high is None) and stated.exact:
        raise Damage(f"{said} stated as exact")
    if found.min is None and found.max is None:
        return
    if not ((low is None or low <= found.min) and (high is None or found.max <= high)):
        raise Damage(f"{said} do not enclose the values")
    if stated.exact and (not found.exact or (low, high) != (found.min, found.max)):
        raise Damage(f"{said} stated as exact, {brief(found.min)}..{brief(found.max)} found")


def _verify_bloom(bloom: Bloom | None, arrays: list[Any]) -> None:
    if bloom is None:
        return
    for page, array in enumerate(arrays):
        held = bloom.may_hold(hash_values(array))
        if not held.all():
            damage = Damage(f"Bloom filter: {np.count_nonzero(~held)} values are not in it")
            damage.page = page
            raise damage
