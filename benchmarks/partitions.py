"""`python -m benchmarks.partitions`: 60 daily partitions by 3 processes, then one single-run backfill of them all.

The partitions are runs of their own on the multiprocess executor; three processes launch them side by side, as three run
workers would. Then a downstream asset loads a range and all of them, and a pinned input reads an old version.
"""

import os
import shutil
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from time import perf_counter

import dagster as dg
import polars as pl
import pyarrow as pa

from dataset_registry import Registry
from dataset_registry.dagster_io import DatasetRegistryIOManager, DatasetRegistryResource

MODULE = "benchmarks.partitions"
DAYS = dg.DailyPartitionsDefinition(start_date="2024-01-01", end_date="2024-03-01")  # 60 days


@dg.asset(partitions_def=DAYS, backfill_policy=dg.BackfillPolicy.single_run(), metadata={"partition_expr": "day"})
def daily(context: dg.AssetExecutionContext) -> pa.Table:
    """A row a day; the factor tells the backfill from the runs before."""
    factor = int(context.run.tags.get("factor", "1"))
    return pa.table({"day": context.partition_keys, "n": [factor * i for i in range(len(context.partition_keys))]})


@dg.asset(
    ins={
        "daily": dg.AssetIn(
            partition_mapping=dg.SpecificPartitionsPartitionMapping([f"2024-01-{day:02}" for day in range(10, 17)])
        )
    }
)
def week(daily: pl.DataFrame) -> pl.DataFrame:
    """Seven of the days."""
    return daily


@dg.asset
def everything(daily: pl.LazyFrame) -> pl.LazyFrame:
    """All of the days, in order."""
    return daily


@dg.asset(ins={"daily": dg.AssetIn(metadata={"registry/ref": "v60"})})
def before_the_backfill(daily: pl.DataFrame) -> pl.DataFrame:
    """The days as they were, by a pinned ref."""
    return daily


def job() -> dg.JobDefinition:
    """The job that run workers load by name."""
    registry = DatasetRegistryResource(path=dg.EnvVar("PARTITIONS_REGISTRY"))
    processes = dg.multiprocess_executor.configured(
        {"max_concurrent": 3, "start_method": {"forkserver": {"preload_modules": [MODULE]}}}
    )
    return dg.Definitions(
        assets=[daily],
        jobs=[dg.define_asset_job("days", selection=[daily], executor_def=processes)],
        resources={"registry": registry, "io_manager": DatasetRegistryIOManager(registry=registry)},
    ).resolve_job_def("days")


def launch(home: str, keys: Sequence[str]) -> None:
    """Runs of one partition each, one after the other."""
    with dg.DagsterInstance.from_config(home) as instance:
        for key in keys:
            _run(instance, {"dagster/partition": key})


def _run(instance: dg.DagsterInstance, tags: dict[str, str]) -> None:
    with dg.execute_job(dg.reconstructable(job), instance, tags=tags) as result:
        assert result.success


def main() -> None:
    """Run both, and say what the registry has."""
    folder = Path(tempfile.mkdtemp(prefix="registry-partitions-"))
    home = folder / "home"
    home.mkdir()
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\npython_logs: {python_log_level: ERROR}\n")
    os.environ["PARTITIONS_REGISTRY"] = str(folder / "registry")
    keys = DAYS.get_partition_keys()
    try:
        started = perf_counter()
        with ProcessPoolExecutor(3, mp_context=get_context("spawn")) as pool:
            for done in [pool.submit(launch, str(home), keys[n::3]) for n in range(3)]:
                done.result()
        runs = perf_counter() - started
        registry = Registry.open(folder / "registry")
        dataset = registry.dataset("daily")
        print(
            f"60 runs by 3 processes: {runs:.1f} s, {len(dataset.tree())} versions, "
            f"{dataset.version().component_count} components at the head"
        )
        with dg.DagsterInstance.from_config(str(home)) as instance:
            started = perf_counter()
            ends = {"dagster/asset_partition_range_start": keys[0], "dagster/asset_partition_range_end": keys[-1]}
            _run(instance, ends | {"factor": "2"})
            backfill = perf_counter() - started
            print(
                f"one single-run backfill: {backfill:.1f} s, {len(dataset.tree()) - 60} new version, "
                f"{dataset.version().component_count} components at the head"
            )
            io_manager = DatasetRegistryIOManager(registry=DatasetRegistryResource(path=str(folder / "registry")))
            downstream = [week, everything, before_the_backfill]
            dg.materialize(
                [daily, *downstream], selection=downstream, instance=instance, resources={"io_manager": io_manager}
            )
        for name in ("week", "everything", "before_the_backfill"):
            version = registry.version(name)
            table = version.to_arrow()
            (read,) = version.provenance.inputs
            in_order = table["day"].to_pylist() == sorted(table["day"].to_pylist())
            print(
                f"{name}: {table.num_rows} rows in order: {in_order}, sum of n {sum(table['n'].to_pylist())}, made from "
                f"{read.dataset}@v{read.version} by the ref {read.ref!r}, {len(read.components)} partitions"
            )
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    from benchmarks.partitions import main as run  # under the name by which run workers find the job

    run()
