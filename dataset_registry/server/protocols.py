"""The protocols of other systems that the server speaks, read-only: S3 for stored files, and Iceberg's REST catalog.

Their paths, where their clients put the token, and how they are told of an error.
"""

from collections.abc import Callable, Mapping
from functools import partial
from http import HTTPStatus
from urllib.parse import parse_qs

from fastapi.responses import JSONResponse, Response
from markupsafe import escape
from starlette.types import Scope

BUCKET = "registry"
S3 = f"/{BUCKET}/"
ICEBERG = "/iceberg/"
TOKEN = "X-Amz-Security-Token"  # noqa: S105
"""The header, or the parameter of a URL, in which a client of S3 sends the token."""

Told = Callable[[int, str, str | None], Response]
"""Makes the response for a status, a text and the id of the request."""


def of(path: str) -> Told | None:
    """How clients of a path are told of an error; None for paths of our own interfaces."""
    if is_s3(path):
        return _s3
    if not path.startswith(ICEBERG):
        return None
    return partial(_iceberg, absent="NoSuchTableException" if "/tables/" in path else "NoSuchNamespaceException")


def is_s3(path: str) -> bool:
    """Whether a path is that of the bucket or of an object in it."""
    return path.startswith(S3) or path == S3.rstrip("/")


def token_of_s3(scope: Scope) -> str | None:
    """The session token of a request to S3, which is a token of the registry; None if there is none.

    Its signature is not checked: like a bearer, the token alone says who it is, and its requests only read.
    """
    header: bytes | None = dict(scope["headers"]).get(TOKEN.lower().encode())
    if header is not None:
        return header.decode("latin-1").strip() or None
    query = parse_qs(scope["query_string"].decode("latin-1"))
    return next(iter(query.get(TOKEN, ())), None)


_S3_CODES: Mapping[int, str] = {
    400: "InvalidRequest",
    401: "AccessDenied",
    403: "AccessDenied",
    404: "NoSuchKey",
    405: "MethodNotAllowed",
    416: "InvalidRange",
    422: "InvalidRequest",
    429: "SlowDown",
    503: "SlowDown",
}
"""Codes of https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html; others are an `InternalError`."""


def _s3(status: int, text: str, request_id: str | None) -> Response:
    code = _S3_CODES.get(status, "InternalError" if status >= 500 else "InvalidRequest")
    status = {401: 403, 422: 400, 429: 503}.get(
        status, status
    )  # S3 has no other statuses, and clients repeat these as wanted
    body = (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>{escape(text)}</Message>'
        f"<RequestId>{escape(request_id or '')}</RequestId></Error>"
    )
    return Response(body, status, media_type="application/xml")


_ICEBERG_TYPES: Mapping[int, str] = {
    401: "NotAuthorizedException",
    403: "ForbiddenException",
    405: "UnsupportedOperationException",
    429: "SlowDownException",
    503: "SlowDownException",
}


def _iceberg(status: int, text: str, request_id: str | None, *, absent: str) -> Response:
    status = 400 if status == 422 else status
    kind = (
        absent
        if status == 404
        else _ICEBERG_TYPES.get(status, "ServerErrorException" if status >= 500 else "BadRequestException")
    )
    phrase = text or HTTPStatus(status).phrase
    return JSONResponse({"error": {"message": phrase, "type": kind, "code": status}}, status)
