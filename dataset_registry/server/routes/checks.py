"""Results of checks on versions, taints, and how runs ended."""

from fastapi import APIRouter

from dataset_registry.operations import gates
from dataset_registry.server.auth import AccessDep, Idempotent
from dataset_registry.server.routes.datasets import DatasetDep, VersionDep
from dataset_registry.wire.base import Page
from dataset_registry.wire.checks import (
    AbsolveRequest,
    CheckRequest,
    CheckResponse,
    FinishRunRequest,
    TaintResponse,
    TaintsResponse,
)

router = APIRouter(route_class=Idempotent, tags=["checks"])


@router.get("/datasets/{dataset_id}/versions/{version_id}/checks")
def checks(version: VersionDep) -> Page[CheckResponse]:
    """The results of checks on a version, oldest first."""
    return Page(items=[CheckResponse.of(check) for check in version.checks])


@router.post("/datasets/{dataset_id}/versions/{version_id}/checks", status_code=201)
def record_check(version: VersionDep, access: AccessDep, request: CheckRequest) -> CheckResponse:
    """Record the result of a check on a version. If a blocking check failed, the version is tainted."""
    return CheckResponse.of(gates.record_check(access, version.record, request.value()))


@router.get("/datasets/{dataset_id}/versions/{version_id}/taints")
def taints(version: VersionDep) -> TaintsResponse:
    """Why the content of a version may not reach a protected branch."""
    return TaintsResponse(taints=[TaintResponse.of(taint) for taint in version.taints])


@router.post("/datasets/{dataset_id}/versions/{version_id}/absolve", status_code=201)
def absolve(dataset: DatasetDep, version: VersionDep, request: AbsolveRequest) -> TaintsResponse:
    """Close the taints of a version, so that its content may reach protected branches."""
    found = dataset.absolve(f"v{version.number}", request.because)
    return TaintsResponse(taints=[TaintResponse.of(taint) for taint in found])


@router.post("/runs/finish", status_code=201)
def finish_run(access: AccessDep, request: FinishRunRequest) -> TaintsResponse:
    """Record how a run ended. What a failed run wrote is tainted, until the run succeeds."""
    found = gates.finish_run(access, request.run_id, succeeded=request.succeeded)
    return TaintsResponse(taints=[TaintResponse.of(taint) for taint in found])
