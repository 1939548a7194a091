"""What one may not read is as if it were not there: the same answer, byte for byte, but for what was asked for."""

import re
from collections.abc import Callable
from functools import partial

import httpx
import pytest

from dataset_registry.errors import RegistryError
from tests.permissions.operations import OPERATIONS, Operation, Request
from tests.permissions.subjects import DATASET, PERSONS, TOKENS, Subject
from tests.permissions.world import World

ABSENT = 987_654
BLIND = tuple(
    subject
    for subject in (*PERSONS, *TOKENS)
    if subject.name
    in (
        "stranger",
        "guest",
        "foreign keeper",
        "file keeper",
        "administrator by a admin token for other/",
        "keeper by a admin token for other/",
    )
)


def anonymous(answer: httpx.Response, asked: object) -> bytes:
    """An answer without what was asked for, and without the id of the request."""
    content = re.sub(rb'"instance":"[0-9a-f]{32}"', b'"instance":"?"', answer.content)
    return re.sub(rb"\b" + re.escape(str(asked).encode()) + rb"\b", b"?", content)


def same(ask: Callable[[object], httpx.Response], foreign: object, absent: object, status: int = 404) -> bool:
    """Whether two requests get the same answer."""
    one, other = ask(foreign), ask(absent)
    assert one.status_code == other.status_code == status, (one.text, other.text)
    kept = ("content-type", "cache-control", "etag", "www-authenticate")
    assert [one.headers.get(name) for name in kept] == [other.headers.get(name) for name in kept]
    return anonymous(one, foreign) == anonymous(other, absent)


def _asked_of(client: httpx.Client, request: Request, there: int, dataset_id: object) -> httpx.Response:
    """A request about another dataset."""
    method, path, how = request
    return client.request(method, path.replace(f"datasets/{there}", f"datasets/{dataset_id}", 1), **how)


def _of_a_dataset(world: World) -> list[Operation]:
    return [o for o in OPERATIONS if o.rest is not None and o.rest(world)[1].startswith("datasets/")]


@pytest.mark.parametrize("subject", BLIND, ids=lambda subject: subject.name.replace(" ", "-"))
def test_every_request_about_a_foreign_dataset_is_answered_as_for_an_absent_one(world: World, subject: Subject) -> None:
    world.subject = subject
    with world.client(subject) as client:
        found = _of_a_dataset(world)
        assert len(found) > 30
        for operation in found:
            assert operation.rest is not None
            ask = partial(_asked_of, client, operation.rest(world), world.id)
            assert same(ask, world.id, ABSENT), operation.name


@pytest.mark.parametrize("subject", BLIND, ids=lambda subject: subject.name.replace(" ", "-"))
def test_every_request_that_names_a_foreign_dataset_is_answered_as_for_an_absent_one(
    world: World, subject: Subject
) -> None:
    with world.client(subject) as client:
        asks: list[tuple[int, Callable[[object], httpx.Response]]] = [
            (404, lambda name: client.get("datasets", params={"name": name})),
            (404, lambda name: client.get("grants", params={"name": name})),
            (404, lambda name: client.post("grants", json={"user": "somebody", "permission": "read", "name": name})),
            (404, lambda name: client.post("grants", json={"user": "no-such", "permission": "read", "name": name})),
            (404, lambda name: client.delete("grants", params={"user": "somebody", "name": name})),
            (404, lambda name: client.get("protections", params={"name": name})),
            (404, lambda name: client.post("protections", json={"name": name})),
            (404, lambda name: client.delete("protections", params={"name": name, "branch": "release"})),
            (403, lambda name: client.get("audit", params={"dataset": name})),
        ]
        for status, ask in asks:
            assert same(ask, DATASET, "raw/absent", status)
        assert client.get("datasets", params={"prefix": DATASET}).json()["items"] == []


