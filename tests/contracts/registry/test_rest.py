"""Over REST alone: broken connections, retries, limits."""

import gc
import os
import socket
import sys
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from time import sleep

import httpx
import pytest

from dataset_registry import Dataset, Registry
from dataset_registry.errors import (
    CorruptionError,
    InputError,
    InvalidName,
    NotAuthenticated,
    NotFound,
    PermissionDenied,
    RegistryError,
    RetryLater,
)
from dataset_registry.remote import client as remote_client
from dataset_registry.wire.datasets import DatasetResponse
from tests import serving
from tests.contracts.scenarios import (
    Way,
    error_of,
    names,
    numbers,
    read,
    sha256,
)
from tests.contracts.scenarios_wire import Between, ChunkingRule, Wire, busy, full, once, wire
from tests.operations.support import object_of, rewrite

NOW = timedelta(0)


@pytest.fixture
def wired(rest: Way) -> Iterator[tuple[Registry, Wire]]:
    """A client behind a wire that can be cut."""
    assert rest.served is not None
    with wire(rest.served.url) as between, Registry.open(between.url, token=rest.served.token("admin")) as registry:
        yield registry, between


@pytest.fixture
def sent(rest: Way, prefix: str) -> Dataset:
    """A dataset on that server."""
    return rest.registry.create_dataset(f"{prefix}flights")


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that does not wait before it asks again."""
    monkeypatch.setattr(remote_client, "sleep", lambda _: None)


@pytest.fixture
def unraisable(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What went wrong where nobody could be told: files that nobody closed."""
    found: list[str] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda what: found.append(repr(what.exc_value)))
    yield found
    sleep(0.1)  # the server notices that somebody has gone
    gc.collect()


@pytest.mark.parametrize("call", ["delete_branch", "delete_tag", "branch"])
@pytest.mark.parametrize("name", [".", ".."])
def test_a_name_of_dots_is_no_other_path(sent: Dataset, rest: Way, call: str, name: str) -> None:
    sent.commit({"data": b"precious"})
    error = error_of(lambda: getattr(sent, call)(name))
    assert type(error) is InvalidName
    assert rest.owner.dataset(sent.name).version().number == 1


def test_files_that_travel_with_a_commit_are_closed(sent: Dataset, unraisable: list[str]) -> None:
    sent.commit({"data": os.urandom(100_000)})
    gc.collect()
    assert unraisable == []


def test_streams_that_nobody_reads_to_the_end_cost_nothing(sent: Dataset, unraisable: list[str]) -> None:
    with sent.draft() as draft:
        draft.add("data", os.urandom(3 << 20))
    for _ in range(40):
        draft.version.open("data").read(10)
    gc.collect()
    assert unraisable == []
    with draft.version.open("data") as stream:
        assert len(stream.read()) == 3 << 20


@pytest.mark.usefixtures("unraisable")
def test_what_is_gone_when_it_is_read_is_not_found(sent: Dataset, rest: Way) -> None:
    version = sent.commit({"data": os.urandom(50)})
    with pytest.raises(NotFound), version.open() as stream:
        sent.delete()
        rest.registry.collect(older_than=NOW)
        stream.read()


@pytest.mark.usefixtures("unraisable")
@pytest.mark.parametrize("damage", ["shorter", "other bytes"])
@pytest.mark.parametrize("how", ["open", "paths"])
def test_content_that_is_not_what_it_is_named_after_is_corruption(
    sent: Dataset, rest: Way, damage: str, how: str
) -> None:
    data = os.urandom(50_000)
    version = sent.commit({"data": data})
    rewrite(object_of(rest.owner, sha256(data)), data[:100] if damage == "shorter" else data[::-1])
    ways = {
        "open": lambda: read(version),
        "paths": version.paths,
    }
    error = error_of(ways[how])
    assert type(error) is CorruptionError


