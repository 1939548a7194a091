"""What a client of the API may rely on: its description, problems, ETags, ranges, keys for repeating, cursors, forms."""

import copy
import json
import shutil
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier, Event, Semaphore
from typing import Any

import httpx
import pytest
import schemathesis
from sqlalchemy import create_engine, text

from dataset_registry.catalog.engine import REVISION_TABLE
from dataset_registry.operations import commit as commits
from dataset_registry.server.routes import users
from tests import serving
from tests.server.conftest import Client
from tests.server.store_openapi import STORED, broken, described
from tests.server.support import Prepared, commit_file, problem
from tests.waiting import SAFETY, until

ORIGINAL = {
    ("post", "/v1/datasets/{dataset_id}/branches"),
    ("post", "/v1/datasets/{dataset_id}/tags"),
    ("get", "/v1/datasets/{dataset_id}/pointers"),
    ("get", "/v1/datasets/{dataset_id}/schema/{version_id}"),
}
JSON = {"Content-Type": "application/json"}


# --- the description -----------------------------------------------------------------------------------------------


def test_the_description_is_valid_openapi(served: serving.Served) -> None:
    schemathesis.openapi.from_url(served.url + "/openapi.json").validate()


def test_the_api_keeps_what_its_stored_description_promised() -> None:
    assert broken(json.loads(STORED.read_text()), described()) == [], "python -m tests.server.store_openapi, if meant"


def test_the_api_has_the_paths_of_the_original_design() -> None:
    found = {(method, path) for path, item in described()["paths"].items() for method in item}
    assert found >= ORIGINAL


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda d: d["paths"].pop("/v1/whoami"), "GET /v1/whoami is gone"),
        (lambda d: d["paths"]["/v1/datasets"].pop("post"), "POST /v1/datasets is gone"),
        (lambda d: d["paths"]["/v1/datasets"]["get"]["parameters"].pop(), "the parameter"),
        (lambda d: d["components"]["schemas"]["DatasetRequest"]["required"].append("description"), "is required now"),
        (
            lambda d: d["components"]["schemas"]["VersionResponse"]["properties"].pop("uuid"),
            "the property uuid is gone",
        ),
        (
            lambda d: d["components"]["schemas"]["CountResponse"]["properties"]["count"].update(type="string"),
            "the type",
        ),
        (
            lambda d: d["components"]["schemas"]["PointerRequest"]["properties"]["ref"].update(maxLength=9),
            "maxLength is 9",
        ),
        (lambda d: d["paths"]["/v1/datasets"]["post"]["responses"].pop("201"), "the answer 201 is gone"),
    ],
)
def test_what_clients_would_miss_is_found(change: Any, complaint: str) -> None:
    before = json.loads(STORED.read_text())
    after = copy.deepcopy(before)
    change(after)
    assert any(complaint in line for line in broken(before, after))


def test_what_is_added_breaks_nobody() -> None:
    before = json.loads(STORED.read_text())
    after = copy.deepcopy(before)
    after["paths"]["/v1/more"] = after["paths"]["/v1/whoami"]
    after["components"]["schemas"]["DatasetRequest"]["properties"]["more"] = {"type": "string"}
    after["components"]["schemas"]["TokenResponse"]["properties"]["more"] = {"type": "string"}
    after["components"]["schemas"]["TokenResponse"]["required"].append("more")
    assert broken(before, after) == []


# --- problems ------------------------------------------------------------------------------------------------------


def test_who_is_unknown_is_told_so(served: serving.Served, clients: Client) -> None:
    answer = clients(served, None).get("whoami")
    problem(answer, 401, "not_authenticated")
    assert answer.headers["www-authenticate"] == "Bearer"


def test_who_is_unknown_is_told_how_to_say_who_asks(served: serving.Served, clients: Client) -> None:
    detail = clients(served, None).get("whoami").json()["detail"]
    assert "Authorization" in detail
    assert "Bearer" in detail


def test_who_may_read_but_not_write_is_told_so(http: httpx.Client, served: serving.Served, clients: Client) -> None:
    http.post("datasets", json={"name": "raw/a"})
    reader = clients(served, "reader")
    http.post("grants", json={"user": "reader", "permission": "read", "name": "raw/a"})
    problem(reader.patch("datasets/1", json={"description": "mine"}), 403, "permission_denied")
    problem(reader.get("users"), 403, "permission_denied")


def test_what_may_not_be_read_is_not_there(http: httpx.Client, served: serving.Served, clients: Client) -> None:
    http.post("datasets", json={"name": "raw/a"})
    http.post("protections", json={"name": "raw/a"})
    stranger = clients(served, "stranger")
    served.owner.update_user("stranger", role="guest")
    hidden = problem(stranger.get("datasets/1"), 404, "not_found")
    missing = problem(stranger.get("datasets/2"), 404, "not_found")
    assert hidden["detail"].replace("id 1.", "id 2.") == missing["detail"]


