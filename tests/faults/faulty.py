"""A store that fails: it wraps a real one and injects faults, each kind as often as it is told to."""

import errno
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from http.client import HTTPConnection, HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from random import Random
from typing import Any, BinaryIO
from urllib.parse import parse_qsl, urlencode, urlsplit

from dataset_registry.errors import CorruptionError, RegistryError, RetryLater, StorageError
from dataset_registry.model.records import StoredObject
from dataset_registry.store import Store
from dataset_registry.store.spool import storage_error

FAULTS: dict[str, type[RegistryError] | None] = {
    "unavailable": RetryLater,  # 503 again and again
    "timeout before": RetryLater,  # nothing was done
    "timeout after": RetryLater,  # all was done, and nobody heard of it
    "full": StorageError,
    "no delete": StorageError,
    "short read": CorruptionError,
    "flipped read": CorruptionError,
    "short write": StorageError,  # says that it kept everything, and did not
    "flipped write": None,  # nobody can know before the bytes are read back
}
"""The kinds of faults, and what an operation that met one must raise."""


class FaultyStore:
    """A store around another one. Like an object store it has no local files, so that every read can fail."""

    transfers = 1  # one at a time: the same seed gives the same faults
    cache_bytes = 1  # what was read once is read from the store again

    def __init__(self, store: Store, rates: Mapping[str, float], seed: int = 0) -> None:
        self._store = store
        self._random = Random(seed)
        self._lock = threading.Lock()
        self.rates = dict(rates)
        self.location, self.scratch = store.location, store.scratch
        self.happened: Counter[str] = Counter()
        self.damaged: dict[str, str] = {}
        """The keys under which other bytes were kept than those that were given, and how that came."""

    @contextmanager
    def off(self) -> Iterator[None]:
        """No faults in the meantime."""
        rates, self.rates = self.rates, {}
        try:
            yield
        finally:
            self.rates = rates

    def put(self, key: str, source: Path | bytes) -> int:
        with self._answering():
            if self._has("full"):
                raise storage_error(OSError(errno.ENOSPC, ""), f"The store at {self.location} refused to write")
            data = source if isinstance(source, bytes) else source.read_bytes()
            if data and self._has("short write"):
                self.damaged[key] = "short"
                return self._store.put(key, data[: self._random.randrange(len(data))])
            if data and self._has("flipped write"):
                self.damaged[key] = "flipped"
                return self._store.put(key, self._flipped(data))
            return self._store.put(key, source)

    def take(self, key: str, source: Store, source_key: str) -> bool:
        with self._answering():
            return self._store.take(key, source._store if isinstance(source, FaultyStore) else source, source_key)

    def path(self, key: str) -> None:
        return None

    def open(self, key: str) -> BinaryIO:
        with self._answering():
            short, flipped = self._has("short read"), self._has("flipped read")
            with self._store.open(key) as stream:
                data = stream.read()
            if data and flipped:
                data = self._flipped(data)
            return BytesIO(data[: self._random.randrange(len(data))] if data and short else data)

    def size(self, key: str) -> int | None:
        with self._answering():
            return self._store.size(key)

    def uri(self, key: str) -> str:
        return self._store.uri(key)

    def delete(self, key: str) -> None:
        with self._answering():
            if self._has("no delete"):
                raise storage_error(OSError(errno.EACCES, ""), f"The store at {self.location} refused to delete")
            self._store.delete(key)

    def list(self) -> Iterator[StoredObject]:
        with self._answering():
            yield from self._store.list()

    def identity(self) -> str | None:
        return self._store.identity()

    def claim(self, identity: str) -> str:
        return self._store.claim(identity)

    def tidy(self, older_than: float) -> int:
        return self._store.tidy(older_than)

    @contextmanager
    def _answering(self) -> Iterator[None]:
        """What may happen to every request: no answer, before or after it was done."""
        for kind, reason in (("unavailable", "503 Slow Down"), ("timeout before", "timed out")):
            if self._has(kind):
                raise self._silent(reason)
        yield
        if self._has("timeout after"):
            raise self._silent("timed out")

    def _silent(self, reason: str) -> RetryLater:
        return RetryLater(f"{self.location} failed after retries: {reason}. Nothing was committed; try again.")

    def _has(self, kind: str) -> bool:
        assert kind in FAULTS
        with self._lock:
            happens = self._random.random() < self.rates.get(kind, 0)
            self.happened[kind] += happens
        return happens

    def _flipped(self, data: bytes) -> bytes:
        changed = bytearray(data)
        changed[self._random.randrange(len(data))] ^= 1 << self._random.randrange(8)
        return bytes(changed)


