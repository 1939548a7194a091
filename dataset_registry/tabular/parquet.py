"""Tables as Parquet parts: the same rows are the same bytes, whoever wrote them and in whatever batches they came.

A table becomes one or more parts of at most `PART_ROWS` rows in row groups of `GROUP_ROWS`; each row group is written
from one combined chunk with plain types. Every part is a Parquet file that any engine reads. A newer pyarrow may write
other bytes for the same rows: its version stands in each file (`created_by`).
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from dataset_registry.errors import UnreadableFile, UnsupportedType
from dataset_registry.model.schema import ColumnStatistics, ComponentSchema, TableSchema
from dataset_registry.tabular.arrow import columns_of, plain_batches, plain_schema, scalar, user_types, with_user_types

GROUP_ROWS = 1 << 18
PART_ROWS = 1 << 21

WritePart = Callable[[Callable[[BinaryIO], object]], Path]
"""Gives a writer a fresh sink and returns where its bytes are."""


def write_parts(reader: pa.RecordBatchReader, write_part: WritePart) -> tuple[list[int], TableSchema]:
    """Write a stream as parts, each through one call of `write_part`; the rows of each part and the table's schema.

    Holds one row group in memory. Raises `UnsupportedType`.
    """
    schema = plain_schema(reader.schema)
    categories: dict[str, pa.Array] = {}
    groups = _row_groups(plain_batches(reader, schema, categories))
    facts = _Facts()
    rows: list[int] = []
    pending = next(groups, schema.empty_table())
    while pending is not None:
        first = pending
        path = write_part(partial(_write_part, schema, first, groups, rows))
        facts.add(pq.read_metadata(path))
        pending = next(groups, None)
    return rows, TableSchema(
        None, columns_of(schema), sum(rows), facts.statistics(), user_types(reader.schema, categories)
    )


def _write_part(schema: pa.Schema, first: pa.Table, more: Iterator[pa.Table], rows: list[int], sink: BinaryIO) -> None:
    """Write one part: `first` and as many more row groups as fit; appends how many rows that were to `rows`."""
    written = 0
    with _writer(sink, schema) as writer:
        for group in chain([first], islice(more, PART_ROWS // GROUP_ROWS - 1)):
            writer.write_table(group, row_group_size=GROUP_ROWS)
            written += group.num_rows
    rows.append(written)


def _writer(sink: BinaryIO, schema: pa.Schema) -> pq.ParquetWriter:
    try:
        return pq.ParquetWriter(sink, schema, version="2.6", compression="snappy")
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid) as error:
        raise UnsupportedType(f"Parquet cannot hold this table: {error}. Convert the column it names.") from error


def _row_groups(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """The rows in combined tables of `GROUP_ROWS`, whatever batches they came in."""
    pending: list[pa.Table] = []
    count = 0
    for table in tables:
        rest = table
        while count + rest.num_rows >= GROUP_ROWS:
            head = rest.slice(0, GROUP_ROWS - count)
            yield pa.concat_tables([*pending, head]).combine_chunks()
            rest = rest.slice(GROUP_ROWS - count)
            pending, count = [], 0
        if rest.num_rows:
            pending.append(rest)
            count += rest.num_rows
    if pending:
        yield pa.concat_tables(pending).combine_chunks()


def scan(paths: Sequence[Path], *, alike: bool = True) -> ds.Dataset:
    """A lazy Arrow dataset over Parquet files, in order; nothing is copied or read yet.

    Files that are not `alike` are brought to common columns: a missing one is null, a narrower type is widened.
    """
    schema = None
    if not alike:
        schema = pa.unify_schemas([pq.read_schema(path) for path in paths], promote_options="permissive")
    return ds.dataset([str(path) for path in paths], format="parquet", schema=schema)


def capture(path: Path) -> TableSchema:
    """The schema and statistics of a Parquet file, from its footer. Raises `UnreadableFile`."""
    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
        raise UnreadableFile(
            f"This is not a whole Parquet file ({_first_line(error)}). Was it cut off while it was written or copied? "
            "Deliver it again, or commit it with format='binary'."
        ) from error
    with file:
        names = file.schema_arrow.names
        if len(set(names)) < len(names):
            raise UnreadableFile(
                "Columns of this Parquet file have the same name. Rename them, or commit it with format='binary'."
            )
        facts = _Facts()
        facts.add(file.metadata)
        return TableSchema(None, columns_of(file.schema_arrow), file.metadata.num_rows, facts.statistics())


def capture_table(paths: Sequence[Path], types: str | None) -> tuple[ComponentSchema, list[int]]:
    """The schema of a table in several Parquet files, and the rows of each, from their footers; `types` as in `TableSchema`.

    Raises `UnreadableFile` for a file that is no Parquet, or has other columns than the first.
    """
    found = [capture(path) for path in paths]
    if any(table.columns != found[0].columns for table in found):
        raise UnreadableFile(
            "The parts of this table have different columns. Send parts that were written as one table."
        )
    facts = _Facts()
    for path in paths:
        facts.add(pq.read_metadata(path))
    rows = [table.rows or 0 for table in found]
    schema = TableSchema(None, found[0].columns, sum(rows), facts.statistics(), types)
    try:
        with_user_types(pq.read_schema(paths[0]).empty_table(), schema)
    except (pa.ArrowException, ValueError, TypeError) as error:
        raise UnreadableFile(f"The types that came with this table do not fit it: {_first_line(error)}.") from error
    return ComponentSchema("parquet", (schema,)), rows


class _Facts:
    """Column statistics gathered from footers, row group by row group."""

    def __init__(self) -> None:
        self._columns: dict[str, dict[str, Any]] = {}

    def add(self, footer: pq.FileMetaData) -> None:
        names = set(footer.schema.to_arrow_schema().names)
        for group in range(footer.num_row_groups):
            row_group = footer.row_group(group)
            for index in range(row_group.num_columns):
                chunk = row_group.column(index)
                if chunk.path_in_schema not in names:
                    continue  # inside a nested column
                known = self._columns.setdefault(
                    chunk.path_in_schema, {"nulls": 0, "low": [], "high": [], "bounds": True}
                )
                if row_group.num_rows == 0:
                    continue
                statistics = chunk.statistics
                if statistics is None or not statistics.has_null_count or known["nulls"] is None:
                    known["nulls"] = None
                else:
                    known["nulls"] += statistics.null_count
                if (bounds := _bounds(statistics)) is not None:
                    known["low"].append(bounds[0])
                    known["high"].append(bounds[1])
                elif statistics is None or statistics.null_count != row_group.num_rows:
                    known["bounds"] = False  # a group whose bounds are not known: neither are the column's

    def statistics(self) -> dict[str, ColumnStatistics]:
        return {
            name: ColumnStatistics(
                facts["nulls"],
                scalar(min(facts["low"])) if facts["bounds"] and facts["low"] else None,
                scalar(max(facts["high"])) if facts["bounds"] and facts["high"] else None,
            )
            for name, facts in self._columns.items()
        }


def _bounds(statistics: Any) -> tuple[Any, Any] | None:
    """The smallest and largest value, None where the footer has none, or Python has no such value (the year 10,000)."""
    try:
        return (statistics.min, statistics.max) if statistics is not None and statistics.has_min_max else None
    except (OverflowError, ValueError, UnicodeDecodeError):
        return None


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