@pytest.mark.parametrize(
    "subject", [s for s in BLIND if s.name != "file keeper"], ids=lambda subject: subject.name.replace(" ", "-")
)
def test_knowing_a_hash_or_an_id_of_a_file_gives_nothing(world: World, subject: Subject) -> None:
    unknown = "9" * 64
    own = {"branch": "main", "components": [{"component_name": "x", "content": {"content_hash": "?"}}]}
    with world.client(subject) as client:
        for start in (12, 64):
            assert same(
                lambda h, n=start: client.get("files", params={"content_hash": str(h)[:n]}),
                world.hash[:start],
                unknown[:start],
            )
        assert same(lambda h: client.get("grants", params={"file": h}), world.hash, unknown)
        assert same(
            lambda h: client.post("grants", json={"user": "somebody", "permission": "read", "file": h}),
            world.hash,
            unknown,
        )
        assert same(lambda h: client.delete("grants", params={"user": "somebody", "file": h}), world.hash, unknown)
        for tail in ("", "/data-files", "/content"):
            assert same(lambda i, t=tail: client.get(f"files/{i}{t}"), world.file.id, ABSENT)
        etag = {"If-None-Match": f'"{world.hash}"'}
        assert client.get(f"files/{world.file.id}/content", headers=etag).status_code == 404
        assert client.post("contents/known", json={"hashes": [world.hash, unknown]}).json() == {"known": []}
        if subject.on("other/prices") >= 2:
            there = client.get("datasets", params={"name": "other/prices"}).json()["items"][0]["id"]

            def commit(content_hash: object) -> httpx.Response:
                own["components"][0]["content"]["content_hash"] = content_hash
                return client.post(f"datasets/{there}/versions", json=own)

            def parts(content_hash: object) -> httpx.Response:
                component = {"component_name": "x", "parts": [{"content_hash": content_hash}]}
                return client.post(f"datasets/{there}/versions", json={"components": [component]})

            assert same(commit, world.hash, unknown)
            assert same(parts, world.hash, unknown)


@pytest.mark.parametrize(
    "subject", [s for s in BLIND if not s.is_token and s.name != "file keeper"], ids=lambda s: s.name.replace(" ", "-")
)
def test_in_python_it_is_the_same_error_too(world: World, subject: Subject) -> None:
    def said(ask: Callable[[], object]) -> tuple[type, str, dict[str, object]]:
        with pytest.raises(RegistryError) as raised:
            ask()
        # A suggestion depends on the name that was asked for, and is one that the caller can read.
        text = re.sub(r"(Did you mean '[^']*'\?|Create it with \S+) ", "", str(raised.value))
        return type(raised.value), text, raised.value.fields

    with world.opened(subject) as registry:
        for ask in (registry.dataset, registry.grants, registry.protections, registry.protect, registry.unprotect):
            kind, text, fields = said(lambda ask=ask: ask(DATASET))
            assert (kind, text.replace(DATASET, "raw/absent")) == said(lambda ask=ask: ask("raw/absent"))[:2]
            assert fields == dict.fromkeys(fields, DATASET)
        kind, text, _ = said(lambda: registry.file(world.hash))
        assert (kind, text.replace(world.hash, "9" * 64)) == said(lambda: registry.file("9" * 64))[:2]
        kind, text, _ = said(lambda: registry.dataset(world.id))
        assert (kind, text.replace(f" {world.id}.", f" {ABSENT}.")) == said(lambda: registry.dataset(ABSENT))[:2]
        kind, text, _ = said(lambda: registry.version(f"{DATASET}@v1"))
        assert (kind, text.replace(DATASET, "raw/absent")) == said(lambda: registry.version("raw/absent@v1"))[:2]


def test_a_version_or_a_file_of_another_dataset_is_not_in_mine(world: World) -> None:
    subject = next(s for s in PERSONS if s.name == "foreign keeper")
    with world.client(subject) as client:
        mine = client.get("datasets", params={"name": "other/prices"}).json()["items"][0]["id"]
        for tail in ("", "/components", "/content", "/productions", "/consumers", "/data-files", "/children"):
            assert same(lambda v, t=tail: client.get(f"datasets/{mine}/versions/{v}{t}"), world.ids[2], ABSENT)
        assert same(lambda v: client.delete(f"datasets/{mine}/versions/{v}"), world.ids[2], ABSENT)
        assert same(lambda v: client.get(f"datasets/{mine}/schema/{v}"), world.ids[2], ABSENT)
        form = {"files": {"x": ("x.bin", b"x")}}

        def onto(version_id: object) -> httpx.Response:
            commit = '{"base_version_id": %s, "components": [{"component_name": "x", "content": {"part": "x"}}]}'
            return client.post(f"datasets/{mine}/versions", data={"commit": commit % version_id}, **form)

        assert same(onto, world.ids[2], ABSENT, 409)
