"""Frames of Dask, Ray and Spark as outputs and inputs of assets."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import dask.dataframe as dd
import pandas as pd
import pyarrow as pa
import pytest

from dataset_registry.dagster_io import DatasetRegistryIOManager, DatasetRegistryResource
from tests.engines.clusters import local_ray, local_spark

ROWS = 20_000


@pytest.fixture
def registry(tmp_path: Path) -> DatasetRegistryResource:
    return DatasetRegistryResource(path=str(tmp_path / "registry"))


def run(registry: DatasetRegistryResource, *assets: Any, **options: Any) -> dg.ExecuteInProcessResult:
    resources = {"io_manager": DatasetRegistryIOManager(registry=registry)}
    return dg.materialize(list(assets), resources=resources, **options)


@dg.asset
def flights() -> pa.Table:
    return pa.table({"id": range(ROWS), "text": [f"{i:0300}" for i in range(ROWS)]})


def test_dask_frames_go_out_and_come_in(registry: DatasetRegistryResource) -> None:
    seen: dict[str, Any] = {}

    @dg.asset(metadata={"registry/key": "id"})
    def late(flights: dd.DataFrame) -> dd.DataFrame:
        seen["partitions"] = flights.npartitions
        return flights[flights["id"] % 2 == 0]

    @dg.asset(ins={"late": dg.AssetIn(metadata={"columns": ["id"]})})
    def total(late: pd.DataFrame) -> pd.DataFrame:
        return late.sum().to_frame("sum").reset_index(drop=True)

    assert run(registry, flights, late, total).success
    found = registry.registry.version("late")
    assert seen["partitions"] == len(registry.registry.version("flights").table_parts()) > 1
    assert found.to_arrow()["id"].to_pylist() == list(range(0, ROWS, 2))
    assert found.schema.tables()["data"].key == ("id",)
    assert [(read.dataset, read.version) for read in found.provenance.inputs] == [("flights", 1)]
    assert registry.registry.version("total").to_arrow()["sum"].to_pylist() == [sum(range(0, ROWS, 2))]
    assert [d.name for d in registry.registry.datasets()] == ["flights", "late", "total"]


def test_a_partition_of_an_asset_is_a_dask_frame(registry: DatasetRegistryResource) -> None:
    days = dg.StaticPartitionsDefinition(["a", "b"])

    @dg.asset(partitions_def=days)
    def daily(context: dg.AssetExecutionContext) -> dd.DataFrame:
        return dd.from_pandas(pd.DataFrame({"day": [context.partition_key] * 10, "n": range(10)}), npartitions=2)

    @dg.asset
    def both(daily: dd.DataFrame) -> pd.DataFrame:
        return daily.groupby("day")["n"].sum().compute().reset_index()

    for day in ("a", "b"):
        assert run(registry, daily, partition_key=day).success
    assert run(registry, daily, both, selection=[both]).success
    assert registry.registry.version("both").to_arrow().to_pylist() == [{"day": "a", "n": 45}, {"day": "b", "n": 45}]


def test_a_run_on_a_branch_of_its_own_writes_dask_frames_to_it(registry: DatasetRegistryResource) -> None:
    @dg.asset(metadata={"registry/key": "id"})
    def late(flights: dd.DataFrame) -> dd.DataFrame:
        return flights[flights["id"] >= ROWS // 2]

    assert run(registry, flights, late).success
    assert run(registry, flights, late, tags={"registry/branch": "pr/7"}).success
    dataset = registry.registry.dataset("late")
    assert [branch.name for branch in dataset.branches()] == ["main", "pr/7"]
    assert dataset.version("pr/7").digest == dataset.version().digest
    assert [d.name for d in registry.registry.datasets()] == ["flights", "late"]


def test_a_task_that_fails_leaves_nothing(registry: DatasetRegistryResource) -> None:
    @dg.asset
    def broken(flights: dd.DataFrame) -> dd.DataFrame:
        return flights.map_partitions(lambda part: 1 / 0, meta=flights)

    assert not run(registry, flights, broken, raise_on_error=False).success
    assert [d.name for d in registry.registry.datasets()] == ["flights"]


def test_rows_of_an_engine_are_not_appended(registry: DatasetRegistryResource) -> None:
    @dg.asset(metadata={"registry/write_mode": "append"})
    def more(flights: dd.DataFrame) -> dd.DataFrame:
        return flights

    with pytest.raises(
        Exception, match=r"returned a DataFrame of dask, which the write mode 'append' does not support"
    ):
        run(registry, flights, more)


@pytest.fixture
def ray() -> Iterator[Any]:
    with local_ray() as found:
        yield found


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Ray by itself
def test_ray_datasets_go_out_and_come_in(registry: DatasetRegistryResource, ray: Any) -> None:
    @dg.asset
    def ids(flights: ray.data.Dataset) -> ray.data.Dataset:  # type: ignore[name-defined]
        return flights.select_columns(["id"])

    assert run(registry, flights, ids).success
    assert sorted(registry.registry.version("ids").to_arrow()["id"].to_pylist()) == list(range(ROWS))
    assert [d.name for d in registry.registry.datasets()] == ["flights", "ids"]


@pytest.fixture
def spark() -> Iterator[Any]:
    with local_spark() as session:
        yield session


def test_spark_frames_go_out_and_come_in(registry: DatasetRegistryResource, spark: Any) -> None:
    from pyspark.sql import DataFrame

    @dg.asset(ins={"flights": dg.AssetIn(metadata={"columns": ["id"]})})
    def ids(flights: DataFrame) -> DataFrame:
        assert flights.columns == ["id"]
        return flights.filter("id % 2 = 0")

    assert run(registry, flights, ids).success
    assert sorted(registry.registry.version("ids").to_arrow()["id"].to_pylist()) == list(range(0, ROWS, 2))
    assert [d.name for d in registry.registry.datasets()] == ["flights", "ids"]