@pytest.mark.usefixtures("unraisable")
@pytest.mark.parametrize("how", ["open", "paths"])
def test_a_download_goes_on_after_a_broken_connection(
    wired: tuple[Registry, Wire], prefix: str, how: str, tmp_path: Path
) -> None:
    registry, between = wired
    data = os.urandom(3 << 20)
    (tmp_path / "large").write_bytes(data)
    version = registry.create_dataset(f"{prefix}large").commit({"data": tmp_path / "large"})
    between.cuts += [ChunkingRule("down", 1 << 20), ChunkingRule("down", 1 << 20)]
    assert (read(version) if how == "open" else version.paths()[0].read_bytes()) == data
    assert between.broken == 2


@pytest.mark.usefixtures("hasty")
@pytest.mark.usefixtures("unraisable")
def test_a_download_that_never_arrives_whole_fails_as_an_error_of_ours(
    wired: tuple[Registry, Wire], prefix: str, tmp_path: Path
) -> None:
    registry, between = wired
    version = registry.create_dataset(f"{prefix}large").commit({"data": os.urandom(3 << 20)})
    between.cuts += [ChunkingRule("down", 10_000)] * 100
    assert type(error_of(lambda: read(version))) in (RetryLater, CorruptionError)
    assert type(error_of(lambda: version.checkout(tmp_path / "out"))) in (RetryLater, CorruptionError)
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.usefixtures("unraisable")
def test_an_answer_that_says_less_than_the_file_is_corruption(sent: Dataset, rest: Way) -> None:
    version = sent.commit({"data": os.urandom(5000)})

    def shorter() -> httpx.Response:
        return httpx.Response(200, content=b"x" * 4000)

    with Between(rest.registry, once(shorter, "GET files/")):
        assert type(error_of(lambda: read(version))) is CorruptionError


@pytest.mark.usefixtures("unraisable")
def test_a_range_that_ends_early_is_corruption(sent: Dataset, rest: Way) -> None:
    version = sent.commit({"data": os.urandom(5000)})

    def shorter() -> httpx.Response:
        return httpx.Response(206, content=b"x" * 10)

    with Between(rest.registry, once(shorter, "GET files/")), version.open() as stream:
        stream.seek(4000)
        assert type(error_of(stream.read)) is CorruptionError


@pytest.mark.usefixtures("unraisable")
@pytest.mark.parametrize("cuts", [1, 3])
def test_an_upload_goes_on_where_it_stopped(wired: tuple[Registry, Wire], rest: Way, prefix: str, cuts: int) -> None:
    registry, between = wired
    dataset = registry.create_dataset(f"{prefix}large")
    data = os.urandom(8 << 20)
    between.cuts += [ChunkingRule("up", 2 << 20)] * cuts

    def settled(request: httpx.Request) -> None:
        """Let the server finish what it has received before it is asked where the upload stands."""
        if request.method != "GET" or "/uploads/" not in request.url.path:
            return
        folder = rest.owner.access.store.scratch / "uploads"
        sizes: list[int] = []
        while len(sizes) < 4 or len(set(sizes[-4:])) > 1:
            sizes.append(sum(path.stat().st_size for path in folder.glob("*.data")))
            sleep(0.1)

    with Between(registry, settled) as requests:
        version = dataset.commit({"data": data})
    assert between.broken == cuts
    assert requests.count("PATCH uploads/") == cuts + 1
    assert (requests.count("POST uploads"), dataset.version()) == (1, version)
    assert read(version) == data


@pytest.mark.usefixtures("unraisable")
def test_an_upload_goes_on_while_the_server_still_waits_for_the_broken_connection(
    wired: tuple[Registry, Wire], prefix: str
) -> None:
    registry, between = wired
    dataset = registry.create_dataset(f"{prefix}large")
    data = os.urandom(4 << 20)
    between.cuts.append(ChunkingRule("up", 2 << 20, half=True))
    released = threading.Timer(1.0, between.drop)
    released.start()
    try:
        assert read(dataset.commit({"data": data})) == data
    finally:
        released.join()


