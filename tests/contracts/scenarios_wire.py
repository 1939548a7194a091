"""A wire between a client and a server that breaks when it is told to, and servers that answer as no registry does."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

import httpx

from dataset_registry import Registry

_BLOCK = 1 << 16


@dataclass
class ChunkingRule:
    """Break the connection after this many bytes `up` to the server or `down` from it. With `half`, the server is not told."""

    way: str
    after: int
    half: bool = False


class Wire:
    """Forwards connections to a server that may change."""

    def __init__(self, url: str) -> None:
        self.lead_to(url)
        self.cuts: list[ChunkingRule] = []
        self.broken = 0
        self._sockets: list[socket.socket] = []
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        self._start(self._accept)

    def lead_to(self, url: str) -> None:
        parts = urlsplit(url)
        self._target = (parts.hostname, parts.port)

    def _start(self, work: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                self._sockets.append(client)
                try:
                    server = socket.create_connection(self._target)
                except OSError:
                    client.close()
                    continue
                self._sockets.append(server)
                self._start(self._pump, "up", client, server, client)
                self._start(self._pump, "down", server, client, client)

    def _pump(self, way: str, source: socket.socket, sink: socket.socket, client: socket.socket) -> None:
        count = 0
        with suppress(OSError):
            while data := source.recv(_BLOCK):
                count += len(data)
                if (cut := self._cut(way, count)) is not None:
                    sink.sendall(data[: max(0, len(data) - (count - cut.after))])
                    if not cut.half:
                        _drop(source if source is not client else sink)
                    _drop(client)
                    return
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)

    def _cut(self, way: str, count: int) -> ChunkingRule | None:
        with self._lock:
            if self.cuts and self.cuts[0].way == way and count >= self.cuts[0].after:
                self.broken += 1
                return self.cuts.pop(0)
        return None

    def drop(self) -> None:
        """Break every connection."""
        while self._sockets:
            _drop(self._sockets.pop())

    def close(self) -> None:
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self.drop()
        for thread in self._threads:
            thread.join(60)


def _drop(found: socket.socket) -> None:
    with suppress(OSError):
        found.shutdown(socket.SHUT_RDWR)
    found.close()


@contextmanager
def wire(url: str) -> Iterator[Wire]:
    opened = Wire(url)
    try:
        yield opened
    finally:
        opened.close()


Answer = Callable[[httpx.Request], httpx.Response | None]


class Between(httpx.BaseTransport):
    """What a registry's client sends its requests through: `before` may answer in the server's place, or raise; `after` may
    lose the answer that came."""

    def __init__(self, registry: Registry, before: Answer | None = None, after: Answer | None = None) -> None:
        self._http = registry._client._http  # type: ignore[attr-defined]
        self._through = self._http._transport
        self._before, self._after = before, after
        self.seen: list[str] = []

    def __enter__(self) -> "Between":
        self._http._transport = self
        return self

    def __exit__(self, *_: object) -> None:
        self._http._transport = self._through

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.seen.append(f"{request.method} {request.url.path.removeprefix('/v1/')}")
        answer = self._before(request) if self._before is not None else None
        if answer is not None:
            return answer
        response = self._through.handle_request(request)
        if self._after is not None:
            response.read()
            lost = self._after(request)
            response = lost if lost is not None else response
        return response

    def count(self, start: str) -> int:
        """How many requests began so."""
        return len([line for line in self.seen if line.startswith(start)])


def once(answer: Callable[[], httpx.Response], start: str) -> Answer:
    """Let the first request that begins so get this answer, or the exception that it raises."""
    left = [answer]

    def give(request: httpx.Request) -> httpx.Response | None:
        line = f"{request.method} {request.url.path.removeprefix('/v1/')}"
        return left.pop()() if left and line.startswith(start) else None

    return give


def busy() -> httpx.Response:
    """What a server says that has too much to do."""
    problem = {
        "title": "Service Unavailable",
        "status": 503,
        "detail": "Ask again in a moment.",
        "code": "retry_later",
        "fields": {},
    }
    return httpx.Response(503, json=problem, headers={"Retry-After": "1"})


def full() -> httpx.Response:
    """What a server says that takes no more requests: nothing was done."""
    problem = {
        "title": "Too Many Requests",
        "status": 429,
        "detail": "Ask again in a moment.",
        "code": "too_many_requests",
        "fields": {},
    }
    return httpx.Response(429, json=problem, headers={"Retry-After": "1"})
