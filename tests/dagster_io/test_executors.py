"""Executors: steps in processes of their own write to one registry, and nothing is lost."""

from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import dagster as dg
import pytest

from dataset_registry.dagster_io import publish_run
from tests.dagster_io import pipelines
from tests.dagster_io.conftest import BRANCH, World


@pytest.fixture
def home(tmp_path: Path) -> str:
    """The folder of an instance that other processes can open."""
    folder = tmp_path / "home"
    folder.mkdir()
    (folder / "dagster.yaml").write_text("telemetry: {enabled: false}\npython_logs: {python_log_level: ERROR}\n")
    return str(folder)


@pytest.fixture
def shared(make_world: Callable[[dg.DagsterInstance], World], home: str) -> Iterator[World]:
    with dg.DagsterInstance.from_config(home) as opened:
        yield make_world(opened)


def test_steps_in_processes_of_their_own_pass_data_and_record_their_inputs(shared: World) -> None:
    job = dg.reconstructable(pipelines.triangle)
    with dg.execute_job(job, shared.instance, pipelines.config(str(shared.folder))) as result:
        assert result.success
    assert shared.version("total").to_polars()["share"].to_list() == [0.5]
    for name, inputs in {"numbers": [], "even": ["numbers@v1"], "total": ["even@v1", "numbers@v1"]}.items():
        made = shared.version(name).provenance
        assert sorted(f"{read.dataset}@v{read.version}" for read in made.inputs) == inputs
        assert made.run_id == result.run_id


def test_steps_in_processes_of_their_own_share_the_branch_of_their_run_and_are_published_together(
    shared: World,
) -> None:
    job = dg.reconstructable(pipelines.triangle)
    tags = {BRANCH: "run/{run_id}"}
    with dg.execute_job(job, shared.instance, pipelines.config(str(shared.folder)), tags=tags) as result:
        assert result.success
        run_id = result.run_id
    datasets = shared.registry.datasets()
    assert {branch.name for dataset in datasets for branch in dataset.branches()} == {f"run/{run_id}"}
    done = publish_run(run_id, instance=shared.instance, registry=shared.resource)
    assert {head.dataset for head in done.heads} == {"numbers", "even", "total"}
    assert len(done.reported) == 3
    assert shared.registry.consistent("main")


def materialize_days(world: World, home: str, count: int, *, quick: bool) -> None:
    """One run a partition, from three processes at once (runs in threads of one process make Dagster's logging hang)."""
    keys = pipelines.DAYS.get_partition_keys()[:count]
    context = get_context("forkserver")
    context.set_forkserver_preload([pipelines.MODULE])
    with ProcessPoolExecutor(3, mp_context=context) as pool:
        jobs = [pool.submit(pipelines.materialize, home, str(world.folder), quick, keys[n::3]) for n in range(3)]
        runs = {run for job in jobs for run in job.result()}
    dataset = world.registry.dataset("daily")
    versions = dataset.tree()
    head = dataset.version()
    assert [c.name for c in head.components] == keys
    assert head.to_arrow(keys)["day"].to_pylist() == keys
    assert sorted(v.number for v in versions) == list(range(1, count + 1))
    assert [v.component_count for v in dataset.log()] == list(range(count, 0, -1)), "each version adds one"
    assert {v.provenance.partition for v in versions} == set(keys)
    assert {v.provenance.run_id for v in versions} == runs
    assert world.instance.get_materialized_partitions(dg.AssetKey("daily")) == set(keys)


def test_partitions_written_by_parallel_processes_are_all_there(shared: World, home: str) -> None:
    materialize_days(shared, home, 8, quick=True)


@pytest.mark.long
def test_sixty_partitions_written_by_parallel_processes_are_all_there(shared: World, home: str) -> None:
    materialize_days(shared, home, 60, quick=True)


@pytest.mark.long
def test_partitions_written_by_the_multiprocess_executor_in_parallel_runs_are_all_there(
    shared: World, home: str
) -> None:
    materialize_days(shared, home, 9, quick=False)
