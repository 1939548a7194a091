"""Type handlers: the types that an asset may return, and loaders for annotated inputs."""

import importlib
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dataset_registry.connection import Connection
from dataset_registry.dagster_io import engine_tables
from dataset_registry.errors import InputError, UnsupportedType
from dataset_registry.tabular.formats import is_table, library_of
from dataset_registry.version import Version

AS_STORED = "as stored"
LOAD_TYPES: Mapping[str, str] = {
    "pyarrow": "pyarrow.lib.Table",
    "pandas": "pandas.DataFrame",
    "polars": "polars.DataFrame",
    "duckdb": "duckdb.DuckDBPyRelation",
}
"""The types for inputs without an annotation, by the name of the library."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """The requested type of an input: one of `kinds` (empty: the default of the IO manager), or None if there is
    nothing to read (`is_optional`); with `is_mapping`, a dict of these by partition or component."""

    kinds: tuple[Any, ...] = ()
    is_optional: bool = False
    is_mapping: bool = False

    @property
    def is_unannotated(self) -> bool:
        """Whether there is no annotated type."""
        return not self.kinds and not self.is_mapping


def understood(kind: Any) -> Wanted:
    """Parse an annotation: `X`, `X | None`, unions, mappings and lists of them. Raises `UnsupportedType`."""
    origin = typing.get_origin(kind)
    if kind in (None, Any, list, type(None)) or kind is typing.List:  # noqa: UP006 - what Dagster makes of `list`
        return Wanted()
    if origin in (typing.Union, types.UnionType):
        members = [understood(member) for member in typing.get_args(kind) if member is not type(None)]
        is_optional = type(None) in typing.get_args(kind) or any(member.is_optional for member in members)
        if len(members) > 1 and any(member.is_mapping for member in members):
            raise UnsupportedType(
                f"An input cannot be either a dict or another type: {kind}. Annotate it as one of them."
            )
        return Wanted(tuple(k for member in members for k in member.kinds), is_optional, members[0].is_mapping)
    if origin in (list, Sequence):  # a fan-in: Dagster asks once for each of the upstreams
        return understood(next(iter(typing.get_args(kind)), None))
    if isinstance(origin or kind, type) and issubclass(origin or kind, Mapping):
        arguments = typing.get_args(kind)
        return replace(understood(arguments[1] if len(arguments) == 2 else None), is_mapping=True)
    _known(kind)
    return Wanted((kind,))


class Loader:
    """Loads components of a version as the requested type of an input.

    `default` is the library for inputs without an annotation, or `as stored`; `columns` limits the columns to load.
    """

    def __init__(self, wanted: Wanted, default: str, columns: Sequence[str] | None, connection: Connection) -> None:
        self.wanted = wanted
        self._connection = connection
        self._default = default
        self._columns = list(columns) if columns is not None else None

    def load(self, version: Version, names: Sequence[str]) -> Any:
        """Components of these names, in their order, as one value."""
        kind = self._kind(version, names)
        known = _known(kind)
        if known in engine_tables.ENGINES:
            return engine_tables.loader(known)(version, names, self._columns, self._connection)
        value = _LOADERS[known](version, names, self._columns)
        is_subclass = isinstance(kind, type) and not isinstance(value, kind) and issubclass(kind, type(value))
        return kind(value) if is_subclass else value

    def nothing(self, version: Version | None) -> Any:
        """The value for an input without partitions: an empty table with the known columns, or None."""
        if self.wanted.is_mapping:
            return {}
        if self.wanted.is_optional or self.wanted.is_unannotated:
            return None
        import pyarrow as pa

        name = _known(self.wanted.kinds[0])
        tables = [c for c in version.components if c.format == "parquet"] if version is not None else []
        empty = version.to_arrow(tables[0].name).slice(0, 0) if version is not None and tables else pa.table({})
        if (make := _EMPTY.get(name)) is None:
            raise InputError(
                f"The input covers no partition, and there is no empty {name}. Annotate it as Optional[…], and it is None."
            )
        return make(empty)

    def _kind(self, version: Version, names: Sequence[str]) -> Any:
        """The type to load: of several, the one that the components were stored as."""
        kinds = self.wanted.kinds
        if len(kinds) == 1:
            return kinds[0]
        if kinds:
            stored = LOAD_TYPES[_stored_as(version, names)]
            return next((kind for kind in kinds if _known(kind) == stored), kinds[0])
        if any(component.format == "binary" for component in version.components if component.name in names):
            return Path
        return _resolved(LOAD_TYPES[_stored_as(version, names) if self._default == AS_STORED else self._default])


def _stored_as(version: Version, names: Sequence[str]) -> str:
    """The library of the frame that a component was, `pyarrow` for all else."""
    captured = version.captured(names[:1])
    libraries = {table.library for _, _, schema in captured for table in schema.tables}
    return next((str(name) for name in libraries if name in ("pandas", "polars")), "pyarrow")


# --- loading -------------------------------------------------------------------------------------------------------------

Columns = list[str] | None


def _path(version: Version, names: Sequence[str], columns: Columns) -> Path:
    paths = [path for name in names for path in version.paths(name)]
    if len(paths) != 1:
        raise InputError(
            f"{version} has {len(paths)} files here, and a Path is one. Annotate the input as dict[str, Path], or as a table."
        )
    return paths[0]


def _bytes(version: Version, names: Sequence[str], columns: Columns) -> bytes:
    with version.open(names[0] if len(names) == 1 else None) as stream:
        return stream.read()


def _lazy(version: Version, names: Sequence[str], columns: Columns) -> Any:
    frame = version.lazy(names)
    return frame if columns is None else frame.select(columns)


def _relation(version: Version, names: Sequence[str], columns: Columns) -> Any:
    relation = version.to_duckdb(names)
    return relation if columns is None else relation.select(*columns)


_LOADERS: Mapping[str, Callable[[Version, Sequence[str], Columns], Any]] = {
    "pyarrow.lib.Table": lambda version, names, columns: version.to_arrow(names, columns=columns),
    "pyarrow.lib.RecordBatchReader": lambda version, names, columns: (
        version.scan(names).scanner(columns=columns).to_reader()
    ),
    "pyarrow._dataset.Dataset": lambda version, names, columns: version.scan(names),
    "pandas.DataFrame": lambda version, names, columns: version.to_pandas(names, columns=columns),
    "polars.DataFrame": lambda version, names, columns: version.to_polars(names, columns=columns),
    "polars.LazyFrame": _lazy,
    "duckdb.DuckDBPyRelation": _relation,
    "pathlib.Path": _path,
    "dataset_registry.version.Version": lambda version, names, columns: version,
    "builtins.bytes": _bytes,
}
"""Loaders by the full name of the type, so that a library is imported only when an asset uses it."""


def _empty_pandas(table: Any) -> Any:
    from dataset_registry.tabular import pandas_frames

    return pandas_frames.to_pandas(table)


def _empty_polars(table: Any) -> Any:
    from dataset_registry.tabular import polars_frames

    return polars_frames.to_polars(table)


_EMPTY: Mapping[str, Callable[[Any], Any]] = {
    "pyarrow.lib.Table": lambda table: table,
    "pyarrow.lib.RecordBatchReader": lambda table: table.to_reader(),
    "pandas.DataFrame": _empty_pandas,
    "polars.DataFrame": _empty_polars,
    "polars.LazyFrame": lambda table: _empty_polars(table).lazy(),
}


def _known(kind: Any) -> str:
    """The name of the loader of a type or of its base class. Raises `UnsupportedType`."""
    origin = typing.get_origin(kind) or kind
    bases = origin.__mro__ if isinstance(origin, type) else (origin,)
    for base in bases:
        name = f"{getattr(base, '__module__', '')}.{getattr(base, '__qualname__', base)}"
        for known in (*_LOADERS, *engine_tables.ENGINES):
            if name == known or _is(base, known):
                return known
    name = f"{getattr(kind, '__module__', '')}.{getattr(kind, '__qualname__', kind)}"
    listed = ", ".join(known.replace(".lib.", ".").replace("._dataset.", ".dataset.") for known in _LOADERS)
    raise UnsupportedType(
        f"An input cannot be loaded as {name}. Annotate it as one of: {listed}, or as dict[str, …] of one of them.",
        type=name,
    )


def _is(kind: Any, public_name: str) -> bool:
    """Whether a type is the one of this public name, wherever its library defines it."""
    root = public_name.partition(".")[0]
    if not str(getattr(kind, "__module__", "")).startswith((root, f"_{root}")):
        return False
    return _resolved(public_name) is kind


def _resolved(public_name: str) -> Any:
    module, _, attribute = public_name.rpartition(".")
    return getattr(importlib.import_module(module), attribute, None)


# --- outputs -------------------------------------------------------------------------------------------------------------


def checked_output(value: Any, name: str) -> Any:
    """Check that an output can be stored. Raises `UnsupportedType` with code that stores it."""
    if isinstance(value, str):
        raise UnsupportedType(
            f"{name} returned a str. Text is not stored: return Path({value[:60]!r}) if that is the path of a file, or "
            "value.encode() to store the text as bytes."
        )
    kind, library = type(value).__name__, library_of(value)
    is_series = kind == "Series" and library in ("pandas", "polars")
    if engine_tables.engine_of(value) is not None:
        return value
    if is_table(value) and not is_series:
        return value
    if is_series or isinstance(value, bool | int | float | complex) or library in ("numpy", "datetime", "decimal"):
        raise UnsupportedType(
            f"{name} returned a {library}.{kind}, which is not a table. Store it as one:\n" + _lines(value)
        )
    return value


def _lines(value: Any) -> str:
    """The lines that store a column or a single value."""
    library, dimensions = library_of(value), len(getattr(value, "shape", ()))
    if library == "pandas":
        lines = (
            'frame = value.to_frame("value")',
            'frame.index.name = "key"  # where its labels are data',
            "return frame",
        )
    elif library == "polars":
        lines = ("import polars as pl", 'frame = pl.DataFrame({"value": value})', "return frame")
    elif dimensions > 1:
        lines = ("import pandas as pd", "frame = pd.DataFrame(value).rename(columns=str)", "return frame")
    else:
        column = "value" if dimensions else "[value]"
        lines = ("import pyarrow as pa", f'table = pa.table({{"value": {column}}})', "return table")
    return "\n".join(f"    {line}" for line in lines)
