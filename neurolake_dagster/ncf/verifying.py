"""Verifying a whole file: every byte decoded, every statistic compared. Owns the report."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from neurolake_dagster.ncf.checks import Damage
from neurolake_dagster.ncf.chunks import Chunks, Place
from neurolake_dagster.ncf.column import measure_stats
from neurolake_dagster.ncf.memory import Budget
from neurolake_dagster.ncf.statistics import Stats


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
    chunks.blooms()
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
        if len(zones) == len(arrays):
            for index, (array, (rows, stats)) in enumerate(zip(arrays, zones, strict=True)):
                _verify_page(array, rows, stats, index)
    return len(arrays)


def _verify_page(array: Any, rows: int, stated: Stats, page: int) -> None:
    fault = None
    array.validate(full=True)
    found = measure_stats(array)
    if len(array) != rows:
        fault = f"zone map: {rows} rows stated, {len(array)} found"
    elif found.null_count != stated.null_count:
        fault = f"statistics: {stated.null_count} nulls stated, {found.null_count} found"
    elif found.min is not None and not _encloses(stated, found):
        fault = f"statistics: bounds {stated.min!r}..{stated.max!r} do not enclose the values"
    if fault is not None:
        damage = Damage(fault)
        damage.page = page
        raise damage


def _encloses(stated: Stats, found: Stats) -> bool:
    """Whether stated bounds, where there are any, hold all values."""
    low: Any = stated.min
    high: Any = stated.max
    return (low is None or low <= found.min) and (high is None or found.max <= high)
