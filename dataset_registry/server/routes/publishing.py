"""Publications, runs, and the consistency of branches."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query

from dataset_registry.model.merge_plans import MergeOptions
from dataset_registry.operations import publish as publishing
from dataset_registry.operations import runs
from dataset_registry.server.auth import AccessDep, Idempotent
from dataset_registry.server.limits import table_work
from dataset_registry.wire.datasets import VersionResponse
from dataset_registry.wire.merges import (
    ConsistencyResponse,
    HeadsResponse,
    PublishPlanResponse,
    PublishRequest,
    RevertPlanResponse,
    RevertRunRequest,
    RunResponse,
    strategies_of,
)

router = APIRouter(route_class=Idempotent, tags=["publishing"])

_WORK = [Depends(table_work)]

RunId = Annotated[str, Query(min_length=1, max_length=255, description="The id of a pipeline run.")]
Branch = Annotated[str, Query(min_length=1, max_length=10_000, description="A branch.")]


@router.post("/publications/plan", dependencies=_WORK)
def plan_publication(access: AccessDep, request: PublishRequest) -> PublishPlanResponse:
    """Plan to merge a branch of many datasets into another. Nothing is changed."""
    options = MergeOptions(strategies_of(request.strategies))
    return PublishPlanResponse.of(publishing.plan(access, request.branch, request.into, request.datasets, options))


@router.post("/publications", status_code=201, dependencies=_WORK)
def publish(access: AccessDep, request: PublishRequest) -> HeadsResponse:
    """Merge a branch of many datasets into another, all in one transaction. 409 if one of them has conflicts, or if the target
    moved under an input of a version."""
    options = MergeOptions(strategies_of(request.strategies), message=request.message)
    _, heads = publishing.publish(
        access,
        request.branch,
        request.into,
        request.datasets,
        options,
        allow_moved_inputs=request.allow_moved_inputs,
    )
    return HeadsResponse(versions=[VersionResponse.of(head) for head in heads])


@router.get("/runs")
def run(access: AccessDep, run_id: RunId) -> RunResponse:
    """The versions that a run wrote and read."""
    return RunResponse.of(runs.run(access, run_id))


@router.post("/runs/revert/plan", dependencies=_WORK)
def plan_revert(access: AccessDep, request: RevertRunRequest) -> RevertPlanResponse:
    """Plan to undo what a run wrote to a branch. Nothing is changed."""
    options = MergeOptions(strategies_of(request.strategies))
    return RevertPlanResponse.of(runs.plan_revert(access, request.run_id, request.branch, options))


@router.post("/runs/revert", status_code=201, dependencies=_WORK)
def revert(access: AccessDep, request: RevertRunRequest) -> HeadsResponse:
    """Undo what a run wrote to a branch, in all of its datasets, in one transaction. 409 if versions were built on it."""
    options = MergeOptions(strategies_of(request.strategies), message=request.message)
    _, heads = runs.revert(access, request.run_id, request.branch, options, force=request.force)
    return HeadsResponse(versions=[VersionResponse.of(head) for head in heads])


@router.get("/consistency")
def consistency(access: AccessDep, branch: Branch = "main") -> ConsistencyResponse:
    """Whether the heads of a branch belong together: those that no sequence of runs could have made."""
    return ConsistencyResponse.of(runs.consistency(access, branch))
