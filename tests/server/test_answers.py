"""What every answer says beside its content: who may keep it, what it hides, and that its pages need no other host."""

import json
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import httpx
import pytest
from sqlalchemy import make_url

from dataset_registry import Registry
from dataset_registry.catalog import Catalog
from dataset_registry.errors import (
    CatalogOutdated,
    CatalogRefused,
    CorruptionError,
    RegistryError,
    RetryLater,
    StorageError,
)
from dataset_registry.operations import users
from dataset_registry.server.problems import status_of
from dataset_registry.store.folder import FolderStore
from tests import serving
from tests.serving import Served

SECRET = "/srv/secret-folder postgresql+psycopg://owner:***@db.internal:5432/registry"


# --- caches --------------------------------------------------------------------------------------------------------


def test_no_cache_keeps_what_depends_on_a_token(served: Served) -> None:
    with served.http() as http:
        created = http.post("tokens", json={"user": "admin"})
        assert created.json()["secret"].startswith("dr_")
        answers = [
            created,
            http.get("datasets"),
            http.get("whoami"),
            http.get("nowhere"),
            http.get("datasets/1"),
            http.post("datasets", json={"nam": 1}),
            http.post("uploads", json={"file_size": 1}),
            http.get("whoami", headers={"Authorization": "Bearer nothing"}),
            http.get("whoami", headers={"Authorization": ""}),
            http.post("datasets", content=b"x" * (33 << 20)),
        ]
        assert {answer.headers.get("Cache-Control") for answer in answers} == {"no-store"}
        assert {answer.status_code for answer in answers} >= {200, 201, 401, 404, 413, 422}


def test_a_download_may_be_kept_by_its_client_and_asked_after(served: Served) -> None:
    served.owner.create_dataset("raw/flights").commit({"data": b"content"})
    with served.http() as http:
        assert http.get("files/1/content").headers["Cache-Control"] == "private, no-cache"


def test_the_address_of_a_direct_upload_is_not_remembered(
    sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FolderStore, "upload_url", lambda self, key, *_: f"https://store/{key}?signature=1")
    direct = {"direct": True, "file_size": 3, "content_hash": "0" * 64}
    with (
        serving.in_thread(catalog=sqlite_url, store=str(tmp_path / "store"), direct_uploads=True) as served,
        served.http() as http,
    ):
        first, second = (http.post("uploads", json=direct, headers={"Idempotency-Key": "one"}) for _ in range(2))
        assert "signature" in first.json()["upload_url"]
        assert first.headers["Cache-Control"] == "no-store"
        assert "Idempotent-Replayed" not in second.headers
        assert second.json()["upload_url"] != first.json()["upload_url"]
        again = [http.post("uploads", json={"file_size": 3}, headers={"Idempotency-Key": "two"}) for _ in range(2)]
        assert again[0].json() == again[1].json()


# --- ranges --------------------------------------------------------------------------------------------------------


def test_a_range_outside_of_a_file_is_answered_with_its_size(served: Served) -> None:
    served.owner.create_dataset("raw/flights").commit({"data": b"content"})
    with served.http() as http:
        answer = http.get("files/1/content", headers={"Range": "bytes=7-"})
        assert (answer.status_code, answer.headers["Content-Range"]) == (416, "bytes */7")
        assert http.get("files/1/content", headers={"Range": "bytes=6-"}).headers["Content-Range"] == "bytes 6-6/7"


