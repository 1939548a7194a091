"""Reading CSV and JSON files of older captures, whose types came from DuckDB's sniffer."""

from collections.abc import Sequence
from pathlib import Path

import duckdb
import pyarrow as pa

from dataset_registry.errors import UnreadableFile
from dataset_registry.model.reading import kind_of, options_of
from dataset_registry.model.schema import Column
from dataset_registry.tabular.arrow import columns_of, type_of
from dataset_registry.tabular.sandbox import literal, sandbox


def read(path: Path, format: str, columns: Sequence[Column]) -> pa.Table:
    """The rows of a file with the columns that were captured. Raises `UnreadableFile` where the sniffer sees others now."""
    kind, encoding = kind_of(format), options_of(format).encoding
    options = f", skip=0, comment='', encoding={literal(encoding or 'utf-8')}" if kind == "csv" else ""
    source = f"{'read_csv' if kind == 'csv' else 'read_json'}({literal(str(path))}{options}"
    with sandbox(path) as connection:
        try:
            table = _first_that_fits(connection, source, columns)
        except duckdb.Error as error:
            raise UnreadableFile(
                f"The {kind} file cannot be read as a table ({str(error).splitlines()[0]})."
            ) from error
    if table is None:
        raise UnreadableFile(
            f"This {kind} file was captured by an earlier version of the registry and can no longer be read with its captured "
            "columns. Get the file with open() or checkout(), and commit it again to capture it again."
        )
    return table


def _first_that_fits(connection: duckdb.DuckDBPyConnection, source: str, columns: Sequence[Column]) -> pa.Table | None:
    """As it was: types from a sample, and where a later value contradicts them, from everything. Where a later version of
    DuckDB sees other types, those that were captured are told to it."""
    plain = pa.schema([pa.field(column.name, type_of(column)) for column in columns])
    types = duckdb.from_arrow(plain.empty_table()).types
    told = ", ".join(f"{literal(name)}: '{kind}'" for name, kind in zip(plain.names, types, strict=True))
    for ending in (")", ", sample_size=-1)", f", {'columns' if 'read_json' in source else 'types'}={{{told}}})"):
        try:
            table = connection.sql(f"FROM {source}{ending}").to_arrow_table()
        except (duckdb.ConversionException, duckdb.BinderException):
            continue
        if [(c.name, c.type) for c in columns_of(table.schema)] == [(c.name, c.type) for c in columns]:
            return table
    return None
