"""Uploads in several requests: gone on with after everything that can break, checked, bounded, forgotten in time."""

import hashlib
import os
import shutil
import signal
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from time import perf_counter
from typing import Any

import httpx
import pytest

from dataset_registry import modes
from tests import serving
from tests.server.conftest import Client
from tests.server.support import high_water, problem
from tests.waiting import SAFETY, until

CONTENT = os.urandom(100_000)
MB = 1 << 20


def test_an_upload_comes_in_pieces_and_a_commit_takes_it(http: httpx.Client, served: serving.Served) -> None:
    upload = _begin(http, file_size=len(CONTENT), content_hash=_sha(CONTENT))
    assert _append(http, upload, 0, CONTENT[:70_000]).json()["offset"] == 70_000
    assert http.get(f"uploads/{upload}").json()["offset"] == 70_000
    found = problem(_commit(http, upload), 422, "invalid_input")  # not all of it is there
    assert "70,000 of 100,000" in found["detail"]
    assert _append(http, upload, 70_000, CONTENT[70_000:]).json()["offset"] == 100_000
    answer = _commit(http, upload)
    assert answer.status_code == 201, answer.text
    assert http.get(f"datasets/1/versions/{answer.json()['version']['id']}/content").content == CONTENT
    problem(http.get(f"uploads/{upload}"), 404)  # it was taken
    assert _left(served) == []


def test_bytes_go_where_the_upload_stands_and_nowhere_else(http: httpx.Client) -> None:
    upload = _begin(http)
    _append(http, upload, 0, b"abc")
    for offset in (0, 2, 4, 10**9):
        found = problem(_append(http, upload, offset, b"x"), 409, "conflict")
        assert found["fields"]["offset"] == 3
    problem(http.patch(f"uploads/{upload}", content=b"x"), 422)
    problem(_append(http, upload, -1, b"x"), 422)
    problem(http.patch(f"uploads/{upload}", content=b"x", headers={"Upload-Offset": "9" * 30}), 422)
    assert _append(http, upload, 3, b"d").json()["offset"] == 4


def test_an_upload_goes_on_after_a_broken_connection(http: httpx.Client) -> None:
    content = os.urandom(3 * MB)
    upload = _begin(http, file_size=len(content))
    with _sending(http, upload, 0, len(content)) as connection:
        connection.sendall(content[: 2 * MB])
        until(lambda: http.get(f"uploads/{upload}").json()["offset"] >= MB)

    def goes_on() -> bool:
        offset = http.get(f"uploads/{upload}").json()["offset"]
        return _append(http, upload, offset, content[offset:]).status_code == 200

    until(goes_on)  # the server may not have noticed yet that we are gone
    assert _commit(http, upload).status_code == 201
    assert http.get("files/1").json()["content_hash"] == _sha(content)


def test_an_upload_goes_on_after_the_server_was_killed(sqlite_url: str, tmp_path: Path, clients: Client) -> None:
    store, content = str(tmp_path / "store"), os.urandom(5 * MB)
    with serving.in_process(catalog=sqlite_url, store=store, log=tmp_path / "log") as served:
        http = clients(served)
        token = http.headers["Authorization"]
        upload = _begin(http, file_size=len(content), content_hash=_sha(content))
        with _sending(http, upload, 0, len(content)) as connection:
            connection.sendall(content[: 3 * MB])
            until(lambda: http.get(f"uploads/{upload}").json()["offset"] >= 2 * MB)
            assert served.process is not None
            served.process.send_signal(signal.SIGKILL)
            served.process.wait()
    with (
        serving.in_process(catalog=sqlite_url, store=store, log=tmp_path / "log2") as served,
        httpx.Client(base_url=served.url + "/v1/", headers={"Authorization": token}, timeout=SAFETY) as http,
    ):
        offset = http.get(f"uploads/{upload}").json()["offset"]
        assert 2 * MB <= offset <= 3 * MB
        assert _append(http, upload, offset, content[offset:]).status_code == 200
        assert _commit(http, upload).status_code == 201
        assert http.get("files/1").json()["content_hash"] == _sha(content)
        assert served.owner.verify(deep=True).findings == ()


