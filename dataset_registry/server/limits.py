"""What one client may cost: bytes of a body, silence in the middle of it, requests at once."""

import asyncio
import re
from contextlib import suppress

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dataset_registry.errors import BodyTimeout, InputError, PayloadTooLarge, RegistryError, TooManyRequests
from dataset_registry.server import problems
from dataset_registry.server.settings import Settings

_OPEN = ("/health", "/ready", "/metrics")
"""Whoever watches a server that is full must still get an answer."""


class Limited:
    """Middleware that refuses a request that would cost too much, before or while it is read."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app, self._settings = app, settings
        self._under_way = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in _OPEN:
            await self._app(scope, receive, send)
            return
        request_id = scope.get("state", {}).get("request_id")
        if self._under_way >= self._settings.concurrency:
            error: RegistryError = TooManyRequests("The server has as much to do as it may. Ask again in a moment.")
            await problems.response(error, request_id)(scope, receive, send)
            return
        names = [name for name, _ in scope["headers"]]
        if names.count(b"content-type") > 1 or names.count(b"authorization") > 1:
            error = InputError("Send one Content-Type and one Authorization, not several.")
            await problems.response(error, request_id)(scope, receive, send)
            return
        most = self._settings.max_upload_bytes if _streams(scope) else self._settings.max_json_bytes
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > most:
            await problems.response(_too_large(most), request_id)(scope, receive, send)
            return
        count, has_begun = 0, False
        refusal: RegistryError | None = None

        async def receiving() -> Message:
            nonlocal count, refusal
            try:
                message = await asyncio.wait_for(receive(), self._settings.body_seconds if not has_begun else None)
            except TimeoutError:
                refusal = BodyTimeout("Nothing came for too long in the middle of this request. Send it again.")
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
                await send(message)

        self._under_way += 1
        try:
            with suppress(PayloadTooLarge, BodyTimeout):
                await self._app(scope, receiving, sending)
            if refusal is not None and not has_begun:
                scope["state"]["code"] = refusal.code
                await problems.response(refusal, request_id)(scope, receive, send)
        finally:
            self._under_way -= 1


def _streams(scope: Scope) -> bool:
    """Whether a request's body goes to the disk while it comes; all others are held in memory."""
    method, path = scope["method"], scope["path"]
    if method == "PATCH":
        return bool(path.startswith("/v1/uploads/"))
    kind = dict(scope["headers"]).get(b"content-type", b"").partition(b";")[0].strip().lower()
    commits = path == "/v1/commits" or re.fullmatch(r"/v1/datasets/\d+/versions", path) is not None
    return bool(method == "POST" and commits and kind == b"multipart/form-data")


def _too_large(most: int) -> PayloadTooLarge:
    return PayloadTooLarge(
        f"This server takes {most:,} bytes in one such request. Send large files as uploads in several requests (POST "
        "/v1/uploads).",
        most=most,
    )
