"""Schedules that delete branches of runs, collect, and verify."""

from datetime import timedelta
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest
from sqlalchemy import text

from dataset_registry.dagster_io import (
    build_branch_schedule,
    build_collect_schedule,
    build_verify_schedule,
    publish_run,
)
from tests.dagster_io.conftest import BRANCH, World

HOUR = timedelta(hours=1)


@dg.asset
def source(context: dg.AssetExecutionContext) -> pa.Table:
    return pa.table({"run": [context.run.run_id]})


def age(world: World, hours: int) -> None:
    """Let every branch have moved so many hours earlier."""
    statement = f"UPDATE dataset_pointers SET updated_at = datetime(updated_at, '-{hours} hours')"
    world.registry.access.catalog.write(lambda tx: tx.execute(text(statement)))


def ran(world: World, schedule: dg.ScheduleDefinition) -> dg.ExecuteInProcessResult:
    assert isinstance(schedule.job, dg.JobDefinition)
    return schedule.job.execute_in_process(instance=world.instance, resources={"registry": world.resource})


def branches(world: World) -> set[str]:
    return {branch.name for branch in world.registry.dataset("source").branches()}


@pytest.fixture
def runs(fresh: World) -> dict[str, str]:
    """The branches of a published run, a failed one, and one that is neither."""
    fresh.materialize([source])
    found = {}
    for kind in ("published", "failed", "other"):
        run = fresh.materialize([source], branch="run/{run_id}")
        found[kind] = f"run/{run.run_id}"
        if kind == "published":
            publish_run(run.run_id, instance=fresh.instance, registry=fresh.resource)
        if kind == "failed":
            fresh.registry.finish_run(run.run_id, succeeded=False)
    fresh.materialize([source], branch="pr-12")
    return found


@pytest.mark.parametrize(
    ("hours", "gone"),
    [(0, set()), (2, {"published"}), (5, {"published", "failed"}), (9, {"published", "failed", "other"})],
)
def test_branches_are_deleted_by_their_state_and_age(
    fresh: World, runs: dict[str, str], hours: int, gone: set[str]
) -> None:
    age(fresh, hours)
    ran(fresh, build_branch_schedule(published=HOUR, failed=4 * HOUR, older_than=8 * HOUR))
    assert branches(fresh) == {"main", "pr-12"} | {branch for kind, branch in runs.items() if kind not in gone}


def test_none_keeps_a_state(fresh: World, runs: dict[str, str]) -> None:
    age(fresh, 99)
    ran(fresh, build_branch_schedule(published=None, failed=None, older_than=HOUR))
    assert branches(fresh) == {"main", "pr-12", runs["published"], runs["failed"]}


def test_branches_of_unfinished_runs_and_the_tracked_one_are_kept(fresh: World, runs: dict[str, str]) -> None:
    age(fresh, 99)
    fresh.registry.protect("source", "pr-12")
    other: Any = dg.job(name="other")(lambda: None)
    fresh.instance.create_run_for_job(other, tags={BRANCH: runs["other"]})
    ran(fresh, build_branch_schedule(branches="*", published=HOUR, failed=HOUR, older_than=HOUR))
    assert branches(fresh) == {"main", "pr-12", runs["other"]}


@pytest.mark.objects
def test_collection_and_verification_have_schedules_of_their_own(fresh: World, runs: dict[str, str]) -> None:
    assert ran(fresh, build_collect_schedule()).success
    result = ran(fresh, build_verify_schedule(share=1))
    (event,) = [e for e in result.all_events if e.event_type is dg.DagsterEventType.STEP_OUTPUT]
    facts = event.step_output_data.metadata
    assert facts["registry/verified_bytes"].value > 0
    for path in (fresh.folder / "objects").rglob("*"):
        if path.is_file() and path.stat().st_size:
            path.chmod(0o644)
            path.write_bytes(b"damaged" * 100)
    with pytest.raises(dg.Failure, match="damaged"):
        ran(fresh, build_verify_schedule(share=1))