def test_content_with_another_hash_than_announced_is_refused(http: httpx.Client, served: serving.Served) -> None:
    upload = _begin(http, content_hash=_sha(b"announced"))
    _append(http, upload, 0, b"something else")
    problem(_commit(http, upload), 422, "invalid_input")
    other = _begin(http)
    _append(http, other, 0, b"something else")
    problem(_commit(http, other, content_hash=_sha(b"announced")), 422, "invalid_input")
    assert list(served.owner.files()) == []
    assert served.owner.datasets() == []
    assert _commit(http, other).status_code == 201  # a refused commit did not take the upload


def test_the_upload_of_somebody_else_is_not_there(http: httpx.Client, served: serving.Served, clients: Client) -> None:
    upload = _begin(http)
    _append(http, upload, 0, b"mine")
    bob = clients(served, "bob")
    unknown = problem(bob.get("uploads/" + "0" * 32), 404)["detail"]
    assert problem(bob.get(f"uploads/{upload}"), 404, "not_found")["detail"] == unknown
    problem(_append(bob, upload, 4, b"yours"), 404)
    problem(bob.delete(f"uploads/{upload}"), 404)
    problem(_commit(bob, upload), 404)
    assert http.get(f"uploads/{upload}").json()["offset"] == 4


@pytest.mark.parametrize("name", ["..", "%2e%2e", "..%2f..%2fcatalog", "a%00b", "x" * 101, "é", "a.json", "-"])
def test_names_of_uploads_lead_nowhere(http: httpx.Client, name: str) -> None:
    answer = http.get(str(http.base_url) + f"uploads/{name}")
    assert answer.status_code in (404, 405, 422)


def test_more_bytes_than_announced_or_allowed_are_refused(sqlite_url: str, tmp_path: Path, clients: Client) -> None:
    with serving.in_thread(catalog=sqlite_url, store=str(tmp_path / "store"), max_upload_bytes=1000) as served:
        http = clients(served)
        problem(http.post("uploads", json={"file_size": 1001}), 413)
        problem(http.post("uploads", json={"file_size": -1}), 422)
        announced = _begin(http, file_size=10)
        problem(_append(http, announced, 0, b"x" * 11), 413, "payload_too_large")
        endless = _begin(http)
        assert _append(http, endless, 0, b"x" * 600).status_code == 200
        problem(_append(http, endless, 600, b"x" * 600), 413)
        problem(_append(http, endless, 600, b"x" * 1001), 413)
        answer = http.patch(f"uploads/{endless}", content=iter([b"x" * 300] * 4), headers={"Upload-Offset": "600"})
        problem(answer, 413)
        assert http.get(f"uploads/{endless}").json()["offset"] <= 1000


def test_an_empty_upload_is_an_empty_file(http: httpx.Client) -> None:
    for options in ({}, {"file_size": 0}, {"file_size": 0, "content_hash": _sha(b"")}):
        upload = _begin(http, **options)
        assert _append(http, upload, 0, b"").json()["offset"] == 0
        answer = _commit(http, upload)
        assert answer.status_code == 201, answer.text
    assert http.get("files/1/content").content == b""
    assert len(http.get("files").json()["items"]) == 1


def test_an_upload_that_is_not_wanted_any_more_goes(http: httpx.Client, served: serving.Served) -> None:
    upload = _begin(http)
    _append(http, upload, 0, b"abc")
    assert http.delete(f"uploads/{upload}").status_code == 200
    problem(http.get(f"uploads/{upload}"), 404)
    problem(http.delete(f"uploads/{upload}"), 404)
    problem(_append(http, upload, 3, b"d"), 404)
    assert _left(served) == []


def test_an_upload_that_nobody_goes_on_with_is_forgotten(sqlite_url: str, tmp_path: Path, clients: Client) -> None:
    settings = {"upload_hours": 1.0, "seal_seconds": 0.1}
    with serving.in_thread(catalog=sqlite_url, store=str(tmp_path / "store"), **settings) as served:
        http = clients(served)
        old, young = _begin(http), _begin(http)
        for path in _left(served):
            if path.stem == old:
                os.utime(path, (path.stat().st_atime, path.stat().st_mtime - 3700))
        until(lambda: http.get(f"uploads/{old}").status_code == 404)
        assert http.get(f"uploads/{young}").status_code == 200
        until(lambda: {path.stem for path in _left(served)} == {young})


