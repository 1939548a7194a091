"""Pages for administrators: health, users and tokens, access, the audit log, storage."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Request
from fastapi.responses import RedirectResponse, Response

import dataset_registry
from dataset_registry.access import Access, administer
from dataset_registry.catalog.engine import HEAD
from dataset_registry.errors import NotFound
from dataset_registry.model.actors import parse_permission
from dataset_registry.model.pages import path_of
from dataset_registry.operations import grants, overview
from dataset_registry.server.pages.base import AccessDep, FormDep, RegistryDep, access_of, whole
from dataset_registry.server.pages.rendering import page, plural, size
from dataset_registry.wire.base import MOST_IDS


def _administrator(request: Request) -> None:
    """Require an administrator, before anything of a page is read."""
    access: Access = access_of(request)
    with access.catalog.read() as tx:
        administer(access, tx)


router = APIRouter(include_in_schema=False, dependencies=[Depends(_administrator)])

_AUDIT = 100


@router.get("/admin")
def administration() -> Response:
    """The first page."""
    return RedirectResponse("/admin/health", 303)


@router.get("/admin/health")
def health(request: Request, access: AccessDep, registry: RegistryDep) -> Response:
    """The state of the catalog and the store."""
    datasets, versions, stored = overview.totals(access)
    return page(
        request,
        "health.html",
        title="Health",
        tab="health",
        revision=access.catalog.revision(),
        head=HEAD,
        location=registry.location,
        frozen=registry.frozen,
        datasets=datasets,
        versions=versions,
        stored=stored,
        software=dataset_registry.__version__,
    )


@router.get("/admin/users")
def users(request: Request, registry: RegistryDep) -> Response:
    """Users, groups, and tokens that are valid."""
    tokens = [token for token in registry.tokens() if token.revoked_at is None]
    return page(request, "users.html", title="Users", tab="users", users=registry.users(), tokens=tokens)


@router.post("/admin/tokens/{token_id}/revoke")
def revoke(registry: RegistryDep, form: FormDep, token_id: Annotated[int, Path(ge=1, le=MOST_IDS)]) -> Response:
    """Revoke a token."""
    registry.revoke_token(token_id)
    return RedirectResponse("/admin/users", 303)


@router.get("/admin/access")
def access_page(
    request: Request, access: AccessDep, registry: RegistryDep, user: str = "", dataset: str = ""
) -> Response:
    """Why a user has access to a dataset."""
    level, reasons, problem = None, None, None
    try:
        if user and dataset:
            level, reasons = grants.explain(access, user, dataset)
        elif user:
            own = registry.grants(user=user)
            reasons = [
                f"{grant.permission} on {grant.resource_type} {grant.resource or '(all datasets)'}" for grant in own
            ]
    except NotFound as error:
        problem = str(error)
    return page(
        request,
        "access.html",
        title="Access",
        tab="access",
        user=user,
        dataset=dataset,
        level=level,
        reasons=reasons,
        problem=problem,
        grants=registry.grants(),
    )


@router.post("/admin/grants")
def grant(registry: RegistryDep, form: FormDep) -> Response:
    """Grant a permission on a dataset or a prefix."""
    user, name = form.get("user", ""), form.get("name", "")
    registry.grant(user, parse_permission(form.get("permission", "")), "" if name == "/" else name)
    return RedirectResponse(path_of("/admin/access", user=user), 303)


@router.post("/admin/grants/revoke")
def revoke_grant(registry: RegistryDep, form: FormDep) -> Response:
    """Revoke a grant on a dataset or a prefix."""
    registry.revoke(form.get("user", ""), form.get("name", ""))
    return RedirectResponse("/admin/access", 303)


def _audit_page(request: Request, registry: Any, check: Any = None) -> Response:
    query = request.query_params
    filters: dict[str, Any] = {name: query.get(name, "") for name in ("dataset", "actor", "action")}
    before, problem = whole(query, "before", 0) or None, None
    try:
        entries = registry.audit(**{n: v or None for n, v in filters.items()}, before=before, limit=_AUDIT + 1)
    except NotFound as error:
        entries, problem = [], str(error)
    text = None
    if check is not None:
        text = "; ".join(check.problems) or (
            f"The log is as it was sealed: {plural(check.entries, 'entry', 'entries')}, {check.sealed:,} sealed. "
            f"The newest seal is {check.digest}."
        )
    return page(
        request,
        "audit.html",
        title="Audit log",
        tab="audit",
        **filters,
        entries=entries[:_AUDIT],
        following=entries[_AUDIT - 1].id if len(entries) > _AUDIT else None,
        check=None if check is None else not check.problems,
        check_text=text,
        problem=problem,
    )


@router.get("/admin/audit")
def audit(request: Request, registry: RegistryDep) -> Response:
    """The audit log, newest entries first."""
    return _audit_page(request, registry)


@router.post("/admin/audit/check")
def check_audit(request: Request, registry: RegistryDep, form: FormDep) -> Response:
    """Check that no entry was changed since it was sealed."""
    return _audit_page(request, registry, registry.check_audit())


def _storage_page(request: Request, access: Access, **values: Any) -> Response:
    shown: dict[str, Any] = {
        "plan": None,
        "plan_text": None,
        "is_something": False,
        "collected": None,
        "verified": None,
        "findings": (),
    }
    stored = overview.totals(access)[2]
    return page(request, "storage.html", title="Storage", tab="storage", stored=stored, **(shown | values))


@router.get("/admin/storage")
def storage(request: Request, access: AccessDep, registry: RegistryDep, plan: str = "") -> Response:
    """Stored bytes, and the plan of a collection."""
    if plan != "collect":
        return _storage_page(request, access)
    found = registry.collect(dry_run=True)
    count, trashed = len(found.files), found.trashed
    unreferenced, waiting = plural(count, "unreferenced file"), plural(trashed, "object")
    text = f"A collection would delete {unreferenced} with {size(found.bytes)}, and {waiting} in the trash."
    return _storage_page(request, access, plan=found, plan_text=text, is_something=bool(count or trashed))


@router.post("/admin/storage/collect")
def collect(request: Request, access: AccessDep, registry: RegistryDep, form: FormDep) -> Response:
    """Collect."""
    done = registry.collect()
    return _storage_page(request, access, collected=f"Deleted {plural(done.files, 'file')}: {size(done.bytes)} freed.")


@router.post("/admin/storage/verify")
def verify(request: Request, access: AccessDep, registry: RegistryDep, form: FormDep) -> Response:
    """Verify without reading content."""
    found = registry.verify()
    listed = [f"{finding.what}. {finding.repair}" for finding in found.findings[:100]]
    text = f"{plural(len(found.findings), 'finding')} in {plural(found.files, 'file')}."
    return _storage_page(request, access, verified=text, findings=listed)