# --- between a client and its server -------------------------------------------------------------------------------


@contextmanager
def proxy(
    store_url: str, folder: Path, seed: int = 0, *, cut_posts: bool = False
) -> Iterator[tuple[str, Counter[str]]]:
    """A proxy before an S3 server that is anything but reliable: the URL of the same store behind it, and what it did.

    A POST (which begins and ends an upload in parts, and deletes) is answered late or with 503, but its connection is not
    broken unless `cut_posts`: obstore does not try those again.
    """
    bucket, _, query = store_url.partition("?")
    options = dict(parse_qsl(query))
    server = _Proxy(str(urlsplit(options["endpoint"]).netloc), seed, cut_posts)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        endpoint = f"http://127.0.0.1:{server.server_port}"
        yield (
            f"{bucket}?{urlencode({**options, 'endpoint': endpoint, 'cache': str(folder / 'cache')})}",
            server.happened,
        )
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Proxy(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, target: str, seed: int, cut_posts: bool) -> None:
        super().__init__(("127.0.0.1", 0), _Request)
        self._cut_posts = cut_posts
        self.target = target
        self.happened: Counter[str] = Counter()
        self._random = Random(seed)
        self._lock = threading.Lock()
        self._bad = 0

    def fault(self, method: str) -> str:
        """What happens to a request; never more than two faults in a row, so that attempts come to an end soon."""
        with self._lock:
            kinds = ["unavailable", "late 503", "delay"]
            if method != "POST" or self._cut_posts:
                kinds += ["cut request", "cut answer"]
            kind = self._random.choice(kinds) if self._random.random() < 0.4 and self._bad < 2 else "passed"
            self._bad = 0 if kind in ("passed", "delay") else self._bad + 1
            self.happened[kind] += 1
        return kind

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is no news here."""


class _Request(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 600
    server: _Proxy

    def do_GET(self) -> None:
        fault = self.server.fault(self.command)
        length = int(self.headers.get("Content-Length") or 0)
        if fault == "cut request":
            self.rfile.read(length // 2)
            return self._hang_up()
        body = self.rfile.read(length)
        if fault == "unavailable":
            return self._answer(503, {"Content-Type": "application/xml"}, _SLOW_DOWN)
        if fault == "delay":
            time.sleep(0.3)
        connection = HTTPConnection(self.server.target, timeout=600)
        try:  # signed with the host that the client sees: it goes through as it is
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                connection.putheader(name, value)
            connection.endheaders(body or None)
            answer = connection.getresponse()
            data = answer.read()
        except (OSError, HTTPException):
            return self._hang_up()
        finally:
            connection.close()
        if fault == "late 503":  # it was done, and nobody heard of it
            return self._answer(503, {"Content-Type": "application/xml"}, _SLOW_DOWN)
        headers = {name: value for name, value in answer.getheaders() if name.lower() not in _BY_HOP}
        if self.command == "HEAD":
            headers["Content-Length"] = answer.getheader("Content-Length") or "0"
        return self._answer(answer.status, headers, data, cut=fault == "cut answer")

    do_PUT = do_POST = do_DELETE = do_HEAD = do_GET

    def _answer(self, status: int, headers: dict[str, str], data: bytes, *, cut: bool = False) -> None:
        with suppress(OSError):
            self.send_response_only(status)
            for name, value in headers.items():
                self.send_header(name, value)
            if "Content-Length" not in headers:
                self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data[: len(data) // 2] if cut else data)
        if cut:
            self._hang_up()

    def _hang_up(self) -> None:
        self.close_connection = True
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, *_: object) -> None:
        """Nothing to say."""


_BY_HOP = ("content-length", "transfer-encoding", "connection", "keep-alive")
_SLOW_DOWN = (
    b"<?xml version='1.0'?><Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
)
