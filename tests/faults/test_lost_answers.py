"""Answers that are lost after the server did the work: the client asks again, gets the answer, and nothing is done twice."""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from threading import Event
from typing import Any

import httpx
import pytest

from dataset_registry import Policy, Registry, Rule
from dataset_registry.errors import RetryLater
from dataset_registry.remote import client as remote_client
from dataset_registry.server.routes import datasets as dataset_routes
from tests import conftest, serving
from tests.contracts.scenarios_wire import Between, once
from tests.server.support import problem

SMALL, LARGE = b"id,name\n1,a\n", os.urandom(3 << 20)


@pytest.fixture(params=["sqlite-folder", "postgresql-s3"])
def served(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[serving.Served]:
    """A server over an empty registry, on each pair of a database and a store."""
    database, store = request.param.split("-")
    location = request.getfixturevalue("s3_url") if store == "s3" else str(tmp_path / "store")
    with serving.in_thread(catalog=conftest._catalog(request, database, tmp_path), store=location) as found:
        yield found


@pytest.fixture
def remote(served: serving.Served, monkeypatch: pytest.MonkeyPatch) -> Registry:
    """An administrator's registry over REST, whose client does not wait before it asks again."""
    monkeypatch.setattr(remote_client, "sleep", lambda _: None)
    return served.registry()


def lost() -> httpx.Response:
    raise httpx.ReadError("the connection broke")


def losing(registry: Registry, request: str) -> Between:
    """Lose the first answer to this kind of request."""
    return Between(registry, after=once(lost, request))


def actions(served: serving.Served) -> list[str]:
    """What the audit log says was done to data and permissions."""
    return [entry.action for entry in reversed(served.owner.audit(limit=1000)) if entry.actor == "admin"]


def test_a_commit_of_a_small_and_a_large_file_is_made_once(served: serving.Served, remote: Registry) -> None:
    with losing(remote, "POST commits") as requests, remote.draft("raw/both", message="both") as draft:
        draft.add("small", SMALL, format="csv")
        draft.add("large", LARGE)
    assert requests.count("POST commits") == 2
    assert (draft.result.unchanged, draft.version.number) == (False, 1)
    assert (draft.result.total_bytes, draft.result.new_bytes) == (len(SMALL) + len(LARGE),) * 2
    assert {key: schema.format for key, schema in draft.result.schemas.items()} == {("small", 0): "csv"}
    assert [component.name for component in draft.result.written] == ["large", "small"]
    (version,) = served.owner.dataset("raw/both").tree()
    with version.open("large") as stream:
        assert stream.read() == LARGE
    assert actions(served) == ["dataset.create", "commit"]


def test_a_commit_that_changed_nothing_is_answered_again(served: serving.Served, remote: Registry) -> None:
    dataset = remote.create_dataset("raw/same")
    dataset.commit({"large": LARGE})
    with (
        losing(remote, f"POST datasets/{dataset.id}/versions") as requests,
        dataset.draft() as draft,
    ):
        draft.add("large", LARGE)
    assert requests.count(f"POST datasets/{dataset.id}/versions") == 2
    assert (draft.result.unchanged, draft.version.number) == (True, 1)


def _upload(http: httpx.Client, content: bytes) -> str:
    upload_id = http.post("uploads", json={"file_size": len(content)}).json()["upload_id"]
    http.patch(f"uploads/{upload_id}", content=content, headers={"Upload-Offset": "0"}).raise_for_status()
    return str(upload_id)


def _wanted(upload_id: str, message: str = "once") -> dict[str, Any]:
    component = {"component_name": "data", "content": {"upload_id": upload_id}}
    return {"dataset_name": "raw/d", "message": message, "components": [component]}


KEY = {"Idempotency-Key": "key"}


def test_a_repeated_commit_is_known_though_its_upload_is_gone(served: serving.Served) -> None:
    with served.http() as http:
        wanted = _wanted(_upload(http, b"content"))
        first, again = (http.post("commits", json=wanted, headers=KEY) for _ in range(2))
        assert (first.status_code, again.status_code) == (201, 201), again.text
        assert again.json() == first.json()
        assert len(served.owner.dataset("raw/d").tree()) == 1


def test_a_key_with_other_content_is_a_conflict(served: serving.Served) -> None:
    with served.http() as http:
        wanted = _wanted(_upload(http, b"content"))
        assert http.post("commits", json=wanted, headers=KEY).status_code == 201
        for other in (_wanted(_upload(http, b"other")), {**wanted, "message": "another"}):
            problem(http.post("commits", json=other, headers=KEY), 409, "conflict")
        form = {"data": {"message": "once"}, "headers": {"Idempotency-Key": "form"}}
        first = http.post("datasets/1/versions", files={"data": b"1"}, **form)  # type: ignore[arg-type]
        again = http.post("datasets/1/versions", files={"data": b"1"}, **form)  # type: ignore[arg-type]
        other_form = http.post("datasets/1/versions", files={"data": b"2"}, **form)  # type: ignore[arg-type]
        assert (first.status_code, again.json()) == (201, first.json())
        problem(other_form, 409, "conflict")
    assert len(served.owner.dataset("raw/d").tree()) == 2


def test_a_commit_whose_version_was_deleted_since_says_so(served: serving.Served) -> None:
    with served.http() as http:
        wanted = _wanted(_upload(http, b"content"))
        assert http.post("commits", json=wanted, headers=KEY).status_code == 201
        dataset = served.owner.dataset("raw/d")
        dataset.commit({"data": b"next"})
        dataset.create_branch("old", "v2")
        served.owner.apply(served.owner.expire(Policy((Rule(last=1),)), dry_run=True))
        found = problem(http.post("commits", json=wanted, headers=KEY), 404, "not_found")
        assert "deleted since" in found["detail"]


def test_what_creates_something_creates_it_once(served: serving.Served, remote: Registry) -> None:
    with losing(remote, "POST datasets") as requests:
        dataset = remote.create_dataset("raw/d")
    assert requests.count("POST datasets") == 2
    dataset.commit({"data": b"1"})
    with losing(remote, f"POST datasets/{dataset.id}/branches"):
        assert dataset.create_branch("dev", "v1").version_number == 1
    with losing(remote, f"POST datasets/{dataset.id}/tags"):
        assert dataset.create_tag("july", "v1").version_number == 1
    with losing(remote, "POST users"):
        assert remote.create_user("bob").name == "bob"
    with losing(remote, "POST grants"):
        assert remote.grant("bob", "read", "raw/").user == "bob"
    with losing(remote, "POST protections"):
        assert remote.protect("raw/d", "main").branch == "main"
    with losing(remote, "POST branches"):
        assert remote.create_branch("pr-1") == 1
    assert actions(served) == [
        "dataset.create",
        "commit",
        "branch.create",
        "tag.create",
        "user.create",
        "grant",
        "protect",
        "registry-branch.create",
    ]


def test_what_changes_or_deletes_something_does_it_once(served: serving.Served, remote: Registry) -> None:
    dataset = remote.create_dataset("raw/d")
    first, second = (dataset.commit({"data": data}) for data in (b"1", b"2"))
    dataset.create_branch("dev", "v1")
    dataset.create_tag("july", "v1")
    remote.create_user("bob")
    remote.grant("bob", "read", "raw/")
    remote.protect("raw/d", "main")
    token = served.owner.create_token("bob").token.id
    remote.create_branch("pr-1")
    before = len(actions(served))
    steps: list[tuple[str, Callable[[], object]]] = [
        ("PATCH datasets", lambda: dataset.move_branch("dev", "v2", expect="v1")),
        ("PATCH datasets", lambda: dataset.rename("raw/e")),
        ("PATCH users", lambda: remote.update_user("bob", role="guest")),
        ("DELETE grants", lambda: remote.revoke("bob", "raw/")),
        ("DELETE protections", lambda: remote.unprotect("raw/e", "main")),
        ("DELETE tokens", lambda: remote.revoke_token(token)),
        ("DELETE branches", lambda: remote.delete_branch("pr-1")),
        ("DELETE datasets", lambda: dataset.delete_branch("dev")),
        ("DELETE datasets", lambda: dataset.delete_tag("july")),
        ("PATCH datasets", lambda: dataset.move_branch("main", "v1")),
        ("DELETE datasets", lambda: dataset.delete_version(f"v{second.number}")),
        ("DELETE datasets", dataset.delete),
    ]
    for request, work in steps:
        with losing(remote, request) as requests:
            work()
        assert requests.count(request) == 2, request
    assert len(actions(served)) == before + len(steps)
    assert first.number == 1


def test_a_plan_is_applied_once_and_says_what_it_did(served: serving.Served, remote: Registry) -> None:
    dataset = remote.create_dataset("raw/d")
    for n in range(5):
        dataset.commit({"data": b"%d" % n})
    plan = remote.expire(Policy((Rule(last=2),)), dry_run=True)
    with losing(remote, "POST expire/apply") as requests:
        assert remote.apply(plan).versions == 3
    assert requests.count("POST expire/apply") == 2
    collection = remote.collect(older_than=timedelta(0), dry_run=True)
    with losing(remote, "POST collect/apply"):
        assert remote.apply(collection).files == 3
    assert len(served.owner.dataset("raw/d").tree()) == 2


def test_a_token_whose_answer_was_lost_is_revoked_and_the_new_one_is_valid(
    served: serving.Served, remote: Registry
) -> None:
    with losing(remote, "POST tokens") as requests:
        made = remote.create_token(name="laptop")
    assert requests.count("POST tokens") == 2
    named = [token for token in served.owner.tokens("admin") if token.name == "laptop"]
    assert [token.revoked_at is None for token in named] == [True, False], "the newest first"
    assert named[0].id == made.token.id
    with Registry.open(served.url, token=made.secret) as registry:
        assert registry.actor == "admin"


def test_no_secret_of_a_token_is_stored(served: serving.Served) -> None:
    with served.http() as http:
        made = [http.post("tokens", json={"name": "t"}, headers=KEY).json() for _ in range(2)]
        assert http.post("tokens", json={"name": "other"}, headers=KEY).status_code == 409
    from dataset_registry.catalog.tables import answered_requests

    with served.owner.access.catalog.read() as tx:
        stored = str(tx.execute(answered_requests.select()).all())
    assert all(token["secret"] not in stored for token in made)
    assert str(made[1]["token"]["id"]) in stored


def test_a_repeated_token_request_does_not_bring_a_revoked_token_back(served: serving.Served) -> None:
    with served.http() as http:
        made = http.post("tokens", json={"name": "t"}, headers=KEY).json()
        served.owner.revoke_token(made["token"]["id"])
        problem(http.post("tokens", json={"name": "t"}, headers=KEY), 409, "conflict")
    assert all(token.revoked_at for token in served.owner.tokens("admin") if token.name == "t")


def test_a_request_that_is_still_at_work_is_waited_for(served: serving.Served, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go = Event(), Event()
    work = dataset_routes.DatasetResponse.of

    def slowly(record: Any) -> Any:
        begun.set()
        go.wait(10)
        return work(record)

    monkeypatch.setattr(dataset_routes.DatasetResponse, "of", slowly)
    with served.http() as http, ThreadPoolExecutor(2) as pool:
        first = pool.submit(http.post, "datasets", json={"name": "a"}, headers=KEY)
        assert begun.wait(10)
        again = pool.submit(http.post, "datasets", json={"name": "a"}, headers=KEY)
        with pytest.raises(TimeoutError):
            again.result(0.5)
        go.set()
        assert (first.result().status_code, again.result().status_code) == (201, 201)
        assert again.result().json() == first.result().json()


def test_an_answer_that_never_comes_back_is_one_effect_and_an_error(served: serving.Served, remote: Registry) -> None:
    dataset = remote.create_dataset("raw/d")
    with (
        Between(remote, after=lambda request: lost() if request.url.path.endswith("/versions") else None),
        pytest.raises(RetryLater, match="does not answer"),
        dataset.draft() as draft,
    ):
        draft.add("data", b"1")
    assert [version.number for version in served.owner.dataset("raw/d").tree()] == [1]