def test_half_of_an_upload_that_a_crash_left_is_not_there_and_goes(
    sqlite_url: str, tmp_path: Path, clients: Client
) -> None:
    settings = {"upload_hours": 0.0, "seal_seconds": 0.1}
    with serving.in_thread(catalog=sqlite_url, store=str(tmp_path / "store"), **settings) as served:
        http = clients(served)
        upload = http.post("uploads", json={}).json()["upload_id"]
        for data in _left(served):  # as after a crash long ago
            if data.suffix == ".data":
                data.unlink(missing_ok=True)
            else:
                os.utime(data, (0, 0))
        problem(http.get(f"uploads/{upload}"), 404)
        until(lambda: _left(served) == [])


def test_two_requests_do_not_write_to_one_upload_at_once(http: httpx.Client) -> None:
    upload = _begin(http, file_size=len(CONTENT))
    with _sending(http, upload, 0, len(CONTENT)) as connection:
        connection.sendall(CONTENT[:10_000])
        until(lambda: "Another request" in _append(http, upload, 10**6, b"other").text)
        connection.sendall(CONTENT[10_000:])
        assert connection.recv(100).startswith(b"HTTP/1.1 200")
    assert _commit(http, upload).status_code == 201
    assert http.get("files/1").json()["content_hash"] == _sha(CONTENT)


def test_of_eight_writers_at_once_one_wins_and_nothing_is_mixed(http: httpx.Client) -> None:
    for _ in range(3):
        upload, together = _begin(http), Barrier(8)
        chunks = [bytes([n]) * (3 * MB) for n in range(8)]

        def send(piece: bytes, upload: str = upload, together: Barrier = together) -> int:
            together.wait()
            return _append(http, upload, 0, piece).status_code

        with ThreadPoolExecutor(8) as pool:
            answers = sorted(pool.map(send, chunks))
        assert answers == [200] + [409] * 7
        version = _commit(http, upload).json()["version"]["id"]
        content = http.get(f"datasets/1/versions/{version}/content").content
        assert content in chunks


def test_the_same_content_of_two_clients_at_once_is_stored_once(
    catalog_url: str, tmp_path: Path, clients: Client
) -> None:
    with serving.in_thread(catalog=catalog_url, store=str(tmp_path / "store")) as served:
        users = [clients(served, user) for user in ("alice", "bob")]
        content, together = os.urandom(2 * MB), Barrier(2)

        def deliver(n: int) -> int:
            upload = _begin(users[n], file_size=len(content))
            _append(users[n], upload, 0, content)
            together.wait()
            return _commit(users[n], upload, dataset=f"of-{n}").status_code

        with ThreadPoolExecutor(2) as pool:
            assert list(pool.map(deliver, range(2))) == [201, 201]
        (file,) = served.owner.files()
        assert (file.reference_count, file.content_hash) == (2, _sha(content))
        objects = [path for path in (tmp_path / "store").rglob(f"{file.content_hash}*") if path.is_file()]
        assert len(objects) <= 2  # the second one, if both put it, goes with the next collection
        assert [found for found in served.owner.verify(deep=True).findings if not found.is_leftover] == []
        for n, user in enumerate(users):
            assert user.get("datasets", params={"name": f"of-{n}"}).status_code == 200


def test_an_upload_that_a_refused_commit_named_can_be_committed_later(http: httpx.Client) -> None:
    upload = _begin(http, file_size=3)
    _append(http, upload, 0, b"abc")
    problem(_commit(http, upload, file_name="x.parquet"), 422, "unreadable_file")
    assert _append(http, upload, 3, b"").status_code == 200
    assert _commit(http, upload).status_code == 201


