"""Names that the registry trusts, and names that look like others."""

import hashlib
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import text

from dataset_registry import Registry
from dataset_registry.errors import (
    AlreadyExists,
    InvalidName,
    InvalidRef,
    NotFound,
    PermissionDenied,
    TagImmutable,
)
from dataset_registry.store import new_key
from tests.permissions.support import acting

NOW = timedelta(0)
RESERVED = ["lost+found", "lost+found/x", "runs/abc/step/result"]
LOOKALIKES = {
    "r\u0430w/x": "Cyrillic a",
    "\uff52\uff41\uff57/x": "fullwidth",
    "\u0433\u0430\u0461/x": "all Cyrillic",
    "ra\u0461/x": "omega",
    "\U0001d42b\U0001d41a\U0001d430/x": "mathematical bold",
}


@pytest.fixture
def team(owned: Registry) -> Registry:
    """A registry in which `alice` writes under `raw/`, and `eve` is a member."""
    for name in ("alice", "eve"):
        owned.create_user(name)
    owned.grant("alice", "write", "raw/")
    return owned


@pytest.fixture
def bobs(team: Registry) -> Registry:
    """One in which `bob` has admin on all names, too, and so nobody else makes datasets."""
    team.create_user("bob")
    team.grant("bob", "admin", "")
    return team


CREATES: dict[str, Callable[[Registry, str], object]] = {
    "create_dataset": lambda r, name: r.create_dataset(name),
    "draft": lambda r, name: r.draft(name),
    "rename": lambda r, name: r.create_dataset("mine").rename(name),
}


@pytest.mark.parametrize("name", RESERVED)
@pytest.mark.parametrize("way", CREATES)
def test_reserved_names_are_for_administrators(team: Registry, name: str, way: str) -> None:
    with acting(team, "eve") as eve, pytest.raises(PermissionDenied, match="reserved"):
        CREATES[way](eve, name)
    if way == "rename":
        team.dataset("mine").delete()
    team.create_user("root", role="administrator")
    with acting(team, "root") as root:
        CREATES[way](root, name)


@pytest.mark.parametrize("name", RESERVED)
def test_a_grant_on_all_names_does_not_reach_reserved_ones(bobs: Registry, name: str) -> None:
    bobs.create_dataset(name).commit({"data": b"rescued"})
    with acting(bobs, "bob") as bob:
        with pytest.raises(PermissionDenied, match="reserved"):
            bob.create_dataset("mine").rename(name + "/mine")
        bob.dataset("mine").delete()
        with pytest.raises(NotFound):
            bob.version(name)
        assert bob.datasets() == []
        assert list(bob.files()) == []
        for prefix in ("runs/", "lost+found/"):
            with pytest.raises(PermissionDenied):
                bob.grant("eve", "admin", prefix)


def test_an_administrator_hands_out_the_prefix_of_runs(team: Registry) -> None:
    team.grant("eve", "write", "runs/")
    with acting(team, "eve") as eve:
        eve.create_dataset("runs/abc/step/result").commit({"data": b"1"})
        with pytest.raises(PermissionDenied, match="reserved"):
            eve.create_dataset("lost+found")


def test_what_a_repair_rescues_is_read_by_administrators_only(team: Registry) -> None:
    team.create_dataset("lost+found")
    team.grant("eve", "admin", "lost+found")
    lost = b"what the catalog forgot"
    content_hash = hashlib.sha256(lost).hexdigest()
    team.access.store.put(new_key(content_hash), lost)
    team.verify(repair=True, older_than=NOW)
    assert [c.content_hash for c in team.version("lost+found").components] == [content_hash]
    with acting(team, "eve") as eve:
        with pytest.raises(NotFound):
            eve.version("lost+found")
        with pytest.raises(NotFound):
            eve.open_file(content_hash)


@pytest.mark.parametrize("name", LOOKALIKES, ids=LOOKALIKES.values())
@pytest.mark.parametrize("way", CREATES)
def test_a_name_that_looks_like_a_governed_prefix_is_refused(team: Registry, name: str, way: str) -> None:
    with acting(team, "eve") as eve, pytest.raises(InvalidName, match="looks like 'raw/'"):
        CREATES[way](eve, name)


@pytest.mark.parametrize("name", ["l\u043est+found", "r\u03c5ns/x"])
def test_a_name_that_looks_like_a_reserved_one_is_refused(team: Registry, name: str) -> None:
    with acting(team, "eve") as eve, pytest.raises(InvalidName, match="looks like"):
        eve.create_dataset(name)


@pytest.mark.parametrize("name", ["\ufb01les/x", "\uff46iles/x", "f\u0456l\u0435s/x"])
def test_a_name_of_another_length_that_looks_like_a_governed_prefix_is_refused(team: Registry, name: str) -> None:
    team.grant("alice", "write", "files/")
    with acting(team, "eve") as eve, pytest.raises(InvalidName, match="looks like 'files/'"):
        eve.create_dataset(name)


@pytest.mark.parametrize("prefix", ["r\u0430w/", "\uff52aw/", "r\u0430w/inner/", "run\u0455/"])
def test_a_prefix_that_looks_like_a_governed_one_is_not_granted(team: Registry, prefix: str) -> None:
    team.grant("eve", "read", prefix)
    for permission in ("write", "admin"):
        with pytest.raises(InvalidName, match="looks like"):
            team.grant("eve", permission, prefix)


