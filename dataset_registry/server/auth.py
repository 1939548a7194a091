"""Authentication by bearer token, and requests that are repeated with the same key."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from typing import Annotated, Any
from weakref import WeakValueDictionary

from fastapi import Depends, Request, Response
from fastapi.responses import StreamingResponse
from fastapi.routing import APIRoute
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.concurrency import run_in_threadpool
from starlette.types import ASGIApp, Receive, Scope, Send

from dataset_registry.access import Access, administer
from dataset_registry.catalog import Transaction
from dataset_registry.embedded import EmbeddedRegistry
from dataset_registry.errors import InputError, NotAuthenticated, RegistryError
from dataset_registry.model.commits import RequestKey
from dataset_registry.model.manifest import canonical_json
from dataset_registry.operations import requests
from dataset_registry.operations.users import authenticate
from dataset_registry.server import pages, problems, protocols
from dataset_registry.server.limits import Slots
from dataset_registry.server.pages import sessions
from dataset_registry.server.pages.sessions import LocalOwner
from dataset_registry.server.settings import Settings

_bearer = HTTPBearer(auto_error=False, description="An API token: created by `dataset-registry token create`.")
KEY = "Idempotency-Key"
_LONGEST_KEY = 200
_LONGEST_ANSWER = 1 << 16
"""Maximum size of a stored response. Longer ones are plans or lists of findings, which are harmless to repeat."""


class AuthMiddleware:
    """Middleware that authenticates the caller and assigns a slot before the body is read: by a token for `/v1`, S3 and
    Iceberg, by the cookie of a session for pages."""

    def __init__(self, app: ASGIApp, access: Access, settings: Settings, owner: LocalOwner | None) -> None:
        self._app, self._here, self._slots, self._owner = app, access, Slots(settings), owner

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Authenticate requests that need a token or a session; pass on all others."""
        is_page = scope["type"] == "http" and pages.needs_session(scope["path"])
        if scope["type"] != "http" or not (is_page or _needs_token(scope["path"])):
            await self._app(scope, receive, send)
            return
        async with AsyncExitStack() as slot:
            try:
                credentials = self._session(scope) if is_page else self._token(scope)
                slot.enter_context(self._slots.with_secret(credentials.encode()))
                with self._slots.anonymous():
                    authenticate = self._visitor if is_page else self._access
                    scope["state"]["access"] = access = await run_in_threadpool(authenticate, scope, credentials)
                scope["state"]["actor"] = access.actor.name
                await slot.enter_async_context(self._slots.of(access))
            except RegistryError as error:
                scope["state"]["code"] = error.code
                await problems.answer(Request(scope), error)(scope, receive, send)
                return
            await self._app(scope, receive, send)

    def _token(self, scope: Scope) -> str:
        if protocols.is_s3(scope["path"]) and (token := protocols.token_of_s3(scope)) is not None:
            return token
        header: str = dict(scope["headers"]).get(b"authorization", b"").decode("latin-1")
        scheme, _, secret = header.partition(" ")
        if scheme.lower() != "bearer" or not secret.strip():
            raise NotAuthenticated("Missing credentials: send the header `Authorization: Bearer <token>`.")
        return secret.strip()

    def _access(self, scope: Scope, secret: str) -> Access:
        return replace(self._here, actor=authenticate(self._here.catalog, secret, interface="rest"))

    def _session(self, scope: Scope) -> str:
        sessions.refuse_foreign(scope, self._owner)
        secret = sessions.secret_of(scope)
        if secret is None:
            raise NotAuthenticated("Sign in to see this page.")
        return secret

    def _visitor(self, scope: Scope, secret: str) -> Access:
        scope["state"]["visitor"] = visitor = sessions.visitor_of(self._here, secret, self._owner)
        return visitor.access


def _needs_token(path: str) -> bool:
    return path.startswith(("/v1/", protocols.ICEBERG)) or protocols.is_s3(path)


def access_of(request: Request, described: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]) -> Access:
    """The access of the caller; the bearer is declared for the API description."""
    access: Access = request.state.access
    return access


def registry_of(access: Annotated[Access, Depends(access_of)]) -> EmbeddedRegistry:
    """The registry, opened as the caller."""
    return EmbeddedRegistry(access)


