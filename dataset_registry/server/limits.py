"""What one client may cost: bytes of a body, silence in the middle of it, requests at once."""

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dataset_registry.errors import PayloadTooLarge, RegistryError, RetryLater, TooManyRequests
from dataset_registry.server import problems
from dataset_registry.server.settings import Settings

_OPEN = ("/health", "/ready", "/metrics")
"""Whoever watches a server that is full must still get an answer."""


class BodyTimeout(RetryLater):
    """The client was silent for too long in the middle of its request."""

    code = "body_timeout"


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
        headers = dict(scope["headers"])
        kind = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
        is_upload = kind in (b"multipart/form-data", b"application/octet-stream")
        most = self._settings.max_upload_bytes if is_upload else self._settings.max_json_bytes
        declared = headers.get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > most:
            await problems.response(_too_large(most), request_id)(scope, receive, send)
            return
        count, has_begun = 0, False

        async def receiving() -> Message:
            nonlocal count
            try:
                message = await asyncio.wait_for(receive(), self._settings.body_seconds if not has_begun else None)
            except TimeoutError:
                raise BodyTimeout("Nothing came for too long in the middle of this request. Send it again.") from None
            count += len(message.get("body", b""))
            if count > most:
                raise _too_large(most)
            return message

        async def sending(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        self._under_way += 1
        try:
            await self._app(scope, receiving, sending)
        except (PayloadTooLarge, BodyTimeout) as error:  # before any route of ours could catch it
            if has_begun:
                raise
            await problems.response(error, request_id)(scope, receive, send)
        finally:
            self._under_way -= 1


def _too_large(most: int) -> PayloadTooLarge:
    return PayloadTooLarge(
        f"This server takes {most:,} bytes in one such request. Send large files as uploads in several requests (POST "
        "/v1/uploads).",
        most=most,
    )