@pytest.mark.usefixtures("hasty")
def test_an_answer_that_was_lost_is_asked_for_again_and_the_work_done_once(sent: Dataset, rest: Way) -> None:
    def lost() -> httpx.Response:
        raise httpx.ReadError("the connection broke")

    with (
        Between(rest.registry, after=once(lost, f"POST datasets/{sent.id}/versions")) as requests,
        sent.draft() as draft,
    ):
        draft.add("data", os.urandom(100))
    assert requests.count(f"POST datasets/{sent.id}/versions") == 2
    assert (draft.result.unchanged, draft.version.number) == (False, 1)
    assert numbers(sent.tree()) == [1]
    with Between(rest.registry, after=once(lost, f"POST datasets/{sent.id}/tags")):
        assert sent.create_tag("once").version_number == 1
    with Between(rest.registry, after=once(lost, "POST datasets")):
        made = rest.registry.create_dataset(sent.name + "-2")
    assert rest.owner.dataset(made.id).name == sent.name + "-2"


@pytest.mark.usefixtures("hasty")
def test_what_a_busy_server_refused_is_asked_for_again(sent: Dataset, rest: Way) -> None:
    with Between(rest.registry, once(busy, "GET datasets")) as requests:
        assert rest.registry.dataset(sent.name).id == sent.id
    assert len(requests.seen) == 2
    with Between(rest.registry, once(busy, f"POST datasets/{sent.id}/versions")):
        assert sent.commit({"data": b"1", "small": b"2"}).number == 1
    with Between(rest.registry, lambda _: busy()) as requests:
        assert type(error_of(sent.version)) is RetryLater
    assert len(requests.seen) > 2
    assert sent.version().number == 1


def test_a_download_that_a_busy_server_refused_is_asked_for_again(sent: Dataset, rest: Way) -> None:
    version = sent.commit({"data": b"1" * 100})
    with Between(rest.registry, once(busy, "GET files/")):
        assert read(version) == b"1" * 100


def test_a_change_that_a_full_server_refused_is_asked_for_again(sent: Dataset, rest: Way) -> None:
    sent.commit({"data": b"1"})
    sent.commit({"data": b"2"})
    with Between(rest.registry, once(full, "PATCH datasets/")):
        assert sent.move_branch("main", "v1", expect="v2").version_number == 1
    with Between(rest.registry, once(full, "DELETE datasets/")):
        sent.delete_branch("main")


@pytest.mark.usefixtures("hasty")
def test_an_upkeep_that_takes_too_long_to_wait_for_is_not_begun_again(rest: Way) -> None:
    def slow(_: httpx.Request) -> httpx.Response:
        raise httpx.ReadTimeout("ten minutes have passed")

    with Between(rest.registry, slow) as requests:
        assert type(error_of(lambda: rest.registry.verify(deep=True))) is RetryLater
    assert requests.count("POST verify") == 1


@pytest.mark.usefixtures("unraisable")
def test_a_restarted_server_is_the_same_registry(rest: Way, prefix: str) -> None:
    catalog, store = rest.catalog, rest.store
    with (
        serving.in_thread(catalog=catalog, store=store) as first,
        wire(first.url) as between,
        Registry.open(between.url, token=first.token("admin")) as registry,
    ):
        dataset = registry.create_dataset(f"{prefix}flights")
        version = dataset.commit({"data": b"1"})
        with serving.in_thread(catalog=catalog, store=store) as second:
            between.lead_to(second.url)
            between.drop()
            assert dataset.move_branch("main", "v1").version_number == 1
            between.drop()
            assert read(version) == b"1"
            with dataset.draft() as draft:
                draft.add("data", os.urandom(2 << 20))
                between.drop()
            assert draft.version.number == 2


def test_a_closed_registry_connects_again(rest: Way) -> None:
    assert rest.served is not None
    registry = Registry.open(rest.served.url, token=rest.served.token("admin"))
    registry.datasets()
    registry.close()
    registry.close()
    try:
        registry.datasets()
    finally:
        registry.close()


