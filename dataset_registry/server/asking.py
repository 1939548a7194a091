"""Who asks: a bearer token becomes the registry as its user sees it. And: what was asked before is not done again."""

import hashlib
import json
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Annotated, Any
from uuid import NAMESPACE_URL, UUID, uuid5

from fastapi import Depends, Request, Response
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.concurrency import run_in_threadpool

from dataset_registry.catalog import requests
from dataset_registry.errors import ConflictError, InputError, NotAuthenticated
from dataset_registry.operations.access import Access
from dataset_registry.operations.users import authenticate
from dataset_registry.registry import Registry

_bearer = HTTPBearer(auto_error=False, description="An API token: `dataset-registry token create` makes one.")
KEY = "Idempotency-Key"


def access_of(
    request: Request, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
) -> Access:
    """The access of whoever asks. Raises `NotAuthenticated`."""
    return _access(request, credentials.credentials if credentials else None)


def _access(request: Request, secret: str | None) -> Access:
    if secret is None:
        raise NotAuthenticated("Say who asks, in the header: Authorization: Bearer TOKEN")
    access: Access = request.app.state.access
    actor = authenticate(access.catalog, secret, door="rest")
    request.state.actor = actor.name
    return replace(access, actor=actor)


def registry_of(access: Annotated[Access, Depends(access_of)]) -> Registry:
    """The registry as whoever asks may see it."""
    return Registry(access)


Asking = Annotated[Access, Depends(access_of)]
Here = Annotated[Registry, Depends(registry_of)]


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
            if not 1 <= len(key) <= 255 or not key.isprintable():
                raise InputError(f"An {KEY} has 1 to 255 printable characters.")
            scheme, _, secret = request.headers.get("Authorization", "").partition(" ")
            access = await run_in_threadpool(_access, request, secret if scheme.lower() == "bearer" else None)
            fingerprint = await _fingerprint(request)
            known = await run_in_threadpool(_recall, access, key)
            if known is not None:
                if known[0] != fingerprint:
                    raise ConflictError(f"The {KEY} {key!r} was used for another request. Take a new one.", key=key)
                return Response(known[2], known[1], {"Idempotent-Replayed": "true"}, media_type="application/json")
            request.state.idempotency_uuid = _uuid(access, key, fingerprint)
            response = await handle(request)
            if response.status_code < 300 and isinstance(response, JSONResponse):
                answer = bytes(response.body).decode()
                await run_in_threadpool(_remember, access, key, fingerprint, response.status_code, answer)
            return response

        return remembering


def _uuid(access: Access, key: str, fingerprint: str) -> UUID:
    return uuid5(NAMESPACE_URL, json.dumps(["dataset_registry", access.actor.name, key, fingerprint]))


def version_uuid(request: Request) -> UUID | None:
    """The UUID that the version of this request gets each time it is sent, None for a request without a key."""
    found: UUID | None = getattr(request.state, "idempotency_uuid", None)
    return found


async def _fingerprint(request: Request) -> str:
    hasher = hashlib.sha256(f"{request.method} {request.url.path}?{request.url.query}".encode())
    if request.headers.get("content-type", "").startswith("application/json"):
        hasher.update(await request.body())
    else:  # a form has a border of its own each time; its content is compared by the commit
        hasher.update(request.headers.get("content-length", "").encode())
    return hasher.hexdigest()


def _recall(access: Access, key: str) -> tuple[str, int, str] | None:
    with access.catalog.read() as tx:
        return requests.find(tx, access.user_id(tx), key)


def _remember(access: Access, key: str, fingerprint: str, status: int, answer: str) -> None:
    def work(tx: Any) -> None:
        user_id = access.user_id(tx)
        if requests.find(tx, user_id, key) is None:
            requests.remember(tx, user_id, key, fingerprint=fingerprint, status=status, answer=answer)

    access.catalog.write(work)
