"""The ways to run the platform, each by starting the real command.

One project folder serves all tests of this module, in order, and then those of the UI: the first
converts everything, the others build on its data.
"""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import duckdb
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable

from neurolake_dagster import ncf
from tests.project import Project

pytestmark = pytest.mark.timeout(300)

FLIGHT_ROWS = 336_776


@pytest.fixture
def instance(converted: Project) -> Iterator[dg.DagsterInstance]:
    with converted.instance() as opened:
        yield opened


def latest(instance: dg.DagsterInstance, *key: str) -> dg.AssetMaterialization:
    event = instance.get_latest_materialization_event(dg.AssetKey(key))
    assert event is not None, key
    assert event.asset_materialization is not None
    return event.asset_materialization


def check_results(instance: dg.DagsterInstance, run_id: str) -> dict[str, bool]:
    entries = instance.all_logs(run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION)
    found = {}
    for entry in entries:
        assert entry.dagster_event is not None
        check = entry.dagster_event.asset_check_evaluation_data
        found[f"{check.asset_key.to_user_string()}:{check.check_name}"] = check.passed
    return found


@pytest.mark.spark
class TestJobExecute:
    def test_every_asset_is_materialized_and_every_check_passes(
        self, instance: dg.DagsterInstance
    ) -> None:
        (run,) = instance.get_runs(dg.RunsFilter(job_name="convert_flights"))
        checks = check_results(instance, run.run_id)
        assert len(instance.get_asset_keys()) == 14
        assert len(checks) == 32
        assert all(checks.values()), checks

    @pytest.mark.parametrize(
        "key",
        [
            ("parquet", "flights"),
            ("ncf", "flights"),
            ("delta", "flights"),
            ("parquet", "flights_roundtrip"),
        ],
        ids="/".join,
    )
    def test_the_materialization_says_what_was_written(
        self, instance: dg.DagsterInstance, converted: Project, key: tuple[str, str]
    ) -> None:
        metadata = latest(instance, *key).metadata
        schema = metadata["dagster/column_schema"].value
        assert metadata["dagster/row_count"].value == FLIGHT_ROWS
        assert metadata["dagster/uri"].value == str(converted.data.joinpath(*key))
        assert metadata["bytes"].value > 1_000_000
        assert metadata["seconds"].value > 0
        assert isinstance(schema, dg.TableSchema)
        assert [column.name for column in schema.columns][:3] == ["year", "month", "day"]

    def test_a_conversion_says_its_source_ratio_and_lineage(
        self, instance: dg.DagsterInstance
    ) -> None:
        metadata = latest(instance, "ncf", "flights").metadata
        lineage = metadata["dagster/column_lineage"].value
        assert 0.3 < metadata["size_ratio"].value < 1
        assert metadata["source"].value == dg.AssetKey(["parquet", "flights"])
        assert isinstance(lineage, dg.TableColumnLineage)
        (dep,) = lineage.deps_by_column["carrier"]
        assert (dep.asset_key, dep.column_name) == (dg.AssetKey(["parquet", "flights"]), "carrier")

    def test_the_round_trip_gives_the_rows_back(self, converted: Project) -> None:
        folder = converted.data / "parquet"
        first, back = (folder / name / "**/*.parquet" for name in ("flights", "flights_roundtrip"))
        difference = duckdb.sql(
            f"""select count(*) from (
              (from '{first}' except all from '{back}') union all
              (from '{back}' except all from '{first}'))"""
        ).fetchall()
        assert difference == [(0,)]

    def test_integers_with_nulls_stay_integers_and_times_are_times(
        self, converted: Project
    ) -> None:
        files = list((converted.data / "ncf" / "flights").rglob("*.ncf"))
        schema = ncf.read_schema(files[0])
        assert str(schema.field("dep_delay").type) == "int32"
        assert str(schema.field("time_hour").type) == "timestamp[us, tz=UTC]"

    def test_the_delays_are_those_of_the_flights(self, converted: Project) -> None:
        delays = DeltaTable(str(converted.data / "delta" / "delays")).to_pyarrow_table()
        source = converted.data / "parquet" / "flights" / "**/*.parquet"
        expected = duckdb.sql(
            f"""select carrier, origin, month::int as month, count(*) as flights,
              count(*) filter (dep_time is null) as cancelled, round(avg(dep_delay), 2) as delay
              from '{source}' group by all order by all"""
        ).fetchall()
        got = duckdb.sql(
            "select carrier, origin, month, flights, cancelled, mean_dep_delay "
            "from delays order by all"
        ).fetchall()
        assert delays.num_rows == 399
        assert [row[:5] for row in got] == [row[:5] for row in expected]
        assert [row[5] for row in got] == pytest.approx(
            [row[5] for row in expected], abs=0.011, nan_ok=True
        )

    def test_the_export_is_plain_parquet_in_order(self, converted: Project) -> None:
        (part,) = (converted.data / "parquet" / "delays").rglob("*.parquet")
        rows = pq.read_table(part)
        keys = list(zip(rows["carrier"].to_pylist(), rows["origin"].to_pylist(), strict=True))
        assert rows.num_rows == 399
        assert keys == sorted(keys)

    def test_the_report_shows_every_asset_with_its_ratio(self, converted: Project) -> None:
        output = converted.run("neurolake", "report").stdout
        assert "336,776" in output
        assert "of delta/flights" in output
        assert output.count("passed") == 7


