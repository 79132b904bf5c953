"""Damaged NCF v2 files: refused by one error, within 2 GiB of address space, never a wrong table.

The default run flips every byte of a small file of every type, cuts another at every length and
mutates 10,000 times; `slow` does so with files of many pages.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from neurolake_dagster import ncf
from neurolake_dagster.errors import NCFError
from tests.ncf.damage import campaign
from tests.ncf.every_type import every_type
from tests.ncf.forge import padding_positions


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every type, one page each."""
    path = tmp_path_factory.mktemp("damage") / "tiny.ncf"
    ncf.write_table(every_type(8), path)
    return path


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every type, several pages and row groups, zone maps."""
    path = tmp_path_factory.mktemp("damage") / "every_type.ncf"
    ncf.write_table(every_type(24), path, row_group_size=16, page_rows=8)
    return path


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Enough rows per page for every encoding to be chosen."""
    path = tmp_path_factory.mktemp("damage") / "packed.ncf"
    ncf.write_table(every_type(2000), path, row_group_size=1200, page_rows=700)
    return path


def refused(result: dict[str, Any]) -> int:
    assert result["faults"] == []
    return sum(
        count for name, count in result["outcomes"].items() if name not in ("unchanged", "valid")
    )


def meaning(path: Path) -> int:
    """Count the bytes that mean something: all but the zero bytes that align chunks."""
    return path.stat().st_size - len(padding_positions(path.read_bytes()))


@pytest.mark.slow
def test_every_flipped_byte_is_refused(tiny: Path) -> None:
    result = campaign("flips", tiny)
    assert sum(result["outcomes"].values()) == tiny.stat().st_size
    assert refused(result) == meaning(tiny)


def test_every_truncation_is_refused(small: Path) -> None:
    assert refused(campaign("truncations", small)) == small.stat().st_size


def test_ten_thousand_mutations_are_refused(tiny: Path) -> None:
    assert refused(campaign("mutations", tiny, count=10_000)) > 9500


def test_swapped_ranges_are_refused(packed: Path) -> None:
    assert refused(campaign("swaps", packed, count=100)) > 60


def test_mutated_packed_files_are_refused(packed: Path) -> None:
    assert refused(campaign("mutations", packed, count=500)) > 400


def test_unverified_mutations_give_valid_tables_or_are_refused(packed: Path) -> None:
    result = campaign("mutations", packed, count=200, seed=2, verify=False)
    assert result["faults"] == []


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_every_flipped_byte_of_many_pages_is_refused(small: Path) -> None:
    assert refused(campaign("flips", small, limit_s=2900)) == meaning(small)


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_many_mutations_are_refused(small: Path, packed: Path) -> None:
    for seed, file in enumerate((small, packed), 3):
        assert refused(campaign("mutations", file, count=20_000, seed=seed, limit_s=1400)) > 14_000


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_swapped_five_mebibyte_ranges_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "large.ncf"
    noise = np.random.default_rng(1).integers(0, 2**62, 3_000_000)
    ncf.write_table(pa.table({"n": noise}), path)
    good, part = path.read_bytes(), 5 << 20
    path.write_bytes(good[part : 2 * part] + good[:part] + good[2 * part :])
    with pytest.raises(NCFError):
        ncf.read_table(path)
    middle = good[:part] + good[2 * part : 3 * part] + good[part : 2 * part] + good[3 * part :]
    path.write_bytes(middle)
    with pytest.raises(NCFError):
        ncf.read_table(path)


def test_forged_structure_is_refused_or_valid(packed: Path, tiny: Path) -> None:
    assert refused(campaign("forgeries", tiny, count=1000)) > 700
    assert refused(campaign("forgeries", packed, count=60, seed=5)) > 35


def test_unverified_forgeries_give_valid_tables_or_are_refused(tiny: Path) -> None:
    assert campaign("forgeries", tiny, count=300, seed=9, verify=False)["faults"] == []


def test_small_files_that_ask_for_gigabytes_are_refused(tiny: Path) -> None:
    result = campaign("bombs", tiny)
    assert result["faults"] == []
    assert set(result["outcomes"]) == {"NCFCorruptError"}


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("seed", [11, 12])
def test_ten_thousand_forgeries_are_refused_or_valid(small: Path, packed: Path, seed: int) -> None:
    for file in (small, packed):
        assert refused(campaign("forgeries", file, count=2500, seed=seed, limit_s=1400)) > 1000