@pytest.mark.usefixtures("hasty")
def test_a_server_that_is_not_there_is_named(rest: Way) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    error = error_of(lambda: Registry.open(f"http://127.0.0.1:{port}", token="dr_x"))
    assert type(error) is RetryLater
    assert f"127.0.0.1:{port}" in str(error)
    assert rest.served is not None
    assert type(error_of(lambda: Registry.open(rest.served.url, token="dr_unknown"))) is NotAuthenticated
    assert type(error_of(lambda: Registry.open(rest.served.url))) is InputError


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("token", ["dr_secret\n", "dr_secrét", ""])
def test_a_token_with_what_no_header_takes_is_refused_without_showing_it(rest: Way, token: str) -> None:
    assert rest.served is not None
    error = error_of(lambda: Registry.open(rest.served.url, token=token))
    assert isinstance(error, NotAuthenticated | InputError)
    assert "secr" not in str(error)


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("url", ["http://localhost:abc", "http://[::1"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    assert type(error_of(lambda: Registry.open(url, token="dr_x"))) is InputError


def test_an_address_may_be_in_capitals(rest: Way, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert rest.served is not None
    with Registry.open(rest.served.url.replace("http", "HTTP"), token=rest.served.token("admin")) as registry:
        assert registry.location.casefold() == rest.served.url


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("status", [200, 302])
def test_an_answer_that_is_no_registrys_is_an_error_of_ours(sent: Dataset, rest: Way, status: int) -> None:
    def page(_: httpx.Request) -> httpx.Response:
        return httpx.Response(status, html="<h1>Please log in</h1>", headers={"Location": "https://login.example.com"})

    with Between(rest.registry, page):
        for call in (sent.version, sent.branches, sent.tree, rest.registry.datasets, lambda: sent.create_tag("t")):
            assert isinstance(error_of(call), RegistryError)


def test_a_newer_server_may_say_more(sent: Dataset, rest: Way) -> None:
    def newer(request: httpx.Request) -> httpx.Response:
        shown = DatasetResponse.of(sent.record).model_dump(mode="json") | {"stars": 5}
        return httpx.Response(200, json=shown if request.url.path.endswith(str(sent.id)) else {"items": [shown]})

    with Between(rest.registry, newer):
        assert rest.registry.dataset(sent.id).record == sent.record
        assert rest.registry.dataset(sent.name).record == sent.record


def test_content_that_was_collected_while_it_was_committed_is_sent_after_all(
    sent: Dataset, rest: Way, prefix: str
) -> None:
    data = os.urandom(100)
    other = rest.registry.create_dataset(f"{prefix}other")
    other.commit({"data": data})
    other.delete()

    def collected(_: httpx.Request) -> None:
        rest.owner.collect(older_than=NOW)

    with Between(rest.registry, lambda r: collected(r) if r.url.path.endswith("/versions") else None):
        assert read(sent.commit({"data": data})) == data


def test_a_copy_into_a_server_is_refused_as_one_out_of_it(rest: Way) -> None:
    assert type(error_of(lambda: rest.registry.copy_to(rest.owner))) is InputError
    assert type(error_of(lambda: rest.owner.copy_to(rest.registry))) is InputError


def test_what_a_token_may_do_is_bounded_by_its_permission_its_prefix_and_its_revocation(rest: Way, prefix: str) -> None:
    assert rest.served is not None
    for name in ("raw/a", "clean/a"):
        rest.registry.create_dataset(prefix + name).commit({"data": b"1"})
    made = rest.registry.create_token(permission="read", prefix=f"{prefix}raw/")
    with Registry.open(rest.served.url, token=made.secret) as narrow:
        assert narrow.actor == "admin"
        assert names(narrow.datasets()) == [f"{prefix}raw/a"]
        assert type(error_of(lambda: narrow.dataset(f"{prefix}clean/a"))) is NotFound
        error = error_of(lambda: narrow.dataset(f"{prefix}raw/a").commit({"data": b"2"}))
        assert type(error) is PermissionDenied
        assert type(error_of(narrow.users)) is PermissionDenied
        rest.registry.revoke_token(made.token.id)
        assert type(error_of(narrow.datasets)) is NotAuthenticated
