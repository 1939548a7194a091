"""What a server leaves behind: a log without secrets, finished requests, and an audit log that shows what was done to it."""

import base64
import json
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread
from typing import Any
from urllib.parse import quote

import httpx
import psycopg
import pytest
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.exc import DBAPIError

from dataset_registry import Registry
from dataset_registry.catalog import audit as rows
from dataset_registry.catalog.engine import SCHEMA
from tests import serving
from tests.server import bombs
from tests.server.conftest import Client
from tests.server.support import commit_file
from tests.waiting import SAFETY, until

# --- the log and the metrics ---------------------------------------------------------------------------------------


def test_every_line_of_the_log_is_json_and_no_token_is_anywhere(process: serving.Served, clients: Client) -> None:
    http = clients(process)
    token = http.headers["Authorization"].partition(" ")[2]
    answers = list(_everywhere(process, http, token))
    for name, data in (
        ("x.xlsx", bombs.far_cell_in_single_quotes()),  # what a library says when it gives up
        ("x.xlsx", bombs.encrypted_sheet()),
        ("x.parquet", bombs.bad_thrift()),
        ("x.csv", b"id\n1\n"),
    ):
        answers.append(commit_file(http, data, name=name))
    for data in (b"nonsense\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"):
        _raw(process, data)
    metrics = http.get(process.url + "/metrics").text
    _stop(process)
    assert process.log is not None
    lines = process.log.read_text().splitlines()
    assert len(lines) > len(answers)
    for line in lines:
        assert isinstance(json.loads(line), dict)
    assert not [line for line in lines if token in line]
    assert token not in metrics
    for answer in answers:
        if answer.status_code >= 400:
            assert token not in answer.text, answer.text
            assert not [value for value in answer.headers.values() if token in value]
    requests = [line for line in map(json.loads, lines) if line.get("event") == "request"]
    assert {line["actor"] for line in requests} >= {"admin", None}
    assert all(len(line["id"]) == 32 for line in requests)


def _everywhere(served: serving.Served, http: httpx.Client, token: str) -> Iterator[httpx.Response]:
    """A token in every place where somebody could send it by mistake."""
    anybody = httpx.Client(base_url=served.url + "/v1/", timeout=SAFETY)
    with anybody:
        for value in (
            f"Basic {base64.b64encode(f'admin:{token}'.encode()).decode()}",
            f"Basic {token}",
            f"Token {token}",
            token,
            f"Bearer  {token}x",
            f"Bearer {token} {token}",
            f"Bearer {token[:-1]}",
            f"Bearer={token}",
        ):
            yield anybody.get("whoami", headers={"Authorization": value})
        yield anybody.get("whoami", params={"token": token, "access_token": token})
        yield anybody.get("whoami", headers={"Cookie": f"token={token}", "X-API-Key": token, "User-Agent": token})
        yield anybody.get(f"datasets/{token}")
        yield anybody.get(served.url + f"/{token}")
    for path in (
        token,
        f"datasets/{token}",
        f"files/{token}",
        f"uploads/{token}",
        f"datasets/1/branches/{token}",
        f"users/{token}",
        quote(f"datasets/%{token}"),
        "datasets/" + "".join(f"%{ord(character):02x}" for character in token),
    ):
        yield http.get(path)
        yield http.patch(path, json={"ref": "main", "role": "member"})
    for name in ("name", "prefix", "cursor", "limit", token):
        yield http.get("datasets", params={name: token})
    yield http.get("files", params={"content_hash": token})
    yield http.get("audit", params={"dataset": token, "cursor": base64.b64encode(token.encode()).decode()})
    yield http.get("grants", params={"name": token, "user": token, "file": token})
    for body in (
        {"name": token + "!"},
        {"name": [token]},
        {token: 1},
        {"name": "a", token: {token: token}},
        token,
        [token],
    ):
        yield http.post("datasets", json=body)
    yield http.post("datasets", content=token.encode(), headers={"Content-Type": "application/json"})
    yield http.post("tokens", json={"user": token, "prefix": token})
    yield http.post("grants", json={"user": token, "permission": token, "name": token})
    yield http.post("commits", params={"dataset_name": token}, files={"f": b"x"})
    yield http.post("commits", params={"dataset_name": "a"}, files={token: (token, b"x")}, data={token: token})
    yield http.post("commits", params={"dataset_name": "a"}, files={"f": b"x"}, data={"commit": token})
    yield http.post("commits", json={"dataset_name": token + "/", "branch": token})
    yield http.post("datasets", json={"name": "twice"}, headers={"Idempotency-Key": token})
    yield http.post("datasets", json={"name": "other"}, headers={"Idempotency-Key": token})
    yield http.get("files/1/content", headers={"Range": token, "If-None-Match": token})
    yield http.patch("datasets/1/branches/main", json={"ref": token}, headers={"If-Match": token})
    yield http.patch("uploads/x", content=token.encode(), headers={"Upload-Offset": token})
    yield http.post("datasets", content=token.encode(), headers={"Content-Type": token})
    with suppress(httpx.TransportError):
        yield http.request(token, "datasets")


