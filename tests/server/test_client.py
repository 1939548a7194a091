"""The client of a server: how long it waits before it asks again, and when it does not."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx
import pytest

from dataset_registry.errors import RetryLater, TooManyRequests
from dataset_registry.remote import client as remote_client
from dataset_registry.remote.client import Client
from dataset_registry.wire.users import WhoResponse

PROBLEM = {"title": "t", "status": 503, "detail": "Retry shortly.", "fields": {}}


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that the client waited, without waiting."""
    found: list[float] = []
    monkeypatch.setattr(remote_client, "sleep", found.append)
    return found


@pytest.fixture
def client() -> Iterator[Client]:
    opened = Client("http://registry.test", "dr_token")
    yield opened
    opened.close()


def answers(client: Client, *answers: httpx.Response) -> None:
    """Let requests get these answers, one after the other, and then what they ask for."""
    left = list(answers)

    def answer(request: httpx.Request) -> httpx.Response:
        return left.pop(0) if left else httpx.Response(200, json={"user": "alice", "token": None})

    client._opened = httpx.Client(base_url="http://registry.test/v1/", transport=httpx.MockTransport(answer))


def refusal(status: int, retry_after: str | None) -> httpx.Response:
    code = "too_many_requests" if status == 429 else "retry_later"
    headers = {} if retry_after is None else {"Retry-After": retry_after}
    return httpx.Response(status, json={**PROBLEM, "code": code}, headers=headers)


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("seconds", [1, 7, 60])
def test_the_client_waits_for_as_long_as_the_server_asks_and_a_little_more(
    client: Client, waits: list[float], status: int, seconds: int
) -> None:
    answers(client, *(refusal(status, str(seconds)) for _ in range(4)))
    assert client.get("whoami", WhoResponse).user == "alice"
    assert len(waits) == 4
    assert all(seconds <= wait <= seconds * 1.25 + 1 for wait in waits), waits
    assert len(set(waits)) == 4, "clients that were refused together do not come back together"


def test_a_date_says_how_long_to_wait_too(client: Client, waits: list[float]) -> None:
    until = datetime.now(UTC) + timedelta(seconds=20)
    answers(client, refusal(503, format_datetime(until, usegmt=True)))
    client.get("whoami", WhoResponse)
    assert 18 <= waits[0] <= 26


@pytest.mark.parametrize(
    "text",
    [None, "", "soon", "-5", "1.5", "Thu, 01 Jan 1970 00:00:00 GMT", "Thu, 99 Jan 2026 00:00:00 GMT", "\u00b2", "NaN"],
)
def test_what_is_no_time_to_wait_is_no_reason_to_wait_long(
    client: Client, waits: list[float], text: str | None
) -> None:
    response = refusal(503, None)
    if text is not None:
        response.headers.raw.append((b"Retry-After", text.encode()))
    answers(client, response)
    client.get("whoami", WhoResponse)
    assert waits[0] < 1


@pytest.mark.parametrize(("status", "error"), [(429, TooManyRequests), (503, RetryLater)])
@pytest.mark.parametrize("text", ["3600", "9" * 30, "Fri, 31 Dec 9999 23:59:59 GMT"])
def test_a_server_that_asks_for_more_patience_than_a_minute_is_not_asked_again(
    client: Client, waits: list[float], status: int, error: type[RetryLater], text: str
) -> None:
    answers(client, refusal(status, text))
    with pytest.raises(error, match="asks to wait for") as found:
        client.get("whoami", WhoResponse)
    assert type(found.value) is error
    assert waits == []