def test_paths_and_methods_that_are_not_there_are_problems_too(http: httpx.Client, served: serving.Served) -> None:
    problem(http.get("nowhere"), 404)
    problem(http.get(served.url + "/nowhere"), 404)
    problem(http.put("datasets"), 405)
    problem(http.get("datasets/"), 404)  # no redirect that would lose the token or the body


def test_what_is_taken_or_in_use_is_a_conflict(full: tuple[serving.Served, Prepared], clients: Client) -> None:
    served, made = full
    http = clients(served)
    there = f"datasets/{made.datasets[0]}"
    problem(http.post("datasets", json={"name": "raw/d0"}), 409, "already_exists")
    problem(http.post(f"{there}/branches", json={"pointer_name": "dev"}), 409, "already_exists")
    problem(http.delete(f"{there}/versions/{made.versions[made.datasets[0]][-1]}"), 409, "in_use")
    http.delete(f"{there}/tags/july")
    problem(http.post(f"{there}/tags", json={"pointer_name": "july"}), 409, "tag_immutable")
    problem(http.patch(f"{there}/branches/dev", json={"ref": "v1", "expect": "v2"}), 409, "branch_moved")


def test_a_branch_moves_only_from_where_the_client_saw_it(
    full: tuple[serving.Served, Prepared], clients: Client
) -> None:
    served, made = full
    http = clients(served)
    there = f"datasets/{made.datasets[0]}/branches/dev"
    etag = http.get(there).headers["etag"]
    moved = http.patch(there, json={"ref": "v1"}, headers={"If-Match": etag})
    assert (moved.status_code, moved.headers["etag"]) == (200, '"v1"')
    found = problem(http.patch(there, json={"ref": "v2"}, headers={"If-Match": etag}), 412, "precondition_failed")
    assert "v1" in found["detail"]
    assert http.patch(there, json={"ref": "v2"}, headers={"If-Match": "*"}).status_code == 200
    problem(http.patch(there, json={"ref": "v1"}, headers={"If-Match": "nonsense"}), 412)


def test_what_is_too_large_is_refused_before_it_is_read_and_while_it_is_read(
    sqlite_url: str, tmp_path: Path, clients: Client
) -> None:
    limits = {"max_json_bytes": 1000, "max_form_bytes": 5000, "max_upload_bytes": 5000}
    with serving.in_thread(catalog=sqlite_url, store=str(tmp_path / "store"), **limits) as served:
        http = clients(served)
        dataset = http.post("datasets", json={"name": "a"}).json()["id"]
        too_much = json.dumps({"name": "x", "description": "d" * 2000}).encode()
        problem(http.post("datasets", content=too_much, headers=JSON), 413, "payload_too_large")
        path = f"datasets/{dataset}/versions"
        problem(http.post(path, content=iter([too_much]), headers=JSON), 413, "payload_too_large")
        problem(http.post(path, files={"data": b"x" * 6000}), 413, "payload_too_large")
        problem(http.post("uploads", json={"file_size": 5001}), 413, "payload_too_large")
        assert [d.name for d in served.owner.datasets()] == ["a"]
        assert served.owner.dataset("a").tree() == []


def test_a_json_body_without_a_length_that_is_too_large_is_a_413(
    sqlite_url: str, tmp_path: Path, clients: Client
) -> None:
    with serving.in_thread(catalog=sqlite_url, store=str(tmp_path / "store"), max_json_bytes=1000) as served:
        body = iter([b'{"name": "x", "description": "', b"d" * 2000, b'"}'])
        problem(clients(served).post("datasets", content=body, headers=JSON), 413, "payload_too_large")


@pytest.mark.parametrize("kind", ["application/octet-stream", "multipart/form-data; boundary=b", "text/csv"])
@pytest.mark.parametrize("token", [True, False])
def test_no_content_type_gets_more_than_the_limit_of_json_into_a_route_that_takes_json(
    sqlite_url: str, tmp_path: Path, clients: Client, kind: str, token: bool
) -> None:
    with serving.in_thread(catalog=sqlite_url, store=str(tmp_path / "store"), max_json_bytes=1000) as served:
        http = clients(served, "admin" if token else None)
        answer = http.post("datasets", content=b"x" * 2000, headers={"Content-Type": kind})
        assert answer.status_code in ((413,) if token else (401, 413))
        problem(clients(served).post("datasets", content=b"x" * 2000, headers={"Content-Type": kind}), 413)


def test_ranges_that_are_not_there_are_a_416(http: httpx.Client) -> None:
    commit_file(http, b"0123456789")
    found = problem(http.get("files/1/content", headers={"Range": "bytes=10-"}), 416, "range_not_satisfiable")
    assert "10 bytes" in found["detail"]