def test_the_log_of_a_server_says_who_did_what(process: serving.Served, clients: Client) -> None:
    clients(process).post("datasets", json={"name": "a"})
    clients(process, "bob").get("users")
    _stop(process)
    assert process.log is not None
    lines = [json.loads(line) for line in process.log.read_text().splitlines()]
    found = {
        (line["actor"], line["method"], line["path"], line["status"], line["code"])
        for line in lines
        if line.get("event") == "request"
    }
    assert ("admin", "POST", "/v1/datasets", 201, None) in found
    assert ("bob", "GET", "/v1/users", 403, "permission_denied") in found
    assert {"ready", "stopped"} <= {line.get("event") for line in lines}


# --- stopping ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["upload", "commit"])
def test_sigterm_finishes_the_request_under_way(process: serving.Served, clients: Client, what: str) -> None:
    http = clients(process)
    http.post("datasets", json={"name": "a"})
    content = bytes(range(256)) * 4000
    if what == "upload":
        upload = http.post("uploads", json={"file_size": len(content)}).json()["upload_id"]
        head, body = f"PATCH /v1/uploads/{upload} HTTP/1.1\r\nUpload-Offset: 0\r\n", content
    else:
        start = b'--B\r\nContent-Disposition: form-data; name="data"; filename="f"\r\n\r\n'
        head, body = "POST /v1/datasets/1/versions HTTP/1.1\r\n", start + content + b"\r\n--B--\r\n"
        head += "Content-Type: multipart/form-data; boundary=B\r\n"
    head += f"Host: x\r\nAuthorization: {http.headers['Authorization']}\r\nContent-Length: {len(body)}\r\n\r\n"
    assert process.process is not None
    with _connected(process) as connection:
        connection.sendall(head.encode() + body[:500_000])
        until(lambda: "dataset_registry_requests_under_way 2.0" in httpx.get(process.url + "/metrics").text)
        process.process.send_signal(signal.SIGTERM)
        until(lambda: _refuses(process), what="the server took no more connections")
        assert process.process.poll() is None  # it waits for us
        connection.sendall(body[500_000:])
        answer = connection.recv(200)
    assert answer.split(b" ")[1] in (b"200", b"201"), answer
    assert process.process.wait(SAFETY) == 0
    if what == "commit":
        with process.owner.dataset("a").version().open() as stream:
            assert stream.read() == content


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_server_that_has_nothing_to_do_stops_at_once_and_well(process: serving.Served, number: int) -> None:
    assert process.process is not None
    process.process.send_signal(number)
    assert process.process.wait(SAFETY) == 0


# --- the audit log: tampering --------------------------------------------------------------------------------------

TABLES = ("audit_log", "audit_seals")


@pytest.fixture
def owner(catalog_url: str, tmp_path: Path) -> Iterator[Registry]:
    """A registry of its owner with three commits and what else is audited, on each kind of database."""
    with Registry.open(catalog=catalog_url, store=str(tmp_path / "store")) as opened:
        dataset = opened.create_dataset("a")
        for n in range(3):
            dataset.commit({"data": b"%d" % n}, message=str(n))
        dataset.create_tag("t", "v2")
        yield opened


CHANGES = {
    "actor": "'mallory'",
    "door": "'cli'",
    "action": "'delete'",
    "dataset_id": "77",
    "dataset_name": "'b'",
    "ref_name": "'other'",
    "before": "'v9'",
    "after": "'v9'",
    "token_id": "77",
    "details": '\'{"message":"nothing"}\'',
    "at": "'2020-01-01 00:00:00'",
}


