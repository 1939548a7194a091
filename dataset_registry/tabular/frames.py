"""Tables for the libraries that people work in; each is imported when it is asked for."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dataset_registry.errors import InputError

if TYPE_CHECKING:
    import duckdb
    import pandas
    import polars
    import pyarrow as pa


def to_pandas(table: "pa.Table") -> "pandas.DataFrame":
    """An Arrow table as a pandas frame."""
    try:
        return table.to_pandas()
    except ImportError as error:
        raise _missing("pandas") from error


def to_polars(table: "pa.Table") -> "polars.DataFrame":
    """An Arrow table as a polars frame."""
    frame: polars.DataFrame = _polars().from_arrow(table)
    return frame


def scan_polars(paths: Sequence[Path], *, alike: bool = True) -> "polars.LazyFrame":
    """A LazyFrame over Parquet files, in order; those that are not `alike` are brought to common columns."""
    library = _polars()
    if alike:
        frame: polars.LazyFrame = library.scan_parquet(list(paths), glob=False)
    else:
        frame = library.concat([library.scan_parquet(path, glob=False) for path in paths], how="diagonal_relaxed")
    return frame


def scan_duckdb(
    paths: Sequence[Path], connection: "duckdb.DuckDBPyConnection | None" = None, *, alike: bool = True
) -> "duckdb.DuckDBPyRelation":
    """A DuckDB relation over Parquet files, in order; those that are not `alike` are brought to common columns."""
    import duckdb

    from dataset_registry.tabular.sandbox import literal

    listed = ", ".join(literal(str(path)) for path in paths)
    return (connection or duckdb).sql(f"FROM read_parquet([{listed}], union_by_name = {not alike})")


def _polars() -> Any:
    try:
        import polars
    except ImportError as error:
        raise _missing("polars") from error
    return polars


def _missing(extra: str) -> InputError:
    return InputError(f"This needs {extra}: pip install 'dataset-registry[{extra}]'.", extra=extra)
