"""Tables for the libraries that people work in; each is imported when it is asked for."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from dataset_registry.errors import InputError
from dataset_registry.tabular import convert
from dataset_registry.tabular.arrow import FRAME, POLARS_TYPE

if TYPE_CHECKING:
    import duckdb
    import pandas
    import polars


def to_pandas(table: pa.Table) -> "pandas.DataFrame":
    """An Arrow table as a pandas frame, with the index, the dtypes and the column labels of the frame that it was.

    A column of integers with nulls that a float would change is of pandas' nullable dtype.
    """
    try:
        import pandas
    except ImportError as error:
        raise _missing("pandas") from error
    frame: pandas.DataFrame = _for_pandas(table).to_pandas()
    facts = json.loads((table.schema.metadata or {}).get(FRAME, b"{}"))
    if "columns" in facts:
        frame.columns = pandas.CategoricalIndex(frame.columns, name=frame.columns.name, **facts["columns"])
    return frame


_EXACT = 1 << 53


def _for_pandas(table: pa.Table) -> pa.Table:
    """The table with pandas metadata that keep integers integers."""
    facts = json.loads((table.schema.metadata or {}).get(b"pandas", b"{}"))
    known = {column.get("field_name"): column for column in facts.get("columns", [])}
    wide = []
    for field, values in zip(table.schema, table.columns, strict=True):
        if not pa.types.is_integer(field.type) or not values.null_count:
            continue
        if str(known.get(field.name, {}).get("numpy_type", ""))[:1].isupper():
            continue
        bounds = [bound.as_py() for bound in pc.min_max(values).values()]
        if any(bound is not None and abs(bound) > _EXACT for bound in bounds):
            wide.append(field)
    if not wide:
        return table
    for field in wide:
        dtype = ("UI" if pa.types.is_unsigned_integer(field.type) else "I") + f"nt{field.type.bit_width}"
        known[field.name] = {
            "name": field.name,
            "field_name": field.name,
            "pandas_type": str(field.type),
            "numpy_type": dtype,
            "metadata": None,
        }
    facts = {
        "index_columns": [],
        "column_indexes": [],
        "pandas_version": "2.0.0",
        **facts,
        "columns": list(known.values()),
    }
    return table.replace_schema_metadata({**(table.schema.metadata or {}), b"pandas": json.dumps(facts).encode()})


def with_labels(columns: Sequence[str], writer: pa.Schema | None) -> list[str]:
    """Columns with those behind them that are the row labels of a pandas frame."""
    facts = json.loads(((writer.metadata or {}) if writer is not None else {}).get(b"pandas", b"{}"))
    labels = [label for label in facts.get("index_columns", []) if isinstance(label, str)]
    return [*columns, *(label for label in labels if label not in columns)]


def to_polars(table: pa.Table) -> "polars.DataFrame":
    """An Arrow table as a polars frame. Time zones that are fixed offsets, which polars does not have, are UTC there."""
    library = _polars()
    frame: polars.DataFrame = library.from_arrow(_for_polars(table))
    wide = {
        field.name: getattr(library, field.metadata[POLARS_TYPE].decode())
        for field in table.schema
        if field.metadata and POLARS_TYPE in field.metadata
    }
    return frame.cast(wide) if wide else frame


_OFFSET = re.compile(r"[+-][0-9]{2}:?[0-9]{2}")


def _for_polars(table: pa.Table) -> pa.Table:
    for position, field in enumerate(table.schema):
        kind = _in_utc(field.type)
        if kind != field.type:
            table = table.set_column(position, field.with_type(kind), convert.column(table.column(position), kind))
    return table


def _in_utc(kind: pa.DataType) -> pa.DataType:
    """The type with UTC for a time zone that is a fixed offset."""
    if pa.types.is_timestamp(kind) and kind.tz is not None and _OFFSET.fullmatch(kind.tz):
        return pa.timestamp(kind.unit, "UTC")
    return kind


def scan_polars(runs: Sequence[Sequence[Path]], target: pa.Table, *, as_stored: bool) -> "polars.LazyFrame":
    """A LazyFrame over Parquet files in runs of the same columns, in order, with the columns and types of an empty table."""
    library = _polars()
    wanted = to_polars(target).schema
    found = []
    for paths in runs:
        frame = library.scan_parquet(list(paths), glob=False)
        stored = frame.collect_schema()
        casts = [
            (library.col(name) if name in stored else library.lit(None)).cast(kind).alias(name)
            for name, kind in wanted.items()
            if stored.get(name) != kind
        ]
        if casts:
            frame = frame.with_columns(casts)
        found.append(frame if as_stored else frame.select(list(wanted)))
    lazy: polars.LazyFrame = found[0] if len(found) == 1 else library.concat(found)
    return lazy


def scan_duckdb(
    runs: Sequence[Sequence[Path]], plain: pa.Schema, connection: "duckdb.DuckDBPyConnection | None" = None
) -> "duckdb.DuckDBPyRelation":
    """A DuckDB relation over Parquet files in runs of the same columns, in order."""
    import duckdb

    from dataset_registry.tabular.sandbox import identifier, literal

    folded: dict[str, str] = {}
    for name in plain.names:
        if (other := folded.setdefault(name.casefold(), name)) != name:
            raise InputError(
                f"DuckDB takes the columns {other!r} and {name!r} for the same. Read the table with to_arrow(), or rename one."
            )
    engine = connection or duckdb
    sources = [f"read_parquet([{', '.join(literal(str(path)) for path in paths)}])" for paths in runs]
    if len(sources) == 1:
        return engine.sql(f"FROM {sources[0]}")
    types = duckdb.from_arrow(plain.empty_table()).types
    parts = []
    for source in sources:
        have = set(engine.sql(f"FROM {source} LIMIT 0").columns)
        columns = (
            f"CAST({identifier(name) if name in have else 'NULL'} AS {type}) AS {identifier(name)}"
            for name, type in zip(plain.names, types, strict=True)
        )
        parts.append(f"SELECT {', '.join(columns)} FROM {source}")
    return engine.sql(" UNION ALL ".join(parts))


def _polars() -> Any:
    try:
        import polars
    except ImportError as error:
        raise _missing("polars") from error
    return polars


def _missing(extra: str) -> InputError:
    return InputError(f"This needs {extra}: pip install 'dataset-registry[{extra}]'.", extra=extra)