@pytest.mark.parametrize("sealed", [False, True])
def test_a_changed_entry_is_found_and_named(owner: Registry, catalog_url: str, sealed: bool) -> None:
    if sealed:
        owner.seal_audit()
    assert owner.check_audit().problems == ()
    entry = owner.audit(action="commit")[1]
    with _tampering(catalog_url) as connection:
        row = connection.execute(text("SELECT * FROM audit_log WHERE id = :id"), {"id": entry.id}).one()
    for column, value in CHANGES.items():
        with _tampering(catalog_url) as connection:
            connection.execute(text(f"UPDATE audit_log SET {column} = {value} WHERE id = {entry.id}"))
        found = owner.check_audit().problems
        assert any(problem.startswith(f"entry {entry.id} ") for problem in found), (column, found)
        with _tampering(catalog_url) as connection:
            restored = {"value": getattr(row, column), "id": entry.id}
            connection.execute(text(f"UPDATE audit_log SET {column} = :value WHERE id = :id"), restored)
        assert owner.check_audit().problems == (), column


def test_a_changed_entry_whose_hash_was_made_anew_breaks_its_seal(owner: Registry, catalog_url: str) -> None:
    owner.seal_audit()
    first = owner.check_audit()
    owner.dataset("a").commit({"data": b"later"})
    owner.seal_audit()
    _forge(owner, catalog_url, owner.audit(action="commit")[1].id)
    found = owner.check_audit()
    (problem,) = found.problems
    assert problem.startswith("seal 1 does not fit the entries 1 to ")
    assert found.digest != first.digest


def test_a_changed_entry_that_was_not_sealed_yet_differs_from_what_was_exported(
    owner: Registry, catalog_url: str
) -> None:
    """With a hash made anew, nothing in the catalog itself can tell before the next seal: a minute, on a server."""
    before = {entry.id: carried for entry, carried in owner.export_audit()}
    changed = owner.audit(action="commit")[1].id
    _forge(owner, catalog_url, changed)
    assert owner.check_audit().problems == ()
    after = {entry.id: carried for entry, carried in owner.export_audit()}
    assert {entry for entry in before if before[entry] != after[entry]} == {changed}


def test_a_removed_entry_is_missed(owner: Registry, catalog_url: str) -> None:
    owner.seal_audit()
    with _tampering(catalog_url) as connection:
        connection.execute(text(f"DELETE FROM audit_log WHERE id = {owner.audit(action='commit')[1].id}"))
    (problem,) = owner.check_audit().problems
    assert "1 are missing" in problem


def test_a_removed_or_changed_seal_is_missed(owner: Registry, catalog_url: str) -> None:
    for n in range(3):
        owner.dataset("a").commit({"data": b"more %d" % n})
        owner.seal_audit()
    seals = _everything(catalog_url, "audit_seals")
    for statement in (
        "DELETE FROM audit_seals WHERE id = 1",
        "DELETE FROM audit_seals WHERE id = 2",
        "UPDATE audit_seals SET digest = '" + "0" * 64 + "' WHERE id = 2",
        "UPDATE audit_seals SET last_id = last_id - 1 WHERE id = 2",
        "UPDATE audit_seals SET first_id = 1000 WHERE id = 2",
        "UPDATE audit_seals SET entry_count = 0 WHERE id = 3",
    ):
        with _tampering(catalog_url) as connection:
            connection.execute(text(statement))
        assert owner.check_audit().problems, statement
        with _tampering(catalog_url) as connection:
            connection.execute(text("DELETE FROM audit_seals"))
            for seal in seals:
                _insert(connection, seal, "audit_seals")
        assert owner.check_audit().problems == (), statement


def test_the_removal_of_the_newest_seals_shows_in_the_digest_that_was_noted(owner: Registry, catalog_url: str) -> None:
    owner.seal_audit()
    noted = owner.check_audit().digest
    with _tampering(catalog_url) as connection:
        connection.execute(text("DELETE FROM audit_seals"))
        connection.execute(text("DELETE FROM audit_log"))
    found = owner.check_audit()
    assert (found.entries, found.sealed) == (0, 0)
    assert found.digest != noted


