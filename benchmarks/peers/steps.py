"""A step of Dagster whose output goes to an IO manager: ours, Dagster's own, or one of its libraries.

Tables are handed over as the IO manager prefers them: Arrow, or pandas for DuckDB's.
"""

import os
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq

KIND = os.environ["BENCHMARK_STEP"]
PACKAGES = {
    "alone": (),
    "us": ("dataset-registry",),
    "filesystem": (),
    "deltalake": ("dagster-deltalake", "deltalake"),
    "iceberg": ("dagster-iceberg", "pyiceberg"),
    "duckdb": ("dagster-duckdb-pandas", "duckdb"),
}


def _version(name):
    try:
        return version(name)
    except PackageNotFoundError:
        return None


FACTS = {"versions": {name: _version(name) for name in ("dagster", "pyarrow", *PACKAGES[KIND])}}
_values = {}


@cache
def _io_manager(folder):
    Path(folder).mkdir(parents=True, exist_ok=True)
    if KIND == "us":
        from dataset_registry.dagster_io import DatasetRegistryIOManager, DatasetRegistryResource

        return DatasetRegistryIOManager(registry=DatasetRegistryResource(path=folder))
    if KIND == "filesystem":
        return dg.FilesystemIOManager(base_dir=folder)
    if KIND == "deltalake":
        from dagster_deltalake import DeltaLakePyarrowIOManager, LocalConfig

        return DeltaLakePyarrowIOManager(root_uri=folder, storage_options=LocalConfig())
    if KIND == "iceberg":
        from dagster_iceberg.config import IcebergCatalogConfig
        from dagster_iceberg.io_manager.arrow import PyArrowIcebergIOManager
        from pyiceberg.catalog.sql import SqlCatalog

        properties = {"uri": f"sqlite:///{folder}/catalog.sqlite", "warehouse": f"file://{folder}"}
        SqlCatalog("catalog", **properties).create_namespace("public")
        return PyArrowIcebergIOManager(
            name="catalog", config=IcebergCatalogConfig(properties=properties), namespace="public"
        )
    from dagster_duckdb_pandas import DuckDBPandasIOManager

    return DuckDBPandasIOManager(database=f"{folder}/data.duckdb", schema="public")


@cache
def _asset(name):
    kind = _type()

    def produced():
        return _values[name]

    produced.__annotations__["return"] = None if KIND == "alone" else kind
    return dg.asset(name=name)(produced)


@cache
def _reader(name):
    def reader(source):
        assert len(source)

    reader.__annotations__ |= {"source": _type(), "return": None}
    return dg.asset(name=f"{name}_reader", ins={"source": dg.AssetIn(name)})(reader)


def _type():
    if KIND != "duckdb":
        return pa.Table
    import pandas

    return pandas.DataFrame


def _materialize(folder, name, *, reading=False):
    resources = {} if KIND == "alone" else {"io_manager": _io_manager(folder)}
    assets = [_asset(name), _reader(name)] if reading else [_asset(name)]
    result = dg.materialize(assets, selection=assets[-1:], resources=resources)
    assert result.success


def _step(folder, name, table):
    value = None if KIND == "alone" else table
    _values[name] = value.to_pandas() if KIND == "duckdb" else value
    if not Path(folder).exists() and KIND != "alone":
        _io_manager(folder)
    yield
    _materialize(folder, name)
    yield
    _values.clear()


def tiny(folder, number):
    """A step with one row, another one each time."""
    return _step(folder, "tiny", pa.table({"value": [number]}))


def large(folder, table):
    """A step with a whole table; for Dagster alone `pq.write_table`, the limit of it."""
    content = pq.read_table(table)
    if KIND != "alone":
        yield from _step(folder, "large", content)
        return
    Path(folder).mkdir(parents=True, exist_ok=True)
    yield
    pq.write_table(content, Path(folder) / "raw.parquet")
    yield


def load(folder):
    """A step that loads the whole table; for Dagster alone `pq.read_table`, the limit of it."""
    yield
    if KIND == "alone":
        pq.read_table(Path(folder) / "raw.parquet")
    else:
        _materialize(folder, "large", reading=True)
    yield
