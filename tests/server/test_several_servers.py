"""Several servers over one catalog and one store: what one began another goes on with."""

import hashlib
import os
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from shutil import which
from typing import Any

import httpx
import pyarrow as pa
import pytest

from dataset_registry import Registry
from dataset_registry.errors import PayloadTooLarge
from dataset_registry.server import uploads as server_uploads
from dataset_registry.store import open_store
from tests import serving
from tests.serving import Served
from tests.waiting import SAFETY, until

ROOT = Path(__file__).parent.parent.parent
PLACES = ["sqlite-folder", "postgresql-s3"]


@contextmanager
def _servers(request: pytest.FixtureRequest, tmp_path: Path, **settings: Any) -> Iterator[list[Served]]:
    is_s3 = request.node.callspec.params["place"] == "postgresql-s3"
    catalog = request.getfixturevalue("postgresql_catalog" if is_s3 else "sqlite_url")
    store = request.getfixturevalue("s3_url") if is_s3 else str(tmp_path / "store")
    with ExitStack() as stack:
        yield [stack.enter_context(serving.in_thread(catalog=catalog, store=store, **settings)) for _ in range(2)]


@pytest.fixture
def two(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[list[Served]]:
    """Two servers."""
    with _servers(request, tmp_path) as found:
        yield found


@contextmanager
def _clients(servers: list[Served]) -> Iterator[list[httpx.Client]]:
    """A client of each server, with one token."""
    headers = {"Authorization": f"Bearer {servers[0].token('ann')}"}
    with ExitStack() as stack:
        yield [
            stack.enter_context(httpx.Client(base_url=f"{server.url}/v1/", headers=headers, timeout=SAFETY))
            for server in servers
        ]


@pytest.fixture
def clients(two: list[Served]) -> Iterator[list[httpx.Client]]:
    """A client of each of two servers."""
    with _clients(two) as found:
        yield found


def _append(client: httpx.Client, upload: str, offset: int, content: bytes) -> httpx.Response:
    return client.patch(f"uploads/{upload}", content=content, headers={"Upload-Offset": str(offset)})


def _commit(client: httpx.Client, upload: str, key: str | None = None) -> httpx.Response:
    component = {"component_name": "data", "content": {"upload_id": upload}}
    headers = {} if key is None else {"Idempotency-Key": key}
    body = {"dataset_name": "raw/large", "overwrite": True, "components": [component]}
    return client.post("commits", json=body, headers=headers)


@pytest.mark.parametrize("place", PLACES)
def test_an_upload_is_resumed_and_committed_at_another_server(
    place: str, two: list[Served], clients: list[httpx.Client]
) -> None:
    one, other = clients
    content = os.urandom(20_000_000)
    begun = {"file_size": len(content), "content_hash": hashlib.sha256(content).hexdigest()}
    upload = one.post("uploads", json=begun).json()["upload_id"]
    for client, start, stop in ((one, 0, 9_000_000), (other, 9_000_000, 9_000_001), (one, 9_000_001, 20_000_000)):
        assert client.get(f"uploads/{upload}").json()["offset"] == start
        assert _append(client, upload, start, content[start:stop]).json()["offset"] == stop
    assert _append(other, upload, 5, b"again").status_code == 409
    assert _commit(other, upload).status_code == 201
    with two[0].owner.version("raw/large").open() as stream:
        assert stream.read() == content
    for client in (one, other):
        assert client.get(f"uploads/{upload}").status_code == 404


@pytest.mark.parametrize("place", PLACES)
def test_of_many_writers_at_two_servers_one_wins_and_nothing_is_mixed(
    place: str, two: list[Served], clients: list[httpx.Client]
) -> None:
    upload = clients[0].post("uploads", json={}).json()["upload_id"]
    answers: list[tuple[int, int]] = []
    start = threading.Barrier(8)

    def append(n: int) -> None:
        start.wait()
        answers.append((_append(clients[n % 2], upload, 0, bytes([n]) * 1_000_000).status_code, n))

    threads = [threading.Thread(target=append, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    winners = [n for status, n in answers if status == 200]
    assert len(winners) == 1
    assert {status for status, _ in answers} == {200, 409}
    assert _commit(clients[1], upload).status_code == 201
    with two[0].owner.version("raw/large").open() as stream:
        assert stream.read() == bytes(winners) * 1_000_000


@pytest.mark.parametrize("place", PLACES)
def test_a_commit_that_is_repeated_at_another_server_is_done_once(
    place: str, two: list[Served], clients: list[httpx.Client]
) -> None:
    upload = clients[0].post("uploads", json={}).json()["upload_id"]
    _append(clients[0], upload, 0, b"content")
    first, again = (_commit(client, upload, "a-key") for client in clients)
    assert (first.status_code, again.status_code) == (201, 201)
    assert first.json()["version"] == again.json()["version"]
    assert len(two[0].owner.dataset("raw/large").log()) == 1


@pytest.mark.parametrize("place", PLACES)
def test_the_quota_counts_what_is_at_other_servers(
    place: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_uploads, "_COUNTED_FOR", -1.0)
    with _servers(request, tmp_path, user_uploads=3) as servers, _clients(servers) as clients:
        statuses = [clients[n % 2].post("uploads", json={"file_size": 10}).status_code for n in range(4)]
    assert statuses == [201, 201, 201, 413]


@pytest.mark.parametrize("place", PLACES)
def test_an_upload_that_nobody_goes_on_with_is_deleted_by_any_server(
    place: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    with _servers(request, tmp_path, upload_hours=0.0) as servers, _clients(servers) as (one, other):
        upload = one.post("uploads", json={}).json()["upload_id"]
        _append(one, upload, 0, b"x")
        store = servers[1].owner.access.store  # type: ignore[attr-defined]
        quota = server_uploads.Quota(1, 1, 1, 1)
        uploads = server_uploads.Uploads(server_uploads.files_of(store), quota=quota, hours=0.0)
        uploads.tidy()
        assert other.get(f"uploads/{upload}").status_code == 404
        named = store.named("uploads")
        assert list(named.list() if named else (store.scratch / "uploads").glob("*.data")) == []


@pytest.mark.parametrize("place", PLACES)
def test_a_token_that_is_revoked_at_one_server_is_refused_by_all(
    place: str, two: list[Served], clients: list[httpx.Client]
) -> None:
    one, other = clients
    assert other.get("datasets").status_code == 200
    (token,) = two[0].owner.tokens("ann")
    two[0].owner.revoke_token(token.id)
    assert (one.get("datasets").status_code, other.get("datasets").status_code) == (401, 401)


def test_uploads_that_begin_at_once_count_against_one_quota(
    sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each counts again what is stored, and the others are not stored yet."""
    monkeypatch.setattr(server_uploads, "_COUNTED_FOR", -1.0)
    files = server_uploads.FolderFiles(tmp_path)
    listed, ready = files.received, threading.Barrier(12)

    def slowly() -> Mapping[str, int]:
        found = listed()
        with suppress(threading.BrokenBarrierError):
            ready.wait(0.05)
        return found

    monkeypatch.setattr(files, "received", slowly)
    uploads = server_uploads.Uploads(files, quota=server_uploads.Quota(1000, 1000, 1000, 100), hours=1)
    begun: list[object] = []

    def begin() -> None:
        with suppress(PayloadTooLarge):
            begun.append(uploads.begin("ann", 900, None))

    threads = [threading.Thread(target=begin) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(begun) == 1


def test_an_upload_in_a_bucket_is_there_until_its_pieces_are_gone(s3_url: str) -> None:
    named = open_store(s3_url).named("uploads")
    assert named is not None
    files = server_uploads.BucketFiles(named)
    files.begin("u", b"{}")
    with files.writing("u", 0) as write:
        write([b"x"])
    removed: list[str] = []
    named.remove = removed.append  # type: ignore[method-assign]
    files.end("u")
    assert [name.rpartition("/")[2] for name in removed] == [f"{0:020}", "facts"]


# --- processes behind a proxy --------------------------------------------------------------------------------------


def _serve(port: int, catalog: str, store: str, log: Path) -> subprocess.Popen[bytes]:
    command = [Path(os.sys.executable).parent / "dataset-registry", "serve", "--catalog", catalog, "--store", store]  # type: ignore[attr-defined]
    with log.open("ab") as output:
        return subprocess.Popen([*command, "--port", str(port), "--workers", "2"], stdout=output, stderr=output)


def _is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/ready", timeout=5).status_code == 200
    except httpx.TransportError:
        return False


def _workers(parent: int) -> list[int]:
    """The processes of a server that answer requests."""
    listed = subprocess.run(
        ["ps", "-ww", "-o", "pid=,args=", "--ppid", str(parent)], capture_output=True, text=True, check=True
    )
    lines = (line.split(maxsplit=1) for line in listed.stdout.splitlines())
    return [int(pid) for pid, args in lines if "spawn_main" in args]


@contextmanager
def _proxy(ports: list[int], folder: Path) -> Iterator[str]:
    """nginx with the configuration that we deploy, in front of these ports."""
    port = serving._free_port()
    text = (ROOT / "deploy/docker/nginx.conf").read_text()
    for n, server in enumerate(ports, 1):
        text = text.replace(f"registry-{n}:8600", f"127.0.0.1:{server}")
    text = text.replace("listen 8600", f"listen 127.0.0.1:{port}")
    (folder / "nginx.conf").write_text(f"pid {folder}/nginx.pid;\nerror_log {folder}/error.log;\ndaemon off;\n{text}")
    nginx = which("nginx") or "/usr/sbin/nginx"
    command = [nginx, "-p", str(folder), "-c", str(folder / "nginx.conf"), "-g", f"error_log {folder}/error.log;"]
    subprocess.run([*command[:5], "-t"], check=True, capture_output=True)
    proxy = subprocess.Popen(command[:5])
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        proxy.terminate()
        proxy.wait(SAFETY)


@pytest.mark.long
@pytest.mark.skipif(which("nginx") is None and not Path("/usr/sbin/nginx").exists(), reason="nginx is not installed")
def test_four_processes_behind_a_proxy_are_killed_and_replaced_under_load_and_no_request_fails(
    postgresql_catalog: str, s3_url: str, tmp_path: Path
) -> None:
    """A worker is killed, the workers of a server are replaced, a server is stopped and started again, another one is killed."""
    ports = [serving._free_port(), serving._free_port()]
    logs = [tmp_path / "1.log", tmp_path / "2.log"]
    with Registry.open(catalog=postgresql_catalog, store=s3_url) as owner:
        owner.create_user("ann")
        token = owner.create_token("ann").secret
        servers = [_serve(port, postgresql_catalog, s3_url, log) for port, log in zip(ports, logs, strict=True)]
        try:
            with _proxy(ports, tmp_path) as url:
                until(
                    lambda: all(_is_ready(f"http://127.0.0.1:{port}") for port in ports), what="both servers answered"
                )
                done, failed = _under_load(url, token, ports, servers, postgresql_catalog, s3_url, logs)
        finally:
            for server in servers:
                server.terminate()
                server.wait(SAFETY)
        assert failed == []
        for n, count in done.items():
            versions = owner.dataset(f"load/{n}").log()
            assert len(versions) == count > 5
            assert owner.version(f"load/{n}").to_arrow()["n"].to_pylist() == [count]
        print(f"{sum(done.values())} commits, 0 failed")


def _under_load(
    url: str,
    token: str,
    ports: list[int],
    servers: list[subprocess.Popen[bytes]],
    catalog: str,
    store: str,
    logs: list[Path],
) -> tuple[dict[int, int], list[BaseException]]:
    """Commits by four clients while processes die; how many each made, and what failed."""
    done: dict[int, int] = {}
    failed: list[BaseException] = []
    stop = threading.Event()

    def work(n: int) -> None:
        try:
            with Registry.open(url, token=token) as registry:
                while not stop.is_set():
                    count = done.get(n, 0) + 1
                    with registry.draft(f"load/{n}") as draft:
                        draft.add("data", pa.table({"n": [count]}))
                    assert registry.version(f"load/{n}").to_arrow()["n"].to_pylist() == [count]
                    done[n] = count
        except BaseException as error:
            failed.append(error)

    def grow() -> None:
        """Until each client has made five more commits."""
        wanted = {n: done.get(n, 0) + 5 for n in range(4)}
        until(lambda: failed or all(done.get(n, 0) >= wanted[n] for n in range(4)), what="the clients went on")

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    try:
        with httpx.Client(base_url=f"{url}/v1/", headers={"Authorization": f"Bearer {token}"}, timeout=SAFETY) as http:
            content = os.urandom(1_000_000)
            upload = http.post("uploads", json={"file_size": len(content)}).json()["upload_id"]
            assert _append(http, upload, 0, content[:400_000]).status_code == 200
            grow()
            os.kill(_workers(servers[0].pid)[0], signal.SIGKILL)
            grow()
            servers[1].send_signal(signal.SIGHUP)
            grow()
            servers[0].terminate()
            servers[0].wait(SAFETY)
            grow()
            assert _append(http, upload, 400_000, content[400_000:]).json()["offset"] == len(content)
            servers[0] = _serve(ports[0], catalog, store, logs[0])
            until(lambda: _is_ready(f"http://127.0.0.1:{ports[0]}"), what="the server is back")
            for pid in [*_workers(servers[1].pid), servers[1].pid]:
                os.kill(pid, signal.SIGKILL)
            servers[1].wait(SAFETY)
            grow()
            assert _commit(http, upload).status_code == 201
            servers[1] = _serve(ports[1], catalog, store, logs[1])
            until(lambda: _is_ready(f"http://127.0.0.1:{ports[1]}"), what="the other server is back")
            grow()
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    return done, failed
