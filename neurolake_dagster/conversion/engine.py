"""Carries out a conversion plan: one streamed pass, one commit.

Owns the pass and its result. Rows go as Arrow batches from the source's files to the target's
staged files; the target changes only by the commit at the end.
"""

import dataclasses
import time
from collections.abc import Iterator

import pyarrow as pa

from neurolake_dagster.conversion.parity import Profiler, TableProfile
from neurolake_dagster.conversion.plan import ConversionPlan, Written
from neurolake_dagster.errors import ConversionError


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConversionResult:
    """What a conversion did. Sizes are of the committed files, in bytes.

    `profile` is of the rows on their way from source to target.
    """

    source: Written
    target: Written
    profile: TableProfile
    seconds: float

    @property
    def schema(self) -> pa.Schema:
        """The source's schema."""
        return self.profile.schema

    @property
    def row_count(self) -> int:
        """How many rows were converted."""
        return self.profile.row_count

    @property
    def size_ratio(self) -> float:
        """The target's bytes by the source's; below 1 the target is smaller."""
        return self.target.bytes / self.source.bytes if self.source.bytes else 1.0


def convert(plan: ConversionPlan, properties: dict[str, str] | None = None) -> ConversionResult:
    """Convert the source's newest version and commit it as the target's next.

    Parameters
    ----------
    properties
        Kept with the commit, for example the run's id.

    Raises
    ------
    TableNotFoundError
        If the source does not exist.
    ConversionError
        If the target's format cannot hold a column as it is, or the committed rows are not
        as many as were read.
    """
    started = time.perf_counter()
    source = plan.source.written()
    reader = plan.source.scan(source.version)
    plan.check(reader.schema)
    profiler = Profiler(reader.schema)
    passing = pa.RecordBatchReader.from_batches(reader.schema, _profiled(reader, profiler))
    target = plan.target.write(passing, properties)
    profile = profiler.result()
    if target.row_count is not None and target.row_count != profile.row_count:
        raise ConversionError(
            f"{plan.target.uri}: {profile.row_count} rows were written, "
            f"version {target.version} holds {target.row_count}"
        )
    return ConversionResult(
        source=source,
        target=target,
        profile=profile,
        seconds=time.perf_counter() - started,
    )


def _profiled(reader: pa.RecordBatchReader, profiler: Profiler) -> Iterator[pa.RecordBatch]:
    for batch in reader:
        profiler.update(batch)
        yield batch
