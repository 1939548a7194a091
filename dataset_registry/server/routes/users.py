"""Users, groups, tokens, grants and protected branches."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request

from dataset_registry.operations import users as users_operations
from dataset_registry.server.auth import AccessDep, Idempotent, Keyed, RegistryDep, request_key
from dataset_registry.wire.base import MOST_IDS, CountResponse, Page
from dataset_registry.wire.users import (
    FreezeResponse,
    GrantRequest,
    GrantResponse,
    NewTokenResponse,
    ProtectionRequest,
    ProtectionResponse,
    TokenRequest,
    TokenResponse,
    UpdateUserRequest,
    UserRequest,
    UserResponse,
    WhoResponse,
)

router = APIRouter(route_class=Idempotent)
secrets = APIRouter(route_class=Keyed)
"""Of what is answered here, the secret is not stored."""

Resource = Annotated[
    str | None,
    Query(max_length=1000, description="A dataset, or a prefix that ends in `/`; empty for all datasets."),
]
FileHash = Annotated[str | None, Query(max_length=100, description="A file by its hash.")]
UserName = Annotated[str | None, Query(max_length=1000, description="A user or a group.")]


@router.get("/whoami", tags=["users"])
def whoami(registry: RegistryDep, access: AccessDep) -> WhoResponse:
    """The user and scope of your token; the reason if the registry is read-only."""
    token, frozen = access.actor.token, registry.frozen
    return WhoResponse(
        user=access.actor.name,
        token=TokenResponse.of(token) if token else None,
        frozen=FreezeResponse.of(frozen) if frozen else None,
    )


@router.get("/users", tags=["users"])
def users(registry: RegistryDep) -> Page[UserResponse]:
    """List users and groups, for administrators."""
    return Page(items=[UserResponse.of(user) for user in registry.users()])


@router.post("/users", status_code=201, tags=["users"])
def create_user(registry: RegistryDep, body: UserRequest) -> UserResponse:
    """Create a user or a group."""
    return UserResponse.of(registry.create_user(body.name, role=body.role, kind=body.kind, members=body.members))


@router.patch("/users/{name}", tags=["users"])
def update_user(
    registry: RegistryDep, name: Annotated[str, Path(min_length=1, max_length=1000)], body: UpdateUserRequest
) -> UserResponse:
    """Change a user's role, disable or enable it, or replace the members of a group."""
    return UserResponse.of(registry.update_user(name, role=body.role, disabled=body.disabled, members=body.members))


@router.get("/tokens", tags=["users"])
def tokens(registry: RegistryDep, user: UserName = None) -> Page[TokenResponse]:
    """List your tokens, newest first; for administrators, those of any user."""
    return Page(items=[TokenResponse.of(token) for token in registry.tokens(user)])


@secrets.post("/tokens", status_code=201, tags=["users"])
def create_token(request: Request, access: AccessDep, body: TokenRequest) -> NewTokenResponse:
    """Create a token. Its secret is shown once and not stored.

    The same request again, with the same `Idempotency-Key`, revokes the token that it created before and returns a new
    one: at most one of them is valid.
    """
    made = users_operations.create_token(
        access,
        body.user,
        name=body.name,
        permission=body.permission,
        prefix=body.prefix,
        lasts=body.lasts(),
        request=request_key(request, lambda: body.model_dump(mode="json")),
    )
    return NewTokenResponse.of(made)


@router.delete("/tokens/{token_id}", tags=["users"])
def revoke_token(registry: RegistryDep, token_id: Annotated[int, Path(ge=1, le=MOST_IDS)]) -> TokenResponse:
    """Revoke a token."""
    return TokenResponse.of(registry.revoke_token(token_id))


@router.get("/grants", tags=["permissions"])
def grants(
    registry: RegistryDep, name: Resource = None, file: FileHash = None, user: UserName = None
) -> Page[GrantResponse]:
    """List grants: on a dataset, prefix or file that you administer, or to you."""
    return Page(items=[GrantResponse.of(grant) for grant in registry.grants(name, file=file, user=user)])


@router.post("/grants", status_code=201, tags=["permissions"])
def grant(registry: RegistryDep, body: GrantRequest) -> GrantResponse:
    """Grant a user or group read, write or admin. Replaces its grant on the same resource."""
    return GrantResponse.of(registry.grant(body.user, body.permission, body.name, file=body.file))


@router.delete("/grants", tags=["permissions"])
def revoke(
    registry: RegistryDep,
    user: Annotated[str, Query(min_length=1, max_length=1000)],
    name: Resource = None,
    file: FileHash = None,
) -> CountResponse:
    """Revoke the grant of a user or group."""
    registry.revoke(user, name, file=file)
    return CountResponse(count=1)


@router.get("/protections", tags=["permissions"])
def protections(registry: RegistryDep, name: Resource = None) -> Page[ProtectionResponse]:
    """The protected branches of a dataset, by its own rules and those of prefixes."""
    return Page(items=[ProtectionResponse.of(found) for found in registry.protections(name)])


@router.post("/protections", status_code=201, tags=["permissions"])
def protect(registry: RegistryDep, body: ProtectionRequest) -> ProtectionResponse:
    """Restrict moving a branch to admins and the allowed users."""
    return ProtectionResponse.of(
        registry.protect(body.name, body.branch, allow=body.allow, approvals=body.approvals, checks=body.checks)
    )


@router.delete("/protections", tags=["permissions"])
def unprotect(
    registry: RegistryDep,
    name: Annotated[str, Query(max_length=1000)],
    branch: Annotated[str, Query(min_length=1, max_length=1000)] = "main",
) -> CountResponse:
    """Remove the protection of a branch."""
    registry.unprotect(name, branch)
    return CountResponse(count=1)
