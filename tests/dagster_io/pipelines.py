"""Jobs that other processes load by name. The run's config says where their registry is: fork servers keep old environments."""

from collections.abc import Sequence
from typing import Any

import dagster as dg
import polars as pl
import pyarrow as pa

from dataset_registry.dagster_io import DatasetRegistryIOManager, DatasetRegistryResource

DAYS = dg.DailyPartitionsDefinition(start_date="2024-01-01", end_date="2024-03-01")  # 60 days
MODULE = "tests.dagster_io.pipelines"


@dg.asset(partitions_def=DAYS)
def daily(context: dg.AssetExecutionContext):
    return pa.table({"day": [context.partition_key], "n": [int(context.partition_key.replace("-", ""))]})


@dg.asset
def numbers():
    return pa.table({"n": list(range(1000))})


@dg.asset
def even(numbers: pl.LazyFrame) -> pl.LazyFrame:
    return numbers.filter(pl.col("n") % 2 == 0)


@dg.asset
def total(numbers: pa.Table, even: pa.Table) -> pl.DataFrame:
    return pl.DataFrame({"share": [even.num_rows / numbers.num_rows]})


def definitions() -> dg.Definitions:
    registry = DatasetRegistryResource.configure_at_launch()
    processes = dg.multiprocess_executor.configured(
        {"max_concurrent": 3, "start_method": {"forkserver": {"preload_modules": [MODULE]}}}
    )
    return dg.Definitions(
        assets=[daily, numbers, even, total],
        jobs=[
            dg.define_asset_job("days", selection=[daily], executor_def=processes),
            dg.define_asset_job("quick_days", selection=[daily], executor_def=dg.in_process_executor),
            dg.define_asset_job("triangle", selection=[numbers, even, total], executor_def=processes),
        ],
        resources={"registry": registry, "io_manager": DatasetRegistryIOManager(registry=registry)},
    )


def days() -> dg.JobDefinition:
    return definitions().resolve_job_def("days")


def quick_days() -> dg.JobDefinition:
    return definitions().resolve_job_def("quick_days")


def triangle() -> dg.JobDefinition:
    return definitions().resolve_job_def("triangle")


def config(folder: str) -> dict[str, Any]:
    return {"resources": {"registry": {"config": {"path": folder, "actor": "alice"}}}}


def materialize(home: str, folder: str, quick: bool, keys: Sequence[str]) -> list[str]:
    """Runs of one partition each, one after the other; their ids."""
    job = dg.reconstructable(quick_days if quick else days)
    found = []
    with dg.DagsterInstance.from_config(home) as instance:
        for key in keys:
            tags = {"dagster/partition": key}
            with dg.execute_job(job, instance, config(folder), tags=tags, raise_on_error=quick) as result:
                assert result.success
                found.append(result.run_id)
    return found