def test_an_entry_that_was_slipped_in_is_found(owner: Registry, catalog_url: str) -> None:
    owner.seal_audit()
    upto = owner.audit()[0].id
    with _tampering(catalog_url) as connection:
        row = dict(connection.execute(text("SELECT * FROM audit_log WHERE id = 2")).mappings().one())
        connection.execute(text("DELETE FROM audit_log WHERE id = 2"))
        row["actor"] = "mallory"
        _insert(connection, row)
    assert owner.check_audit().problems
    assert owner.audit()[0].id == upto


@pytest.mark.parametrize("number", [0, -1, -1000])
def test_an_entry_with_a_number_before_the_first_is_found(owner: Registry, catalog_url: str, number: int) -> None:
    owner.seal_audit()
    with _tampering(catalog_url) as connection:
        row = dict(connection.execute(text("SELECT * FROM audit_log WHERE id = 2")).mappings().one())
        _insert(connection, {**row, "id": number, "actor": "mallory"})
    assert "mallory" in {entry.actor for entry in owner.audit()}
    assert owner.check_audit().problems


@pytest.mark.parametrize("value", ["'not json'", "'[1]'"])
def test_an_entry_that_cannot_be_read_any_more_is_named(owner: Registry, catalog_url: str, value: str) -> None:
    owner.seal_audit()
    entry = owner.audit(action="commit")[1]
    with _tampering(catalog_url) as connection:
        connection.execute(text(f"UPDATE audit_log SET details = {value} WHERE id = {entry.id}"))
    assert any(problem.startswith(f"entry {entry.id} ") for problem in owner.check_audit().problems)


# --- the audit log: what the database refuses ----------------------------------------------------------------------


@pytest.mark.parametrize("table", TABLES)
def test_the_database_refuses_to_change_or_remove_what_was_logged(
    owner: Registry, catalog_url: str, table: str
) -> None:
    owner.seal_audit()
    before = _everything(catalog_url, table)
    column = "actor" if table == "audit_log" else "digest"
    statements = [
        f"UPDATE {table} SET {column} = 'x'",
        f"UPDATE {table} SET id = id + 100",
        f"DELETE FROM {table}",
        f"DELETE FROM {table} WHERE id = 1",
    ]
    columns = ", ".join(name for name in before[0] if name != "id")
    if catalog_url.startswith("sqlite"):
        statements += [
            f"INSERT OR REPLACE INTO {table} SELECT * FROM {table} WHERE id = 1",
            f"REPLACE INTO {table} (id, {columns}) SELECT 1, {columns} FROM {table} WHERE id = 1",
            f"UPDATE OR REPLACE {table} SET id = 1",
            f"INSERT INTO {table} SELECT * FROM {table} WHERE true ON CONFLICT (id) DO UPDATE SET {column} = 'x'",
        ]
    else:
        statements += [
            f"TRUNCATE {table}",
            f"TRUNCATE {table} RESTART IDENTITY CASCADE",
            f"INSERT INTO {table} SELECT * FROM {table} ON CONFLICT (id) DO UPDATE SET {column} = 'x'",
            f"SET session_replication_role = replica; DELETE FROM {table}",
            f"SET session_replication_role = replica; TRUNCATE {table}",
            f"MERGE INTO {table} t USING (SELECT 1 AS id) s ON t.id = s.id WHEN MATCHED THEN DELETE",
        ]
    for statement in statements:
        with pytest.raises((DBAPIError, sqlite3.Error, psycopg.Error), match=r"append-only|UNIQUE"):
            _execute(catalog_url, statement)
        assert _everything(catalog_url, table) == before, statement


def test_a_seal_is_not_replaced_by_another_one_of_the_same_entries(sqlite_url: str, tmp_path: Path) -> None:
    with Registry.open(catalog=sqlite_url, store=str(tmp_path / "store")) as owner:
        owner.create_dataset("a")
        owner.seal_audit()
    before = _everything(sqlite_url, "audit_seals")
    with suppress(sqlite3.Error):
        _execute(
            sqlite_url,
            "REPLACE INTO audit_seals (id, first_id, last_id, entry_count, digest) VALUES (99, 1, 1, 0, 'x')",
        )
    assert _everything(sqlite_url, "audit_seals") == before


# --- the audit log: sealing and what it says -----------------------------------------------------------------------