def test_a_prefix_is_not_governed_while_a_dataset_looks_as_if_it_were_under_it(owned: Registry) -> None:
    owned.create_user("alice")
    twin = owned.create_dataset("r\u0430w/x")
    with pytest.raises(InvalidName, match="Rename or delete them first") as refusal:
        owned.grant("alice", "write", "raw/")
    assert refusal.value.fields["datasets"] == ["r\u0430w/x"]
    twin.rename("raw/x")
    owned.grant("alice", "write", "raw/")
    owned.grant("alice", "write", "raw/inner/")


def test_two_datasets_under_a_governed_prefix_do_not_look_alike(team: Registry) -> None:
    with acting(team, "alice") as alice:
        alice.create_dataset("raw/prices")
        with pytest.raises(InvalidName, match="looks like 'raw/prices'"):
            alice.create_dataset("raw/pr\u0456ces")
        alice.create_dataset("raw/preise-\u00fcbersicht")
        alice.create_dataset(
            "raw/\u0446\u0435\u043d\u044b"
        )  # a whole word of another script, which looks like none here
        alice.create_dataset("raw/prices1").rename("raw/pricesl")


def test_names_of_other_scripts_are_free_where_nothing_is_governed(owned: Registry) -> None:
    owned.create_dataset("raw/x")
    owned.create_dataset("r\u0430w/x")


# --- a ref has one meaning ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["face", "deadbeef", "20261129", "0" * 40, "abcdef" * 10])
def test_no_branch_or_tag_is_called_like_the_digits_of_a_digest(owned: Registry, name: str) -> None:
    flights = owned.create_dataset("flights")
    flights.commit({"data": b"1"})
    for create in (flights.create_branch, flights.create_tag, owned.create_branch):
        with pytest.raises(InvalidName, match="first digits of a version's digest"):
            create(name, "main")
    with pytest.raises(InvalidName, match="first digits"):
        owned.create_dataset("other").commit({"data": b"1"}, branch=name)


@pytest.mark.parametrize("name", ["fac", "release-2026", "facet", "FACE", "2026-11-29"])
def test_other_names_are_free(owned: Registry, name: str) -> None:
    flights = owned.create_dataset("flights")
    flights.commit({"data": b"1"})
    flights.create_branch(name, "main")


def test_an_older_branch_that_is_called_like_a_digest_shadows_nothing(owned: Registry) -> None:
    flights = owned.create_dataset("flights")
    flights.commit({"data": b"1"})
    second = flights.commit({"data": b"2"})
    flights.create_branch("odd", "v1")
    rename = text("UPDATE dataset_pointers SET pointer_name = :name WHERE pointer_name = 'odd'")
    prefix = second.digest[:6]
    owned.access.catalog.write(lambda tx: tx.execute(rename, {"name": prefix}))
    with pytest.raises(InvalidRef, match="is a branch of flights at v1, and begins the digest of v2"):
        flights.version(prefix)
    assert flights.version(second.digest).number == 2
    assert flights.version(second.digest[:7]).number == 2
    flights.delete_branch(prefix)
    assert flights.version(prefix).number == 2


# --- the name of a deleted tag --------------------------------------------------------------------------------------


@pytest.fixture
def retired(owned: Registry) -> Registry:
    """A registry whose dataset `flights` had a tag `final`."""
    flights = owned.create_dataset("flights")
    flights.commit({"data": b"1"})
    flights.create_tag("final", "v1")
    flights.delete_tag("final")
    return owned


def test_the_name_of_a_deleted_tag_is_given_to_nothing(retired: Registry) -> None:
    flights = retired.dataset("flights")
    for create in (flights.create_tag, flights.create_branch, retired.create_branch):
        with pytest.raises(TagImmutable, match="cannot be reused"):
            create("final", "main")
    with (
        pytest.raises(TagImmutable, match="cannot be reused"),
        retired.draft("flights", "final", fallback="main") as draft,
    ):
        draft.add("data", b"2")
    assert [branch.name for branch in flights.branches()] == ["main"]


def test_a_copy_does_not_bring_a_branch_of_the_name_of_a_deleted_tag(retired: Registry, tmp_path: Path) -> None:
    with Registry.open(tmp_path / "source") as source:
        retired.copy_to(source)
        source.access.catalog.write(lambda tx: tx.execute(text("DELETE FROM retired_tags")))
        source.dataset("flights").create_branch("final", "main")
        copied = source.copy_to(retired)
        assert any("cannot be reused" in note for note in copied.notes)
    assert [branch.name for branch in retired.dataset("flights").branches()] == ["main"]


def test_a_copy_knows_the_names_of_deleted_tags(retired: Registry, tmp_path: Path) -> None:
    with Registry.open(tmp_path / "copy") as copied:
        for _ in range(2):
            retired.copy_to(copied)
            for create in (copied.dataset("flights").create_branch, copied.dataset("flights").create_tag):
                with pytest.raises(TagImmutable, match="cannot be reused"):
                    create("final", "main")


def test_a_copy_leaves_out_a_branch_that_is_called_like_a_digest(owned: Registry, tmp_path: Path) -> None:
    flights = owned.create_dataset("flights")
    flights.commit({"data": b"1"})
    flights.create_branch("odd", "v1")
    rename = text("UPDATE dataset_pointers SET pointer_name = 'face' WHERE pointer_name = 'odd'")
    owned.access.catalog.write(lambda tx: tx.execute(rename))
    with Registry.open(tmp_path / "copy") as copied:
        done = owned.copy_to(copied)
        assert any("'face'" in note and "first digits" in note for note in done.notes)
        assert [branch.name for branch in copied.dataset("flights").branches()] == ["main"]


def test_a_name_that_is_taken_is_said_to_be_taken(owned: Registry) -> None:
    owned.create_dataset("flights").commit({"data": b"1"})
    with pytest.raises(AlreadyExists):
        owned.dataset("flights").create_branch("main", "v1")
