"""One client does not stop the others: its bodies, its pace, its connections and its uploads are bounded."""

import hashlib
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Event, Semaphore, Thread
from typing import Any
from urllib.parse import urlsplit

import httpx
import psycopg
import pytest

from dataset_registry import Registry
from dataset_registry.errors import RetryLater
from dataset_registry.operations import commit_base, diff, files
from dataset_registry.server import limits
from dataset_registry.server.uploads import Uploads
from tests import serving
from tests.server.conftest import Client
from tests.server.support import problem
from tests.waiting import SAFETY, until

JSON = {"Content-Type": "application/json"}
COMPONENT = '{"component_name":"a","content":{"content_hash":"' + "0" * 64 + '"},"metadata":{"a":%s}}'
BODIES = {
    "nested": b'{"dataset_name":"a","components":' + b"[" * 3_000_000 + b"]" * 3_000_000 + b"}",
    "deep": b'{"dataset_name":"a","components":' + b"[" * 3_000 + b"]" * 3_000 + b"}",
    "many values": b'{"dataset_name":"a","x":[' + b"1," * 3_000_000 + b"1]}",
    "many empty objects": b'{"dataset_name":"a","components":[' + b"{}," * 200_000 + b"{}]}",
    "metadata": (b'{"dataset_name":"a","components":[' + COMPONENT.encode() + b"]}")
    % (b"[" + b"[]," * 3_000_000 + b"1]"),
    "no object": b"[" + b"1," * 100_000 + b"1]",
    "a long number": b'{"dataset_name":"a","components":' + b"9" * 1_000_000 + b"}",
}


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of datasets for which a commit was begun, because its body had been understood."""
    found: list[str] = []
    head = commit_base.head

    def noted(access: Any, dataset: Any, *options: Any) -> Any:
        found.append(dataset.name)
        return head(access, dataset, *options)

    monkeypatch.setattr(commit_base, "head", noted)
    return found


# --- who may not is told so before its body is read -----------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    ["commits", "datasets/1/versions", "expire/plan", "expire/apply", "collect/apply", "sweep/apply", "verify"],
)
@pytest.mark.parametrize("user", ["guest", "reader"])
def test_who_may_not_is_told_so_before_the_body_comes(served: serving.Served, path: str, user: str) -> None:
    served.owner.create_dataset("secret")
    served.owner.create_user("guest", role="guest")
    served.owner.create_user("reader", role="guest")
    served.owner.grant("reader", "read", "secret")
    with served.http(user) as http, _sent(http, "POST", path, {**JSON, "Content-Length": "900000"}, b"{") as answer:
        expected = 404 if path == "datasets/1/versions" and user == "guest" else 403
        assert answer.recv(100).startswith(f"HTTP/1.1 {expected} ".encode())


FORM = {"Content-Type": "multipart/form-data; boundary=B", "Content-Length": "400000000"}


@pytest.mark.parametrize("role", ["guest", "member"])
@pytest.mark.parametrize(
    ("query", "status"), [("?dataset_name=team/secret", 403), ("?dataset_name=team/new", 403), ("", 422)]
)
def test_a_form_for_a_dataset_of_others_is_refused_before_its_files_come(
    served: serving.Served, role: str, query: str, status: int
) -> None:
    served.owner.create_dataset("team/secret")
    served.owner.create_user("eve", role=role)
    served.owner.create_user("team", kind="group")
    served.owner.grant("team", "write", "team/")
    with served.http("eve") as http, _sent(http, "POST", f"commits{query}", FORM, b"--B") as answer:
        assert answer.recv(100).startswith(f"HTTP/1.1 {status} ".encode())


def test_forms_under_way_count_against_the_quota_of_uploads(
    tmp_path: Path, sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    receiving, counted = Uploads.receiving, Event()

    @contextmanager
    def noted(self: Uploads, user: str, size: int) -> Iterator[None]:
        with receiving(self, user, size):
            counted.set()
            yield

    monkeypatch.setattr(Uploads, "receiving", noted)
    settings = {"user_upload_bytes": 10_000_000}
    with serving.in_thread(catalog=sqlite_url, store=str(tmp_path / "store"), **settings) as served:  # type: ignore[arg-type]
        served.owner.create_user("alice", role="member")
        other = {"files": {"f": bytes(5_000_000)}}
        with served.http("alice") as http:
            half = {**FORM, "Content-Length": "6000000"}
            with _sent(http, "POST", "commits?dataset_name=a", half, b"--B"):
                assert counted.wait(SAFETY)
                problem(http.post("commits?dataset_name=b", **other), 413, "payload_too_large")  # type: ignore[arg-type]
            until(lambda: http.post("commits?dataset_name=b", **other).status_code == 201)  # type: ignore[arg-type]


def test_who_may_write_nothing_uploads_nothing(served: serving.Served) -> None:
    served.owner.create_user("guest", role="guest")
    with served.http("guest") as http:
        problem(http.post("uploads", json={"file_size": 5}), 403, "permission_denied")
    with served.http("alice", permission="read") as http:
        problem(http.post("uploads", json={"file_size": 5}), 403, "permission_denied")
    served.owner.create_dataset("a")
    served.owner.grant("guest", "write", "a")
    with served.http("guest") as http:
        assert http.post("uploads", json={"file_size": 5}).status_code == 201


# --- bodies ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
def test_a_body_of_a_commit_that_is_too_much_is_refused_and_others_are_answered(
    served: serving.Served, begun: list[str], body: bytes
) -> None:
    with served.http("alice") as http, _watched(served) as answered:
        answer = http.post("commits", content=body, headers=JSON)
        assert answer.status_code in (413, 422), answer.text
        assert answer.headers["content-type"] == "application/problem+json"
        until(answered)
    assert begun == []


@pytest.mark.parametrize(
    "path", ["datasets", "tokens", "grants", "contents/known", "uploads", "verify", "collect/plan"]
)
def test_other_bodies_are_small(served: serving.Served, path: str) -> None:
    with served.http() as http:
        problem(http.post(path, content=b"[" * (1 << 20) + b"]" * 9, headers=JSON), 413, "payload_too_large")
        answer = http.post(path, content=b"[" * 400_000 + b"]" * 400_000, headers=JSON)
        assert answer.status_code in (400, 422)


def test_a_mistake_in_a_component_is_told_with_its_place(served: serving.Served) -> None:
    with served.http("alice") as http:
        components = [{"component_name": "a"}] * 700 + [{"component_name": 7}]
        answer = http.post("commits", json={"dataset_name": "a", "components": components})
        assert "components.700.component_name" in problem(answer, 422)["detail"]


# --- pace -----------------------------------------------------------------------------------------------------------

QUICK = {"body_seconds": 3, "least_bytes_per_second": 1 << 20}


def test_who_sends_a_byte_now_and_then_is_not_waited_for(sqlite_url: str, tmp_path: Path, clients: Client) -> None:
    with serving.in_thread(catalog=sqlite_url, store=str(tmp_path / "store"), **QUICK) as served:
        http = clients(served)
        headers = {**JSON, "Content-Length": "900000"}
        with _sent(http, "POST", "datasets", headers, b"{") as connection:
            over = Event()

            def drip() -> None:
                while not over.wait(0.05):
                    try:
                        connection.sendall(b" ")
                    except OSError:
                        return

            Thread(target=drip, daemon=True).start()
            assert connection.recv(100).startswith(b"HTTP/1.1 408 ")
            over.set()


def test_who_does_not_take_the_answer_gives_its_place_free(sqlite_url: str, tmp_path: Path, clients: Client) -> None:
    limits = {**QUICK, "concurrency": 2, "user_concurrency": 2}
    with serving.in_thread(catalog=sqlite_url, store=str(tmp_path / "store"), **limits) as served:
        http = clients(served)
        file = served.owner.create_dataset("a").commit({"data": bytes(64 << 20)}).components[0].file_id
        with ExitStack() as stalled:
            for _ in range(2):
                stalled.enter_context(_sent(http, "GET", f"files/{file}/content", {}, b""))
            until(lambda: http.get("whoami").status_code == 429)
            until(lambda: http.get("whoami").status_code == 200)


# --- places ---------------------------------------------------------------------------------------------------------


def test_a_user_takes_its_share_and_no_more(sqlite_url: str, tmp_path: Path, clients: Client) -> None:
    limits = {"concurrency": 4, "user_concurrency": 2}
    with serving.in_thread(catalog=sqlite_url, store=str(tmp_path / "store"), **limits) as served:
        eve, alice = clients(served, "eve"), clients(served, "alice")
        with ExitStack() as half:
            for _ in range(2):
                half.enter_context(_sent(eve, "POST", "datasets", {**JSON, "Content-Length": "99"}, b"{"))
            until(lambda: eve.get("whoami").status_code == 429)
            assert "has 2 concurrent requests" in problem(eve.get("whoami"), 429, "too_many_requests")["detail"]
            assert alice.get("whoami").status_code == 200


def test_administrators_have_places_that_others_do_not_take(sqlite_url: str, tmp_path: Path, clients: Client) -> None:
    limits = {"concurrency": 2, "user_concurrency": 1}
    with serving.in_thread(catalog=sqlite_url, store=str(tmp_path / "store"), **limits) as served:
        root, carol = clients(served), clients(served, "carol")
        with ExitStack() as half:
            for user in ("alice", "bob"):
                http = clients(served, user)
                half.enter_context(_sent(http, "POST", "datasets", {**JSON, "Content-Length": "99"}, b"{"))
            until(lambda: carol.get("whoami").status_code == 429)
            assert root.get("whoami").status_code == 200
            assert httpx.get(served.url + "/health").status_code == 200


# --- uploads --------------------------------------------------------------------------------------------------------


def test_uploads_count_against_the_quota_of_a_user_and_of_all(sqlite_url: str, tmp_path: Path, clients: Client) -> None:
    limits = {"user_upload_bytes": 1000, "all_upload_bytes": 1500, "user_uploads": 3}
    with serving.in_thread(catalog=sqlite_url, store=str(tmp_path / "store"), **limits) as served:
        alice, bob = clients(served, "alice"), clients(served, "bob")
        announced = alice.post("uploads", json={"file_size": 900}).json()["upload_id"]
        refused = problem(alice.post("uploads", json={"file_size": 200}), 413, "payload_too_large")
        assert "alice has 1 uploads of 900 bytes under way" in refused["detail"]
        problem(bob.post("uploads", json={"file_size": 700}), 413, "payload_too_large")
        assert bob.post("uploads", json={"file_size": 500}).status_code == 201
        assert alice.delete(f"uploads/{announced}").status_code == 200
        for _ in range(3):
            upload = alice.post("uploads", json={}).json()["upload_id"]
        problem(alice.post("uploads", json={}), 413, "payload_too_large")
        offset = {"Upload-Offset": "0", "Content-Type": "application/octet-stream"}
        problem(alice.patch(f"uploads/{upload}", content=b"x" * 1200, headers=offset), 413, "payload_too_large")


def test_what_was_begun_before_a_restart_counts(sqlite_url: str, tmp_path: Path) -> None:
    where = {"catalog": sqlite_url, "store": str(tmp_path / "store"), "user_upload_bytes": 1000}
    with serving.in_thread(**where) as served, served.http("alice") as alice:  # type: ignore[arg-type]
        assert alice.post("uploads", json={"file_size": 900}).status_code == 201
    with serving.in_thread(**where) as served, served.http("alice") as alice:  # type: ignore[arg-type]
        problem(alice.post("uploads", json={"file_size": 200}), 413, "payload_too_large")


def test_abandoned_uploads_go_without_a_seal(sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dataset_registry.server.app._TIDY_SECONDS", 0.05)
    where = {"catalog": sqlite_url, "store": str(tmp_path / "store"), "seal_seconds": 0.0, "upload_hours": 0.0}
    with serving.in_thread(**where) as served, served.http("alice") as alice:  # type: ignore[arg-type]
        upload = alice.post("uploads", json={"file_size": 900}).json()["upload_id"]
        until(lambda: alice.get(f"uploads/{upload}").status_code == 404)


def test_an_address_to_put_to_takes_as_many_bytes_as_were_announced(postgresql_catalog: str, s3_url: str) -> None:
    with serving.in_thread(catalog=postgresql_catalog, store=s3_url, direct_uploads=True) as served:
        body = {"file_size": 5, "content_hash": hashlib.sha256(b"right").hexdigest(), "direct": True}
        with served.http("alice") as http:
            url = http.post("uploads", json=body).json()["upload_url"]
        for content in (b"r", b"right" * 1000, b""):
            assert httpx.put(url, content=content).status_code == 403
        assert httpx.put(url, content=b"right").status_code == 200


# --- the database ---------------------------------------------------------------------------------------------------


def test_a_writer_behind_a_client_that_hangs_is_told_to_try_again(
    postgresql_catalog: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dataset_registry.catalog.engine.TIMEOUTS", "-clock_timeout=200ms")
    url = postgresql_catalog.replace("+psycopg", "")
    with Registry.open(catalog=postgresql_catalog, store=str(tmp_path)) as registry, psycopg.connect(url) as hung:
        flights = registry.create_dataset("flights")
        flights.commit({"data": b"1"})
        hung.execute("SELECT * FROM dataset_registry.dataset_pointers FOR UPDATE")
        with pytest.raises(RetryLater, match="lock timeout"):
            flights.commit({"data": b"2"})
        assert flights.version().number == 1
        hung.rollback()
        assert flights.commit({"data": b"2"}).number == 2


def test_a_transaction_that_does_nothing_is_ended(
    postgresql_catalog: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dataset_registry.catalog.engine.TIMEOUTS", "-cidle_in_transaction_session_timeout=200ms")
    with Registry.open(catalog=postgresql_catalog, store=str(tmp_path)) as registry:
        catalog = registry.access.catalog
        with psycopg.connect(postgresql_catalog.replace("+psycopg", ""), autocommit=True) as watching:
            ours = "SELECT count(*) FROM pg_stat_activity WHERE pid = %s"

            def hang(tx: Any) -> None:
                pid = tx.exec_driver_sql("SELECT pg_backend_pid()").scalar()
                until(lambda: watching.execute(ours, (pid,)).fetchone() == (0,), what="the server ended it")
                monkeypatch.undo()
                tx.exec_driver_sql("SELECT 1")

            with pytest.raises(RetryLater):
                catalog.write(hang)


def test_a_transaction_that_hangs_does_not_stop_the_audit_log(postgresql_catalog: str, tmp_path: Path) -> None:
    url = postgresql_catalog.replace("+psycopg", "")
    with Registry.open(catalog=postgresql_catalog, store=str(tmp_path)) as registry, psycopg.connect(url) as hung:
        registry.create_dataset("a")
        hung.execute("LOCK TABLE dataset_registry.audit_log IN ROW EXCLUSIVE MODE")  # as a commit does that never ends
        with pytest.raises(RetryLater):
            registry.seal_audit()
        registry.create_dataset("b")
        registry.collect()
        hung.rollback()
        assert registry.seal_audit() > 0


def test_every_connection_to_postgresql_has_a_limit_for_locks_and_for_idleness(
    postgresql_catalog: str, tmp_path: Path
) -> None:
    with Registry.open(catalog=postgresql_catalog, store=str(tmp_path)) as registry:
        for transaction in (registry.access.catalog.read, registry.access.catalog.snapshot):
            with transaction() as tx:
                for name in ("lock_timeout", "idle_in_transaction_session_timeout"):
                    assert tx.exec_driver_sql(f"SHOW {name}").scalar() not in ("0", 0)


# --- what a request costs -------------------------------------------------------------------------------------------


@pytest.fixture
def statements(served: serving.Served, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The SQL that the server runs."""
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    found: list[str] = []

    def note(connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
        found.append(statement)

    event.listen(Engine, "before_cursor_execute", note)
    monkeypatch.setattr(files, "_PAGE", 5)
    return found


def test_a_listing_by_who_may_read_nothing_costs_nothing(served: serving.Served, statements: list[str]) -> None:
    served.owner.create_dataset("a").commit({f"{n}": f"{n}".encode() for n in range(60)})
    with served.http("nobody") as http:
        http.get("whoami")
        statements.clear()
        assert http.get("files").json()["items"] == []
        assert len(statements) <= 8


def test_a_commit_of_known_contents_costs_as_many_statements_however_many_they_are(
    served: serving.Served, statements: list[str]
) -> None:
    counts = []
    for count in (10, 200):
        dataset = served.owner.create_dataset(f"d{count}")
        hashes = {
            c.name: c.content_hash
            for c in dataset.commit({f"{n}.txt": f"{count} {n}".encode() for n in range(count)}).components
        }
        components = [{"component_name": name, "content": {"content_hash": h}} for name, h in hashes.items()]
        with served.http() as http:
            http.get("whoami")
            statements.clear()
            answer = http.post("commits", json={"dataset_name": f"copy{count}", "components": components})
            assert answer.status_code == 201, answer.text
            counts.append(len(statements))
    assert counts[1] < counts[0] + 30


# --- eyes and hands -------------------------------------------------------------------------------------------------


class _sent:  # a context, and read like a function
    """A request of which this much was sent, on a connection of its own."""

    def __init__(self, http: httpx.Client, method: str, path: str, headers: dict[str, str], body: bytes) -> None:
        parts = urlsplit(str(http.base_url))
        lines = [f"{method} {parts.path}{path} HTTP/1.1", f"Host: {parts.netloc}"]
        lines += [f"Authorization: {http.headers['Authorization']}", *(f"{n}: {v}" for n, v in headers.items())]
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self._socket.settimeout(SAFETY)
        self._socket.connect((parts.hostname or "", parts.port or 0))
        self._socket.sendall("\r\n".join([*lines, "", ""]).encode() + body)

    def __enter__(self) -> socket.socket:
        return self._socket

    def __exit__(self, *_: object) -> None:
        self._socket.close()


class _watched:
    """A reader who asks again and again; was it answered every time?"""

    def __init__(self, served: serving.Served) -> None:
        self._url, self._over, self._answers = served.url + "/health", Event(), list[int]()
        self._thread = Thread(target=self._ask, daemon=True)

    def _ask(self) -> None:
        with httpx.Client(timeout=SAFETY) as http:
            while not self._over.is_set():
                self._answers.append(http.get(self._url).status_code)

    def __enter__(self) -> Callable[[], bool]:
        self._thread.start()
        return lambda: bool(self._answers) and set(self._answers) == {200}

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(SAFETY)
        assert not self._thread.is_alive()


def test_the_eyes_see(served: serving.Served) -> None:
    with _watched(served) as answered:
        until(answered)


def test_a_few_requests_at_a_time_compare_or_merge_rows(
    served: serving.Served, clients: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = served.owner.create_dataset("rows")
    dataset.commit({"data": b"id\n1\n"})
    monkeypatch.setattr(limits, "_PATIENCE", 0.05)
    entered, go_on = Semaphore(0), Event()

    def slow(*arguments: object) -> dict[str, object]:
        entered.release()
        assert go_on.wait(SAFETY)
        return {}

    monkeypatch.setattr(diff, "summary", slow)
    http = clients(served)
    path = f"datasets/{dataset.id}/compare/summary?before=main&after=main"
    answers: list[int] = []
    threads = [Thread(target=lambda: answers.append(http.get(path).status_code)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in threads:
        assert entered.acquire(timeout=SAFETY)
    refused = http.get(path)
    assert refused.status_code == 429
    assert refused.headers["Retry-After"]
    assert http.get(f"datasets/{dataset.id}").status_code == 200, "other requests go on"
    go_on.set()
    for thread in threads:
        thread.join(SAFETY)
    assert answers == [200] * 4
    assert http.get(path).status_code == 200, "their slots are free again"
