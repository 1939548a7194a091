"""Maintenance, for administrators: plans and applying them; the audit log."""

from collections.abc import Iterator
from dataclasses import asdict
from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse

from dataset_registry.model.retention import Policy, Rule
from dataset_registry.server import paging
from dataset_registry.server.auth import Administered, Idempotent, RegistryDep
from dataset_registry.server.paging import Cursor, Limit
from dataset_registry.wire.base import MOST_IDS, CountResponse, Page
from dataset_registry.wire.maintenance import (
    AdoptionPlanResponse,
    AdoptionResponse,
    AdoptRequest,
    AuditCheckResponse,
    AuditResponse,
    CollectedResponse,
    CollectPlanResponse,
    CollectRequest,
    ExpireApplyRequest,
    ExpiredResponse,
    ExpirePlanResponse,
    ExpireRequest,
    FindingResponse,
    RuleRequest,
    SweepPlanResponse,
    SweepRequest,
    VerificationResponse,
    VerifyRequest,
)
from dataset_registry.wire.users import FreezeRequest, FreezeResponse

router = APIRouter(route_class=Administered)
audited = APIRouter(route_class=Idempotent)


def _rule(rule: RuleRequest) -> Rule:
    age = None if rule.younger_than_seconds is None else timedelta(seconds=rule.younger_than_seconds)
    counts = (rule.hourly, rule.daily, rule.weekly, rule.monthly, rule.yearly)
    return Rule(rule.datasets, rule.branches, rule.last, age, *counts, heads=rule.heads)


@router.post("/expire/plan", tags=["maintenance"])
def plan_expiry(registry: RegistryDep, body: ExpireRequest) -> ExpirePlanResponse:
    """Plan an expiry: the versions that no rule keeps. Changes nothing."""
    policy = Policy(tuple(map(_rule, body.rules)), body.keep_inputs)
    return ExpirePlanResponse.of(registry.expire(policy, dry_run=True, live_runs=body.live_runs))


@router.post("/expire/apply", tags=["maintenance"])
def apply_expiry(registry: RegistryDep, body: ExpireApplyRequest) -> ExpiredResponse:
    """Delete the versions of a plan, except those that are in use since."""
    done = registry.apply(body.plan.value(), live_runs=body.live_runs)
    return ExpiredResponse(versions=done.versions, kept=done.kept)


@router.post("/collect/plan", tags=["maintenance"])
def plan_collection(registry: RegistryDep, body: CollectRequest) -> CollectPlanResponse:
    """Plan a collection: the unreferenced files. Changes nothing."""
    return CollectPlanResponse.of(registry.collect(older_than=timedelta(seconds=body.older_than_seconds), dry_run=True))


@router.post("/collect/apply", tags=["maintenance"])
def apply_collection(registry: RegistryDep, body: CollectPlanResponse) -> CollectedResponse:
    """Remove the files of a plan that are still unreferenced."""
    done = registry.apply(body.value())
    return CollectedResponse(files=done.files, kept=done.kept, objects=done.objects, bytes=done.bytes)


@router.post("/sweep/plan", tags=["maintenance"])
def plan_sweep(registry: RegistryDep, body: SweepRequest) -> SweepPlanResponse:
    """Plan a sweep: the objects unknown to the catalog. Changes nothing."""
    age = timedelta(seconds=body.older_than_seconds)
    return SweepPlanResponse.of(registry.sweep(older_than=age, max_share=body.max_share, dry_run=True))


@router.post("/sweep/apply", tags=["maintenance"])
def apply_sweep(registry: RegistryDep, body: SweepPlanResponse) -> CollectedResponse:
    """Remove the objects of a plan that are still unknown to the catalog."""
    done = registry.apply(body.value())
    return CollectedResponse(files=done.files, kept=done.kept, objects=done.objects, bytes=done.bytes)


