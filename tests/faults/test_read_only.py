"""When nothing can be written, reads continue: a full disk, a read-only disk, a store or a database that stopped."""

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import httpx
import psycopg
import pyarrow as pa
import pytest

from dataset_registry import Registry
from dataset_registry.catalog import Catalog, migrate
from dataset_registry.errors import RegistryError, RetryLater, StorageError
from tests import servers, serving
from tests.faults.test_full_disk import Disk, _as_root, disk
from tests.waiting import SAFETY, until

__all__ = ["disk"]
CONTENT = b"id,n\n1,5\n2,6\n"


def fill(place: dict[str, str]) -> str:
    """A registry with a file, a table, and an administrator; the secret of its token."""
    with Registry.open(**place) as registry:  # type: ignore[arg-type]
        dataset = registry.create_dataset("flights")
        dataset.commit({"csv": CONTENT, "table": pa.table({"x": [1, 2]})}, message="July")
        with dataset.draft() as draft:
            draft.add("csv", CONTENT, format="csv")
        registry.create_user("root", role="administrator")
        return registry.create_token("root").secret


READS: dict[str, Callable[[Registry], object]] = {
    "list": lambda r: "flights" in [d.name for d in r.datasets()],
    "log": lambda r: [v.number for v in r.dataset("flights").log()] == [2, 1],
    "schema": lambda r: bool(r.version("flights").schema),
    "open": lambda r: r.version("flights").open("csv").read() == CONTENT,
    "a table": lambda r: r.version("flights").to_arrow("table").num_rows == 2,
    "a frame": lambda r: len(r.version("flights").to_pandas("table")) == 2,
    "a delivered file as a table": lambda r: r.version("flights").to_arrow("csv").num_rows == 2,
    "paths": lambda r: r.version("flights").paths("csv")[0].read_bytes() == CONTENT,
    "diff": lambda r: r.dataset("flights").diff("v1", "v2") is not None,
    "files": lambda r: len(list(r.files())) >= 2,
}
REQUESTS = [
    "whoami",
    "datasets",
    "datasets/1/log",
    "files",
    "datasets/1/versions/2/components",
    "files/1/content",
    "users",
]


def reads(registry: Registry) -> list[str]:
    """The reads that fail."""
    failed = []
    for name, read in READS.items():
        try:
            assert read(registry)
        except RegistryError as error:
            failed.append(f"{name}: {error}")
    return failed


def answers(served: serving.Served, secret: str) -> list[str]:
    """The requests that are not answered as ever."""
    headers = {"Authorization": f"Bearer {secret}"}
    with httpx.Client(base_url=served.url + "/v1/", headers=headers, timeout=SAFETY) as http:
        found = {path: http.get(path).status_code for path in REQUESTS}
    return [f"{path}: {status}" for path, status in found.items() if status != 200]


def is_refused(read: Callable[[], object]) -> bool:
    """Whether a call says to try again later."""
    try:
        read()
    except RetryLater:
        return True
    return False


@pytest.fixture
def read_only(disk: Disk) -> Iterator[Callable[[], None]]:
    """Make the small disk read-only."""
    yield lambda: _as_root("mount", "-o", "remount,ro", disk.folder)
    _as_root("mount", "-o", "remount,rw", disk.folder)


def place_on(disk: Disk) -> dict[str, str]:
    return {"catalog": f"sqlite:///{disk.folder / 'catalog.sqlite'}", "store": str(disk.folder / "store")}


def test_a_registry_on_a_read_only_disk_is_read(disk: Disk, read_only: Callable[[], None]) -> None:
    place = place_on(disk)
    secret = fill(place)
    read_only()
    with Registry.open(**place) as registry:  # type: ignore[arg-type]
        assert reads(registry) == []
        assert registry.verify(deep=True).damage == ()
        with pytest.raises(StorageError, match="cannot be written to"):
            registry.create_dataset("other")
    with serving.in_thread(**place) as served:  # type: ignore[arg-type]
        assert answers(served, secret) == []


