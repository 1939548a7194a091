"""Capturing schemas: what columns, what rows, what values a file has, read the way its format wants."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from dataset_registry.errors import InputError, RegistryError, UnreadableFile
from dataset_registry.model.schema import ColumnStatistics, ComponentSchema, TableSchema
from dataset_registry.tabular import formats, parquet, spreadsheets
from dataset_registry.tabular.arrow import columns_of, scalar
from dataset_registry.tabular.sandbox import identifier, literal, sandbox

MOST_COLUMNS = 4096
_DELIMITERS = ",;\t|"


def capture(path: Path, format: str) -> ComponentSchema | None:
    """The schema of the file at `path` (a spool or an object, see `sandbox`), None for plain bytes.

    Raises `UnreadableFile` for bytes that are not of the format.
    """
    if format == formats.BINARY:
        return None
    if path.stat().st_size == 0:
        raise UnreadableFile(
            f"The file is empty: {_a(format)} file has at least a header. Deliver it again, or commit it with "
            "format='binary' if it is meant to be empty."
        )
    if format == "parquet":
        return ComponentSchema(format, (parquet.capture(path),))
    if format == "excel":
        return ComponentSchema(
            format, tuple(_capture_arrow(name, table) for name, table in spreadsheets.read(path).items())
        )
    with sandbox(path) as connection:
        relation, facts = _typed(connection, path, format)
        statistics = {
            name: ColumnStatistics(facts[0] - facts[1 + 3 * i], scalar(facts[2 + 3 * i]), scalar(facts[3 + 3 * i]))
            for i, name in enumerate(relation.columns)
        }
        columns = columns_of(_arrow_schema(relation))
        return ComponentSchema(format, (TableSchema(None, columns, facts[0], statistics),))


def dataset(sources: Sequence[tuple[Sequence[Path], str]], sheet: str | None = None) -> ds.Dataset:
    """Files (paths, format) as one Arrow dataset in memory, with the columns of all of them.

    Only a Parquet table has several paths, its parts. Raises `UnreadableFile`, `InputError`.
    """
    tables = [
        parquet.scan([parquet.Source(path) for path in paths]).to_table()
        if format == "parquet"
        else read(paths[0], format, sheet)
        for paths, format in sources
    ]
    try:
        return ds.dataset(pa.concat_tables(tables, promote_options="permissive"))
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise InputError(f"These tables cannot become one: {error}. Read them one by one.") from error


def read(path: Path, format: str, sheet: str | None = None) -> pa.Table:
    """A file as an Arrow table with the types that were captured.

    `sheet` is due when a spreadsheet has several. Raises `UnreadableFile`, `InputError`.
    """
    if format == "excel":
        sheets = spreadsheets.read(path)
        if sheet is None and len(sheets) > 1:
            raise InputError(
                f"The spreadsheet has several sheets: {', '.join(sheets)}. Say which: sheet={min(sheets)!r}."
            )
        if sheet is not None and sheet not in sheets:
            raise InputError(f"The spreadsheet has no sheet {sheet!r}, but: {', '.join(sheets)}.", sheet=sheet)
        return sheets[sheet] if sheet is not None else next(iter(sheets.values()))
    if format == formats.BINARY:
        raise InputError("This component is plain bytes, not a table: use open() or checkout() instead of to_arrow().")
    with sandbox(path) as connection:
        return _typed(connection, path, format)[0].to_arrow_table()


def _arrow_schema(relation: duckdb.DuckDBPyRelation) -> pa.Schema:
    return relation.limit(0).to_arrow_table().schema


def _typed(
    connection: duckdb.DuckDBPyConnection, path: Path, format: str
) -> tuple[duckdb.DuckDBPyRelation, tuple[Any, ...]]:
    """The file as a relation whose types hold for all rows, and one pass of facts over them: the number of rows, then
    per column the values that are not null, the smallest and the largest."""
    kind, encoding = formats.kind_of(format), formats.encoding_of(format)
    options = f", skip=0, comment='', encoding={literal(encoding or 'utf-8')}" if kind == "csv" else ""
    function = "read_csv" if kind == "csv" else "read_json"
    source = f"{function}({literal(str(path))}{options}"
    try:
        try:
            relation = connection.sql(f"FROM {source})")
            _refuse_ragged(connection, relation, source, kind)
            return relation, _facts(relation)
        except (duckdb.ConversionException, duckdb.InvalidInputException) as error:
            if kind == "csv" and not isinstance(error, duckdb.ConversionException):
                raise
            # Types come from a sample; a later value contradicts them. Look at everything.
            relation = connection.sql(f"FROM {source}, sample_size=-1)")
            return relation, _facts(relation)
    except duckdb.OutOfMemoryException as error:
        raise UnreadableFile(
            f"The {kind} file takes more memory to look into than it may: are its columns and lines what they seem to be? "
            "Deliver it in a simpler form (Parquet, say), or commit it with format='binary' to keep it as it is."
        ) from error
    except duckdb.Error as error:
        raise _unreadable(error, kind, encoding) from error


def _facts(relation: duckdb.DuckDBPyRelation) -> tuple[Any, ...]:
    if len(relation.columns) > MOST_COLUMNS:
        raise UnreadableFile(
            f"The file has {len(relation.columns):,} columns, and a table has at most {MOST_COLUMNS:,} here. Is its delimiter "
            "what it seems to be? Commit it with format='binary' to keep it as it is."
        )
    wanted = ["count(*)"]
    for name, kind in zip(relation.columns, relation.types, strict=True):
        column = identifier(name)
        ordered = kind.id not in ("struct", "list", "map", "array", "union", "json")
        wanted += [f"count({column})", *([f"min({column})", f"max({column})"] if ordered else ["NULL", "NULL"])]
    (row,) = relation.aggregate(", ".join(wanted)).fetchall()
    return tuple(row)


def _refuse_ragged(
    connection: duckdb.DuckDBPyConnection, relation: duckdb.DuckDBPyRelation, source: str, format: str
) -> None:
    """A CSV whose rows differ in length sniffs as one column that has the whole line in it."""
    if format != "csv" or len(relation.columns) != 1:
        return
    for delimiter in _DELIMITERS:
        if delimiter in relation.columns[0]:
            # Raises with the line that is wrong; where even that reads, the file has one column after all.
            names = dict.fromkeys(relation.columns[0].split(delimiter))
            columns = ", ".join(f"{literal(name)}: 'VARCHAR'" for name in names)
            options = f"delim={literal(delimiter)}, header=true, auto_detect=false, columns={{{columns}}}"
            _facts(connection.sql(f"FROM {source}, {options})"))


def _unreadable(error: duckdb.Error, format: str, encoding: str | None) -> RegistryError:
    text = str(error)
    reason = next((line.strip() for line in text.splitlines() if line.strip()), type(error).__name__)
    if format == "csv" and ("not utf-8" in text or "unicode" in text.lower()):
        return UnreadableFile(
            f"The CSV file is not encoded in {encoding or 'utf-8'}. Say what it is encoded in, "
            "for example encoding='latin-1' or encoding='utf-16'."
        )
    reason = re.sub(r'( in| when sniffing)? file ".*?"', "", reason.removeprefix("Invalid Input Error: ")).rstrip(".")
    if reason in ("", "Error"):
        reason = "it has no rows and columns"
    wrong = next((f", {line.strip().lower()}" for line in text.splitlines() if "Number of Columns" in line), "")
    return UnreadableFile(
        f"The {format} file cannot be read as a table ({reason}{wrong}). Mend it, or commit it with format='binary' to keep "
        "it as it is."
    )


def _capture_arrow(name: str, table: pa.Table) -> TableSchema:
    statistics = {}
    for column in table.column_names:
        values = table[column]
        bounds = {} if pa.types.is_nested(values.type) or pa.types.is_null(values.type) else pc.min_max(values).as_py()
        statistics[column] = ColumnStatistics(values.null_count, scalar(bounds.get("min")), scalar(bounds.get("max")))
    # A sheet declares nothing: that no cell is empty today is a fact of its rows, not of its schema.
    schema = pa.schema([pa.field(field.name, field.type) for field in table.schema])
    return TableSchema(name, columns_of(schema), table.num_rows, statistics)


def _a(format: str) -> str:
    return f"an {format}" if format[0] in "aeiou" else f"a {format}"
