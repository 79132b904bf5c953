"""Parity: the proof that source and target of a conversion hold the same rows.

Owns profiles (one streamed pass over each side: rows, nulls, a digest per column) and their
comparison. Row order does not count, what stands together in a row does.
"""

import dataclasses
from collections.abc import Sequence
from typing import Literal

import numpy as np
import pyarrow as pa
import xxhash

from neurolake_dagster.conversion.digest import Hashes, count_nulls, fold, hash_values
from neurolake_dagster.errors import ParityError
from neurolake_dagster.tables.schemas import column_texts

Aspect = Literal["row_count", "schema", "nulls", "digest"]
ASPECTS: tuple[Aspect, ...] = ("row_count", "schema", "nulls", "digest")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TableProfile:
    """What one pass over a table's rows yields.

    `digests` holds, for each column, the sum modulo 2**64 of its values' hashes; `row_digest`
    the same over whole rows. Both are independent of row order and of batch sizes.
    """

    schema: pa.Schema
    row_count: int
    null_counts: dict[str, int]
    digests: dict[str, int]
    row_digest: int

    def digest(self) -> str:
        """What stands for the rows and their columns' names and types, in hexadecimal."""
        told = [*column_texts(self.schema), str(self.row_count), str(self.row_digest)]
        return xxhash.xxh3_128_hexdigest("\n".join(told).encode())


@dataclasses.dataclass(frozen=True, kw_only=True)
class AspectResult:
    """One compared aspect: `differences` is empty when it is equal on both sides."""

    aspect: Aspect
    source: str
    target: str
    differences: tuple[str, ...]

    @property
    def is_equal(self) -> bool:
        """Whether both sides agree."""
        return not self.differences


@dataclasses.dataclass(frozen=True, kw_only=True)
class ParityReport:
    """The four aspects of parity, in the order of `ASPECTS`."""

    source: TableProfile
    target: TableProfile
    results: tuple[AspectResult, ...]

    @property
    def is_equal(self) -> bool:
        """Whether every aspect is equal."""
        return all(result.is_equal for result in self.results)

    def require(self, where: str) -> None:
        """Raise `ParityError` naming every difference, unless all is equal."""
        found = [text for result in self.results for text in result.differences]
        if found:
            raise ParityError(f"{where}: source and target differ: {'; '.join(found)}")


def profile(reader: pa.RecordBatchReader) -> TableProfile:
    """Read a stream of rows to its end and profile it; memory is one batch's."""
    profiler = Profiler(reader.schema)
    for batch in reader:
        profiler.update(batch)
    return profiler.result()


class Profiler:
    """Profiles rows on their way."""

    def __init__(self, schema: pa.Schema) -> None:
        self.row_count = 0
        self._schema = schema
        self._null_counts = dict.fromkeys(schema.names, 0)
        self._digests = dict.fromkeys(schema.names, 0)
        self._row_digest = 0

    def update(self, batch: pa.RecordBatch) -> None:
        """Take more rows."""
        hashes = {name: hash_values(batch.column(name)) for name in self._schema.names}
        for name, values in hashes.items():
            self._null_counts[name] += count_nulls(batch.column(name))
            self._digests[name] = _sum(self._digests[name], values)
        rows = fold([hashes[name] for name in sorted(hashes)], batch.num_rows)
        self._row_digest = _sum(self._row_digest, rows)
        self.row_count += batch.num_rows

    def result(self) -> TableProfile:
        """The profile of all rows that were taken."""
        return TableProfile(
            schema=self._schema,
            row_count=self.row_count,
            null_counts=dict(self._null_counts),
            digests=dict(self._digests),
            row_digest=self._row_digest,
        )


def _sum(total: int, hashes: Hashes) -> int:
    return (total + int(hashes.sum(dtype=np.uint64))) % 2**64


def compare(
    source: TableProfile, target: TableProfile, changed_files: Sequence[str] = ()
) -> ParityReport:
    """Compare two profiles aspect by aspect.

    Parameters
    ----------
    changed_files
        Of the target, in words: a profile has the log's schema, whatever the files hold.
    """
    shared = [name for name in source.schema.names if name in target.digests]
    rows = _row_count_differences(source, target)
    nulls = [
        f"column {name!r}: {source.null_counts[name]} nulls became {target.null_counts[name]}"
        for name in shared
        if source.null_counts[name] != target.null_counts[name]
    ]
    digests = _digest_differences(source, target, shared)
    results = (
        _aspect("row_count", str(source.row_count), str(target.row_count), rows),
        _aspect(
            "schema",
            f"{len(source.schema)} columns",
            f"{len(target.schema)} columns",
            [*_schema_differences(source.schema, target.schema), *changed_files],
        ),
        _aspect(
            "nulls",
            f"{sum(source.null_counts.values())} nulls",
            f"{sum(target.null_counts.values())} nulls",
            nulls,
        ),
        _aspect("digest", f"{source.row_digest:016x}", f"{target.row_digest:016x}", digests),
    )
    return ParityReport(source=source, target=target, results=results)


def _aspect(aspect: Aspect, source: str, target: str, differences: list[str]) -> AspectResult:
    return AspectResult(aspect=aspect, source=source, target=target, differences=tuple(differences))


def _row_count_differences(source: TableProfile, target: TableProfile) -> list[str]:
    if source.row_count == target.row_count:
        return []
    return [f"{source.row_count} rows became {target.row_count}"]


def _digest_differences(source: TableProfile, target: TableProfile, shared: list[str]) -> list[str]:
    found = [
        f"column {name!r}: digest {source.digests[name]:016x} became {target.digests[name]:016x}"
        for name in shared
        if source.digests[name] != target.digests[name]
    ]
    is_comparable = set(source.digests) == set(target.digests)
    if is_comparable and not found and source.row_digest != target.row_digest:
        found = ["each column holds the same values, but in other rows"]
    return found


def _schema_differences(source: pa.Schema, target: pa.Schema) -> list[str]:
    """Compare names, order and logical types; see `logical_type`."""
    if source.names != target.names:
        missing = [name for name in source.names if name not in target.names]
        added = [name for name in target.names if name not in source.names]
        if missing or added:
            return [f"columns missing {missing}, added {added}"]
        return [f"column order {source.names} became {target.names}"]
    return [
        f"column {field.name!r}: {field.type} became {target.field(field.name).type}"
        for field in source
        if logical_type(field.type) != logical_type(target.field(field.name).type)
    ]


def logical_type(kind: pa.DataType) -> pa.DataType:
    """The type without what is only layout: large and view forms, dictionary, child names."""
    if isinstance(kind, pa.BaseExtensionType):
        return logical_type(kind.storage_type)
    if pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind):
        return logical_type(kind.value_type)
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind):
        return pa.binary()
    if pa.types.is_map(kind):
        return pa.map_(logical_type(kind.key_type), logical_type(kind.item_type))
    if pa.types.is_struct(kind):
        return pa.struct([(field.name, logical_type(field.type)) for field in kind])
    if (
        pa.types.is_list(kind)
        or pa.types.is_large_list(kind)
        or pa.types.is_list_view(kind)
        or pa.types.is_large_list_view(kind)
    ):
        return pa.list_(pa.field("element", logical_type(kind.value_type)))
    return kind
