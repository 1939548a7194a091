"""Protected branches: who may move them, by rules on a dataset and on prefixes."""

from collections.abc import Callable

import pytest

from dataset_registry import Dataset, Registry
from dataset_registry.errors import InvalidName, NotFound, PermissionDenied
from tests.permissions.support import acting

Moves = dict[str, Callable[[Dataset], object]]
MOVES: Moves = {
    "commit": lambda d: d.commit({"data": b"changed"}, overwrite=True),
    "merge": lambda d: d.commit({"data": b"merged"}, parents=["main", "dev"], overwrite=True),
    "draft": lambda d: d.draft("main"),
    "move": lambda d: d.move_branch("main", "v2"),
    "move where it is": lambda d: d.move_branch("main", "main"),
    "delete": lambda d: d.delete_branch("main"),
}
"""Everything that makes `main` name another version, or none."""


@pytest.fixture
def flights(owner: Registry) -> Dataset:
    """A dataset that a writer, a member of the group `trusted`, and an admin share; `main` is at v1, `dev` at v2."""
    for name in ("writer", "member", "keeper"):
        owner.create_user(name)
    owner.create_user("trusted", kind="group", members=["member"])
    found = owner.create_dataset("raw/flights")
    found.commit({"data": b"1"})
    found.create_branch("dev")
    found.commit({"data": b"2"}, branch="dev")
    for name, permission in (("writer", "write"), ("member", "write"), ("keeper", "admin")):
        owner.grant(name, permission, "raw/flights")
    return found


@pytest.mark.parametrize("where", ["raw/flights", "raw/", ""])
def test_who_is_not_allowed_does_not_move_a_protected_branch(owner: Registry, flights: Dataset, where: str) -> None:
    owner.protect(where, allow=["trusted"])
    before = (flights.branches(), len(flights.tree()), len(owner.audit()))
    with acting(owner, "writer") as writer:
        for move in MOVES.values():
            with pytest.raises(PermissionDenied) as refused:
                move(writer.dataset("raw/flights"))
            assert "registry.protect('raw/flights', 'main', allow=['writer', …])" in str(refused.value)
            assert "Commit to another branch" in str(refused.value)
            assert refused.value.fields == {"dataset": "raw/flights", "branch": "main"}
            assert (flights.branches(), len(flights.tree()), len(owner.audit())) == before
        writer.dataset("raw/flights").commit({"data": b"3"}, branch="dev")


@pytest.mark.parametrize("user", ["member", "keeper"])
def test_admins_and_those_allowed_move_it(owner: Registry, flights: Dataset, user: str) -> None:
    owner.protect("raw/", allow=["trusted"])
    with acting(owner, user) as allowed:
        for move in MOVES.values():
            move(allowed.dataset("raw/flights"))
    assert [branch.name for branch in flights.branches()] == ["dev"]


def test_every_rule_must_allow(owner: Registry, flights: Dataset) -> None:
    owner.protect("raw/", allow=["trusted"])
    owner.protect("raw/flights", allow=["writer"])
    for user in ("member", "writer"):
        with acting(owner, user) as opened, pytest.raises(PermissionDenied):
            opened.dataset("raw/flights").move_branch("main", "v2")
    owner.unprotect("raw/flights")
    with acting(owner, "member") as opened:
        opened.dataset("raw/flights").move_branch("main", "v2")
        assert [(p.resource, p.allowed) for p in opened.protections("raw/flights")] == [("raw/", ("trusted",))]
    with pytest.raises(NotFound):
        owner.unprotect("raw/flights")


def test_to_be_allowed_is_not_to_write(owner: Registry, flights: Dataset) -> None:
    owner.create_user("reader")
    owner.grant("reader", "read", "raw/flights")
    owner.protect("raw/flights", allow=["reader"])
    with acting(owner, "reader") as reader, pytest.raises(PermissionDenied, match="this requires write"):
        reader.dataset("raw/flights").move_branch("main", "v2")


def test_a_protected_name_is_not_taken_before_the_branch_is_there(owner: Registry, flights: Dataset) -> None:
    owner.protect("raw/flights", "release")
    with acting(owner, "writer") as writer:
        dataset = writer.dataset("raw/flights")
        for ask in (
            lambda: dataset.create_branch("release", "v1"),
            lambda: dataset.create_tag("release", "v1"),
            lambda: dataset.commit({"data": b"x"}, branch="release", fallback="main"),
        ):
            with pytest.raises(PermissionDenied):
                ask()
        dataset.create_branch("release-2", "v1")


def test_a_protection_follows_the_dataset_and_a_rule_the_prefix(owner: Registry, flights: Dataset) -> None:
    owner.protect("raw/flights", "main")
    owner.protect("raw/", "dev")
    flights.rename("clean/flights")
    with acting(owner, "writer") as writer:
        dataset = writer.dataset("clean/flights")
        with pytest.raises(PermissionDenied):
            dataset.move_branch("main", "v2")
        dataset.move_branch("dev", "v1")


def test_only_admins_protect(owner: Registry, flights: Dataset) -> None:
    with acting(owner, "writer") as writer:
        for ask in (lambda: writer.protect("raw/flights"), lambda: writer.protect("raw/"), lambda: writer.protect("")):
            with pytest.raises(PermissionDenied, match="Only an admin"):
                ask()
    with acting(owner, "keeper") as keeper:
        keeper.protect("raw/flights", allow=["keeper"])
        with pytest.raises(PermissionDenied):
            keeper.protect("raw/")
        with pytest.raises(NotFound):
            keeper.protect("raw/flights", allow=["nobody-of-this-name"])
        with pytest.raises(InvalidName):
            keeper.protect("raw/flights", "v1")