AccessDep = Annotated[Access, Depends(access_of)]
RegistryDep = Annotated[EmbeddedRegistry, Depends(registry_of)]


class Keyed(APIRoute):
    """A route with an `Idempotency-Key` whose operation stores its response in its own transaction (`request_key`)."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler behind the check of the key."""
        handle = super().get_route_handler()

        async def keyed(request: Request) -> Response:
            key = request.headers.get(KEY)
            if key is not None and (not 1 <= len(key) <= _LONGEST_KEY or not key.isprintable()):
                raise InputError(f"Invalid {KEY}: expected 1 to {_LONGEST_KEY} printable characters.")
            return await handle(request)

        return keyed


def request_key(request: Request, described: Callable[[], Any]) -> RequestKey | None:
    """The key of a request with its fingerprint; None for a request without a key."""
    key = request.headers.get(KEY)
    if key is None:
        return None
    return RequestKey(key, _fingerprint(request, canonical_json(described()).encode(errors="surrogatepass")))


def _fingerprint(request: Request, body: bytes) -> str:
    condition = request.headers.get("If-Match", "")
    found = hashlib.sha256(f"{request.method} {request.url.path}?{request.url.query} {condition}\n".encode())
    found.update(body)
    return found.hexdigest()


class Idempotent(Keyed):
    """A route that executes a request with an `Idempotency-Key` once; repeated within a day, it gets the stored
    response.

    Only successful responses are stored. A request waits while the same one is running on this server.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler, with the stored responses."""
        handle = super().get_route_handler()

        async def remembering(request: Request) -> Response:
            key = request.headers.get(KEY)
            if key is None or request.method == "GET":
                return await handle(request)
            access: Access = request.state.access
            keyed = RequestKey(key, _fingerprint(request, await request.body()))
            async with request.app.state.under_way.alone(access, key):
                answered = await run_in_threadpool(_recall, access, keyed)
                if answered is not None:
                    status, answer = answered
                    stored = json.loads(answer)
                    headers = {**stored["headers"], "Idempotent-Replayed": "true"}
                    return Response(stored["body"], status, headers, media_type="application/json")
                response = await handle(request)
                has_secret = response.headers.get("Cache-Control") == "no-store"
                if response.status_code < 300 and not isinstance(response, StreamingResponse) and not has_secret:
                    etag = response.headers.get("ETag")
                    headers = {"ETag": etag} if etag is not None else {}
                    answer = json.dumps({"headers": headers, "body": bytes(response.body).decode()})
                    if len(answer) <= _LONGEST_ANSWER:
                        with suppress(RegistryError):  # it is done, whether it is remembered or not
                            await run_in_threadpool(_remember, access, keyed, response.status_code, answer)
                return response

        return remembering


class Administered(Idempotent):
    """A route for administrators, which checks the role before it reads the body."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler behind the check."""
        handle = super().get_route_handler()

        async def checked(request: Request) -> Response:
            await run_in_threadpool(_administer, request.state.access)
            return await handle(request)

        return checked


def _administer(access: Access) -> None:
    with access.catalog.read() as tx:
        administer(access, tx)


class UnderWay:
    """The keys of requests that are running on this server."""

    def __init__(self) -> None:
        self._locks: WeakValueDictionary[tuple[str, int, str], asyncio.Lock] = WeakValueDictionary()

    @asynccontextmanager
    async def alone(self, access: Access, key: str) -> AsyncIterator[None]:
        """Wait until no other request of this caller with this key is running."""
        token = access.actor.token.id if access.actor.token else 0
        lock = self._locks.setdefault((access.actor.name, token, key), asyncio.Lock())
        async with lock:
            yield


def _recall(access: Access, key: RequestKey) -> tuple[int, str] | None:
    with access.catalog.read() as tx:
        return requests.recall(access, tx, key)


def _remember(access: Access, key: RequestKey, status: int, answer: str) -> None:
    def work(tx: Transaction) -> None:
        if requests.recall(access, tx, key) is None:
            requests.remember(access, tx, key, answer, status=status)

    access.catalog.write(work)
