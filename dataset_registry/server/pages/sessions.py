"""Sessions of browsers: signing in with a token, the cookie, forms that only our pages can send.

A session is a token of its own, created with the token that was used to sign in: it can do the same, it lasts twelve hours at
most, and it ends when one of them is revoked. So it works on every server of the registry.
"""

import hashlib
import hmac
import secrets
from dataclasses import dataclass, replace
from datetime import timedelta
from urllib.parse import urlsplit

from fastapi import APIRouter, Form, Request
from fastapi.responses import RedirectResponse, Response
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.requests import cookie_parser
from starlette.types import Scope

from dataset_registry.access import Access, is_administrator
from dataset_registry.errors import (
    NotAuthenticated,
    PermissionDenied,
    RegistryError,
    RegistryFrozen,
    StorageError,
)
from dataset_registry.operations import users
from dataset_registry.server.pages.rendering import page

SESSION_HOURS = 12
COOKIE = "dataset_registry_session"
_TOKEN_MARK = "token."  # noqa: S105 - no secret
"""Before the secret in the cookie, if it is that of the token that was typed: of a session that began while the registry was
read-only."""
_LOCAL_HOSTS = ("127.0.0.1", "localhost", "[::1]")

router = APIRouter(include_in_schema=False)


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who looks at a page: the access, the name, whether administration is shown, and the secret of its forms."""

    access: Access
    name: str
    is_administrator: bool
    form_key: str
    has_own_token: bool = True
    """Whether the session has a token of its own, which ends with it."""


class LocalOwner:
    """The owner at this machine, for `dataset-registry ui`: who has the key of the address that the command prints. The session
    lives as long as the process."""

    def __init__(self) -> None:
        self.key = secrets.token_urlsafe(32)
        self.session = secrets.token_urlsafe(32)

    def start(self, key: str) -> str | None:
        """The secret of the session for the key, None for a wrong key."""
        return self.session if hmac.compare_digest(key.encode(), self.key.encode()) else None


def cookie_name(scope: Scope) -> str:
    """The name of the cookie. Under TLS browsers accept the prefix `__Host-` from this host alone, and for it alone."""
    return f"__Host-{COOKIE}" if scope["scheme"] == "https" else COOKIE


def secret_of(scope: Scope) -> str | None:
    """The secret in the cookie of a request."""
    cookies = cookie_parser(Headers(scope=scope).get("cookie", ""))
    return cookies.get(cookie_name(scope)) or None


def visitor_of(access: Access, secret: str, owner: LocalOwner | None) -> Visitor:
    """The visitor with this session. Raises `NotAuthenticated`, `PermissionDenied`."""
    if owner is not None and hmac.compare_digest(secret.encode(), owner.session.encode()):
        found = access
    else:
        actor = users.authenticate(access.catalog, secret.removeprefix(_TOKEN_MARK), interface="rest")
        found = replace(access, actor=actor)
    with found.catalog.read() as tx:
        may_administer = is_administrator(found, tx)
    return Visitor(found, found.actor.name, may_administer, form_key(secret), not secret.startswith(_TOKEN_MARK))


def form_key(secret: str) -> str:
    """The hidden field of the forms of a session: a page of another origin does not know it."""
    return hmac.new(secret.encode(), b"form", hashlib.sha256).hexdigest()


def refuse_foreign(scope: Scope, owner: LocalOwner | None) -> None:
    """Refuse a request that another site caused, or one that came by another name of this machine. Raises `PermissionDenied`.

    `Sec-Fetch-Site` and `Origin` are set by browsers, not by pages (Fetch standard, 3.2; Fetch Metadata).
    """
    headers = Headers(scope=scope)
    host = headers.get("host", "")
    if owner is not None and host.rpartition(":")[0] not in _LOCAL_HOSTS:
        raise PermissionDenied("This page is for this machine only. Open it by the address that the command printed.")
    if scope["method"] in ("GET", "HEAD"):
        return
    origin = headers.get("origin")
    is_foreign = headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none")
    if is_foreign or (origin is not None and origin.partition("://")[2] != host):
        raise PermissionDenied("The form was sent from another site. Open the page here, and send it again.")


def local_path(path: str) -> str:
    """A path on this server to go on to, `/` for anything else."""
    parts = urlsplit(path)
    is_local = path.startswith("/") and not path.startswith("//") and "\\" not in path and path.isprintable()
    return path if is_local and not parts.scheme and not parts.netloc and not path.startswith("/sign-") else "/"


@router.get("/sign-in")
def sign_in_page(request: Request, next: str = "/", key: str = "") -> Response:
    """The form to sign in with a token; the key of `dataset-registry ui` signs in at once."""
    owner: LocalOwner | None = request.app.state.local_owner
    if owner is not None and key and (secret := owner.start(key)) is not None:
        return _started(request, secret, local_path(next))
    return page(request, "sign_in.html", next=local_path(next), problem=None, is_local=owner is not None)


@router.post("/sign-in")
async def sign_in(
    request: Request, token: str = Form("", max_length=200), next: str = Form("/", max_length=2000)
) -> Response:
    """Start a session for a token."""
    access: Access = request.app.state.access

    def start() -> str:
        actor = users.authenticate(access.catalog, token.strip(), interface="rest")
        mine = actor.token
        assert mine is not None, "authenticated by a token"
        try:
            made = users.create_token(
                replace(access, actor=actor),
                None,
                name="browser session",
                permission=mine.permission,
                prefix=mine.prefix,
                lasts=timedelta(hours=SESSION_HOURS),
            )
        except (RegistryFrozen, StorageError):  # nothing can be written: operators must be able to look all the same
            return _TOKEN_MARK + token.strip()
        return made.secret

    try:
        refuse_foreign(request.scope, None)
        secret = await run_in_threadpool(start)
    except NotAuthenticated as error:
        request.state.code = error.code
        is_local = request.app.state.local_owner is not None
        problem = "Invalid token: unknown, expired or revoked. Create one with: dataset-registry token create"
        return page(request, "sign_in.html", status=401, next=local_path(next), problem=problem, is_local=is_local)
    return _started(request, secret, local_path(next))


def _started(request: Request, secret: str, path: str) -> Response:
    response = RedirectResponse(path, 303, {"Cache-Control": "no-store"})
    response.set_cookie(
        cookie_name(request.scope),
        secret,
        max_age=SESSION_HOURS * 3600,
        httponly=True,
        samesite="lax",
        secure=request.scope["scheme"] == "https",
    )
    return response


@router.post("/sign-out")
async def sign_out(request: Request) -> Response:
    """End the session: its token is revoked."""
    visitor: Visitor = request.state.visitor
    token = visitor.access.actor.token

    def end() -> None:
        if token is not None and visitor.has_own_token:
            try:
                users.revoke_token(visitor.access, token.id)
            except RegistryError as error:  # it was revoked in the meantime, or the registry is read-only
                request.state.code = error.code

    await run_in_threadpool(end)
    response = RedirectResponse("/sign-in", 303)
    response.delete_cookie(cookie_name(request.scope), httponly=True, samesite="lax")
    return response
