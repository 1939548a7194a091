"""Who asks: a bearer token becomes the registry as its user sees it. And: what was asked before is not done again."""

import hashlib
import json
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from typing import Annotated, Any
from uuid import NAMESPACE_URL, UUID, uuid5

from fastapi import Depends, Request, Response
from fastapi.responses import StreamingResponse
from fastapi.routing import APIRoute
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.concurrency import run_in_threadpool
from starlette.types import ASGIApp, Receive, Scope, Send

from dataset_registry.catalog import requests
from dataset_registry.errors import ConflictError, InputError, NotAuthenticated, RegistryError
from dataset_registry.operations.access import Access, administer
from dataset_registry.operations.users import authenticate
from dataset_registry.registry import Registry
from dataset_registry.server import problems
from dataset_registry.server.limits import Slots
from dataset_registry.server.settings import Settings

_bearer = HTTPBearer(auto_error=False, description="An API token: `dataset-registry token create` makes one.")
KEY = "Idempotency-Key"
_LONGEST_KEY = 200
_LONGEST_ANSWER = 1 << 16
"""What is longer is the answer to a commit, which is known by its version."""


class Asked:
    """Middleware that finds out who calls, and gives the request its slot, before anything of its body is read."""

    def __init__(self, app: ASGIApp, access: Access, settings: Settings) -> None:
        self._app, self._here, self._slots = app, access, Slots(settings)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let pass what is not of `/v1`, and whoever a token lets in."""
        if scope["type"] != "http" or not scope["path"].startswith("/v1/"):
            await self._app(scope, receive, send)
            return
        async with AsyncExitStack() as slot:
            try:
                slot.enter_context(self._slots.with_secret(dict(scope["headers"]).get(b"authorization", b"")))
                with self._slots.anonymous():
                    scope["state"]["access"] = access = await run_in_threadpool(self._access, scope)
                scope["state"]["actor"] = access.actor.name
                await slot.enter_async_context(self._slots.of(access))
            except RegistryError as error:
                scope["state"]["code"] = error.code
                await problems.response(error, scope["state"]["request_id"])(scope, receive, send)
                return
            await self._app(scope, receive, send)

    def _access(self, scope: Scope) -> Access:
        header = dict(scope["headers"]).get(b"authorization", b"").decode("latin-1")
        scheme, _, secret = header.partition(" ")
        if scheme.lower() != "bearer" or not secret.strip():
            raise NotAuthenticated(
                "Say who asks: send the header Authorization, with the word Bearer and a token behind it"
            )
        actor = authenticate(self._here.catalog, secret.strip(), door="rest")
        return replace(self._here, actor=actor)


def access_of(request: Request, described: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]) -> Access:
    """The access of whoever asks; the bearer is here for the description of the API."""
    access: Access = request.state.access
    return access


def registry_of(access: Annotated[Access, Depends(access_of)]) -> Registry:
    """The registry as whoever asks may see it."""
    return Registry(access)


Asking = Annotated[Access, Depends(access_of)]
Here = Annotated[Registry, Depends(registry_of)]


class Administered(APIRoute):
    """A route for administrators, which finds out that the caller is one before it reads the body."""

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


class Idempotent(APIRoute):
    """A route that answers a POST with an `Idempotency-Key` once: the same again gets the same answer for a day.

    Only what succeeded is remembered. Two that run at once may both run; what they do is checked as always.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler, with the memory around it."""
        handle = super().get_route_handler()

        async def remembering(request: Request) -> Response:
            key = request.headers.get(KEY)
            if key is None or request.method != "POST":
                return await handle(request)
            if not 1 <= len(key) <= _LONGEST_KEY or not key.isprintable():
                raise InputError(f"An {KEY} has 1 to {_LONGEST_KEY} printable characters.")
            access: Access = request.state.access
            request.state.idempotency_seed = uuid5(NAMESPACE_URL, f"dataset_registry {access.actor.name} {key}")
            if request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
                return await handle(request)  # the commit knows by its content whether it was made
            fingerprint = hashlib.sha256(f"{request.method} {request.url.path}?{request.url.query}".encode())
            fingerprint.update(await request.body())
            known = await run_in_threadpool(_recall, access, key)
            if known is not None:
                if known[0] != fingerprint.hexdigest():
                    raise ConflictError(f"The {KEY} {key!r} was used for another request. Take a new one.", key=key)
                kept = json.loads(known[2])
                headers = {**kept["headers"], "Idempotent-Replayed": "true"}
                return Response(kept["body"], known[1], headers, media_type="application/json")
            response = await handle(request)
            has_secret = response.headers.get("Cache-Control") == "no-store"
            if response.status_code < 300 and not isinstance(response, StreamingResponse) and not has_secret:
                etag = response.headers.get("ETag")
                headers = {"ETag": etag} if etag is not None else {}
                answer = json.dumps({"headers": headers, "body": bytes(response.body).decode()})
                if len(answer) <= _LONGEST_ANSWER:
                    with suppress(RegistryError):  # it is done, whether it is remembered or not
                        await run_in_threadpool(
                            _remember, access, key, fingerprint.hexdigest(), response.status_code, answer
                        )
            return response

        return remembering


def commit_seed(request: Request) -> UUID | None:
    """What the UUID of this request's version is made from, each time it is sent; None for a request without a key."""
    found: UUID | None = getattr(request.state, "idempotency_seed", None)
    return found


def _own(access: Access, key: str) -> str:
    """A key as it is kept: what a wider token was answered is not for a narrower one."""
    return f"{access.actor.token.id if access.actor.token else 0} {key}"


def _recall(access: Access, key: str) -> tuple[str, int, str] | None:
    with access.catalog.read() as tx:
        return requests.find(tx, access.user_id(tx), _own(access, key))


def _remember(access: Access, key: str, fingerprint: str, status: int, answer: str) -> None:
    def work(tx: Any) -> None:
        user_id = access.user_id(tx)
        if requests.find(tx, user_id, _own(access, key)) is None:
            requests.remember(tx, user_id, _own(access, key), fingerprint=fingerprint, status=status, answer=answer)

    access.catalog.write(work)
