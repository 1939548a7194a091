"""Logs and metrics: one line of JSON per request, and counters for Prometheus, both without tokens."""

import logging
import re
import sys
from collections.abc import Callable, MutableMapping
from time import perf_counter
from typing import Any
from uuid import uuid4

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_SECRET = re.compile(r"dr_[A-Za-z0-9_-]{20,}")

_HANDLER = "dataset_registry"
_METHODS = ("GET", "POST", "PATCH", "DELETE", "PUT", "HEAD", "OPTIONS")

log = structlog.get_logger("dataset_registry")


class Metrics:
    """The counters of one server."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.requests = Counter(
            "dataset_registry_requests", "Requests answered", ["method", "route", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "dataset_registry_request_seconds", "Time to answer", ["method", "route"], registry=self.registry
        )
        self.frozen = Gauge("dataset_registry_frozen", "1 while the registry is frozen", registry=self.registry)
        self.under_way = Gauge("dataset_registry_requests_under_way", "Requests under way", registry=self.registry)
        self.received = Counter("dataset_registry_received_bytes", "Bytes of bodies received", registry=self.registry)
        self.sent = Counter("dataset_registry_sent_bytes", "Bytes of bodies sent", registry=self.registry)

    def text(self) -> bytes:
        """The counters in the Prometheus text format."""
        return generate_latest(self.registry)


def redact(text: str) -> str:
    """Replace everything in a text that looks like a token."""
    return _SECRET.sub("[redacted]", text)


def _redact(logger: object, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    return {name: redact(value) if isinstance(value, str) else value for name, value in event.items()}


class _Redacting(logging.Formatter):
    """Lines of other libraries, as JSON and without tokens."""

    def format(self, record: logging.LogRecord) -> str:
        import json

        fields = {"level": record.levelname.lower(), "logger": record.name, "event": record.getMessage()}
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return json.dumps({name: redact(text) for name, text in fields.items()})


def configure() -> None:
    """Send this process's logs to standard error as JSON."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            _redact,
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=lambda *names: structlog.PrintLogger(sys.stderr),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setLevel(logging.WARNING)
    handler.setFormatter(_Redacting())
    handler.name = _HANDLER
    root = logging.getLogger()
    root.handlers = [found for found in root.handlers if found.name != _HANDLER] + [handler]
    logging.captureWarnings(True)


class RequestMetrics:
    """Outermost middleware: assigns an id to each request, counts it and logs it."""

    def __init__(self, app: ASGIApp, metrics: Metrics, unforeseen: Callable[[Request], ASGIApp]) -> None:
        self._app, self._metrics, self._unforeseen = app, metrics, unforeseen

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        state["request_id"] = uuid4().hex
        status, sent, received, begun = 0, 0, 0, perf_counter()

        async def receiving() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            return message

        async def sending(message: Message) -> None:
            nonlocal status, sent
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"].append((b"x-request-id", state["request_id"].encode()))
                # What an answer says depends on the token, and some have secrets: caches keep none, unless a route says so.
                names = {name.lower() for name, _ in message["headers"]}
                if scope["path"].startswith("/v1/") and b"cache-control" not in names:
                    message["headers"].append((b"cache-control", b"no-store"))
            else:
                sent += len(message.get("body", b""))
            await send(message)

        self._metrics.under_way.inc()
        try:
            await self._app(scope, receiving, sending)
        except Exception:
            if status:  # the answer has begun: the connection is cut, and the client sees that it is not whole
                raise
            log.exception("unforeseen", id=state["request_id"])
            await self._unforeseen(Request(scope))(scope, receiving, sending)
        finally:
            seconds = perf_counter() - begun
            route = getattr(scope.get("route"), "path", "other")
            self._metrics.under_way.dec()
            method = scope["method"] if scope["method"] in _METHODS else "other"
            self._metrics.requests.labels(method, route, status).inc()
            self._metrics.seconds.labels(method, route).observe(seconds)
            self._metrics.received.inc(received)
            self._metrics.sent.inc(sent)
            if route not in ("/health", "/ready", "/metrics"):
                log.info(
                    "request",
                    id=state["request_id"],
                    method=method,
                    path=scope["path"],
                    status=status,
                    ms=round(seconds * 1000, 1),
                    actor=state.get("actor"),
                    code=state.get("code"),
                    received=received,
                    sent=sent,
                )
