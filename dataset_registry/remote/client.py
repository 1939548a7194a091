"""HTTP client of a server: credentials, retries, and errors raised as on the server."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from random import random
from tempfile import TemporaryFile
from time import sleep
from typing import IO, Any, TypeVar
from urllib.parse import quote, urlsplit
from uuid import uuid4

import httpx
from pydantic import BaseModel, ValidationError
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt

from dataset_registry.errors import (
    CorruptionError,
    InputError,
    InvalidName,
    NotAuthenticated,
    RegistryError,
    RetryLater,
)
from dataset_registry.model.addresses import has_user, redacted
from dataset_registry.wire.base import Page, Problem, errors_by_code

_log = logging.getLogger(__name__)
_Shape = TypeVar("_Shape", bound=BaseModel)

_ATTEMPTS = 8
_PASSING = (429, 502, 503, 504)
_LONGEST_WAIT = 60.0
"""Maximum `Retry-After` in seconds. If the server asks for more, the error is raised instead."""
_PAGE = 1000
_PATIENCE = 600.0
"""Response timeout in seconds."""


class Client:
    """The connections to one server, for one token. Threads may share it."""

    def __init__(self, url: str, token: str | None) -> None:
        try:
            parts = urlsplit(url)
            is_address = bool(parts.hostname) and not parts.query and not parts.fragment and (parts.port or 1) > 0
        except ValueError:
            is_address = False
        if has_user(url):  # it would replace the token
            raise InputError(
                f"The address {redacted(url)!r} contains a user. Remove it: the token identifies the user.",
                url=redacted(url),
            )
        if not is_address or not url.isprintable():
            raise InputError(
                f"Invalid server address {redacted(url)!r}: expected one like https://registry.example.com.",
                url=redacted(url),
            )
        if token is None:
            raise InputError(
                f"No token for {url}: Registry.open({url!r}, token='…'). Create one with: dataset-registry token create"
            )
        self.url = url.rstrip("/")
        if not token.isascii() or not token.isprintable() or not token.strip():
            raise NotAuthenticated("Invalid token: it contains characters that tokens do not have. Copy it again.")
        self._token = token
        self._opened: httpx.Client | None = None
        self._errors = errors_by_code()

    @property
    def _http(self) -> httpx.Client:
        opened = self._opened
        if opened is None or opened.is_closed:
            opened = self._opened = httpx.Client(
                base_url=self.url + "/v1/",
                headers={"Authorization": f"Bearer {self._token}", "User-Agent": "dataset-registry"},
                timeout=_timeout(_PATIENCE),
                limits=httpx.Limits(max_connections=32, max_keepalive_connections=16, keepalive_expiry=20.0),
            )
        return opened

    def close(self) -> None:
        """Close the connections. The next request reconnects."""
        if self._opened is not None:
            self._opened.close()

    def get(self, path: str, shape: type[_Shape], **query: object) -> _Shape:
        """Get a path and parse the response."""
        return self._read(self._ask("GET", path, query=query), shape)

    def pages(self, path: str, shape: type[_Shape], *, limit: int | None = None, **query: object) -> Iterator[_Shape]:
        """All items of a list, page by page, or this many."""
        cursor, left = None, limit
        while left is None or left > 0:
            size = _PAGE if left is None else min(left, _PAGE)
            answer = self._page(self._ask("GET", path, query={**query, "cursor": cursor, "limit": size}), shape)
            yield from answer.items
            cursor = answer.next_cursor
            left = None if left is None else left - len(answer.items)
            if cursor is None:
                return

    def listed(self, path: str, shape: type[_Shape], **query: object) -> list[_Shape]:
        """All items of a list that has no pages."""
        return self._page(self._ask("GET", path, query=query), shape).items

    def _page(self, response: httpx.Response, shape: type[_Shape]) -> Page[_Shape]:
        page: type[Page[_Shape]] = Page[shape]  # type: ignore[valid-type]
        return self._read(response, page)

    def post(
        self,
        path: str,
        shape: type[_Shape],
        body: Mapping[str, object] | BaseModel,
        *,
        patience: float | None = _PATIENCE,
        once: bool = True,
    ) -> _Shape:
        """Send a POST with an `Idempotency-Key`, so that it can be retried if the response is lost.

        `patience` is the timeout in seconds; None waits without a limit, for work that may take hours. Requests that
        are harmless to repeat need no `once`.
        """
        content = body.model_dump(mode="json", by_alias=True) if isinstance(body, BaseModel) else body
        return self._read(self._ask("POST", path, once=once, json=content, timeout=_timeout(patience)), shape)

    def post_form(
        self, path: str, shape: type[_Shape], data: Mapping[str, str], files: Mapping[str, Any], **query: object
    ) -> _Shape:
        """Send a form with files and an `Idempotency-Key`."""
        return self._read(self._ask("POST", path, once=True, query=query, data=data, files=files), shape)

    def patch(self, path: str, shape: type[_Shape], body: Mapping[str, object]) -> _Shape:
        """Send a PATCH with an `Idempotency-Key`."""
        return self._read(self._ask("PATCH", path, once=True, json=body), shape)

    def send(self, path: str, shape: type[_Shape], offset: int, content: Iterator[bytes]) -> _Shape:
        """Send the bytes of an upload from an offset on. Raises `RetryLater` when the connection breaks."""
        headers = {"Upload-Offset": str(offset), "Content-Type": "application/octet-stream"}
        return self._read(self._ask("PATCH", path, content=content, headers=headers, again=False), shape)

    def put(self, url: str, content: Iterator[bytes], size: int) -> bool:
        """Send bytes to an upload URL of a server, without the token. Returns whether they were accepted."""
        try:
            response = httpx.put(url, content=content, headers={"Content-Length": str(size)}, timeout=600.0)
        except httpx.TransportError:
            return False
        return response.status_code < 300

    def delete(self, path: str, shape: type[_Shape], **query: object) -> _Shape:
        """Send a DELETE with an `Idempotency-Key`: a repetition would not find the resource."""
        return self._read(self._ask("DELETE", path, once=True, query=query), shape)

    @contextmanager
    def stream(self, path: str, start: int = 0) -> Iterator[httpx.Response]:
        """The bytes of a path while they come, from `start` on."""
        headers = {"Range": f"bytes={start}-"} if start else {}
        try:
            with self._http.stream("GET", path, headers=headers) as response:
                if response.status_code >= 400:
                    response.read()
                    raise self._error(response)
                yield response
        except httpx.TransportError as error:
            raise self._unreachable(error) from error

    def download(self, method: str, path: str, *, body: BaseModel | None = None, **query: object) -> IO[bytes]:
        """The bytes of a response in a temporary file, which is deleted when it is closed."""
        params = {name: value for name, value in query.items() if value is not None}
        content = None if body is None else body.model_dump(mode="json", by_alias=True)
        with ExitStack() as stack:
            file = stack.enter_context(TemporaryFile())
            try:
                timeout = _timeout(None)
                with self._http.stream(method, path, params=params, json=content, timeout=timeout) as response:  # type: ignore[arg-type]
                    if response.status_code >= 400:
                        response.read()
                        raise self._error(response)
                    for piece in response.iter_bytes():
                        file.write(piece)
            except httpx.TransportError as error:
                raise self._unreachable(error) from error
            file.seek(0)
            stack.pop_all()
            return file

    def lines(self, path: str) -> Iterator[str]:
        """The lines of a path while they come."""
        with self.stream(path) as response:
            yield from response.iter_lines()

    def _ask(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, object] | None = None,
        again: bool = True,
        headers: Mapping[str, str] | None = None,
        once: bool = False,
        **content: Any,
    ) -> httpx.Response:
        sent = dict(headers or {})
        if once:
            sent["Idempotency-Key"] = uuid4().hex
        params = {name: value for name, value in (query or {}).items() if value is not None}
        policy = Retrying(
            stop=stop_after_attempt(_ATTEMPTS),
            wait=_wait,
            sleep=sleep,
            retry=retry_if_exception_type(_Failed),
            before_sleep=_log_retry,
            reraise=True,
        )
        try:
            return policy(self._attempt, method, path, again=again, params=params, headers=sent, **content)
        except _Failed as failed:
            raise failed.error from failed.__cause__

    def _attempt(self, method: str, path: str, *, again: bool, **content: Any) -> httpx.Response:
        """Send a request. Raises `_Failed` if it can be retried."""
        try:
            for file in content.get("files", {}).values():
                file[1].seek(0)
            response = self._http.request(method, path, **content)
        except UnicodeEncodeError as error:
            raise InputError(
                f"Invalid text {error.object[:40]!r}: not encodable as UTF-8. Remove the surrogates."
            ) from error
        except httpx.TransportError as error:
            is_at_work = isinstance(error, httpx.ReadTimeout)  # another request would not help it
            if is_at_work or not again:
                raise self._unreachable(error) from error
            raise _Failed(self._unreachable(error)) from error
        if response.status_code < 400:
            return response
        was_full = response.status_code == 429  # nothing was done: whatever it was, it may be sent again
        wait = retry_after(response)
        if wait > _LONGEST_WAIT or not (was_full or (again and response.status_code in _PASSING)):
            raise self._error(response)
        raise _Failed(self._error(response), wait)

    def _unreachable(self, error: httpx.TransportError) -> RetryLater:
        return RetryLater(f"The server {self.url} does not answer: {error or type(error).__name__}. Try again.")

    def _error(self, response: httpx.Response) -> RegistryError:
        try:
            problem = Problem.model_validate_json(response.content)
        except ValidationError:
            return RetryLater(
                f"The server {self.url} answered {response.status_code} {response.reason_phrase}, which is not a "
                "response of a registry. Check the address."
            )
        kind = self._errors.get(problem.code, RetryLater if response.status_code in _PASSING else RegistryError)
        if (wait := retry_after(response)) > _LONGEST_WAIT:
            return kind(f"{problem.detail} The server asks to wait for {wait:.0f} seconds.", **problem.fields)
        return kind(problem.detail, **problem.fields)

    def _read(self, response: httpx.Response, shape: type[_Shape]) -> _Shape:
        try:
            return shape.model_validate_json(response.content)
        except ValidationError as error:
            raise CorruptionError(
                f"The server {self.url} sent a response that this version of dataset-registry does not understand: "
                f"{error.errors()[0]['msg']}. Install the server's version."
            ) from error


class _Failed(Exception):
    """A request that can be retried after the `Retry-After` of the server, in seconds."""

    def __init__(self, error: RegistryError, wait: float = 0.0) -> None:
        super().__init__(str(error))
        self.error, self.wait = error, wait


def _failure(state: RetryCallState) -> _Failed:
    assert state.outcome is not None, "an attempt has ended"
    failed = state.outcome.exception()
    assert isinstance(failed, _Failed), "nothing else is retried"
    return failed


def _wait(state: RetryCallState) -> float:
    """At least the `Retry-After` of the server, with jitter, so that clients do not retry at the same time."""
    wait: float = _failure(state).wait
    return wait + random() * max(float(0.1 * 2 ** (state.attempt_number - 1)), wait / 4)


def _log_retry(state: RetryCallState) -> None:
    _log.info("%s; attempt %d of %d", _failure(state), state.attempt_number + 1, _ATTEMPTS)


def retry_after(response: httpx.Response) -> float:
    """The `Retry-After` of a response (in seconds or as a date) in seconds, 0 without one."""
    text = response.headers.get("Retry-After", "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:10])
    try:
        until = parsedate_to_datetime(text)
    except ValueError:
        return 0.0
    if until.tzinfo is None:  # a date without a zone, or of the zone -0000: HTTP dates are UTC
        until = until.replace(tzinfo=UTC)
    return max(0.0, (until - datetime.now(UTC)).total_seconds())


def _timeout(patience: float | None) -> httpx.Timeout:
    return httpx.Timeout(60.0, connect=10.0, read=patience)


def segment(name: str) -> str:
    """A name as a part of a path, slashes and all."""
    if name in ("", ".", ".."):  # which would be another path
        raise InvalidName(f"Invalid name {name!r}: it would be another path. Check the name.", name=name)
    return quote(name, safe="")
