"""Scheduled retention: what no policy keeps goes at night, what runs use stays, and damage is not passed over in silence."""

from datetime import timedelta
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest
from sqlalchemy import text

from dataset_registry import Policy, Rule
from dataset_registry.dagster_io import build_retention_schedule
from dataset_registry.dagster_io.schedules import live_runs
from tests.dagster_io.conftest import World

LAST = Policy((Rule(last=1),))
AT_ONCE = timedelta(0)


@dg.asset
def numbers(context: dg.AssetExecutionContext) -> pa.Table:
    return pa.table({"n": [int(context.run.tags.get("n", "0"))]})


@dg.asset
def doubled(numbers: pa.Table) -> pa.Table:
    return pa.table({"n": [2 * n for n in numbers["n"].to_pylist()]})


def grow(world: World, count: int) -> None:
    for n in range(count):
        dg.materialize([numbers, doubled], instance=world.instance, resources=world.resources(), tags={"n": str(n)})


def long_ago(world: World) -> None:
    """Let all that runs did be two days old."""

    def work(tx: Any) -> None:
        tx.execute(text("UPDATE productions SET created_at = '2020-01-01 00:00:00.000000'"))
        tx.execute(text("UPDATE version_reads SET read_at = '2020-01-01 00:00:00.000000'"))

    world.registry.access.catalog.write(work)


def run(world: World, **options: Any) -> dg.ExecuteInProcessResult:
    schedule = build_retention_schedule(**({"policy": LAST, "collect_older_than": AT_ONCE} | options))
    definitions = dg.Definitions(schedules=[schedule], resources=world.resources())
    job = definitions.resolve_job_def(schedule.job_name)
    return job.execute_in_process(instance=world.instance, raise_on_error=False)


def metadata(result: dg.ExecuteInProcessResult) -> dict[str, Any]:
    (handled,) = [event for event in result.all_events if event.event_type_value == "STEP_OUTPUT"]
    return {key: value.value for key, value in handled.step_output_data.metadata.items()}


@pytest.mark.objects
def test_a_night_expires_and_collects(world: World) -> None:
    grow(world, 4)
    long_ago(world)
    result = run(world)
    assert result.success
    facts = metadata(result)
    assert (facts["registry/expired"], facts["registry/collected"] > 0) == (6, True)
    assert [v.number for v in world.registry.dataset("numbers").tree()] == [4]
    assert sum(f.stored_size for f in world.registry.files()) == sum(
        found.size for found in world.registry.access.store.list()
    )


def test_what_a_run_reads_is_noted_and_stays_while_the_run_is_not_finished(world: World) -> None:
    grow(world, 3)
    world.materialize([numbers, doubled], "doubled")
    long_ago(world)
    running = world.instance.create_run_for_job(
        dg.Definitions(assets=[numbers]).resolve_implicit_global_asset_job_def(), status=dg.DagsterRunStatus.STARTED
    )
    assert live_runs(world.instance) == [running.run_id]
    world.version("numbers@v1").note_read(running.run_id)
    long_ago(world)
    assert run(world).success
    assert [v.number for v in world.registry.dataset("numbers").tree()] == [3, 1]
    world.instance.report_run_canceled(running)
    assert run(world).success
    assert [v.number for v in world.registry.dataset("numbers").tree()] == [3]


def test_loading_an_input_notes_what_is_read(world: World) -> None:
    grow(world, 1)
    with world.registry.access.catalog.read() as tx:
        noted = tx.execute(text("SELECT run_id, version_id FROM version_reads")).all()
    version = world.version("numbers")
    assert [(row[0], row[1]) for row in noted] == [(world.version("doubled").provenance.run_id, version.id)]


def test_without_a_policy_the_night_only_collects(world: World) -> None:
    grow(world, 3)
    long_ago(world)
    result = run(world, policy=None)
    assert "registry/expired" not in metadata(result)
    assert len(world.registry.dataset("numbers").tree()) == 3


@pytest.mark.objects
def test_damage_fails_the_night(world: World) -> None:
    grow(world, 1)
    assert run(world, verify_share=1).success
    key = next(file.object_key for file in world.registry.files() if file.object_key)
    path = world.registry.access.store.path(key)
    assert path is not None
    path.unlink()
    result = run(world, verify_share=1)
    assert not result.success
    (failure,) = [event for event in result.all_events if event.event_type_value == "STEP_FAILURE"]
    assert "damaged" in str(failure.step_failure_data.error_display_string)
