"""Frames of Dask, Ray and Spark as outputs and inputs: their tasks write and read the parts of tables."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from importlib import import_module
from typing import Any

from dataset_registry.connection import Connection
from dataset_registry.dataset import Draft
from dataset_registry.engines.scans import TableScan
from dataset_registry.engines.writes import TableWrite
from dataset_registry.version import Version

ENGINES: Mapping[str, str] = {
    "dask.dataframe.DataFrame": "dask",
    "ray.data.Dataset": "ray",
    "pyspark.sql.DataFrame": "spark",
}
"""The module of `dataset_registry.engines` for each type: its `of_scan` reads a table, its `pieces_of` writes one."""


def engine_of(value: object) -> str | None:
    """The module of the engine that a value is a frame of, None for all other values."""
    for kind in type(value).__mro__:
        root, name = kind.__module__.partition(".")[0], kind.__name__
        for public, engine in ENGINES.items():
            if (root, name) == (public.partition(".")[0], public.rpartition(".")[2]):
                return engine
    return None


def loader(public_name: str) -> Callable[[Version, Sequence[str], list[str] | None, Connection], Any]:
    """The function that loads components as a frame of an engine."""

    def load(version: Version, names: Sequence[str], columns: list[str] | None, connection: Connection) -> Any:
        chosen = None if columns is None else tuple(columns)
        scan = TableScan(connection, version.record.dataset_id, version.number, tuple(names), chosen)
        return _module(ENGINES[public_name]).of_scan(scan)

    return load


def add(
    draft: Draft,
    component: str,
    frame: Any,
    *,
    address: str,
    key: Sequence[str],
    facts: Mapping[str, object],
    fallback: str | None,
    connection: Connection,
    until: ExitStack,
) -> None:
    """Write a frame by the tasks of its engine and set a component to it. What they wrote beside it is deleted at the end of
    `until`."""
    write = TableWrite.begin(address, component, key=key, fallback=fallback, connection=connection)
    until.callback(write.abort)
    pieces = _module(str(engine_of(frame))).pieces_of(frame, write)
    write.add_to(draft, pieces, facts)


def _module(engine: str) -> Any:
    return import_module(f"dataset_registry.engines.{engine}")
