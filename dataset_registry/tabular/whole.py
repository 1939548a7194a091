"""Reading several components as one table, in memory or lazily, with the same columns, types and labels."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from dataset_registry.errors import InputError
from dataset_registry.model.schema import ComponentSchema, TableSchema
from dataset_registry.tabular import capture, combine, convert, duckdb_relations, polars_frames, writer
from dataset_registry.tabular.arrow import plain_schema
from dataset_registry.tabular.parquet import INT96_UNIT

if TYPE_CHECKING:
    import duckdb
    import polars


@dataclass(frozen=True, slots=True)
class WholeTable:
    """Components combined to one table. `plain` are the stored columns, None if those of the first file apply; `writer`
    is the schema of their writer."""

    plain: pa.Schema | None
    writer: pa.Schema | None
    members: Sequence[ComponentSchema] = ()
    sheet: str | None = None

    @classmethod
    def alike(cls, captured: ComponentSchema | None) -> "WholeTable":
        """Of components that were captured alike."""
        kept = captured.tables[0].user_types if captured and captured.tables else None
        return cls(None, writer.schema_of(kept))

    @classmethod
    def of(cls, members: Sequence[tuple[str, ComponentSchema]], sheet: str | None = None) -> "WholeTable":
        """Of components with these labels. Raises `InputError` where they cannot be one table."""
        found = combine.combine([(label, _table(label, schema, sheet)) for label, schema in members])
        return cls(found.plain, found.writer, [schema for _, schema in members], sheet)

    def gathered(self, files: Iterable[tuple[int, Path]]) -> ds.Dataset:
        """Files, each with the number of its component, as one table in memory. Raises `UnreadableFile`."""
        assert self.plain is not None, "only components that are all Parquet are read as they are"
        tables = [pa.schema([pa.field(f.name, f.type) for f in self.plain]).empty_table()]
        for member, path in files:
            schema = self.members[member]
            if schema.format == "parquet":
                table = pq.read_table(path, coerce_int96_timestamp_unit=INT96_UNIT)
            else:
                table = capture.read(path, schema, self.sheet)
            tables.append(_with_columns(table, self.plain))
        return ds.dataset(pa.concat_tables(tables))

    def lazy(self, files: Sequence[Sequence[Path]]) -> "LazyTable":
        """The Parquet files of the components, in order."""
        if self.plain is None:
            with pq.ParquetFile(files[0][0], coerce_int96_timestamp_unit=INT96_UNIT) as first:
                plain = plain_schema(first.schema_arrow)
            return LazyTable([[path for paths in files for path in paths]], plain, self.writer)
        members = [
            (paths, schema) for paths, schema in zip(files, self.members, strict=True) if schema.tables[0].columns
        ]
        by_schema = groupby(members or zip(files, self.members, strict=True), key=lambda found: found[1].to_json())
        runs = [[path for paths, _ in run for path in paths] for _, run in by_schema]
        return LazyTable(runs, self.plain, self.writer)


def _table(label: str, schema: ComponentSchema, sheet: str | None) -> TableSchema:
    if len(schema.tables) == 1 and sheet is None:
        return schema.tables[0]
    names = [str(table.name) for table in schema.tables]
    if sheet is None:
        raise InputError(
            f"The spreadsheet {label!r} has several sheets: {', '.join(names)}. Name one: sheet={names[0]!r}."
        )
    if sheet not in names:
        raise InputError(f"The spreadsheet {label!r} has no sheet {sheet!r}, but: {', '.join(names)}.", sheet=sheet)
    return schema.tables[names.index(sheet)]


def _with_columns(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """The table with the columns and types of a schema that has all of its values; a column that it lacks is null."""
    columns = []
    for wanted in schema:
        at = table.schema.get_field_index(wanted.name)
        if at < 0 or table.column(at).null_count == table.num_rows:
            columns.append(pa.chunked_array([pa.nulls(table.num_rows, wanted.type)]))
        else:
            columns.append(convert.column(table.column(at), wanted.type))
    return pa.Table.from_arrays(columns, schema=pa.schema([pa.field(f.name, f.type) for f in schema]))


@dataclass(frozen=True, slots=True)
class LazyTable:
    """Parquet files in runs of the same columns, with the columns that all of them become."""

    runs: Sequence[Sequence[Path]]
    plain: pa.Schema
    writer: pa.Schema | None

    def to_polars(self) -> "polars.LazyFrame":
        """A LazyFrame with the types that an eager read gives."""
        return polars_frames.scan_polars(self.runs, self._target(), as_stored=len(self.runs) == 1)

    def to_duckdb(self, connection: "duckdb.DuckDBPyConnection | None" = None) -> "duckdb.DuckDBPyRelation":
        """A relation with the stored types. Raises `InputError` for names that DuckDB takes for the same."""
        return duckdb_relations.scan_duckdb(self.runs, self.plain, connection)

    def _target(self) -> pa.Table:
        return writer.restored(self.plain.empty_table(), self.writer)