@pytest.mark.long
@pytest.mark.timeout(0)
def test_three_gigabytes_come_through_a_kill_in_little_memory(sqlite_url: str, tmp_path: Path, clients: Client) -> None:
    store, size, block = str(tmp_path / "store"), 3 << 30, os.urandom(8 * MB)
    digest = hashlib.sha256()
    for n in range(size // len(block)):
        digest.update(_numbered(block, n))
    most, begun = [], perf_counter()
    with serving.in_process(catalog=sqlite_url, store=store, log=tmp_path / "log") as served:
        http = clients(served)
        token = http.headers["Authorization"]
        upload = _begin(http, file_size=size, content_hash=digest.hexdigest())
        assert served.process is not None
        with _sending(http, upload, 0, size) as connection:
            for n in range(size // len(block) // 2):
                connection.sendall(_numbered(block, n))
            until(lambda: http.get(f"uploads/{upload}").json()["offset"] > size // 3)
            most.append(high_water(served.process.pid))
            served.process.send_signal(signal.SIGKILL)
            served.process.wait()
    with (
        serving.in_process(catalog=sqlite_url, store=store, log=tmp_path / "log2") as served,
        httpx.Client(base_url=served.url + "/v1/", headers={"Authorization": token}, timeout=SAFETY) as http,
    ):
        assert served.process is not None
        offset = http.get(f"uploads/{upload}").json()["offset"]

        def rest() -> Iterator[bytes]:
            first, skip = divmod(offset, len(block))
            for n in range(first, size // len(block)):
                yield _numbered(block, n)[skip:]
                skip = 0

        headers = {"Upload-Offset": str(offset), "Content-Length": str(size - offset)}
        assert http.patch(f"uploads/{upload}", content=rest(), headers=headers).status_code == 200
        uploaded, start = perf_counter() - begun, perf_counter()
        answer = _commit(http, upload)
        assert answer.status_code == 201, answer.text
        committed, start = perf_counter() - start, perf_counter()
        received = hashlib.sha256()
        with http.stream("GET", "files/1/content") as download:
            for piece in download.iter_bytes(4 * MB):
                received.update(piece)
        assert received.hexdigest() == digest.hexdigest()
        downloaded = perf_counter() - start
        most.append(high_water(served.process.pid))
    shutil.rmtree(store)
    print(
        f"\n3 GB: uploaded in {uploaded:.1f} s with a SIGKILL at {offset / size:.0%}, committed in {committed:.1f} s, "
        f"downloaded in {downloaded:.1f} s; the most memory of the server {most[0] >> 20} MB before the kill, "
        f"{most[1] >> 20} MB after it"
    )
    assert max(most) < 300 * MB


def _numbered(block: bytes, n: int) -> bytes:
    return n.to_bytes(8, "big") + block[8:]


def _sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _begin(http: httpx.Client, **options: Any) -> str:
    answer = http.post("uploads", json=options)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["upload_id"])


def _append(http: httpx.Client, upload: str, offset: int, data: bytes) -> httpx.Response:
    return http.patch(f"uploads/{upload}", content=data, headers={"Upload-Offset": str(offset)})


def _commit(
    http: httpx.Client, upload: str, *, dataset: str = "a", content_hash: str | None = None, **component: Any
) -> httpx.Response:
    content = {"upload_id": upload} | ({"content_hash": content_hash} if content_hash else {})
    wanted = {"component_name": "data", "content": content} | component
    return http.post("commits", json={"dataset_name": dataset, "overwrite": True, "components": [wanted]})


def _sending(http: httpx.Client, upload: str, offset: int, length: int) -> socket.socket:
    """A connection over which an append begins."""
    connection = socket.create_connection((http.base_url.host, http.base_url.port or 0), timeout=SAFETY)
    head = f"PATCH /v1/uploads/{upload} HTTP/1.1\r\nHost: x\r\nAuthorization: {http.headers['Authorization']}\r\n"
    connection.sendall(f"{head}Upload-Offset: {offset}\r\nContent-Length: {length}\r\n\r\n".encode())
    return connection


def _left(served: serving.Served) -> list[Path]:
    folder = served.owner.access.store.scratch / "uploads"
    return sorted(folder.iterdir()) if folder.is_dir() else []


def test_nothing_is_added_to_an_upload_that_a_commit_has_taken(
    http: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A commit makes the file read-only; the tests may run as root, to whom that means nothing."""
    upload = http.post("uploads", json={}).json()["upload_id"]
    headers = {"Upload-Offset": "0", "Content-Type": "application/octet-stream"}
    opens = Path.open

    def refused(path: Path, mode: str = "r", *options: Any, **more: Any) -> Any:
        if mode == "ab" and upload in path.name:
            raise PermissionError(13, "Permission denied")
        return opens(path, mode, *options, **more)

    monkeypatch.setattr(Path, "open", refused)
    found = problem(http.patch(f"uploads/{upload}", content=b"x", headers=headers), 409, "conflict")
    assert "was committed" in found["detail"]


@pytest.mark.parametrize(("number", "status"), [(28, 507), (30, 507), (5, 507)])
def test_an_error_of_the_system_is_an_answer(
    http: httpx.Client, monkeypatch: pytest.MonkeyPatch, number: int, status: int
) -> None:
    def fails(*arguments: Any, **options: Any) -> Any:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(modes, "new_file", fails)
    monkeypatch.setattr("dataset_registry.server.uploads.Uploads.check_quota", fails)
    problem(http.post("uploads", json={}), status)
