"""DuckDB relations: checks before conversion to Arrow, and relations over stored files."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from dataset_registry.errors import InputError, UnsupportedType
from dataset_registry.tabular import convert
from dataset_registry.tabular.sandbox import identifier, literal

if TYPE_CHECKING:
    import duckdb


def refuse_lossy_types(relation: Any) -> None:
    """Raise `UnsupportedType` for types of DuckDB that it hands over to Arrow as others."""
    for name, kind in zip(getattr(relation, "columns", ()), getattr(relation, "types", ()), strict=True):
        if found := _LOSSY.search(str(kind)):
            raise UnsupportedType(
                f"Column {name!r} is of DuckDB's type {found[0]}, which Arrow does not have. Cast it, to VARCHAR for example."
            )


_LOSSY = re.compile(r"\b(UHUGEINT|TIME WITH TIME ZONE|BIT|BIGNUM|VARINT|VARIANT|INTERVAL|UNION)\b")


def scan_duckdb(
    runs: Sequence[Sequence[Path]], plain: pa.Schema, connection: "duckdb.DuckDBPyConnection | None" = None
) -> "duckdb.DuckDBPyRelation":
    """A DuckDB relation over Parquet files in runs of the same columns, in order."""
    import duckdb

    folded: dict[str, str] = {}
    for name in plain.names:
        if (other := folded.setdefault(name.casefold(), name)) != name:
            raise InputError(
                f"DuckDB does not distinguish the columns {other!r} and {name!r}. Read the table with to_arrow(), or rename one."
            )
    if not plain.names:
        raise InputError("DuckDB has no tables without columns: read it with to_arrow().")
    for field in plain:
        _refuse_in_duckdb(field.type, field.name)
    engine = connection or duckdb
    sources = [f"read_parquet([{', '.join(literal(str(path)) for path in paths)}])" for paths in runs]
    spans = {field.name: _MICROSECONDS[field.type.unit] for field in plain if pa.types.is_duration(field.type)}
    if len(sources) == 1 and not spans:
        return engine.sql(f"FROM {sources[0]}")
    types = duckdb.from_arrow(plain.empty_table()).types
    parts = []
    for source in sources:
        have = set(engine.sql(f"FROM {source} LIMIT 0").columns)
        columns = []
        for name, type in zip(plain.names, types, strict=True):
            value = identifier(name) if name in have else "NULL"
            cast = _interval(value, spans[name]) if name in spans else f"CAST({value} AS {type})"
            columns.append(f"{cast} AS {identifier(name)}")
        parts.append(f"SELECT {', '.join(columns)} FROM {source}")
    return engine.sql(" UNION ALL ".join(parts))


def _interval(count: str, microseconds: int) -> str:
    """A count of this many microseconds each as an interval of days and the rest, which what reads it may count in
    nanoseconds."""
    whole = f"(CAST({count} AS HUGEINT) * {microseconds})"
    return f"(to_days(CAST({whole} // {_DAY} AS INTEGER)) + to_microseconds(CAST({whole} % {_DAY} AS BIGINT)))"


_DAY = 86_400 * 10**6
_MICROSECONDS = {"s": 10**6, "ms": 10**3, "us": 1}


def _refuse_in_duckdb(kind: pa.DataType, name: str, *, is_inside: bool = False) -> None:
    """Raise `InputError` for a type that DuckDB reads as another."""
    what = None
    if pa.types.is_decimal256(kind):
        what = f"decimals of {kind.precision} digits"
    elif pa.types.is_duration(kind) and (is_inside or kind.unit == "ns"):
        what = "durations inside of other values" if is_inside else "durations in nanoseconds"
    if what is not None:
        raise InputError(f"DuckDB has no {what}: read {name!r} with to_arrow().", column=name)
    inner = [kind.key_type, kind.item_type] if pa.types.is_map(kind) else []
    inner += [field.type for field in kind.fields] if pa.types.is_struct(kind) else []
    inner += [kind.value_type] if convert.is_list(kind) else []
    for each in inner:
        _refuse_in_duckdb(each, name, is_inside=True)