@pytest.mark.objects
def test_a_read_only_store_beside_a_catalog_that_is_not_is_read(
    disk: Disk, read_only: Callable[[], None], catalog_url: str
) -> None:
    place = {"catalog": catalog_url, "store": str(disk.folder / "store")}
    secret = fill(place)
    read_only()
    with Registry.open(**place) as registry:  # type: ignore[arg-type]
        assert reads(registry) == []
        with pytest.raises(StorageError):
            registry.dataset("flights").commit({"new": b"new"})
        registry.dataset("flights").create_tag("july", "v1")  # rows alone
    with serving.in_thread(**place) as served:  # type: ignore[arg-type]
        assert answers(served, secret) == []


def test_a_read_only_postgresql_is_read(postgresql_catalog: str, tmp_path: Path) -> None:
    place = {"catalog": postgresql_catalog, "store": str(tmp_path / "store")}
    secret = fill(place)
    with psycopg.connect(postgresql_catalog.replace("+psycopg", ""), autocommit=True) as connection:
        name = postgresql_catalog.rpartition("/")[2]
        connection.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    with Registry.open(**place) as registry:  # type: ignore[arg-type]
        assert reads(registry) == []
        for write in (
            lambda: registry.create_dataset("other"),
            lambda: registry.version("flights").note_read("run"),
            lambda: registry.dataset("flights").commit({"csv": b"other"}),
        ):
            with pytest.raises(StorageError, match="cannot be written to"):
                write()
    with serving.in_thread(**place) as served:  # type: ignore[arg-type]
        assert answers(served, secret) == []
        headers = {"Authorization": f"Bearer {secret}"}
        assert httpx.post(served.url + "/v1/datasets", headers=headers, json={"name": "x"}).status_code == 507


def test_on_a_full_disk_every_read_is_answered_and_an_administrator_frees_space(disk: Disk) -> None:
    place = place_on(disk)
    secret = fill(place)
    with Registry.open(**place) as registry:  # type: ignore[arg-type]
        spare = registry.create_dataset("spare")
        spare.commit({"data": bytes(range(256)) * 4000})
    with serving.in_thread(**place) as served:  # type: ignore[arg-type]
        disk.fill()
        assert answers(served, secret) == []
        headers = {"Authorization": f"Bearer {secret}"}
        with httpx.Client(base_url=served.url + "/v1/", headers=headers, timeout=SAFETY) as http:
            assert http.post("datasets", json={"name": "x"}).status_code == 507
        with Registry.open(served.url, token=secret) as remote:
            assert reads(remote) == []
            remote.dataset("spare").delete()
            assert remote.collect(older_than=timedelta(0)).bytes > 1_000_000
            remote.dataset("flights").commit({"new": b"new"})


def test_while_postgresql_is_stopped_requests_say_so_and_go_on_afterwards(tmp_path: Path) -> None:
    with servers.killable_postgresql() as server:
        url = server.url.replace("postgresql://", "postgresql+psycopg://")
        catalog = Catalog(url)
        migrate.upgrade(catalog)
        catalog.close()
        place = {"catalog": url, "store": str(tmp_path / "store")}
        secret = fill(place)
        with serving.in_thread(**place) as served, Registry.open(**place) as registry:  # type: ignore[arg-type]
            version = registry.version("flights")
            (path,) = version.paths("csv")
            server.kill()
            until(lambda: is_refused(registry.datasets), what="a backend noticed that its server is gone")
            assert path.read_bytes() == CONTENT
            headers = {"Authorization": f"Bearer {secret}"}
            assert httpx.get(served.url + "/v1/datasets", headers=headers, timeout=SAFETY).status_code == 503
            assert httpx.get(served.url + "/health").status_code == 200
            assert httpx.get(served.url + "/ready", timeout=SAFETY).status_code == 503
            server.restart()
            assert answers(served, secret) == []
            assert reads(registry) == []


@pytest.mark.objects
def test_while_s3_is_stopped_what_the_catalog_knows_is_read(sqlite_url: str, tmp_path: Path) -> None:
    with servers.s3() as location:
        place = {"catalog": sqlite_url, "store": f"{location}&cache={tmp_path / 'cache'}"}
        secret = fill(place)
    with Registry.open(**place) as registry:  # type: ignore[arg-type]
        for name in ("list", "log", "schema", "diff", "files"):
            assert READS[name](registry)
        with pytest.raises(RetryLater):
            registry.dataset("flights").commit({"csv": b"other"})
    with serving.in_thread(**place) as served:  # type: ignore[arg-type]
        assert answers(served, secret) == ["files/1/content: 503"]
