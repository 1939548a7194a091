"""Where a dataset may be made: members nearly anywhere, but not under a prefix where another was let in to write."""

import pytest

from dataset_registry import Registry
from dataset_registry.errors import AlreadyExists, PermissionDenied
from tests.permissions.support import acting
from tests.serving import Served


@pytest.fixture
def team(owner: Registry) -> Registry:
    """A registry in which `alice` writes under `team/`; `bob` is a member, `guest` a guest."""
    owner.create_user("alice")
    owner.create_user("bob")
    owner.create_user("guest", role="guest")
    owner.grant("alice", "write", "team/")
    return owner


def test_a_member_makes_datasets_but_not_where_somebody_else_writes(team: Registry) -> None:
    with acting(team, "bob") as bob:
        for name in ("team/x", "team/deep/er/x"):
            for make in (
                lambda name=name: bob.create_dataset(name),
                lambda name=name: bob.draft(name),
                lambda name=name: bob.create_dataset("mine").rename(name),
            ):
                with pytest.raises(PermissionDenied, match=r"may not make a dataset|write on a prefix"):
                    make()
                if bob.datasets():
                    bob.dataset("mine").delete()
        for name in ("teams/x", "team", "TEAM/x", "team-2/x"):
            bob.create_dataset(name)
    with acting(team, "alice") as alice:
        alice.create_dataset("team/x").rename("team/y")


def test_a_guest_makes_datasets_only_where_it_was_let_in(team: Registry) -> None:
    with acting(team, "guest") as guest:
        for name in ("team/x", "free/x"):
            with pytest.raises(PermissionDenied):
                guest.create_dataset(name)
        team.grant("guest", "read", "free/")
        with pytest.raises(PermissionDenied):
            guest.create_dataset("free/x")
        team.grant("guest", "write", "free/")
        guest.create_dataset("free/x").commit({"data": b"1"})


def test_reading_under_a_prefix_keeps_nobody_out(team: Registry) -> None:
    team.grant("alice", "read", "open/")
    with acting(team, "bob") as bob:
        bob.create_dataset("open/x")


def test_the_inner_prefix_lets_nobody_into_the_outer_one(team: Registry) -> None:
    team.grant("bob", "write", "team/bob/")
    with acting(team, "bob") as bob:
        bob.create_dataset("team/bob/x")
        with pytest.raises(PermissionDenied):
            bob.create_dataset("team/x")
        with pytest.raises(PermissionDenied):
            bob.dataset("team/bob/x").rename("team/x")


def test_an_admin_of_a_dataset_does_not_carry_it_where_others_write(team: Registry) -> None:
    dataset = team.create_dataset("free/x")
    team.create_dataset("team/taken")
    team.grant("guest", "admin", "free/x")
    team.grant("bob", "admin", "free/x")
    for user in ("guest", "bob"):
        with acting(team, user) as opened:
            for name in ("team/x", "team/taken"):  # whether the name is taken is not told
                with pytest.raises(PermissionDenied):
                    opened.dataset("free/x").rename(name)
    with acting(team, "guest") as guest, pytest.raises(PermissionDenied):
        guest.dataset("free/x").rename("free/y")
    assert dataset.name == "free/x"


def test_a_taken_name_is_told_to_who_may_make_datasets_there_only(team: Registry) -> None:
    team.create_dataset("team/taken")
    with acting(team, "alice") as alice, pytest.raises(AlreadyExists):
        alice.create_dataset("team/taken")
    for user in ("bob", "guest"):
        with acting(team, user) as opened, pytest.raises(PermissionDenied):
            opened.create_dataset("team/taken")


def test_a_dataset_that_appeared_meanwhile_is_not_written_by_who_wanted_to_make_it(team: Registry) -> None:
    with acting(team, "bob") as bob:
        draft = bob.draft("new")
        team.create_dataset("new")
        with pytest.raises(PermissionDenied), draft:
            draft.add("data", b"1")
    assert team.dataset("new").tree() == []


def test_a_prefix_that_comes_to_be_somebodys_is_looked_at_when_the_commit_is_made(team: Registry) -> None:
    with acting(team, "bob") as bob:
        draft = bob.draft("later/x")
        team.grant("alice", "write", "later/")
        with pytest.raises(PermissionDenied), draft:
            draft.add("data", b"1")
    assert [dataset.name for dataset in team.datasets()] == []


def test_a_token_makes_datasets_in_its_scope_only(served: Served) -> None:
    with served.http("admin", prefix="team/") as client:
        assert client.post("datasets", json={"name": "team/x"}).status_code == 201
        assert client.post("datasets", json={"name": "free/x"}).status_code == 403
        there = client.get("datasets", params={"name": "team/x"}).json()["items"][0]["id"]
        assert client.patch(f"datasets/{there}", json={"name": "free/x"}).status_code == 403
        assert client.patch(f"datasets/{there}", json={"name": "teams"}).status_code == 403
        assert client.patch(f"datasets/{there}", json={"name": "team/y"}).status_code == 200
    with served.http("admin", permission="read") as client:
        assert client.post("datasets", json={"name": "free/x"}).status_code == 403
    with served.http("admin", permission="write") as client:
        made = client.post("datasets", json={"name": "free/x"})
        assert made.status_code == 201
        # Who made it is its admin; this token is for less.
        assert client.delete(f"datasets/{made.json()['id']}").status_code == 403
