"""CSV as rows with types."""

from pathlib import Path

import pyarrow.csv as pa_csv


def open_csv(path: Path) -> pa_csv.CSVStreamingReader:
    """Open a CSV file with a header; values in quotes may hold line breaks."""
    return pa_csv.open_csv(path, parse_options=pa_csv.ParseOptions(newlines_in_values=True))