def test_what_is_not_as_described_is_a_422_that_says_where(http: httpx.Client) -> None:
    found = problem(http.post("datasets", json={"name": 7}), 422, "invalid_input")
    assert "body.name" in found["detail"]
    found = problem(http.get("datasets", params={"limit": "0"}), 422, "invalid_input")
    assert "query.limit" in found["detail"]
    problem(http.post("datasets", content=b"{", headers=JSON), 422, "invalid_input")
    problem(http.post("datasets", content=b"", headers=JSON), 422, "invalid_input")
    problem(http.get("datasets/x"), 422)
    problem(http.get("datasets", params={"cursor": "!"}), 422, "invalid_input")


def test_who_comes_when_the_server_is_full_is_told_to_come_again(
    sqlite_url: str, tmp_path: Path, clients: Client
) -> None:
    with serving.in_thread(catalog=sqlite_url, store=str(tmp_path / "store"), concurrency=1) as served:
        http = clients(served)
        with _half_sent(http, "POST", "datasets", {**JSON, "Content-Length": "100"}, b"{"):
            until(lambda: http.get("whoami").status_code == 429)
            answer = http.get("whoami")
            problem(answer, 429, "too_many_requests")
            assert answer.headers["retry-after"] == "1"
            assert all(http.get(served.url + path).status_code == 200 for path in ("/health", "/ready", "/metrics"))
        until(lambda: http.get("whoami").status_code == 200)


def test_who_falls_silent_in_a_request_is_not_waited_for(sqlite_url: str, tmp_path: Path, clients: Client) -> None:
    with serving.in_thread(catalog=sqlite_url, store=str(tmp_path / "store"), body_seconds=2) as served:
        http = clients(served)
        upload = http.post("uploads", json={}).json()["upload_id"]
        headers = {"Content-Length": "100", "Upload-Offset": "0", "Content-Type": "application/octet-stream"}
        with _half_sent(http, "PATCH", f"uploads/{upload}", headers, b"abc") as connection:
            answer = connection.recv(10_000).decode()
        assert "body_timeout" in answer
        assert http.get(f"uploads/{upload}").json()["offset"] == 3  # what came stays


@pytest.mark.parametrize("path", ["datasets", "commits", "uploads/UPLOAD"])
def test_silence_is_a_408(sqlite_url: str, tmp_path: Path, clients: Client, path: str) -> None:
    with serving.in_thread(catalog=sqlite_url, store=str(tmp_path / "store"), body_seconds=2) as served:
        http = clients(served)
        path = path.replace("UPLOAD", http.post("uploads", json={}).json()["upload_id"])
        headers = {"Content-Length": "100", "Upload-Offset": "0", **JSON}
        with _half_sent(http, "PATCH" if "uploads" in path else "POST", path, headers, b"{") as connection:
            assert connection.recv(10_000).startswith(b"HTTP/1.1 408 ")


