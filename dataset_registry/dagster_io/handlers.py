"""Types: what an asset may return, and how each annotated type is loaded."""

import importlib
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dataset_registry.errors import InputError, UnsupportedType
from dataset_registry.version import Version

Load = Callable[[Version, Sequence[str]], Any]
"""Loads the named components of a version as one value."""


def _path(version: Version, names: Sequence[str]) -> Path:
    paths = [path for name in names for path in version.paths(name)]
    if len(paths) != 1:
        raise InputError(
            f"{version} has {len(paths)} files here, and a Path is one. Annotate the input as dict[str, Path], or as a table."
        )
    return paths[0]


def _bytes(version: Version, names: Sequence[str]) -> bytes:
    with version.open(names[0] if len(names) == 1 else None) as stream:
        return stream.read()


_LOADERS: Mapping[str, Load] = {
    "pyarrow.lib.Table": lambda version, names: version.to_arrow(names),
    "pyarrow.lib.RecordBatchReader": lambda version, names: version.scan(names).scanner().to_reader(),
    "pyarrow._dataset.Dataset": lambda version, names: version.scan(names),
    "pandas.DataFrame": lambda version, names: version.to_pandas(names),
    "polars.DataFrame": lambda version, names: version.to_polars(names),
    "polars.LazyFrame": lambda version, names: version.lazy(names),
    "duckdb.DuckDBPyRelation": lambda version, names: version.to_duckdb(names),
    "pathlib.Path": _path,
    "dataset_registry.version.Version": lambda version, names: version,
    "builtins.bytes": _bytes,
}
"""By the type's full name, so that a library is imported only when an asset asks for it. Public names are resolved."""


def loader(kind: Any) -> Load:
    """How to load a value of the annotated type; an Arrow table when nothing is annotated. Raises `UnsupportedType`."""
    if typing.get_origin(kind) in (list, Sequence):  # a fan-in: Dagster asks once for each of the upstreams
        kind = next(iter(typing.get_args(kind)), None)
    if kind in (None, Any, list, type(None)) or kind is typing.List:  # noqa: UP006 - what Dagster makes of `list`
        return _default
    name = f"{getattr(kind, '__module__', '')}.{getattr(kind, '__qualname__', kind)}"
    for known, load in _LOADERS.items():
        if name == known or _is(kind, known):
            return load
    listed = ", ".join(known.replace(".lib.", ".").replace("._dataset.", ".dataset.") for known in _LOADERS)
    raise UnsupportedType(
        f"An input cannot be loaded as {name}. Annotate it as one of: {listed}, or as dict[str, …] of one of them.",
        type=name,
    )


def mapping_value(kind: Any) -> tuple[bool, Any]:
    """Whether the annotated type is a mapping, and the type of its values."""
    origin = typing.get_origin(kind) or kind
    if isinstance(origin, type) and issubclass(origin, Mapping):
        arguments = typing.get_args(kind)
        return True, arguments[1] if len(arguments) == 2 else None
    return False, kind


def _default(version: Version, names: Sequence[str]) -> Any:
    formats = {component.format for component in version.components if component.name in set(names)}
    return _path(version, names) if "binary" in formats else version.to_arrow(names)


def _is(kind: Any, public_name: str) -> bool:
    """Whether a type is the one of this public name, wherever its library defines it."""
    root = public_name.partition(".")[0]
    if not str(getattr(kind, "__module__", "")).startswith((root, f"_{root}")):
        return False
    module, _, attribute = public_name.rpartition(".")
    return getattr(importlib.import_module(module), attribute, None) is kind
