"""The server: the app, its lifespan, and running it."""

import asyncio
import signal
import socket
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import Any

import anyio.to_thread
from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema
from starlette.concurrency import run_in_threadpool

from dataset_registry.access import Access
from dataset_registry.catalog.engine import HEAD
from dataset_registry.embedded import open_embedded
from dataset_registry.errors import RegistryError
from dataset_registry.operations import audit, freeze
from dataset_registry.server import api_docs, problems, telemetry
from dataset_registry.server.auth import AuthMiddleware, UnderWay
from dataset_registry.server.by_name import ByNameMiddleware
from dataset_registry.server.http_protocol import HeaderTimeoutProtocol, HttpConfig
from dataset_registry.server.limits import LimitMiddleware
from dataset_registry.server.pages import administration, assets, home, sessions
from dataset_registry.server.pages import datasets as datasets_pages
from dataset_registry.server.pages import reviews as reviews_pages
from dataset_registry.server.pages.sessions import LocalOwner
from dataset_registry.server.routes import (
    checks,
    commits,
    datasets,
    files,
    iceberg,
    maintenance,
    merges,
    publishing,
    refs,
    reviews,
    s3,
    uploads,
    users,
)
from dataset_registry.server.settings import Settings
from dataset_registry.server.telemetry import Metrics, RequestMetrics, log
from dataset_registry.server.uploads import Quota, Uploads, files_of

_TIDY_SECONDS = 60.0
"""Seconds between clean-ups of abandoned uploads if the audit log is not sealed."""
_MORE_THREADS = 8
"""Threads in addition to those of running requests: authentication, readiness, maintenance."""


def create_app(settings: Settings, owner: LocalOwner | None = None) -> FastAPI:
    """Create the app for the registry of the settings; with `owner`, its pages are for the owner at this machine.

    Raises `CatalogOutdated`, `NotFound`, `InputError`.
    """
    registry = open_embedded(
        settings.folder,
        catalog=settings.catalog,
        store=settings.store,
        compression=settings.compression,
        verify_reads=settings.verify_reads,
        interface="rest",
        create=False,
    )
    telemetry.configure()
    metrics = Metrics()
    app = FastAPI(
        title="dataset_registry",
        version="1",
        summary="git for the datasets that a Dagster pipeline materializes",
        description="Every error is a problem (RFC 9457) with a stable `code` and the next step in `detail`.",
        lifespan=_life,
        redirect_slashes=False,
        docs_url=None,  # FastAPI's pages load their scripts from other hosts
        redoc_url=None,
    )
    app.state.settings = settings
    app.state.registry = registry
    app.state.access = replace(registry.access, is_guarded=True)
    quota = Quota(
        settings.max_upload_bytes, settings.user_upload_bytes, settings.all_upload_bytes, settings.user_uploads
    )
    app.state.uploads = Uploads(files_of(registry.access.store), quota=quota, hours=settings.upload_hours)
    app.state.local_owner = owner
    app.state.under_way = UnderWay()
    app.state.table_work = threading.BoundedSemaphore(settings.max_table_work)
    problems.install(app)
    v1 = APIRouter(prefix="/v1", responses=problems.RESPONSES)
    for module in (datasets, files, uploads, commits, merges, publishing, reviews, checks, refs, users, maintenance):
        v1.include_router(module.router)
    v1.include_router(users.secrets)
    v1.include_router(uploads.appending)
    v1.include_router(maintenance.audited)
    app.include_router(v1)
    app.include_router(iceberg.router)
    app.include_router(s3.router)
    app.include_router(_watching(metrics))
    app.include_router(api_docs.router)
    for page_module in (sessions, assets, home, datasets_pages, reviews_pages, administration):
        app.include_router(page_module.router)
    app.add_middleware(ByNameMiddleware)
    app.add_middleware(AuthMiddleware, access=app.state.access, settings=settings, owner=owner)
    app.add_middleware(LimitMiddleware, settings=settings)
    app.add_middleware(RequestMetrics, metrics=metrics, unforeseen=problems.unforeseen)
    app.openapi = lambda: _describe(app)  # type: ignore[method-assign]
    return app


