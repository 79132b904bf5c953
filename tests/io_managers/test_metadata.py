"""What a materialization says of itself, read back from the event log."""

import dagster as dg
import pyarrow as pa

from neurolake_dagster.io_managers.metadata import (
    SHOWN_COLUMNS,
    lineage_metadata,
    partitions_metadata,
    table_metadata,
)
from neurolake_dagster.tables.statistics import ColumnStatistics

SCHEMA = pa.schema(
    [
        pa.field("id", pa.int64(), nullable=False, metadata={"description": "Key"}),
        pa.field("mail", pa.string(), metadata={"pii": "true", "comment": "Address"}),
        pa.field("score", pa.float64()),
    ]
)


def materialize(metadata: dict[str, dg.MetadataValue]) -> dict[str, dg.MetadataValue]:
    """Round trip through a run's event log, as the UI reads it."""

    @dg.asset(name="t")
    def t() -> dg.MaterializeResult:
        return dg.MaterializeResult(metadata=metadata)

    with dg.DagsterInstance.ephemeral() as instance:
        assert dg.materialize([t], instance=instance).success
        event = instance.get_latest_materialization_event(dg.AssetKey("t"))
        assert event is not None
        assert event.asset_materialization is not None
        return dict(event.asset_materialization.metadata)


def test_the_standard_keys_are_those_of_dagster() -> None:
    found = materialize(
        table_metadata(
            uri="s3://b/t", schema=SCHEMA, row_count=7, partition_row_count=2, bytes=50,
            seconds=0.25, files=1, version=3, table_name="ncf.t", source_bytes=100,
        )
    )  # fmt: skip
    assert found["dagster/row_count"].value == 7
    assert found["dagster/partition_row_count"].value == 2
    assert found["dagster/table_name"].value == "ncf.t"
    assert found["dagster/uri"].value == "s3://b/t"
    assert [found[key].value for key in ("bytes", "files", "version")] == [50, 1, 3]
    assert found["seconds"].value == 0.25
    assert found["compression_ratio"].value == 2.0


def test_descriptions_come_from_the_asset_before_the_field() -> None:
    found = table_metadata(uri="/t", schema=SCHEMA, column_descriptions={"mail": "Their mail"})
    columns = {column.name: column for column in found["dagster/column_schema"].value.columns}
    assert columns["id"].description == "Key"
    assert columns["id"].constraints.nullable is False
    assert columns["mail"].description == "Their mail"
    assert columns["score"].description is None
    assert columns["score"].type == "double"


def test_a_preview_never_shows_columns_flagged_as_pii() -> None:
    rows = pa.table(
        {"id": [1, 2], "mail": ["ann@example.org", "bob"], "score": [float("nan"), 1.5]}
    )
    metadata = table_metadata(uri="/t", schema=SCHEMA, preview=rows, pii_columns=["id"])
    found = materialize(metadata)["preview"].value
    assert [record.data for record in found.records] == [{"score": "nan"}, {"score": 1.5}]
    assert "ann@" not in repr(found)


def test_a_column_with_a_field_about_persons_is_hidden_whole() -> None:
    """A struct's child that is flagged was shown in the preview."""
    mail = pa.field("mail", pa.string(), metadata={"ncf.pii": "true"})
    schema = pa.schema(
        [
            pa.field("person", pa.struct([mail])),
            pa.field("people", pa.list_(pa.struct([mail]))),
            pa.field("named", pa.struct([pa.field("mail", pa.string())])),
            pa.field("n", pa.int64()),
        ]
    )
    one = {"mail": "ann@x"}
    rows = pa.table({"person": [one], "people": [[one]], "named": [one], "n": [1]}, schema=schema)
    # The log's schema may have lost the flags that the rows have.
    metadata = table_metadata(
        uri="/t", schema=pa.schema([("n", pa.int64())]), preview=rows, pii_columns="named.mail"
    )
    (record,) = materialize(metadata)["preview"].value.records
    assert record.data == {"n": 1}


def test_meanings_and_persons_are_tags_of_the_column_schema() -> None:
    schema = pa.schema(
        [
            pa.field("mail", pa.string(), metadata={"ncf.semantic": "email", "ncf.pii": "true"}),
            pa.field("id", pa.int64(), metadata={"ncf.semantic": "not a tag!"}),
            pa.field("name", pa.string()),
        ]
    )
    found = table_metadata(uri="/t", schema=schema, pii_columns=["name"])
    columns = materialize(found)["dagster/column_schema"].value.columns
    tags = {column.name: dict(column.tags) for column in columns}
    assert tags == {"mail": {"pii": "", "semantic": "email"}, "id": {}, "name": {"pii": ""}}


def test_a_preview_casts_what_a_record_cannot_hold() -> None:
    rows = pa.table({"d": pa.array([1], pa.date32()), "l": [[1, 2]], "t": ["x" * 500], "b": [b"q"]})
    metadata = table_metadata(uri="/t", schema=rows.schema, preview=rows)
    (record,) = materialize(metadata)["preview"].value.records
    assert record.data["d"] == "1970-01-02"
    assert record.data["l"] == "[1, 2]"
    assert len(record.data["t"]) == 80
    assert record.data["b"] == "1 bytes"


def test_lineage_is_there_for_tools_and_for_people() -> None:
    source = dg.AssetKey(["ncf", "flights"])
    metadata = lineage_metadata({"day": [(source, "year"), (source, "day")], "one": []})
    found = materialize(metadata)
    deps = found["dagster/column_lineage"].value.deps_by_column
    assert {dep.column_name for dep in deps["day"]} == {"year", "day"}
    assert "| `day` | `ncf/flights`.`year`, `ncf/flights`.`day` |" in found["column_lineage"].value


def test_of_many_partitions_the_first_are_shown() -> None:
    """A run of 1,000 partitions put 1,000 rows on each of 1,000 materializations: a minute."""
    rows = [{"partition": f"{number}", "rows": number} for number in range(1_000)]
    found = materialize(partitions_metadata(rows))["partitions"].value.records
    assert [record.data for record in found[:2]] == rows[:2]
    assert found[-1].data == {"partition": "980 more", "rows": None}
    assert len(found) == 21
    few = materialize(partitions_metadata(rows[:20]))["partitions"].value.records
    assert [record.data for record in few] == rows[:20]


def test_of_wide_tables_the_first_columns_are_shown() -> None:
    """2,000 columns of long texts took 2 MB of each materialization."""
    rows = pa.table({f"c{number}": ["x" * 200] * 5 for number in range(2000)})
    facts = [
        ColumnStatistics(
            name=field.name, type=field.type, minimum="x" * 200, maximum="y" * 200, null_count=0
        )
        for field in rows.schema
    ]
    found = table_metadata(uri="u", schema=rows.schema, preview=rows, statistics=facts)
    shown = materialize(found)
    preview, statistics = shown["preview"].value, shown["statistics"].value
    assert len(preview.records[0].data) == len(preview.schema.columns) == SHOWN_COLUMNS + 1
    assert preview.schema.columns[-1].name == "1,900 more columns"
    assert len(statistics.records) == SHOWN_COLUMNS + 1
    assert statistics.records[-1].data["column"] == "1,900 more"
    assert len(shown["dagster/column_schema"].value.columns) == 2000
