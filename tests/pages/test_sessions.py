"""Signing in and out, and what a request of another site can do: nothing."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import timedelta

import httpx
import pytest

from dataset_registry.server.pages.sessions import COOKIE, local_path
from tests import serving
from tests.pages.conftest import Client, form_key
from tests.waiting import SAFETY, until

Visit = Callable[..., httpx.Client]


@pytest.fixture
def visit(gallery: serving.Served) -> Iterator[Visit]:
    """New clients without a session, or with these cookies."""
    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(httpx.Client(base_url=gallery.url, timeout=SAFETY, **options))


@pytest.fixture
def anonymous(visit: Visit) -> httpx.Client:
    return visit()


def test_pages_send_who_is_not_signed_in_to_the_form_and_back(gallery: serving.Served, anonymous: httpx.Client) -> None:
    answer = anonymous.get("/datasets/raw/prices@main/-/preview?row=0")
    assert answer.status_code == 303
    assert answer.headers["location"] == "/sign-in?next=%2Fdatasets%2Fraw%2Fprices%40main%2F-%2Fpreview%3Frow%3D0"
    form = anonymous.get(answer.headers["location"])
    assert (form.status_code, "API token" in form.text) == (200, True)
    token = gallery.token("reader")
    path = "/datasets/raw/prices@main/-/preview?row=0"
    entered = anonymous.post("/sign-in", data={"token": token, "next": path})
    assert (entered.status_code, entered.headers["location"]) == (303, path)
    assert anonymous.get(path).status_code == 200
    assert anonymous.post("/sign-out", data={}).status_code == 303


def test_the_cookie_is_for_this_server_alone_and_is_not_the_token(gallery: serving.Served, visit: Visit) -> None:
    token = gallery.token("reader")
    client = visit()
    answer = client.post("/sign-in", data={"token": token})
    cookie = answer.headers["set-cookie"]
    assert token not in cookie
    assert {"HttpOnly", "SameSite=lax", "Path=/", "Max-Age=43200"} <= {part.strip() for part in cookie.split(";")}
    again = client.post("/sign-in", data={"token": token}).headers["set-cookie"]
    assert again.partition(";")[0] != cookie.partition(";")[0], "every session has a secret of its own"


def test_a_session_that_somebody_else_chose_is_not_taken(gallery: serving.Served, visit: Visit) -> None:
    client = visit(cookies={COOKIE: "dr_chosen"})
    assert client.get("/").status_code == 303
    client.post("/sign-in", data={"token": gallery.token("reader")})
    assert client.cookies.get(COOKIE, domain="127.0.0.1") != "dr_chosen"


@pytest.mark.parametrize("token", ["", "dr_wrong", "x" * 100, "dr_" + "a" * 43])
def test_a_wrong_token_starts_no_session(token: str, anonymous: httpx.Client) -> None:
    answer = anonymous.post("/sign-in", data={"token": token})
    assert answer.status_code == 401
    assert "set-cookie" not in answer.headers
    assert "Invalid token" in answer.text


def test_a_session_ends_when_it_is_signed_out_and_when_its_token_is_revoked(
    gallery: serving.Served, visit: Visit
) -> None:
    client = visit()
    client.post("/sign-in", data={"token": gallery.token("reader")})
    stolen = visit(cookies=dict(client.cookies))
    assert stolen.get("/").status_code == 200
    client.post("/sign-out", data={"form_key": form_key(client)})
    assert stolen.get("/").status_code == 303

    made = gallery.owner.create_token("reader")
    other = visit()
    other.post("/sign-in", data={"token": made.secret})
    assert other.get("/").status_code == 200
    gallery.owner.revoke_token(made.token.id)
    assert other.get("/").status_code == 303


def test_a_session_lasts_no_longer_than_its_token(gallery: serving.Served, visit: Visit) -> None:
    made = gallery.owner.create_token("reader", lasts=timedelta(seconds=2))
    client = visit()
    assert client.post("/sign-in", data={"token": made.secret}).status_code == 303
    session = max(gallery.owner.tokens("reader"), key=lambda token: token.id)
    assert session.name == "browser session"
    assert session.expires_at is not None
    assert session.expires_at <= made.token.expires_at  # type: ignore[operator]
    until(lambda: client.get("/").status_code == 303)


def test_a_session_can_do_what_its_token_can(gallery: serving.Served, visit: Visit) -> None:
    token = gallery.owner.create_token("admin", permission="read", prefix="clean/").secret
    client = visit()
    client.post("/sign-in", data={"token": token})
    assert client.get("/datasets/clean/prices").status_code == 200
    assert client.get("/datasets/raw/prices").status_code == 404
    assert client.get("/admin/health").status_code == 403
    refused = client.post("/datasets/clean/prices@main/-/tag", data={"form_key": form_key(client), "name": "mine"})
    assert refused.status_code == 403


def test_the_cookie_is_no_credential_of_the_api(signed_in: Client) -> None:
    assert signed_in("admin").get("/v1/datasets").status_code == 401


FORMS = (
    "/datasets/raw/prices@main/-/tag",
    "/datasets/raw/prices@main/-/branch",
    "/datasets/raw/prices@main/-/revert",
    "/datasets/raw/prices@broken/-/absolve",
    "/reviews/new",
    "/reviews/1",
    "/reviews/1/resolve",
    "/admin/audit/check",
    "/admin/storage/collect",
    "/admin/storage/verify",
    "/admin/tokens/1/revoke",
    "/admin/grants",
    "/admin/grants/revoke",
)


@pytest.mark.parametrize("path", FORMS)
def test_a_form_takes_the_key_of_its_session_and_comes_from_this_site(path: str, signed_in: Client) -> None:
    admin = signed_in("admin")
    fields = {"name": "forged", "action": "close", "dataset": "raw/prices", "because": "forged", "branch": "main"}
    foreign = form_key(signed_in("reader"))
    before = admin.get("/admin/audit").text
    assert admin.post(path, data=fields).status_code == 403
    assert admin.post(path, data={**fields, "form_key": foreign}).status_code == 403
    fields["form_key"] = form_key(admin)
    for headers in (
        {"Origin": "https://elsewhere.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ):
        assert admin.post(path, data=fields, headers=headers).status_code == 403
    assert admin.get("/admin/audit").text.count("<tr>") == before.count("<tr>"), "nothing was done"


def test_pages_cannot_be_framed(signed_in: Client) -> None:
    headers = signed_in("reader").get("/").headers
    assert headers["x-frame-options"] == "DENY"
    assert "frame-ancestors 'none'" in headers["content-security-policy"]


@pytest.mark.parametrize(
    "path",
    [
        "//evil.example",
        "https://evil.example",
        "/\\evil.example",
        "javascript:alert(1)",
        "evil",
        "/a\nb",
        "/sign-out",
        "",
    ],
)
def test_signing_in_goes_on_to_this_server_only(path: str, gallery: serving.Served, visit: Visit) -> None:
    assert local_path(path) == "/"
    client = visit()
    answer = client.post("/sign-in", data={"token": gallery.token("reader"), "next": path})
    assert answer.headers["location"] == "/"


def test_operators_can_sign_in_to_a_registry_that_is_read_only(
    gallery: serving.Served, signed_in: Client, visit: Visit
) -> None:
    token, known = gallery.token("admin"), signed_in("admin")
    form = {"form_key": form_key(known), "name": "release-1"}
    gallery.owner.freeze("Backup")
    try:
        until(lambda: known.post("/datasets/raw/prices@main/-/tag", data=form).status_code == 423)
        client = visit()
        assert client.post("/sign-in", data={"token": token}).status_code == 303
        assert "Backup" in client.get("/admin/health").text
    finally:
        gallery.owner.unfreeze()
        until(lambda: known.post("/datasets/raw/prices@main/-/tag", data=form).status_code == 409)


def test_a_form_that_cannot_be_read_is_answered_with_a_page(anonymous: httpx.Client) -> None:
    answer = anonymous.post("/sign-in", data={"token": "x" * 5000})
    assert (answer.status_code, "text/html" in answer.headers["content-type"]) == (422, True)
    assert anonymous.post("/sign-out").status_code == 401