def _watching(metrics: Metrics) -> APIRouter:
    """Routes for load balancers, orchestrators and Prometheus. They need no token."""
    router = APIRouter(tags=["watching"])

    @router.get("/health")
    async def health() -> dict[str, str]:
        """Check that the process is alive."""
        return {"status": "ok"}

    @router.get("/ready", responses={503: problems.RESPONSES[503]})
    def ready(request: Request) -> dict[str, str]:
        """Check that the catalog is reachable and has the right revision; `read-only` while the registry is frozen."""
        access: Access = request.app.state.access
        found = access.catalog.revision()
        if found != HEAD:
            raise access.catalog.outdated(found)
        return {"status": "read-only" if freeze.is_frozen(access) else "ok"}

    @router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
    def text(request: Request) -> Response:
        """Counters for Prometheus."""
        with suppress(RegistryError):  # a catalog that does not answer leaves the gauge as it was
            metrics.frozen.set(freeze.is_frozen(request.app.state.access))
        return Response(metrics.text(), media_type="text/plain; version=0.0.4")

    return router


@asynccontextmanager
async def _life(app: FastAPI) -> AsyncIterator[None]:
    settings: Settings = app.state.settings
    anyio.to_thread.current_default_thread_limiter().total_tokens = settings.concurrency + _MORE_THREADS
    maintenance_task = asyncio.create_task(_maintenance_loop(app, settings))
    log.info("ready", registry=app.state.registry.location)
    try:
        yield
    finally:
        maintenance_task.cancel()
        with suppress(asyncio.CancelledError):
            await maintenance_task
        app.state.registry.close()
        log.info("stopped")


async def _maintenance_loop(app: FastAPI, settings: Settings) -> None:
    """Seal the audit log and delete abandoned uploads, until the server stops."""
    seals = settings.seal_seconds > 0
    while True:
        await asyncio.sleep(settings.seal_seconds if seals else _TIDY_SECONDS)
        try:
            await run_in_threadpool(app.state.uploads.tidy)
            if seals:
                await run_in_threadpool(audit.seal_now, app.state.access)
        except RegistryError as error:
            log.warning("maintenance", error=str(error), code=error.code)


def _describe(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI description, created once."""
    if app.openapi_schema is None:
        described = get_openapi(
            title=app.title,
            version=app.version,
            openapi_version="3.1.0",
            summary=app.summary,
            description=app.description,
            routes=app.routes,
        )
        _, extra = models_json_schema(
            [(shape, "validation") for shape in commits.SHAPES], ref_template="#/components/schemas/{model}"
        )
        described["components"]["schemas"] |= extra["$defs"]
        _share_problems(described)
        app.openapi_schema = described
    return app.openapi_schema


def _share_problems(described: dict[str, Any]) -> None:
    """Reference the error responses that all routes share, instead of repeating them."""
    shared = described["components"].setdefault("responses", {})
    for path in described["paths"].values():
        for operation in path.values():
            for status, answer in operation["responses"].items():
                if problems.MEDIA_TYPE in answer.get("content", {}):
                    shared[f"Problem{status}"] = {**answer, "content": problems.CONTENT}
                    operation["responses"][status] = {"$ref": f"#/components/responses/Problem{status}"}


def serve(
    settings: Settings,
    host: str,
    port: int,
    owner: LocalOwner | None = None,
    listening: socket.socket | None = None,
    workers: int = 1,
) -> None:
    """Run a server until SIGTERM or Ctrl-C; running requests are finished first.

    With `owner`, the pages are for the owner at this machine. `listening` is a socket that is bound already.
    Several `workers` are processes that share the port; one that dies is started again, and SIGHUP replaces them one by one.
    """
    from uvicorn import Server
    from uvicorn.supervisors import Multiprocess

    app = create_app(settings, owner)  # raises here, and not in a process of its own
    config = HttpConfig(
        app,
        host=host,
        port=port,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=30,
        timeout_keep_alive=30,
        http=HeaderTimeoutProtocol,  # h11: httptools takes headers of any size
        h11_max_incomplete_event_size=64 << 10,
        timeout_worker_healthcheck=30,
    )
    config.header_seconds = settings.body_seconds
    log.info("serving", url=f"http://{host}:{port}", description="/docs", workers=workers)
    if workers > 1:
        app.state.registry.close()
        config.app, config.factory, config.workers = partial(create_app, settings), True, workers
        Multiprocess(config, [listening or config.bind_socket()]).run()
        return
    for number in (signal.SIGTERM, signal.SIGINT):  # what uvicorn hands on when it is done: then we are, too
        signal.signal(number, lambda *_: None)
    Server(config).run([listening] if listening is not None else None)
