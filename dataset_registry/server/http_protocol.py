"""The HTTP/1.1 protocol of uvicorn, with timeouts for request headers and for unread responses."""

import asyncio
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol


class HttpConfig(uvicorn.Config):
    """The configuration of a server, with the seconds that the headers of a request may take."""

    header_seconds = 60.0


class HeaderTimeoutProtocol(H11Protocol):
    """Closes connections whose request headers take too long, and drops closed connections whose client does not read the rest of
    the response."""

    config: HttpConfig
    _deadline: asyncio.TimerHandle | None = None
    _watch: asyncio.TimerHandle

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._wait()
        self._drop_if_closed()

    def _drop_if_closed(self) -> None:
        if self.transport.is_closing():  # since a while, and its last bytes were not taken
            self.transport.abort()
        else:
            self._watch = self.loop.call_later(self.config.header_seconds, self._drop_if_closed)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:  # a request has begun: what it may cost, others know
            self._stop()
        elif self._deadline is None:
            self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop()
        self._watch.cancel()
        super().connection_lost(exc)

    def _wait(self) -> None:
        self._deadline = self.loop.call_later(self.config.header_seconds, self.transport.close)

    def _stop(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
