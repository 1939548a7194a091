"""A registry that is frozen is read, and not written: everybody is told why."""

import json
from collections.abc import Callable

import httpx
import pytest
from typer.testing import CliRunner

from dataset_registry import Registry
from dataset_registry.catalog import engine
from dataset_registry.cli import app
from dataset_registry.errors import InputError, PermissionDenied, RegistryFrozen
from tests import serving
from tests.permissions.support import acting

REASON = "migration to the new bucket"


@pytest.fixture
def frozen(owned: Registry) -> Registry:
    """A registry with a dataset, that is frozen."""
    flights = owned.create_dataset("flights")
    flights.commit({"data": b"1"})
    flights.commit({"data": b"2"})
    flights.create_tag("july", "v1")
    owned.freeze(REASON)
    return owned


WRITES: dict[str, Callable[[Registry], object]] = {
    "create a dataset": lambda r: r.create_dataset("other"),
    "commit": lambda r: r.dataset("flights").commit({"data": b"3"}),
    "commit what is stored": lambda r: r.dataset("flights").commit({"more": b"1"}),
    "create a branch": lambda r: r.dataset("flights").create_branch("dev"),
    "delete a tag": lambda r: r.dataset("flights").delete_tag("july"),
    "rename": lambda r: r.dataset("flights").rename("other"),
    "delete": lambda r: r.dataset("flights").delete(),
    "create a user": lambda r: r.create_user("alice"),
    "delete a version": lambda r: r.dataset("flights").delete_version("v2"),
    "collect": lambda r: r.collect(),
    "repair": lambda r: r.verify(repair=True),
    "seal": lambda r: r.seal_audit(),
    "note a read": lambda r: r.version("flights").note_read("run"),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES.keys())
def test_what_writes_is_refused_with_the_reason(frozen: Registry, write: Callable[[Registry], object]) -> None:
    before = [v.number for v in frozen.dataset("flights").tree()]
    with pytest.raises(RegistryFrozen, match=REASON):
        write(frozen)
    assert [v.number for v in frozen.dataset("flights").tree()] == before


def test_reading_goes_on(frozen: Registry) -> None:
    version = frozen.version("flights")
    assert version.open("data").read() == b"2"
    assert [v.number for v in frozen.dataset("flights").log()] == [2, 1]
    assert frozen.verify(deep=True).clean
    assert frozen.frozen is not None
    assert (frozen.frozen.reason, frozen.frozen.by) == (REASON, frozen.actor)


def test_it_ends_and_both_are_in_the_audit_log(frozen: Registry) -> None:
    frozen.unfreeze()
    frozen.unfreeze()
    assert frozen.frozen is None
    frozen.dataset("flights").commit({"data": b"3"})
    entries = [(e.action, e.before, e.after) for e in frozen.audit() if "freeze" in e.action]
    assert entries == [("unfreeze", REASON, None), ("freeze", None, REASON)]


def test_another_process_obeys_as_soon_as_it_looks(frozen: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    with acting(frozen, "alice") as other, pytest.raises(RegistryFrozen):
        other.dataset("flights").commit({"data": b"3"})
    frozen.unfreeze()
    with acting(frozen, "alice") as other:
        other.dataset("flights").commit({"data": b"3"})
        frozen.freeze("again")
        monkeypatch.setattr(engine, "FROZEN_SECONDS", 0)  # the time is over
        with pytest.raises(RegistryFrozen, match="again"):
            other.dataset("flights").commit({"data": b"4"})


@pytest.mark.parametrize("reason", ["", "  ", "x" * 1001])
def test_a_reason_is_needed(owned: Registry, reason: str) -> None:
    with pytest.raises(InputError, match="reason"):
        owned.freeze(reason)
    assert owned.frozen is None


def test_only_administrators_freeze(owned: Registry) -> None:
    owned.create_user("alice")
    with acting(owned, "alice") as alice:
        for do in (lambda: alice.freeze("mine"), alice.unfreeze):
            with pytest.raises(PermissionDenied):
                do()


@pytest.fixture
def remote(served: serving.Served) -> Registry:
    served.owner.create_dataset("flights").commit({"data": b"1"})
    return served.registry()


def test_over_rest_it_is_the_same(served: serving.Served, remote: Registry) -> None:
    http = served.http()
    assert remote.frozen is None
    remote.freeze(REASON)
    assert remote.frozen is not None
    assert remote.frozen.reason == REASON
    with pytest.raises(RegistryFrozen, match=REASON):
        remote.dataset("flights").commit({"data": b"2"})
    assert remote.version("flights").open("data").read() == b"1"
    with http:
        assert http.get("whoami").json()["frozen"]["reason"] == REASON
        assert http.post("datasets", json={"name": "x"}).status_code == 423
        ready, metrics = (httpx.get(f"{served.url}/{name}") for name in ("ready", "metrics"))
        assert (ready.status_code, ready.json()) == (200, {"status": "read-only"})
        assert "dataset_registry_frozen 1.0" in metrics.text
        assert REASON not in ready.text + metrics.text
    remote.unfreeze()
    assert httpx.get(f"{served.url}/ready").json() == {"status": "ok"}
    assert "dataset_registry_frozen 0.0" in httpx.get(f"{served.url}/metrics").text
    remote.dataset("flights").commit({"data": b"2"})


def test_the_command_line_says_it_as_json(embedded: Registry) -> None:
    embedded.freeze(REASON)
    access = embedded.access
    where = ["--catalog", access.catalog.url.render_as_string(), "--store", access.store.location]
    done = CliRunner().invoke(app, ["status", "--json", *where])
    assert json.loads(done.stdout)["frozen"]["reason"] == REASON
