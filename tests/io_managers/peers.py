"""The defects M1 to M20 measured in other IO managers, and the tests that ours pass.

`python -m tests.io_managers.peers` prints the README's table; "ours" is made of the tests' names.
Short names: DL dagster-deltalake, DD dagster-delta, IB dagster-iceberg, PO dagster-polars. The
peers' results were measured once, before this project; nothing here runs a peer.
"""

import re
from pathlib import Path
from typing import NamedTuple

TESTS = Path(__file__).parents[1]
PEERS = "io_managers/test_peers.py"
OWN = "io_managers/test_io_managers.py"


class Defect(NamedTuple):
    """What a peer did, and the test of ours."""

    number: int
    peer: str
    file: str
    test: str

    @property
    def ours(self) -> str:
        """The test's name as a sentence."""
        return re.sub(r"^(test_|m\d+_|and_)+", "", self.test).replace("_", " ")

    def exists(self) -> bool:
        """Whether the test is there."""
        return f"def {self.test}(" in (TESTS / self.file).read_text()


DEFECTS = [
    Defect(1, "DD: `columns` of an input come back as one array of their names", PEERS,
           "test_m1_columns_come_back_as_they_are"),
    Defect(2, "DD: `create_or_replace` leaves 0 rows", PEERS,
           "test_m2_create_or_replace_holds_the_new_rows"),
    Defect(3, "DL: the second day destroys the first (text column)", PEERS,
           "test_m3_and_m16_days_in_a_text_column_stay_apart"),
    Defect(4, "DL: hours with times between: 1 row left, then unreadable", PEERS,
           "test_m4_hours_with_times_between_stay_apart"),
    Defect(5, "DL: an unpartitioned asset reads 1 of 3 days", PEERS,
           "test_m5_an_unpartitioned_asset_reads_all_days"),
    Defect(6, "DL: a single run of a..b wipes c", OWN,
           "test_a_range_in_one_run_replaces_exactly_its_days"),
    Defect(7, "DL: the same single run fails the second time", OWN,
           "test_a_range_in_one_run_replaces_exactly_its_days"),
    Defect(8, "DL: `table_config` is ignored", "io_managers/test_delta.py",
           "test_properties_constraints_and_partition_columns_are_the_tables"),
    Defect(9, "DL: from two dimensions to one: ValueError", PEERS,
           "test_m9_one_dimension_reads_its_part_of_two"),
    Defect(10, "DD: `gold/sales/t` and `raw/sales/t` share a place", OWN,
           "test_keys_that_differ_in_the_middle_lie_apart"),
    Defect(11, "DD: an append executed again doubles the rows", OWN,
           "test_an_append_that_is_executed_again_adds_once"),
    Defect(12, "DD, DL: a self-dependent asset fails on its first day", PEERS,
           "test_m12_an_asset_reads_its_own_past_from_the_first_day_on"),
    Defect(13, "DD: 2 or 3 of 8 parallel first writes fail", PEERS,
           "test_m13_parallel_first_writes_of_a_delta_table_all_arrive"),
    Defect(14, "IB: single run, RecordBatchReader, EnvVar: three exceptions", PEERS,
           "test_m14_a_reader_in_a_single_run_with_the_root_from_the_environment"),
    Defect(15, "PO: every read of Parquet fails with polars 2.1", PEERS,
           "test_m15_parquet_is_read_as_polars"),
    Defect(16, "PO: Delta, days in a text column: type error", PEERS,
           "test_m3_and_m16_days_in_a_text_column_stay_apart"),
    Defect(17, "PO: partition key `../../evil` writes outside of the base", PEERS,
           "test_m17_no_partition_key_leaves_the_table"),
    Defect(18, "Spark resources of different conf leak into each other", "spark/test_session.py",
           "test_two_resources_never_leak_into_each_other"),
    Defect(19, "DD: a plain secret is in the snapshot for the UI", "resources/test_resources.py",
           "test_plain_secrets_reach_the_settings_and_no_text"),
    Defect(20, "an unpartitioned check loads all partitions", PEERS,
           "test_m20_an_unpartitioned_check_sees_the_partition_of_the_run"),
]  # fmt: skip


def table() -> str:
    """The table in Markdown."""
    rows = [f"| M{one.number} | {one.peer} | {one.ours} |" for one in DEFECTS]
    return "\n".join(["| | peers | ours |", "| --- | --- | --- |", *rows])


if __name__ == "__main__":
    print(table())