def test_sealing_while_eight_writers_commit_loses_nothing(postgresql_catalog: str, tmp_path: Path) -> None:
    writers, commits = 8, 12
    options = {"catalog": postgresql_catalog, "store": str(tmp_path / "store")}
    with Registry.open(**options) as owner:  # type: ignore[arg-type]
        done = Event()
        sealed: list[int] = []

        def seal() -> None:
            while not done.is_set():
                sealed.append(owner.seal_audit())

        def write(n: int) -> None:
            with Registry.open(**options) as registry:  # type: ignore[arg-type]
                dataset = registry.create_dataset(f"d{n}")
                for m in range(commits):
                    dataset.commit({"data": b"%d %d" % (n, m)})

        thread = Thread(target=seal)
        thread.start()
        try:
            with ThreadPoolExecutor(writers) as pool:
                list(pool.map(write, range(writers)))
        finally:
            done.set()
            thread.join()
        sealed.append(owner.seal_audit())
        found = owner.check_audit()
        assert found.problems == ()
        assert found.entries == found.sealed == sum(sealed)
        assert len(owner.audit(action="commit")) == writers * commits
        assert len([count for count in sealed if count]) > 3  # there were seals in between


def test_two_that_seal_at_once_seal_everything_once(postgresql_catalog: str, tmp_path: Path) -> None:
    with Registry.open(catalog=postgresql_catalog, store=str(tmp_path / "store")) as owner:
        for n in range(5):
            owner.create_dataset(f"d{n}")
            with ThreadPoolExecutor(4) as pool:
                for result in [pool.submit(owner.seal_audit) for _ in range(4)]:
                    with suppress(Exception):
                        result.result()
        owner.seal_audit()
        found = owner.check_audit()
        assert (found.problems, found.entries) == ((), found.sealed)


def test_a_server_seals_by_itself(sqlite_url: str, tmp_path: Path, clients: Client) -> None:
    with serving.in_thread(catalog=sqlite_url, store=str(tmp_path / "store"), seal_seconds=0.1) as served:
        http = clients(served)
        http.post("datasets", json={"name": "a"})

        def sealed() -> bool:
            found = http.get("audit/check").json()
            assert found["problems"] == []
            return bool(found["sealed"] == found["entries"] > 0)

        until(sealed)


def test_entries_say_who_through_which_door_moved_what_from_where_to_where(
    served: serving.Served, clients: Client, sqlite_url: str, tmp_path: Path
) -> None:
    http, bob = clients(served), clients(served, "bob")
    commit_file(bob, b"1", dataset="a")
    commit_file(bob, b"2", dataset="a")
    bob.patch("datasets/1/branches/main", json={"ref": "v1"})
    with Registry.open(catalog=sqlite_url, store=str(tmp_path / "store"), actor="bob") as embedded:
        embedded.dataset("a").create_tag("july", "v2")
    command = "from dataset_registry.cli import main; main()"
    arguments = ["branch", "create", "a", "dev", "v2", "--catalog", sqlite_url, "--store", str(tmp_path / "store")]
    subprocess.run([sys.executable, "-c", command, *arguments], check=True, capture_output=True, timeout=SAFETY)
    entries = http.get("audit", params={"dataset": "a"}).json()["items"]
    found = {(e["action"], e["ref"], e["before"], e["after"], e["interface"]) for e in entries}
    assert ("commit", "main", None, "v1", "rest") in found
    assert ("commit", "main", "v1", "v2", "rest") in found
    moved = next(e for e in entries if e["before"] == "v2" and e["after"] == "v1")
    assert (moved["actor"], moved["ref"], moved["interface"]) == ("bob", "main", "rest")
    assert moved["token_id"] == bob.get("whoami").json()["token"]["id"]
    tagged = next(e for e in entries if e["ref"] == "july")
    assert (tagged["actor"], tagged["interface"], tagged["after"], tagged["token_id"]) == ("bob", "python", "v2", None)
    branched = next(e for e in entries if e["ref"] == "dev")
    assert (branched["interface"], branched["before"], branched["after"]) == ("cli", None, "v2")
    assert all(e["at"] and len(e["entry_hash"]) == 64 for e in entries)


