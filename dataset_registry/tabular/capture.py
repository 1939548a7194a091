"""Capturing the schema of a file: columns, row counts and statistics, by its format."""

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from dataset_registry.errors import InputError, UnreadableFile
from dataset_registry.model.reading import kind_of, options_of
from dataset_registry.model.schema import CAPTURE_RULE, ColumnStatistics, ComponentSchema, TableSchema
from dataset_registry.tabular import delimited, documents, formats, parquet, sniffed, spreadsheets
from dataset_registry.tabular.arrow import columns_of, scalar


def capture(path: Path, format: str) -> ComponentSchema | None:
    """The schema of the file at `path` (a spool or an object, see `sandbox`), None for plain bytes.

    Raises `UnreadableFile` for bytes that are not of the format, `InputError` for read options that do not fit them.
    """
    if format == formats.BINARY:
        return None
    kind = kind_of(format)
    if path.stat().st_size == 0:
        raise UnreadableFile(
            f"The file is empty: {_a(kind)} file has at least a header. Export it again, or commit it with "
            "format='binary' if it is meant to be empty."
        )
    if kind == "parquet":
        return ComponentSchema(format, (parquet.capture(path),))
    options = options_of(format)
    if kind == "excel":
        sheets = spreadsheets.read(path, options)
        return ComponentSchema(format, tuple(_capture_sheet(name, *found) for name, found in sheets.items()))
    return ComponentSchema(format, ((delimited if kind == "csv" else documents).capture(path, options),))


def read(path: Path, schema: ComponentSchema, sheet: str | None = None) -> pa.Table:
    """A file as an Arrow table with the columns that were captured.

    `sheet` is required if a spreadsheet has several. Raises `UnreadableFile`, `InputError`.
    """
    kind = kind_of(schema.format)
    if kind == "excel":
        return _read_sheet(path, schema, sheet)
    (table,) = schema.tables
    if table.source is None:
        return sniffed.read(path, schema.format, table.columns)
    return (delimited if kind == "csv" else documents).read(path, table)


def _read_sheet(path: Path, schema: ComponentSchema, sheet: str | None) -> pa.Table:
    captured = {str(table.name): table for table in schema.tables}
    if sheet is None and len(captured) > 1:
        raise InputError(
            f"The spreadsheet has several sheets: {', '.join(captured)}. Name one: sheet={min(captured)!r}."
        )
    if sheet is not None and sheet not in captured:
        raise InputError(f"The spreadsheet has no sheet {sheet!r}, but: {', '.join(captured)}.", sheet=sheet)
    name = sheet if sheet is not None else next(iter(captured))
    options = options_of(schema.format)
    found = (
        spreadsheets.read_sniffed(path, name)
        if captured[name].source is None
        else spreadsheets.read(path, options)[name][0]
    )
    if columns_of(_undeclared(found.schema)) != captured[name].columns:
        raise UnreadableFile(
            f"The sheet {name!r} cannot be read with its captured columns. Get the file with open() or checkout(), and "
            "commit it again to capture it again."
        )
    return found


def _capture_sheet(name: str, table: pa.Table, notes: list[str]) -> TableSchema:
    statistics = {column: _statistics(table[column]) for column in table.column_names}
    columns = columns_of(_undeclared(table.schema))
    return TableSchema(name, columns, table.num_rows, statistics, source={"rule": CAPTURE_RULE}, notes=tuple(notes))


def _statistics(values: pa.ChunkedArray) -> ColumnStatistics:
    kind = values.type
    if pa.types.is_nested(kind) or pa.types.is_null(kind):
        return ColumnStatistics(values.null_count)
    if pa.types.is_duration(kind):  # Arrow has no order of them
        bounds = pc.min_max(values.cast(pa.int64())).as_py()
        low, high = (None if bound is None else pa.scalar(bound, kind).as_py() for bound in bounds.values())
    else:
        low, high = pc.min_max(values).as_py().values()
    return ColumnStatistics(values.null_count, scalar(low), scalar(high))


def _undeclared(schema: pa.Schema) -> pa.Schema:
    """Make all columns nullable: a sheet does not declare nullability."""
    return pa.schema([pa.field(field.name, field.type) for field in schema])


def _a(format: str) -> str:
    return f"an {format}" if format[0] in "aeiou" else f"a {format}"
