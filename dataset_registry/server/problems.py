"""Errors as problem+json (RFC 9457): one table from our codes to status codes."""

from collections.abc import Mapping
from http import HTTPStatus
from math import isfinite
from typing import Any, Literal

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, RedirectResponse, Response
from starlette.exceptions import HTTPException

from dataset_registry import errors
from dataset_registry.model.next_steps import spelled
from dataset_registry.model.pages import path_of
from dataset_registry.server import protocols
from dataset_registry.server.pages import is_page, needs_session, rendering
from dataset_registry.server.telemetry import log, redact
from dataset_registry.store.spool import storage_error
from dataset_registry.wire.base import Problem

STATUS: Mapping[type[errors.RegistryError], int] = {
    errors.RegistryError: 500,
    errors.InputError: 422,
    errors.NotFound: 404,
    errors.AlreadyExists: 409,
    errors.InUse: 409,
    errors.TagImmutable: 409,
    errors.SweepRefused: 409,
    errors.PayloadTooLarge: 413,
    errors.PreconditionFailed: 412,
    errors.RangeNotSatisfiable: 416,
    errors.ConflictError: 409,
    errors.RetryLater: 503,
    errors.BodyTimeout: 408,
    errors.TooManyRequests: 429,
    errors.PermissionDenied: 403,
    errors.NotAuthenticated: 401,
    errors.CatalogRefused: 503,
    errors.CatalogOutdated: 503,
    errors.NotAdopted: 409,
    errors.RegistryFrozen: 423,
    errors.StoreMismatch: 503,
    errors.StorageError: 507,
    errors.CorruptionError: 500,
}
"""The status of each class of error; other classes have that of their base class."""

CLIENT = "dataset-registry"
"""The user agent of the Python client."""

MEDIA_TYPE = "application/problem+json"

CONTENT: dict[str, Any] = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}

RESPONSES: dict[int | str, dict[str, Any]] = {
    status: {
        "description": HTTPStatus(status).phrase,
        "model": Problem,
        "content": CONTENT,
    }
    for status in (400, 401, 403, 404, 405, 408, 409, 412, 413, 422, 423, 429, 500, 503, 507)
}
"""Error responses of every route."""


def status_of(error: errors.RegistryError) -> int:
    """The HTTP status of an error."""
    return next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)


_FAILURES: Mapping[type[errors.RegistryError], str] = {
    errors.RegistryError: "The server failed.",
    errors.RetryLater: "The server cannot do this now. Send the request again.",
    errors.CatalogRefused: "The server cannot use its catalog.",
    errors.CatalogOutdated: "The catalog has another revision than this server.",
    errors.StoreMismatch: "The server's catalog belongs to another store.",
    errors.StorageError: "The storage of the server failed. Nothing was committed.",
    errors.CorruptionError: "Stored data is damaged or missing. Nothing was changed.",
}
"""The generic message of a server error. Its own text may contain hosts, users and paths, and is only logged."""


def _failure(error: errors.RegistryError, request_id: str | None) -> str:
    what = next(_FAILURES[kind] for kind in type(error).__mro__ if kind in _FAILURES)
    again = "If this persists, tell" if isinstance(error, errors.RetryLater) else "Tell"
    return f"{what} {again} the operator of the server the id of this request: {request_id}."


def response(error: errors.RegistryError, request_id: str | None, *, is_python: bool = False) -> JSONResponse:
    """The response for an error, with next steps as requests, or as Python calls for the Python client. Server errors
    are logged, and the response has the request id."""
    status = status_of(error)
    headers = {}
    detail = detail_of(error, request_id, "python" if is_python else "rest")
    if isinstance(error, errors.RangeNotSatisfiable) and "size" in error.fields:
        headers["Content-Range"] = f"bytes */{error.fields['size']}"
    if status in (429, 503):
        headers["Retry-After"] = "1"
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    problem = Problem(
        title=HTTPStatus(status).phrase,
        status=status,
        detail=detail,
        code=error.code,
        instance=request_id,
        fields={name: _plain(value) for name, value in error.fields.items()} if status < 500 else {},
    )
    return JSONResponse(problem.model_dump(), status, headers, MEDIA_TYPE)


def detail_of(
    error: errors.RegistryError, request_id: str | None, interface: Literal["python", "rest", "shell"]
) -> str:
    """What is wrong and what to do next, for readers at an interface; of server errors, which are logged, the request id."""
    if status_of(error) >= 500:
        log.error("failed", id=request_id, code=error.code, reason=str(error))
        return _failure(error, request_id)
    return redact(str(error) if interface == "python" else spelled(str(error), interface, error.fields))


def answer(request: Request, error: errors.RegistryError) -> Response:
    """The response for an error: a page for pages, what clients of S3 and Iceberg expect for theirs, a problem for the rest."""
    if (told := protocols.of(request.url.path)) is not None:
        status, request_id = status_of(error), request.state.request_id
        return told(status, detail_of(error, request_id, "rest"), request_id)
    if not is_page(request.url.path):
        is_python = request.headers.get("user-agent", "").startswith(CLIENT)
        return response(error, request.state.request_id, is_python=is_python)
    if isinstance(error, errors.NotAuthenticated) and needs_session(request.url.path) and request.method == "GET":
        target = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        return RedirectResponse(path_of("/sign-in", next=target if target != "/" else None), 303)
    status = status_of(error)
    detail = detail_of(error, request.state.request_id, "shell")
    return rendering.page(request, "error.html", status=status, title=HTTPStatus(status).phrase, detail=detail)


def unforeseen(request: Request) -> Response:
    """The response to an unexpected exception."""
    return answer(request, errors.RegistryError("Unexpected exception: see the previous log line."))


def _plain(value: object) -> Any:
    if isinstance(value, float) and not isfinite(value):
        return str(value)
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {str(name): _plain(item) for name, item in value.items()}
    return value if isinstance(value, int | float | bool | None) else redact(str(value))


def install(app: FastAPI) -> None:
    """Install the exception handlers of an app."""

    async def ours(request: Request, error: Exception) -> Response:
        assert isinstance(error, errors.RegistryError)
        request.state.code = error.code
        return answer(request, error)

    async def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        found = error.errors()[0]
        where = ".".join(str(part) for part in found["loc"])
        mistake = errors.InputError(f"{where}: {found['msg']}. See /docs for the parameters.", where=where)
        return answer(request, mistake)

    async def plain(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        title = HTTPStatus(error.status_code).phrase
        if (told := protocols.of(request.url.path)) is not None:
            return told(error.status_code, redact(str(error.detail)), request.state.request_id)
        if is_page(request.url.path):
            return rendering.page(
                request, "error.html", status=error.status_code, title=title, detail=redact(str(error.detail))
            )
        problem = Problem(
            title=title,
            status=error.status_code,
            detail=f"{redact(str(error.detail))}. See /docs for the API.",
            code="http_" + str(error.status_code),
            instance=request.state.request_id,
        )
        return JSONResponse(problem.model_dump(), error.status_code, error.headers, MEDIA_TYPE)

    async def of_the_system(request: Request, error: Exception) -> Response:
        assert isinstance(error, OSError)
        return await ours(request, storage_error(error, "The server could not read or write its files"))

    async def too_deep(request: Request, error: Exception) -> Response:
        return await ours(request, errors.InputError("The JSON of this request is nested too deeply. Flatten it."))

    app.add_exception_handler(RecursionError, too_deep)
    app.add_exception_handler(errors.RegistryError, ours)
    app.add_exception_handler(OSError, of_the_system)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, plain)