@pytest.mark.slow
@pytest.mark.spark
def test_dg_launch_runs_the_job_again(converted: Project) -> None:
    converted.run("dg", "launch", "--job", "convert_flights")
    with converted.instance() as instance:
        runs = instance.get_runs(dg.RunsFilter(job_name="convert_flights"))
        assert [run.status for run in runs] == [dg.DagsterRunStatus.SUCCESS] * 2
        assert latest(instance, "ncf", "flights").metadata["version"].value > 0


@pytest.mark.spark
def test_the_proofs_run_again_without_a_conversion(converted: Project) -> None:
    converted.run("neurolake", "run", "prove_conversions")
    with converted.instance() as instance:
        (run,) = instance.get_runs(dg.RunsFilter(job_name="prove_conversions"))
        checks = check_results(instance, run.run_id)
    assert len(checks) == 32
    assert all(checks.values()), checks


def test_dg_launch_runs_one_day(converted: Project) -> None:
    converted.run("dg", "launch", "--job", "convert_flights_daily", "--partition", "2013-01-05")
    with converted.instance() as instance:
        day = latest(instance, "ncf", "flights_daily")
    assert day.partition == "2013-01-05"
    assert day.metadata["dagster/partition_row_count"].value == 720


def test_a_single_run_takes_a_range_of_days(converted: Project) -> None:
    output = converted.run(
        *("neurolake", "run", "convert_flights_daily"),
        *("--partition-range", "2013-01-01...2013-01-03"),
    ).stdout
    with converted.instance() as instance:
        page = instance.fetch_materializations(
            dg.AssetRecordsFilter(
                asset_key=dg.AssetKey(["ncf", "flights_daily"]),
                asset_partitions=["2013-01-01", "2013-01-02", "2013-01-03"],
            ),
            limit=10,
        )
    counts = {
        record.partition_key: record.asset_materialization.metadata[
            "dagster/partition_row_count"
        ].value
        for record in page.records
        if record.asset_materialization is not None
    }
    assert counts == {"2013-01-01": 842, "2013-01-02": 943, "2013-01-03": 914}
    assert "convert_flights_daily: done" in output


def test_asset_materialize_takes_a_selection(converted: Project) -> None:
    before = len(list((converted.data / "ncf" / "airlines").rglob("*.ncf")))
    converted.run(
        *("dagster", "asset", "materialize", "-m", "neurolake_dagster.definitions"),
        *("--select", "parquet/airlines,ncf/airlines"),
    )
    assert before >= 1
    with converted.instance() as instance:
        assert latest(instance, "ncf", "airlines").metadata["dagster/row_count"].value == 16


@pytest.mark.parametrize("command", [("check", "defs"), ("list", "defs")], ids=" ".join)
def test_dg_finds_the_definitions(project: Project, command: tuple[str, str]) -> None:
    output = project.run("dg", *command)
    assert "convert_flights" in output.stdout or "success" in (output.stdout + output.stderr)


def test_without_java_everything_but_spark_is_materialized(converted: Project) -> None:
    """One clear error tells what is missing, how to get it, and that the rest ran."""
    result = converted.run(
        "neurolake", "run", "convert_flights", check=False, JAVA_HOME=str(converted.folder)
    )
    with converted.instance() as instance:
        (run,) = instance.get_runs(dg.RunsFilter(job_name="convert_flights"), limit=1)
        events = instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION)
    assert result.returncode == 1
    assert "Spark needs Java 17 or newer (Debian: apt-get install" in result.stdout
    assert "Error: convert_flights: failed" in result.stderr
    assert len(events) == 12


def test_a_missing_source_stops_its_branch_with_one_clear_error(
    tmp_path: Path, converted: Project
) -> None:
    """A failed run leaves the former data readable."""
    failed = converted.run(
        *("dagster", "asset", "materialize", "-m", "neurolake_dagster.definitions"),
        *("--select", "parquet/airlines"),
        check=False,
        NEUROLAKE_SOURCES__DIR=str(tmp_path),
    )
    assert failed.returncode != 0
    assert "expected airlines.csv or airlines.csv.zip in" in failed.stderr
    rows = duckdb.sql(f"from '{converted.data}/parquet/airlines/**/*.parquet'").fetchall()
    assert len(rows) == 16