def test_whoever_watches_is_answered_while_all_requests_there_may_be_are_busy(
    sqlite_url: str, tmp_path: Path, clients: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    free, work, busy = Event(), users.WhoResponse, Semaphore(0)

    def wait(**values: Any) -> Any:
        busy.release()
        assert free.wait(SAFETY)
        return work(**values)

    monkeypatch.setattr(users, "WhoResponse", wait)
    with (
        serving.in_thread(catalog=sqlite_url, store=str(tmp_path / "store"), concurrency=20) as served,
        ThreadPoolExecutor(20) as pool,
    ):
        http = clients(served)
        answers = [pool.submit(http.get, "whoami") for _ in range(20)]
        try:
            for _ in range(20):
                assert busy.acquire(timeout=SAFETY)
            for path in ("/health", "/ready", "/metrics"):
                assert httpx.get(served.url + path, timeout=SAFETY).status_code == 200
        finally:
            free.set()
        assert [answer.result().status_code for answer in answers] == [200] * 20


def test_every_answer_has_an_id_of_its_own(http: httpx.Client, served: serving.Served) -> None:
    answers = [http.get("whoami"), http.get("whoami"), http.get("nowhere"), http.get(served.url + "/health")]
    assert len({answer.headers["x-request-id"] for answer in answers}) == 4


def test_a_mistake_of_the_server_is_a_problem_too_and_tells_nothing_of_its_inside(
    http: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("an inner secret")

    monkeypatch.setattr("dataset_registry.server.routes.users.WhoResponse", fail)
    answer = http.get("whoami")
    assert "inner secret" not in answer.text
    problem(answer, 500)


# --- downloads -----------------------------------------------------------------------------------------------------

CONTENT = bytes(range(256)) * 4


def test_the_etag_of_a_download_is_its_hash_and_saves_the_next_one(http: httpx.Client) -> None:
    commit_file(http, CONTENT)
    whole = http.get("files/1/content")
    assert (whole.status_code, whole.content) == (200, CONTENT)
    content_hash = http.get("files/1").json()["content_hash"]
    assert whole.headers["etag"] == f'"{content_hash}"'
    assert whole.headers["content-type"] == "application/octet-stream"
    assert whole.headers["x-content-type-options"] == "nosniff"
    for tags in (f'"{content_hash}"', f'"other", "{content_hash}"'):
        again = http.get("files/1/content", headers={"If-None-Match": tags})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", f'"{content_hash}"')
    assert http.get("files/1/content", headers={"If-None-Match": '"other"'}).status_code == 200


@pytest.mark.parametrize("tags", ['W/"HASH"', "*"])
def test_if_none_match_compares_weakly(http: httpx.Client, tags: str) -> None:
    commit_file(http, CONTENT)
    content_hash = http.get("files/1").json()["content_hash"]
    tags = tags.replace("HASH", content_hash)
    assert http.get("files/1/content", headers={"If-None-Match": tags}).status_code == 304


RANGES = [
    ("bytes=0-0", 206, 0, 1),
    ("bytes=0-99", 206, 0, 100),
    ("bytes=1000-", 206, 1000, 1024),
    ("bytes=1023-1023", 206, 1023, 1024),
    ("bytes=-1", 206, 1023, 1024),
    ("bytes=-5000", 200, 0, 1024),
    ("bytes=1000-5000", 206, 1000, 1024),
    ("bytes=0-1023", 200, 0, 1024),
    ("bytes=1024-", 416, 0, 0),
    ("bytes=99999999999999999999-", 416, 0, 0),
    ("bytes=-0", 416, 0, 0),
    ("bytes=5-2", 416, 0, 0),
    ("bytes=0-1,5-6", 200, 0, 1024),  # of several, all (RFC 9110 allows it)
    ("bytes=a-b", 200, 0, 1024),
    ("bytes=-", 200, 0, 1024),
    ("bytes=٣-٤", 200, 0, 1024),
    ("bytes", 200, 0, 1024),
    ("items=0-1", 200, 0, 1024),
    ("bytes=--1", 200, 0, 1024),
]


def test_ranges(http: httpx.Client) -> None:
    commit_file(http, CONTENT)
    for wanted, status, start, stop in RANGES:
        for path in ("files/1/content", "datasets/1/versions/1/content"):
            answer = http.get(path, headers={"Range": wanted.encode()})
            assert answer.status_code == status, wanted
            if status != 416:
                assert answer.content == CONTENT[start:stop], wanted
                assert int(answer.headers["content-length"]) == stop - start
            if status == 206:
                assert answer.headers["content-range"] == f"bytes {start}-{stop - 1}/1024"


def test_an_empty_file_is_downloaded_whole(http: httpx.Client) -> None:
    assert commit_file(http, b"").status_code == 201
    answer = http.get("files/1/content")
    assert (answer.status_code, answer.content, answer.headers["content-length"]) == (200, b"", "0")
    problem(http.get("files/1/content", headers={"Range": "bytes=0-"}), 416)


@pytest.mark.parametrize("name", ["caf\u00e9", "cafe\u0301"])
@pytest.mark.parametrize("index", [None, 0])
def test_a_component_is_removed_by_its_name_in_any_unicode_form(
    http: httpx.Client, name: str, index: int | None
) -> None:
    http.post("datasets", json={"name": "a"})
    files = {"caf\u00e9": b"1", "other": b"2"}
    commit = {"components": [{"component_name": n, "content": {"part": n}} for n in files]}
    http.post("datasets/1/versions", files=files, data={"commit": json.dumps(commit)}).raise_for_status()
    for field in ("removed", "cleared"):
        gone = {field: [{"component_name": name, "component_index": index}], "message": field}
        answer = http.post("datasets/1/versions", json=gone)
        assert answer.status_code == 201, answer.text
        assert answer.json()["version"]["component_count"] == 1, field


# --- keys for repeating --------------------------------------------------------------------------------------------


def _key(key: str) -> dict[str, str]:
    return {"Idempotency-Key": key}


def test_a_request_that_is_sent_again_gets_the_same_answer_and_does_nothing(http: httpx.Client) -> None:
    first = http.post("datasets", json={"name": "a"}, headers=_key("k"))
    again = http.post("datasets", json={"name": "a"}, headers=_key("k"))
    assert (first.status_code, again.status_code, again.json()) == (201, 201, first.json())
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    assert http.post("datasets", json={"name": "b"}, headers=_key("k2")).status_code == 201
    assert len(http.get("audit").json()["items"]) == len(http.get("audit", params={"limit": 1000}).json()["items"])


def test_a_key_that_was_used_for_another_request_is_refused(http: httpx.Client) -> None:
    assert http.post("datasets", json={"name": "a"}, headers=_key("k")).status_code == 201
    problem(http.post("datasets", json={"name": "b"}, headers=_key("k")), 409, "conflict")
    problem(http.post("users", json={"name": "a"}, headers=_key("k")), 409, "conflict")
    assert [d["name"] for d in http.get("datasets").json()["items"]] == ["a"]


@pytest.mark.parametrize("kind", ["APPLICATION/JSON", "application/problem+json"])
def test_another_body_of_the_same_length_is_another_request_whatever_its_content_type(
    http: httpx.Client, kind: str
) -> None:
    headers = {**_key("k"), "Content-Type": kind}
    assert http.post("datasets", content=b'{"name": "a"}', headers=headers).status_code == 201
    problem(http.post("datasets", content=b'{"name": "b"}', headers=headers), 409, "conflict")


def test_another_form_with_the_same_key_is_refused(http: httpx.Client) -> None:
    http.post("datasets", json={"name": "a"})
    first, other, again = (
        http.post("datasets/1/versions", files={"data": data}, data={"message": "m"}, headers=_key("k"))
        for data in (b"111", b"222", b"222")
    )
    assert first.status_code == 201
    for answer in (other, again):  # a form is known by its content: another one is another commit
        problem(answer, 409, "conflict")


def test_the_key_of_another_user_is_another_key(http: httpx.Client, served: serving.Served, clients: Client) -> None:
    bob = clients(served, "bob")
    first = http.post("datasets", json={"name": "a"}, headers=_key("k"))
    other = bob.post("datasets", json={"name": "b"}, headers=_key("k"))
    assert (first.status_code, other.status_code, other.json()["name"]) == (201, 201, "b")
    assert http.post("datasets", json={"name": "a"}, headers=_key("k")).json() == first.json()


def test_what_was_refused_is_not_remembered(http: httpx.Client) -> None:
    problem(http.post("datasets/1/tags", json={"pointer_name": "t"}, headers=_key("k")), 404)
    commit_file(http, b"x")
    assert http.post("datasets/1/tags", json={"pointer_name": "t"}, headers=_key("k")).status_code == 201


@pytest.mark.parametrize("key", ["", "k" * 256, "a\tb"])
def test_a_key_is_a_short_printable_text(http: httpx.Client, key: str) -> None:
    problem(http.post("datasets", json={"name": "a"}, headers=_key(key)), 422, "invalid_input")


def test_a_key_does_not_let_in_who_has_no_token(served: serving.Served, clients: Client) -> None:
    problem(clients(served, None).post("datasets", json={"name": "a"}, headers=_key("k")), 401)


def test_a_commit_whose_answer_was_lost_is_made_once(http: httpx.Client, served: serving.Served) -> None:
    http.post("datasets", json={"name": "a"})
    form = {"files": {"data": b"content"}, "data": {"message": "once"}, "headers": _key("k")}
    request = http.build_request("POST", "datasets/1/versions", **form)  # type: ignore[arg-type]
    raw = f"POST /v1/datasets/1/versions HTTP/1.1\r\n{_headers(request.headers)}\r\n".encode() + request.read()
    with socket.create_connection(_address(http)) as connection:
        connection.sendall(raw)
        until(lambda: len(served.owner.dataset("a").tree()) == 1)
    again = http.post("datasets/1/versions", **form)  # type: ignore[arg-type]
    assert (again.status_code, again.json()["version"]["version_number"]) == (201, 1)
    _forget_answers(served)  # as if the server had died before it remembered
    again = http.post("datasets/1/versions", **form)  # type: ignore[arg-type]
    assert (again.status_code, again.json()["version"]["version_number"]) == (201, 1)
    assert len(served.owner.dataset("a").tree()) == 1
    assert len(served.owner.dataset("a").version().productions) == 1


@pytest.mark.parametrize("kind", ["form", "json"])
def test_a_commit_that_is_sent_twice_at_once_is_made_once(
    postgresql_catalog: str, tmp_path: Path, clients: Client, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving.in_thread(catalog=postgresql_catalog, store=str(tmp_path / "store")) as served:
        http = clients(served)
        commit_file(http, b"known", dataset="a")
        body = {"components": [{"component_name": "n", "content": {"content_hash": _hash(http)}}], "message": "once"}
        given = {"files": {"x": b"content"}} if kind == "form" else {"json": body}
        both, put = Barrier(2, timeout=SAFETY), commits.upload_contents

        def put_when_both_are_there(*args: Any, **options: Any) -> Any:
            if not options["is_careful"]:
                both.wait()
            return put(*args, **options)

        monkeypatch.setattr(commits, "upload_contents", put_when_both_are_there)
        with ThreadPoolExecutor(2) as pool:
            answers = list(
                pool.map(lambda _: http.post("datasets/1/versions", headers=_key("k"), **given), range(2))  # type: ignore[arg-type]
            )
        assert {answer.status_code for answer in answers} == {201}, [answer.text for answer in answers]
        assert {answer.json()["version"]["version_number"] for answer in answers} == {2}
        assert len(served.owner.dataset("a").tree()) == 2


def test_the_same_answer_has_the_same_headers(full: tuple[serving.Served, Prepared], clients: Client) -> None:
    http = clients(full[0])
    given = {"json": {"pointer_name": "new", "ref": "v1"}, "headers": _key("k")}
    first, again = (http.post("datasets/1/branches", **given) for _ in range(2))  # type: ignore[arg-type]
    assert first.headers["etag"] == again.headers.get("etag") == '"v1"'


# --- cursors -------------------------------------------------------------------------------------------------------

NAMES = ["a", "B", "A", "a-b", "a_b", "a.b", "a/b", "ab", "é", "z", "Z", "0", "_", "ß", "aé", "a+b", "日本"]


@pytest.fixture
def walked(catalog_url: str, tmp_path: Path, clients: Client) -> Iterator[httpx.Client]:
    """A client of a server over a registry with more of everything than a page has, on each kind of database."""
    with serving.in_thread(catalog=catalog_url, store=str(tmp_path / "store")) as served:
        for name in NAMES:
            served.owner.create_dataset(name)
        dataset = served.owner.dataset("a")
        for n in range(7):
            with dataset.draft(message=str(n)) as draft:
                for name in NAMES[:5]:
                    draft.add(name, f"{name} {n}".encode())
        yield clients(served)


def test_cursors_walk_everything_exactly_once(walked: httpx.Client) -> None:
    assert sorted(d["name"] for d in _walk(walked, "datasets", 2)) == sorted(NAMES)
    dataset = walked.get("datasets", params={"name": "a"}).json()["items"][0]["id"]
    newest = list(range(7, 0, -1))
    for what in ("versions", "tree", "log"):
        found = [v["version_number"] for v in _walk(walked, f"datasets/{dataset}/{what}", 2)]
        assert found == newest
    version = walked.get(f"datasets/{dataset}/resolve").json()["id"]
    there = f"datasets/{dataset}/versions/{version}"
    assert sorted(c["component_name"] for c in _walk(walked, f"{there}/components", 2)) == sorted(NAMES[:5])
    assert len({o["file_id"] for o in _walk(walked, f"{there}/data-files", 2)}) == 5
    files = [f["id"] for f in _walk(walked, "files", 4)]
    assert files == sorted(set(files))
    assert len(files) == 35
    audit = [entry["id"] for entry in _walk(walked, "audit", 3)]
    assert audit == sorted(set(audit), reverse=True)
    assert len(audit) >= len(NAMES) + 7


def test_a_page_that_is_exactly_full_is_the_last_one(walked: httpx.Client) -> None:
    page = walked.get("datasets", params={"limit": len(NAMES)}).json()
    assert (len(page["items"]), page["next_cursor"]) == (len(NAMES), None)
    assert walked.get("datasets", params={"limit": len(NAMES) - 1}).json()["next_cursor"] is not None


def test_made_up_cursors_are_refused_or_find_nothing(walked: httpx.Client) -> None:
    for cursor in ("!", "a", "AAAA=", "LTE=", "OTk5OTk5OTk5OTk5", "4p2k", "\x00", "AA==", "é" * 50, "x" * 1999):
        for path in ("datasets", "files", "audit", "datasets/1/versions", "datasets/1/log"):
            assert walked.get(path, params={"cursor": cursor}).status_code in (200, 404, 422), (path, cursor)


# --- forms ---------------------------------------------------------------------------------------------------------


def test_a_form_of_files_is_a_commit(http: httpx.Client) -> None:
    """`curl -F data=@flights.csv -F notes=@notes.txt -F message=July`."""
    http.post("datasets", json={"name": "raw/flights"})
    files = {"data": ("flights.csv", b"id,delay\n1,5\n"), "notes": ("notes.txt", b"Hello")}
    answer = http.post("datasets/1/versions", files=files, data={"message": "July", "component_type": "metadata"})
    assert answer.status_code == 201
    found = answer.json()
    assert found["version"]["message"] == "July"
    written = {c["component_name"]: (c["format"], c["component_type"]) for c in found["written"]}
    assert written == {"data": ("csv", "metadata"), "notes": ("binary", "metadata")}
    schema = http.get(f"datasets/1/schema/{found['version']['id']}").json()
    assert [c["component_name"] for c in schema["components"]] == ["data"]
    assert http.get("datasets/1/versions/1/content", params={"component": "notes"}).content == b"Hello"


def test_a_form_may_say_everything_that_json_says(http: httpx.Client) -> None:
    commit = {
        "description": "Made by its first commit",
        "message": "Two",
        "components": [
            {"component_name": "a", "content": {"part": "p1"}, "format": "csv", "metadata": {"k": [1, None, "é"]}},
            {"component_name": "a", "component_index": 1, "content": {"part": "p2"}, "file_name": "x.json"},
        ],
    }
    files = {"p1": b"x\n1\n", "p2": b'[{"y": 1}]'}
    url = "commits?dataset_name=raw/new"
    problem(http.post(url, data={"commit": json.dumps({**commit, "dataset_name": "raw/other"})}, files=files), 422)
    problem(http.post("commits", data={"commit": json.dumps({**commit, "dataset_name": "raw/new"})}, files=files), 422)
    answer = http.post(url, data={"commit": json.dumps(commit)}, files=files)
    assert answer.status_code == 201, answer.text
    components = http.get("datasets/1/versions/1/components").json()["items"]
    assert [(c["component_index"], c["format"]) for c in components] == [(0, "csv"), (1, "json")]
    assert components[0]["metadata"] == {"k": [1, None, "é"]}


def test_a_form_that_does_not_fit_is_refused(http: httpx.Client, served: serving.Served) -> None:
    http.post("datasets", json={"name": "a"})
    path = "datasets/1/versions"
    missing = {"components": [{"component_name": "a", "content": {"part": "nowhere"}}]}
    problem(http.post(path, data={"commit": json.dumps(missing)}, files={"p": b"x"}), 422)
    problem(http.post(path, files=[("a", b"1"), ("a", b"2")]), 422)  # type: ignore[list-item]
    problem(http.post(path, data={"unknown": "1"}, files={"p": b"x"}), 422)
    problem(http.post(path, data={"commit": "{"}, files={"p": b"x"}), 422)
    problem(http.post(path, data={"message": "nothing"}, files={}), 422)
    nothing = {"components": [{"component_name": "a"}]}
    problem(http.post(path, json=nothing), 422)
    wrong = {"components": [{"component_name": "a", "content": {"part": "p", "content_hash": "0" * 64}}]}
    problem(http.post(path, data={"commit": json.dumps(wrong)}, files={"p": b"x"}), 422)
    assert served.owner.dataset("a").tree() == []
    assert list(served.owner.files()) == []


@pytest.mark.parametrize("kind", ["application/json", "APPLICATION/JSON", "application/json; charset=utf-8"])
def test_json_may_be_called_json_in_every_way(http: httpx.Client, kind: str) -> None:
    answer = http.post("datasets", content=b'{"name": "a"}', headers={"Content-Type": kind})
    assert answer.status_code == 201


def test_a_body_without_a_content_type_is_json_for_a_commit_and_refused_elsewhere(http: httpx.Client) -> None:
    commit_file(http, b"x", dataset="a")
    problem(http.post("datasets", content=b'{"name": "b"}'), 422)
    body = {"components": [{"component_name": "b", "content": {"content_hash": _hash(http)}}]}
    assert http.post("datasets/1/versions", content=json.dumps(body).encode()).status_code == 201


def test_a_form_may_write_its_content_type_in_capitals(http: httpx.Client) -> None:
    http.post("datasets", json={"name": "a"})
    body = b'--B\r\nContent-Disposition: form-data; name="data"; filename="f"\r\n\r\nabc\r\n--B--\r\n'
    answer = http.post("datasets/1/versions", content=body, headers={"Content-Type": "Multipart/Form-Data; Boundary=B"})
    assert answer.status_code == 201, answer.text
    assert http.get("datasets/1/versions/1/content").content == b"abc"


# --- names and fields ----------------------------------------------------------------------------------------------


def test_very_long_names_are_refused(http: httpx.Client) -> None:
    commit_file(http, b"x", dataset="a")
    for length in (256, 1000, 1001, 1_000_000):
        name = "n" * length
        problem(http.post("datasets", json={"name": name}), 422)
        problem(http.post("users", json={"name": name}), 422)
        problem(http.post("datasets/1/tags", json={"pointer_name": name}), 422)
        problem(http.post("branches", json={"name": name}), 422)
        problem(http.post("tokens", json={"name": name}), 422)
    problem(http.get("datasets/1/branches/" + "n" * 1001), 422)
    problem(http.get("datasets", params={"name": "n" * 1001}), 422)
    problem(commit_file(http, b"x", component_name="n" * 513), 422)
    assert http.post("datasets", json={"name": "n" * 255}).status_code == 201
    assert http.post("datasets/1/tags", json={"pointer_name": "n" * 255}).status_code == 201
    assert commit_file(http, b"x", component_name="n" * 512).status_code == 201


def test_branches_may_have_slashes_in_their_names(http: httpx.Client) -> None:
    commit_file(http, b"x", dataset="a")
    assert http.post("datasets/1/branches", json={"pointer_name": "feature/é/x"}).status_code == 201
    for path in ("feature/é/x", "feature%2Fé%2fx"):
        assert http.get(f"datasets/1/branches/{path}").json()["pointer_name"] == "feature/é/x"
    assert http.delete("datasets/1/branches/feature/é/x").status_code == 200


def test_unknown_query_parameters_are_ignored_and_unknown_fields_are_mistakes(http: httpx.Client) -> None:
    assert http.get("datasets", params={"unknown": "1"}).status_code == 200
    found = problem(http.post("datasets", json={"name": "a", "unknwon": 1}), 422)
    assert "unknwon" in found["detail"]
    nested = {"dataset_name": "a", "components": [{"component_name": "x", "content": {"part": "p", "prat": "p"}}]}
    found = problem(http.post("commits", json=nested), 422)
    assert "prat" in found["detail"]


def test_of_two_equal_keys_in_json_the_last_one_counts(http: httpx.Client) -> None:
    body = b'{"name": "first", "name": "second"}'
    assert http.post("datasets", content=body, headers=JSON).json()["name"] == "second"


# --- watching ------------------------------------------------------------------------------------------------------


def test_health_ready_and_metrics_need_no_token(served: serving.Served, clients: Client) -> None:
    anybody = clients(served, None)
    assert anybody.get(served.url + "/health").json() == {"status": "ok"}
    assert anybody.get(served.url + "/ready").json() == {"status": "ok"}
    anybody.get("datasets")
    metrics = anybody.get(served.url + "/metrics")
    assert metrics.headers["content-type"].startswith("text/plain")
    assert 'dataset_registry_requests_total{method="GET",route="other",status="401"} 1.0' in metrics.text


def test_metrics_have_a_line_for_a_route_and_not_for_each_path(served: serving.Served, http: httpx.Client) -> None:
    for n in range(50):
        http.get(f"datasets/{n + 1}")
        http.get(f"nowhere-{n}")
        http.get("datasets/1/branches/" + f"b{n}")
    text_of = http.get(served.url + "/metrics").text
    assert len([line for line in text_of.splitlines() if line.startswith("dataset_registry_requests_total")]) < 8
    assert "nowhere" not in text_of


def test_a_server_whose_catalog_went_away_is_healthy_but_not_ready(
    sqlite_template: Path, tmp_path: Path, clients: Client
) -> None:
    shutil.copy(sqlite_template, path := tmp_path / "catalog.sqlite")
    with serving.in_thread(catalog=f"sqlite:///{path}", store=str(tmp_path / "store")) as served:
        http = clients(served)
        engine = create_engine(f"sqlite:///{path}")
        with engine.begin() as connection:
            connection.execute(text(f"UPDATE {REVISION_TABLE} SET version_num = '0001'"))
        engine.dispose()
        assert http.get(served.url + "/health").status_code == 200
        found = problem(http.get(served.url + "/ready"), 503, "catalog_outdated")
        assert str(tmp_path) not in found["detail"]  # where the catalog is, is nobody's business


# --- helpers -------------------------------------------------------------------------------------------------------


def _hash(http: httpx.Client) -> str:
    return str(http.get("files/1").json()["content_hash"])


def _walk(http: httpx.Client, path: str, limit: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    cursor: dict[str, str] = {}
    while True:
        answer = http.get(path, params={"limit": limit, **cursor})
        assert answer.status_code == 200, answer.text
        page = answer.json()
        assert len(page["items"]) <= limit
        found += page["items"]
        assert len(found) < 1000, "it goes round"
        if page["next_cursor"] is None:
            return found
        cursor = {"cursor": page["next_cursor"]}


def _address(http: httpx.Client) -> tuple[str, int]:
    return str(http.base_url.host), int(http.base_url.port or 0)


def _headers(headers: Any) -> str:
    return "".join(f"{name}: {value}\r\n" for name, value in headers.items())


def _half_sent(http: httpx.Client, method: str, path: str, headers: dict[str, str], body: bytes) -> socket.socket:
    """A connection over which the beginning of a request went."""
    given = {"Host": "x", "Authorization": http.headers["Authorization"], **headers}
    connection = socket.create_connection(_address(http), timeout=SAFETY)
    connection.sendall(f"{method} /v1/{path} HTTP/1.1\r\n{_headers(given)}\r\n".encode() + body)
    return connection


def _forget_answers(served: serving.Served) -> None:
    with served.owner.access.catalog.read() as tx:
        url = tx.engine.url
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM answered_requests"))
    engine.dispose()