def test_the_exported_log_can_be_checked_elsewhere(served: serving.Served, clients: Client) -> None:
    http = clients(served)
    for n in range(5):
        http.post("datasets", json={"name": f"d{n}"})
    lines = [json.loads(line) for line in http.get("audit/export").text.splitlines()]
    assert [line["id"] for line in lines] == sorted(line["id"] for line in lines)
    with served.owner.access.catalog.read() as tx:
        hashes = {entry.id: entry.hash() for entry, _ in rows.hashed(tx)}
    assert {line["id"]: line["entry_hash"] for line in lines} == hashes


def test_only_administrators_see_the_whole_log(served: serving.Served, clients: Client) -> None:
    bob = clients(served, "bob")
    for path in ("audit", "audit/export", "audit/check"):
        assert bob.get(path).status_code == 403
    assert bob.post("audit/seal").status_code == 403


# --- helpers -------------------------------------------------------------------------------------------------------


def _stop(served: serving.Served) -> None:
    assert served.process is not None
    served.process.send_signal(signal.SIGTERM)
    assert served.process.wait(SAFETY) == 0


def _connected(served: serving.Served) -> socket.socket:
    return socket.create_connection(("127.0.0.1", int(served.url.rpartition(":")[2])), timeout=SAFETY)


def _refuses(served: serving.Served) -> bool:
    try:
        _connected(served).close()
    except ConnectionRefusedError:
        return True
    return False


def _raw(served: serving.Served, data: bytes) -> None:
    with _connected(served) as connection, suppress(OSError):
        connection.sendall(data)
        connection.settimeout(1)
        connection.recv(1000)


@contextmanager
def _shell(url: str) -> Iterator[Connection]:
    """A connection to the catalog with nothing of ours in between."""
    engine = create_engine(url)
    try:
        with engine.begin() as connection:
            if not url.startswith("sqlite"):
                connection.exec_driver_sql(f"SET search_path TO {SCHEMA}")
            yield connection
    finally:
        engine.dispose()


@contextmanager
def _tampering(url: str) -> Iterator[Connection]:
    """The same without the triggers that guard the log, which are there again afterwards."""
    with _shell(url) as connection:
        restore: list[str] = []
        if url.startswith("sqlite"):
            query = f"SELECT name, sql FROM sqlite_master WHERE type = 'trigger' AND tbl_name IN {TABLES}"
            for name, sql in connection.execute(text(query)).all():
                connection.execute(text(f"DROP TRIGGER {name}"))
                restore.append(sql)
        else:
            for table in TABLES:
                connection.execute(text(f"ALTER TABLE {table} DISABLE TRIGGER USER"))
                for kind in ("change", "truncate"):
                    restore.append(f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {table}_{kind}")
        yield connection
        for statement in restore:
            connection.exec_driver_sql(statement)


def _forge(owner: Registry, url: str, entry_id: int) -> None:
    """Change an entry and make its hash anew."""
    with _tampering(url) as connection:
        connection.execute(text(f"UPDATE audit_log SET actor = 'mallory' WHERE id = {entry_id}"))
    with owner.access.catalog.read() as tx:
        made = next(entry for entry, _ in rows.hashed(tx) if entry.id == entry_id).hash()
    with _tampering(url) as connection:
        connection.execute(text(f"UPDATE audit_log SET entry_hash = '{made}' WHERE id = {entry_id}"))


def _insert(connection: Connection, row: dict[str, Any], table: str = "audit_log") -> None:
    names = ", ".join(row)
    values = ", ".join(f":{name}" for name in row)
    connection.execute(text(f"INSERT INTO {table} ({names}) VALUES ({values})"), row)


def _everything(url: str, table: str) -> list[dict[str, Any]]:
    with _shell(url) as connection:
        return [dict(row) for row in connection.execute(text(f"SELECT * FROM {table} ORDER BY id")).mappings()]


def _execute(url: str, statement: str) -> None:
    """Execute as somebody who has a shell on the database."""
    if not url.startswith("sqlite"):
        with psycopg.connect(url.replace("+psycopg", ""), options=f"-csearch_path={SCHEMA}") as other:
            other.execute(statement)  # type: ignore[call-overload]
        return
    connection = sqlite3.connect(url.removeprefix("sqlite:///"))
    try:
        connection.execute(statement)
        connection.commit()
    finally:
        connection.close()