@router.post("/verify", tags=["maintenance"])
def verify(registry: RegistryDep, body: VerifyRequest) -> VerificationResponse:
    """Check every digest and object; on request read every byte. The request lasts until it is done."""
    found = registry.verify(
        deep=body.share or False, repair=body.repair, older_than=timedelta(seconds=body.older_than_seconds)
    )
    findings = [
        FindingResponse(
            kind=f.kind,
            what=f.what,
            repaired=f.repaired,
            repair=f.repair,
            is_damage=not f.repaired and not f.is_leftover,
        )
        for f in found.findings
    ]
    return VerificationResponse(
        files=found.files, bytes_read=found.bytes_read, waiting=found.waiting, findings=findings
    )


@router.post("/freeze", tags=["maintenance"])
def freeze(registry: RegistryDep, body: FreezeRequest) -> FreezeResponse:
    """Make the registry read-only: writes are a 423 with the reason, which `GET /v1/whoami` shows, too."""
    return FreezeResponse.of(registry.freeze(body.reason))


@router.delete("/freeze", tags=["maintenance"])
def unfreeze(registry: RegistryDep) -> CountResponse:
    """End the read-only mode."""
    registry.unfreeze()
    return CountResponse(count=1)


@router.post("/adopt/plan", tags=["maintenance"])
def plan_adoption(registry: RegistryDep) -> AdoptionPlanResponse:
    """Plan an adoption: the files of a legacy catalog. Changes nothing."""
    plan = registry.adopt(dry_run=True)
    return AdoptionPlanResponse(inline=plan.inline, paths=plan.paths, bytes=plan.bytes, unreadable=plan.unreadable)


@router.post("/adopt/apply", tags=["maintenance"])
def adopt(registry: RegistryDep, body: AdoptRequest | None = None) -> AdoptionResponse:
    """Adopt the files of a legacy catalog into the store."""
    body = body or AdoptRequest()
    return AdoptionResponse(**asdict(registry.adopt(any_size=body.any_size, give_up=body.give_up)))


# --- the audit log -------------------------------------------------------------------------------------------------


@audited.get("/audit", tags=["audit"])
def audit(
    registry: RegistryDep,
    dataset: Annotated[str | None, Query(max_length=1000, description="Only entries of this dataset.")] = None,
    actor: Annotated[str | None, Query(max_length=1000, description="Only entries by this user.")] = None,
    action: Annotated[str | None, Query(max_length=100, description="Only this action: `commit`, `grant`, …")] = None,
    before: Annotated[int | None, Query(ge=1, le=MOST_IDS, description="Only entries older than this one.")] = None,
    cursor: Cursor = None,
    limit: Limit = 100,
) -> Page[AuditResponse]:
    """List audit entries, newest first: all for administrators, those of a dataset for its admins."""
    before = paging.number(cursor) or before
    found = registry.audit(dataset=dataset, actor=actor, action=action, before=before, limit=limit + 1)
    return paging.page(found, limit, AuditResponse.of, lambda entry: entry.id)


@audited.get(
    "/audit/export",
    tags=["audit"],
    response_class=StreamingResponse,
    responses={200: {"content": {"application/x-ndjson": {"schema": {"type": "string"}}}}},
)
def export(registry: RegistryDep) -> StreamingResponse:
    """Export the whole log, oldest first: one entry with its hash per line."""
    entries = registry.export_audit()
    first = next(entries, None)  # who may not is told so before the answer begins

    def lines() -> Iterator[bytes]:
        for entry, carried in [first] if first else []:
            yield AuditResponse.of(entry, carried).model_dump_json().encode() + b"\n"
        for entry, carried in entries:
            yield AuditResponse.of(entry, carried).model_dump_json().encode() + b"\n"

    return StreamingResponse(lines(), media_type="application/x-ndjson")


@audited.get("/audit/check", tags=["audit"])
def check(registry: RegistryDep) -> AuditCheckResponse:
    """Check that no entry was changed, removed or added since it was sealed."""
    found = registry.check_audit()
    return AuditCheckResponse(
        entries=found.entries, sealed=found.sealed, digest=found.digest, problems=list(found.problems)
    )


@audited.post("/audit/seal", tags=["audit"])
def seal(registry: RegistryDep) -> CountResponse:
    """Seal the unsealed entries. Returns their number."""
    return CountResponse(count=registry.seal_audit())
