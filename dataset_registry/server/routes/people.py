"""Users, groups, tokens, grants and protected branches."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request

from dataset_registry.operations import users as users_operations
from dataset_registry.server.asking import Asking, Here, Idempotent, Keyed, request_key
from dataset_registry.wire.people import (
    FreezeShape,
    GrantIn,
    GrantShape,
    NewTokenShape,
    ProtectionIn,
    ProtectionShape,
    TokenIn,
    TokenShape,
    UserIn,
    UserPatch,
    UserShape,
    WhoShape,
)
from dataset_registry.wire.shapes import MOST_IDS, CountShape, Page

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
def whoami(here: Here, access: Asking) -> WhoShape:
    """Who your token lets in, and for what; and why the registry is read-only, where it is."""
    token, frozen = access.actor.token, here.frozen
    return WhoShape(
        user=access.actor.name,
        token=TokenShape.of(token) if token else None,
        frozen=FreezeShape.of(frozen) if frozen else None,
    )


@router.get("/users", tags=["users"])
def users(here: Here) -> Page[UserShape]:
    """Every user and group, for administrators."""
    return Page(items=[UserShape.of(user) for user in here.users()])


@router.post("/users", status_code=201, tags=["users"])
def create_user(here: Here, body: UserIn) -> UserShape:
    """Make a user or a group."""
    return UserShape.of(here.create_user(body.name, role=body.role, kind=body.kind, members=body.members))


@router.patch("/users/{name}", tags=["users"])
def update_user(here: Here, name: Annotated[str, Path(min_length=1, max_length=1000)], body: UserPatch) -> UserShape:
    """Change a user's role, lock it out or let it in again; give a group other members."""
    return UserShape.of(here.update_user(name, role=body.role, disabled=body.disabled, members=body.members))


@router.get("/tokens", tags=["users"])
def tokens(here: Here, user: UserName = None) -> Page[TokenShape]:
    """Your tokens, the newest first; for administrators those of anybody."""
    return Page(items=[TokenShape.of(token) for token in here.tokens(user)])


@secrets.post("/tokens", status_code=201, tags=["users"])
def create_token(request: Request, access: Asking, body: TokenIn) -> NewTokenShape:
    """Create a token. Its secret is shown once and not stored.

    The same request again, with the same `Idempotency-Key`, revokes the token that it created before and answers with a new
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
    return NewTokenShape.of(made)


@router.delete("/tokens/{token_id}", tags=["users"])
def revoke_token(here: Here, token_id: Annotated[int, Path(ge=1, le=MOST_IDS)]) -> TokenShape:
    """Let a token let nobody in any more."""
    return TokenShape.of(here.revoke_token(token_id))


@router.get("/grants", tags=["permissions"])
def grants(here: Here, name: Resource = None, file: FileHash = None, user: UserName = None) -> Page[GrantShape]:
    """What was granted: on a dataset, prefix or file that you are an admin of, or to you."""
    return Page(items=[GrantShape.of(grant) for grant in here.grants(name, file=file, user=user)])


@router.post("/grants", status_code=201, tags=["permissions"])
def grant(here: Here, body: GrantIn) -> GrantShape:
    """Let a user or group read, write or admin something, instead of what it could do there."""
    return GrantShape.of(here.grant(body.user, body.permission, body.name, file=body.file))


@router.delete("/grants", tags=["permissions"])
def revoke(
    here: Here,
    user: Annotated[str, Query(min_length=1, max_length=1000)],
    name: Resource = None,
    file: FileHash = None,
) -> CountShape:
    """Take what a user or group was granted on something."""
    here.revoke(user, name, file=file)
    return CountShape(count=1)


@router.get("/protections", tags=["permissions"])
def protections(here: Here, name: Resource = None) -> Page[ProtectionShape]:
    """The protected branches of a dataset, by its own rules and those of prefixes."""
    return Page(items=[ProtectionShape.of(found) for found in here.protections(name)])


@router.post("/protections", status_code=201, tags=["permissions"])
def protect(here: Here, body: ProtectionIn) -> ProtectionShape:
    """Let only admins and those who are allowed move a branch."""
    return ProtectionShape.of(here.protect(body.name, body.branch, allow=body.allow))


@router.delete("/protections", tags=["permissions"])
def unprotect(
    here: Here,
    name: Annotated[str, Query(max_length=1000)],
    branch: Annotated[str, Query(min_length=1, max_length=1000)] = "main",
) -> CountShape:
    """Protect a branch no more."""
    here.unprotect(name, branch)
    return CountShape(count=1)
