"""Keeping house, for administrators: plans, and applying the plan that was looked at; and the audit log."""

from collections.abc import Iterator
from dataclasses import asdict
from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse

from dataset_registry.model.retention import Policy, Rule
from dataset_registry.server import paging
from dataset_registry.server.asking import Administered, Here, Idempotent
from dataset_registry.server.paging import Cursor, Limit
from dataset_registry.wire.people import FreezeIn, FreezeShape
from dataset_registry.wire.shapes import MOST_IDS, CountShape, Page
from dataset_registry.wire.upkeep import (
    AdoptIn,
    AdoptionPlanShape,
    AdoptionShape,
    AuditCheckShape,
    AuditShape,
    CollectedShape,
    CollectIn,
    CollectPlanShape,
    ExpireApplyIn,
    ExpiredShape,
    ExpireIn,
    ExpirePlanShape,
    FindingShape,
    RuleIn,
    SweepIn,
    SweepPlanShape,
    VerificationShape,
    VerifyIn,
)

router = APIRouter(route_class=Administered)
audited = APIRouter(route_class=Idempotent)


def _rule(rule: RuleIn) -> Rule:
    age = None if rule.younger_than_seconds is None else timedelta(seconds=rule.younger_than_seconds)
    counts = (rule.hourly, rule.daily, rule.weekly, rule.monthly, rule.yearly)
    return Rule(rule.datasets, rule.branches, rule.last, age, *counts, heads=rule.heads)


@router.post("/expire/plan", tags=["upkeep"])
def plan_expiry(here: Here, body: ExpireIn) -> ExpirePlanShape:
    """Which versions no rule of a policy keeps. Changes nothing."""
    policy = Policy(tuple(map(_rule, body.rules)), body.keep_inputs)
    return ExpirePlanShape.of(here.expire(policy, dry_run=True, live_runs=body.live_runs))


@router.post("/expire/apply", tags=["upkeep"])
def apply_expiry(here: Here, body: ExpireApplyIn) -> ExpiredShape:
    """Delete the versions of a plan, but for what came to be needed since."""
    done = here.apply(body.plan.plan(), live_runs=body.live_runs)
    return ExpiredShape(versions=done.versions, kept=done.kept)


@router.post("/collect/plan", tags=["upkeep"])
def plan_collection(here: Here, body: CollectIn) -> CollectPlanShape:
    """Which files nothing names. Changes nothing."""
    return CollectPlanShape.of(here.collect(older_than=timedelta(seconds=body.older_than_seconds), dry_run=True))


@router.post("/collect/apply", tags=["upkeep"])
def apply_collection(here: Here, body: CollectPlanShape) -> CollectedShape:
    """Remove the files of a plan that nothing names still."""
    done = here.apply(body.plan())
    return CollectedShape(files=done.files, kept=done.kept, objects=done.objects, bytes=done.bytes)


@router.post("/sweep/plan", tags=["upkeep"])
def plan_sweep(here: Here, body: SweepIn) -> SweepPlanShape:
    """Which objects of the store the catalog does not know. Changes nothing."""
    age = timedelta(seconds=body.older_than_seconds)
    return SweepPlanShape.of(here.sweep(older_than=age, max_share=body.max_share, dry_run=True))


@router.post("/sweep/apply", tags=["upkeep"])
def apply_sweep(here: Here, body: SweepPlanShape) -> CollectedShape:
    """Remove the objects of a plan that the catalog still does not know."""
    done = here.apply(body.plan())
    return CollectedShape(files=done.files, kept=done.kept, objects=done.objects, bytes=done.bytes)


@router.post("/verify", tags=["upkeep"])
def verify(here: Here, body: VerifyIn) -> VerificationShape:
    """Check every digest, look for every object, on request read every byte. Takes as long as it takes."""
    found = here.verify(
        deep=body.share or False, repair=body.repair, older_than=timedelta(seconds=body.older_than_seconds)
    )
    findings = [
        FindingShape(
            kind=f.kind, what=f.what, mended=f.mended, repair=f.repair, is_damage=not f.mended and not f.is_litter
        )
        for f in found.findings
    ]
    return VerificationShape(files=found.files, bytes_read=found.bytes_read, waiting=found.waiting, findings=findings)


@router.post("/freeze", tags=["upkeep"])
def freeze(here: Here, body: FreezeIn) -> FreezeShape:
    """Make the registry read-only: whatever writes is answered with 423 and the reason. `GET /v1/whoami` shows it, too."""
    return FreezeShape.of(here.freeze(body.reason))


@router.delete("/freeze", tags=["upkeep"])
def unfreeze(here: Here) -> CountShape:
    """End the read-only mode."""
    here.unfreeze()
    return CountShape(count=1)


@router.post("/adopt/plan", tags=["upkeep"])
def plan_adoption(here: Here) -> AdoptionPlanShape:
    """What of a legacy catalog waits to be taken into the store. Changes nothing."""
    plan = here.adopt(dry_run=True)
    return AdoptionPlanShape(inline=plan.inline, paths=plan.paths, bytes=plan.bytes, unreadable=plan.unreadable)


@router.post("/adopt/apply", tags=["upkeep"])
def adopt(here: Here, body: AdoptIn | None = None) -> AdoptionShape:
    """Take the bytes of a legacy catalog into the store."""
    body = body or AdoptIn()
    return AdoptionShape(**asdict(here.adopt(any_size=body.any_size, give_up=body.give_up)))


# --- the audit log -------------------------------------------------------------------------------------------------


@audited.get("/audit", tags=["audit"])
def audit(
    here: Here,
    dataset: Annotated[str | None, Query(max_length=1000, description="Only what is about this dataset.")] = None,
    actor: Annotated[str | None, Query(max_length=1000, description="Only what this user did.")] = None,
    action: Annotated[str | None, Query(max_length=100, description="Only this: `commit`, `grant`, …")] = None,
    before: Annotated[int | None, Query(ge=1, le=MOST_IDS, description="Only what is older than this entry.")] = None,
    cursor: Cursor = None,
    limit: Limit = 100,
) -> Page[AuditShape]:
    """Who did what, the newest first: everything for administrators, of a dataset for its admins."""
    before = paging.number(cursor) or before
    found = here.audit(dataset=dataset, actor=actor, action=action, before=before, limit=limit + 1)
    return paging.page(found, limit, AuditShape.of, lambda entry: entry.id)


@audited.get(
    "/audit/export",
    tags=["audit"],
    response_class=StreamingResponse,
    responses={200: {"content": {"application/x-ndjson": {"schema": {"type": "string"}}}}},
)
def export(here: Here) -> StreamingResponse:
    """The whole log, oldest first, an entry with its hash a line."""
    entries = here.export_audit()
    first = next(entries, None)  # who may not is told so before the answer begins

    def lines() -> Iterator[bytes]:
        for entry, carried in [first] if first else []:
            yield AuditShape.of(entry, carried).model_dump_json().encode() + b"\n"
        for entry, carried in entries:
            yield AuditShape.of(entry, carried).model_dump_json().encode() + b"\n"

    return StreamingResponse(lines(), media_type="application/x-ndjson")


@audited.get("/audit/check", tags=["audit"])
def check(here: Here) -> AuditCheckShape:
    """Whether anybody changed, removed or added entries since they were sealed."""
    found = here.check_audit()
    return AuditCheckShape(
        entries=found.entries, sealed=found.sealed, digest=found.digest, problems=list(found.problems)
    )


@audited.post("/audit/seal", tags=["audit"])
def seal(here: Here) -> CountShape:
    """Seal the entries that were not sealed yet; how many those were."""
    return CountShape(count=here.seal_audit())