# --- failures ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        (RegistryError, 500),
        (RetryLater, 503),
        (CatalogOutdated, 503),
        (CatalogRefused, 503),
        (StorageError, 507),
        (CorruptionError, 500),
        (ValueError, 500),
    ],
)
def test_a_failure_of_the_server_tells_its_operator_what_it_is_and_others_only_its_id(
    served: Served,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    kind: type[Exception],
    status: int,
) -> None:
    with served.http() as http:
        error = kind(SECRET, path=SECRET) if issubclass(kind, RegistryError) else kind(SECRET)
        fail = _raising(error)
        for target, name, call in (
            (users, "list_all", lambda: http.get("users")),
            (users, "tokens", lambda: http.get("tokens")),
            (Catalog, "revision", lambda: http.get(served.url + "/ready")),
        ):
            with monkeypatch.context() as patched:
                patched.setattr(target, name, fail)
                answer = call()
            assert answer.status_code == status
            found = answer.json()
            assert found["instance"] == answer.headers["X-Request-Id"]
            assert found["instance"] in found["detail"]
            assert found["fields"] == {}
            for word in ("secret", "db.internal", "owner", "5432", "/srv"):
                assert word not in answer.text
            log = capfd.readouterr().err
            lines = [json.loads(line) for line in log.splitlines() if found["instance"] in line]
            assert any("db.internal" in json.dumps(line) for line in lines)


def test_who_asks_is_not_told_either_why_that_cannot_be_found_out(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    with served.http() as http:
        monkeypatch.setattr("dataset_registry.server.auth.authenticate", _raising(RetryLater(SECRET)))
        answer = http.get("datasets")
    assert answer.status_code == 503
    assert "secret" not in answer.text
    assert answer.headers["Retry-After"] == "1"


def test_an_error_of_the_client_says_what_it_is(served: Served) -> None:
    with served.http() as http:
        found = http.post("datasets", json={"name": "a b"}).json()
        assert "a b" in found["detail"]
        assert found["fields"] == {"name": "a b"}


def test_a_database_that_refuses_its_url_is_no_mistake_of_a_client(postgresql_url: str, tmp_path: Path) -> None:
    address = make_url(postgresql_url).set(password="wrong").render_as_string(hide_password=False)
    with pytest.raises(CatalogRefused, match="cannot be opened") as caught:
        Registry.open(catalog=address, store=str(tmp_path))
    assert status_of(caught.value) == 503


def _raising(error: Exception) -> Callable[..., Any]:
    def fail(*_: object, **__: object) -> Any:
        raise error

    return fail


# --- the page ------------------------------------------------------------------------------------------------------


class _Links(HTMLParser):
    """What a page loads, and the scripts that are in it."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.inline: list[str] = []
        self._is_script = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._is_script = tag == "script"
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]
        self.inline += [f"{name}={value}" for name, value in attrs if name.startswith("on") or name == "style"]

    def handle_data(self, data: str) -> None:
        if self._is_script and data.strip():
            self.inline.append(data)


def test_the_page_of_the_api_loads_nothing_from_elsewhere(served: Served) -> None:
    with httpx.Client(base_url=served.url) as http:
        page = http.get("/docs")
        assert page.headers["Content-Type"].startswith("text/html")
        found = _Links()
        found.feed(page.text)
        assert found.inline == []
        assert len(found.links) == 4
        for link in found.links:
            address = urljoin(str(page.url), link)
            assert urlsplit(address).netloc == urlsplit(served.url).netloc
            loaded = http.get(address)
            assert loaded.status_code == 200
            assert loaded.headers["X-Content-Type-Options"] == "nosniff"
            assert "://" not in link
        assert "SwaggerUIBundle" in http.get("/docs/swagger-ui-bundle.js").text
        assert 'url: "openapi.json"' in http.get("/docs/start.js").text
        assert http.get("/openapi.json").json()["info"]["title"] == "dataset_registry"


def test_the_policy_of_the_page_allows_its_own_scripts_only(served: Served) -> None:
    with httpx.Client(base_url=served.url) as http:
        policy = http.get("/docs").headers["Content-Security-Policy"]
    rules = {rule.split()[0]: rule.split()[1:] for rule in policy.split(";")}
    assert rules["default-src"] == ["'none'"]
    assert rules["script-src"] == rules["connect-src"] == ["'self'"]
    assert "unsafe" not in policy
    assert "://" not in policy
    assert rules["frame-ancestors"] == ["'none'"]


def test_there_is_one_page_only(served: Served) -> None:
    with httpx.Client(base_url=served.url) as http:
        for path in ("/redoc", "/docs/oauth2-redirect", "/docs/__init__.py", "/docs/nothing"):
            assert http.get(path).status_code == 404
