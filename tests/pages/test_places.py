"""Who sees which page, what a page says of what one may not see, and what hostile content can do: nothing."""

import re
from html.parser import HTMLParser
from urllib.parse import unquote, urlsplit

import pytest

from dataset_registry.model.pages import comparison_path, dataset_path
from dataset_registry.server.pages.datasets import _parsed
from tests.pages.conftest import Client
from tests.pages.gallery import ATTACK
from tests.pages.places import PAGES, PLACES, Place

USERS = {
    "admin": {"all", "readers", "administrators"},
    "writer": {"all", "readers"},
    "reader": {"all", "readers"},
    "guest": {"all"},
}
SECRETS = ("secret/plans", "Not for everybody", "the secret plan", "files/all", "wide/table")


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.path)
@pytest.mark.parametrize("user", USERS)
def test_a_page_is_shown_to_those_who_may_see_it(user: str, place: Place, signed_in: Client) -> None:
    answer = signed_in(user).get(place.path)
    if place.who in USERS[user]:
        assert answer.status_code == 200, answer.text
        assert place.shows in answer.text
    else:
        assert answer.status_code == (403 if place.path.startswith("/admin") else 404)
        assert not place.shows or place.shows not in answer.text
    if user != "admin":
        for secret in SECRETS:
            said = answer.text.replace(place.path, "")
            assert secret not in said or secret in place.path, f"{place.path} tells {user} of {secret}"


def test_what_is_absent_and_what_one_may_not_read_are_told_alike(signed_in: Client) -> None:
    guest = signed_in("guest")
    for path in ("/datasets/{}", "/datasets/{}@main", "/datasets/{}/compare/v1...v2", "/datasets/{}@main/-/lineage"):
        hidden, absent = (guest.get(path.format(name)) for name in ("secret/plans", "secret/absent"))
        assert hidden.status_code == absent.status_code == 404
        assert hidden.text.replace("secret/plans", "X") == absent.text.replace("secret/absent", "X")


class Tags(HTMLParser):
    """The tags of a page, with their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attributes)))


@pytest.mark.parametrize("place", PAGES, ids=lambda place: place.path)
def test_hostile_content_stays_text(place: Place, signed_in: Client) -> None:
    answer = signed_in("admin").get(place.path)
    assert ATTACK not in answer.text
    assert "\u202e" not in answer.text, "it would turn the text around"
    tags = Tags(answer.text).found
    assert [a["src"] for tag, a in tags if tag == "script"] == ["/static/registry.js"]
    for tag, attributes in tags:
        assert not any(name.startswith("on") or name == "style" for name in attributes), (tag, attributes)
        assert tag not in ("style", "iframe", "object", "embed", "base")
        for name in ("href", "src", "action"):
            assert re.match(r"[/#]|$", attributes.get(name) or ""), (tag, attributes)
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"
    assert len(answer.content) < 1 << 20


def test_delivered_files_are_never_shown_as_pages_of_ours(signed_in: Client) -> None:
    admin = signed_in("admin")
    for name in ("a.html", "b.svg", "c.csv"):
        answer = admin.get(f"/datasets/files/all@main/-/download?component={name}")
        assert answer.headers["content-type"] == "application/octet-stream"
        assert answer.headers["content-disposition"].startswith("attachment")
        assert "sandbox" in answer.headers["content-security-policy"]
        assert admin.get(f"/datasets/files/all@main/-/image?component={name}").status_code == 422
    image = admin.get("/datasets/files/all@main/-/image?component=f.png")
    assert (image.headers["content-type"], image.content[:4]) == ("image/png", b"\x89PNG")


@pytest.mark.parametrize(
    "path",
    [
        "/datasets/raw/prices/-/nothing",
        "/datasets/raw/prices@nothing",
        "/datasets/raw/prices@main/-/preview?row=x",
        "/datasets/raw/prices@main/-/preview?component=nothing",
        "/datasets/raw/prices@main/-/preview?filter=nothing",
        "/datasets/raw/prices@main/-/preview?filter=price&operator=%3D&value=x",
        "/datasets/raw/prices@main/-/preview?filter=price&operator=drop&value=x",
        "/datasets/raw/prices@main/-/preview?sort=nothing",
        "/datasets/raw/prices@main/-/preview?sort=price&row=999999",
        "/datasets/raw/prices/compare/v1...nothing",
        "/datasets/raw/prices@main/-/download?part=7",
        "/branches/..",
        "/branches/nothing",
        "/runs/nothing",
        "/reviews/999",
        "/reviews/x",
        "/reviews/99999999999999999999999",
        "/reviews/9223372036854775808/resolve?dataset=x",
        "/reviews/1/resolve?dataset=secret/plans",
        "/?q=" + "x" * 60_000,
        "/datasets/wide/table@main/-/preview?column=99999",
        "/reviews?state=lost",
        "/admin/nothing",
        "/datasets/\x00",
        "/search?q=%00",
        "/?prefix=%00",
    ],
)
def test_a_page_that_cannot_be_shown_says_why(path: str, signed_in: Client) -> None:
    answer = signed_in("admin").get(path.replace("\x00", "%00"))
    assert answer.status_code in (200, 303, 404, 422), answer.text
    assert "text/html" in answer.headers.get("content-type", "text/html")
    if answer.status_code in (404, 422):
        assert 'role="alert"' in answer.text


@pytest.mark.parametrize(
    "name", ["raw/flights", "a+b=c", 'my "data"@set', "x/-/y", "x/compare/v1...v2", "näme/ü", "100%/x", "q?a#b"]
)
def test_the_address_of_a_page_leads_back_to_its_dataset(name: str) -> None:
    def opened(path: str) -> tuple[str, str | None, tuple[str, str] | None, str]:
        found = _parsed(unquote(urlsplit(path).path).removeprefix("/datasets/"))
        return found.name, found.ref, found.compared, found.tail

    assert opened(dataset_path(name)) == (name, None, None, "")
    assert opened(dataset_path(name, "main~2", "preview", row=50)) == (name, "main~2", None, "preview")
    for ref in ("pr/7^2", "feature/-/x"):
        assert opened(dataset_path(name, ref)) == (name, ref, None, "")
        assert opened(dataset_path(name, ref, "lineage")) == (name, ref, None, "lineage")
    assert opened(comparison_path(name, "v1", "pr/7", "rows", component="a")) == (name, None, ("v1", "pr/7"), "rows")
