"""Limits per client: body size, timeouts and minimum rate in both directions, concurrent requests."""

import asyncio
import re
import threading
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from time import monotonic
from typing import TypeVar

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dataset_registry.access import Access, is_administrator
from dataset_registry.errors import BodyTimeout, InputError, PayloadTooLarge, RegistryError, TooManyRequests
from dataset_registry.server import problems
from dataset_registry.server.settings import Settings

_Result = TypeVar("_Result")
_Key = TypeVar("_Key")

_PATIENCE = 2.0
"""Seconds that a request waits for others that compare or merge rows."""
_COMMIT = re.compile(r"/v1/(commits|datasets/\d+/versions)")
_PLAN = re.compile(r"/v1/(expire/plan|(expire|collect|sweep)/apply)")


class LimitMiddleware:
    """Middleware that refuses too large or too slow bodies, and disconnects clients that do not read responses."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app, self._settings = app, settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = scope.get("state", {}).get("request_id")
        names = [name for name, _ in scope["headers"]]
        if names.count(b"content-type") > 1 or names.count(b"authorization") > 1:
            error = InputError("Send one Content-Type and one Authorization, not several.")
            await problems.response(error, request_id)(scope, receive, send)
            return
        most = _largest_body(scope, self._settings)
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > most:
            await problems.response(_too_large(most), request_id)(scope, receive, send)
            return
        count, has_begun = 0, False
        refusal: RegistryError | None = None
        incoming, outgoing = _Pace(self._settings), _Pace(self._settings)

        async def receiving() -> Message:
            nonlocal count, refusal
            try:
                message = await (receive() if has_begun else incoming.wait(receive()))
                incoming.moved(len(message.get("body", b"")))
            except TimeoutError:
                refusal = BodyTimeout("The body of this request arrived too slowly. Send it again.")
                raise refusal from None
            count += len(message.get("body", b""))
            if count > most:
                refusal = _too_large(most)
                raise refusal
            return message

        async def sending(message: Message) -> None:
            nonlocal has_begun
            if refusal is None or has_begun:  # whatever the app makes of an error of ours, ours is the answer
                has_begun = True
                await outgoing.wait(send(message))
                outgoing.moved(len(message.get("body", b"")))

        with suppress(TimeoutError):  # of a receiver: the connection is closed with the answer cut off
            with suppress(PayloadTooLarge, BodyTimeout):
                await self._app(scope, receiving, sending)
            if refusal is not None and not has_begun:
                scope["state"]["code"] = refusal.code
                await outgoing.wait(problems.response(refusal, request_id)(scope, receive, send))


class _Pace:
    """Measures the transfer rate. Raises `TimeoutError` after a pause that is too long, or below the minimum rate."""

    def __init__(self, settings: Settings) -> None:
        self._silence, self._least = settings.body_seconds, settings.least_bytes_per_second
        self._waited, self._bytes = 0.0, 0

    async def wait(self, action: Awaitable[_Result]) -> _Result:
        """Wait for the client and add the time."""
        begun = monotonic()
        try:
            return await asyncio.wait_for(action, self._silence)
        finally:
            self._waited += monotonic() - begun

    def moved(self, count: int) -> None:
        """Count bytes that the client sent or received."""
        self._bytes += count
        if self._waited > self._silence and self._bytes < self._least * self._waited:
            raise TimeoutError


class Slots:
    """Slots for concurrent requests: in total, per user, and per caller that is not authenticated yet.

    Administrators have a few extra slots, so that a busy server can be maintained.
    """

    def __init__(self, settings: Settings) -> None:
        self._most, self._share = settings.concurrency, min(settings.user_concurrency, settings.concurrency)
        self._under_way: Counter[str | None] = Counter()
        self._by_secret: Counter[bytes] = Counter()

    @contextmanager
    def with_secret(self, secret: bytes) -> Iterator[None]:
        """A slot for a request with this token, valid or not, so that an excess is refused without a catalog query.
        Raises `TooManyRequests`."""
        if self._by_secret[secret] >= self._share:
            raise _too_many("This token", self._share)
        with _counted(self._by_secret, secret):
            yield

    @contextmanager
    def anonymous(self) -> Iterator[None]:
        """A slot for authenticating a caller. Raises `TooManyRequests`."""
        if self._under_way[None] >= self._most:
            raise _busy()
        with _counted(self._under_way, None):
            yield

    @asynccontextmanager
    async def of(self, access: Access) -> AsyncIterator[None]:
        """A slot for a request of a user. Raises `TooManyRequests`."""
        user = access.actor.name
        known = self._under_way.total() - self._under_way[None]
        if self._under_way[user] >= self._share:
            raise _too_many(user, self._share)
        if known >= self._most and not (
            known < self._most + ADMINISTRATORS_RESERVE and await run_in_threadpool(_administers, access)
        ):
            raise _busy()
        with _counted(self._under_way, user):
            yield


@contextmanager
def _counted(counter: Counter[_Key], key: _Key) -> Iterator[None]:
    counter[key] += 1
    try:
        yield
    finally:
        counter[key] -= 1
        if not counter[key]:
            del counter[key]


ADMINISTRATORS_RESERVE = 4
"""Extra concurrent requests of administrators on a busy server."""


def _administers(access: Access) -> bool:
    with access.catalog.read() as tx:
        return is_administrator(access, tx)


def _too_many(who: str, share: int) -> TooManyRequests:
    return TooManyRequests(f"{who} has {share} concurrent requests, which is the maximum. Retry shortly.")


def table_work(request: Request) -> Iterator[None]:
    """A dependency of requests that compare or merge rows: a few at a time. Raises `TooManyRequests`."""
    slots: threading.BoundedSemaphore = request.app.state.table_work
    if not slots.acquire(timeout=_PATIENCE):
        raise _busy()
    try:
        yield
    finally:
        slots.release()


one_at_work = contextmanager(table_work)
"""As `table_work`, for a `with` statement."""


def _busy() -> TooManyRequests:
    return TooManyRequests("Too many concurrent requests. Retry shortly.")


def _largest_body(scope: Scope, settings: Settings) -> int:
    """The maximum body size of a request: uploads and forms, commits and plans, all others."""
    method, path = scope["method"], scope["path"]
    if method == "PATCH" and path.startswith("/v1/uploads/"):
        return settings.max_upload_bytes
    kind = dict(scope["headers"]).get(b"content-type", b"").partition(b";")[0].strip().lower()
    if method == "POST" and _COMMIT.fullmatch(path):
        return settings.max_form_bytes if kind == b"multipart/form-data" else settings.max_json_bytes
    if method == "POST" and _PLAN.fullmatch(path):
        return settings.max_json_bytes
    return min(settings.max_request_bytes, settings.max_json_bytes)


def _too_large(most: int) -> PayloadTooLarge:
    return PayloadTooLarge(
        f"The limit for this request is {most:,} bytes. Send large files as uploads in several requests (POST "
        "/v1/uploads).",
        most=most,
    )
