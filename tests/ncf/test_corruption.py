"""Damaged NCF v2 files: refused by one error, within 2 GiB of address space, never a wrong table.

The default run takes samples; `slow` takes every byte, every length and 10,000 mutations.
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
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
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


def test_flipped_bytes_are_refused(small: Path) -> None:
    result = campaign("flips", small, count=300)
    share = result["outcomes"]["unchanged"] / sum(result["outcomes"].values())
    # Only the zero bytes that align chunks carry nothing.
    padding = len(padding_positions(small.read_bytes())) / small.stat().st_size
    assert refused(result) > 180
    assert abs(share - padding) < 0.1


def test_truncated_files_are_refused(small: Path) -> None:
    result = campaign("truncations", small, count=1500)
    assert refused(result) == sum(result["outcomes"].values())


def test_swapped_ranges_are_refused(packed: Path) -> None:
    assert refused(campaign("swaps", packed, count=100)) > 60


def test_random_mutations_are_refused(packed: Path) -> None:
    assert refused(campaign("mutations", packed, count=1000)) > 700


def test_unverified_mutations_give_valid_tables_or_are_refused(packed: Path) -> None:
    result = campaign("mutations", packed, count=200, seed=2, verify=False)
    assert result["faults"] == []


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_every_flipped_byte_is_refused(small: Path) -> None:
    result = campaign("flips", small, limit_s=2900)
    padding = len(padding_positions(small.read_bytes()))
    assert refused(result) == small.stat().st_size - padding


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_every_truncation_is_refused(small: Path) -> None:
    result = campaign("truncations", small, limit_s=2900)
    assert refused(result) == small.stat().st_size


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_ten_thousand_mutations_are_refused(small: Path) -> None:
    assert refused(campaign("mutations", small, count=10_000, seed=3, limit_s=2900)) > 7000


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


def test_forged_structure_is_refused_or_valid(packed: Path, small: Path) -> None:
    assert refused(campaign("forgeries", small, count=120)) > 70
    assert refused(campaign("forgeries", packed, count=120, seed=5)) > 70


def test_unverified_forgeries_give_valid_tables_or_are_refused(small: Path) -> None:
    assert campaign("forgeries", small, count=150, seed=9, verify=False)["faults"] == []


def test_small_files_that_ask_for_gigabytes_are_refused(small: Path) -> None:
    result = campaign("bombs", small)
    assert result["faults"] == []
    assert set(result["outcomes"]) == {"NCFCorruptError"}


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("seed", [11, 12])
def test_ten_thousand_forgeries_are_refused_or_valid(small: Path, packed: Path, seed: int) -> None:
    for file in (small, packed):
        assert refused(campaign("forgeries", file, count=2500, seed=seed, limit_s=1400)) > 1000
