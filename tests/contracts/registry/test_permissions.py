"""Users, grants, tokens, protected branches."""

import os
from datetime import timedelta

import pytest

from dataset_registry import Dataset, InputVersion, Provenance
from dataset_registry.errors import (
    NotFound,
    PermissionDenied,
    RegistryError,
)
from tests.contracts.scenarios import (
    Way,
    error_of,
    everywhere,
    names,
    read,
    sha256,
)


@everywhere
def test_a_guest_sees_nothing_until_it_is_granted_and_nothing_after(flights: Dataset, way: Way, prefix: str) -> None:
    flights.commit({"data": b"secret"})
    guest = way.user(f"{prefix[:-1]}-guest", role="guest")
    file = flights.version().components[0].content_hash
    for call in (lambda: guest.dataset(flights.name), lambda: guest.dataset(flights.id), lambda: guest.file(file)):
        assert type(error_of(call)) is NotFound
    assert guest.datasets() == list(guest.files()) == []

    made = way.registry.grant(guest.actor, "read", flights.name)
    assert (made.user, made.permission, made.resource_type, made.resource, made.granted_by) == (
        *(guest.actor, "read", "dataset", flights.name),
        "admin",
    )
    seen = guest.dataset(flights.name)
    assert read(seen.version()) == b"secret"
    error = error_of(lambda: seen.commit({"data": b"mine"}))
    assert type(error) is PermissionDenied
    assert error.fields == {"dataset": flights.name, "permission": "write"}
    assert type(error_of(lambda: seen.create_tag("mine"))) is PermissionDenied

    way.registry.grant(guest.actor, "write", flights.name)
    assert seen.commit({"data": b"mine"}).created_by == guest.actor
    assert type(error_of(lambda: seen.rename("elsewhere"))) is PermissionDenied
    assert type(error_of(lambda: guest.grant(guest.actor, "admin", flights.name))) is PermissionDenied
    assert type(error_of(lambda: guest.create_dataset(f"{prefix}own"))) is PermissionDenied

    way.registry.revoke(guest.actor, flights.name)
    assert type(error_of(lambda: guest.dataset(flights.name))) is NotFound
    assert type(error_of(seen.version)) is NotFound
    assert type(error_of(lambda: way.registry.revoke(guest.actor, flights.name))) is NotFound


def test_grants_reach_groups_and_all_datasets_under_a_prefix_and_no_others(alone: Way) -> None:
    for name in ("raw/a", "raw/b", "clean/a"):
        alone.registry.create_dataset(name).commit({"data": name.encode()})
    member, other = (alone.user(name, role="guest") for name in ("member", "other"))
    group = alone.registry.create_user("team", kind="group", members=["member"])
    assert (group.kind, group.role, group.members) == ("group", None, ("member",))
    alone.registry.grant("team", "admin", "raw/")
    assert names(member.datasets()) == ["raw/a", "raw/b"]
    assert [file.content_hash for file in member.files()] == [sha256(b"raw/a"), sha256(b"raw/b")]
    assert [(g.user, g.resource, g.resource_type) for g in alone.registry.grants(user="member")] == [
        ("team", "raw/", "prefix")
    ]
    assert type(error_of(lambda: member.dataset("clean/a"))) is NotFound
    assert type(error_of(lambda: member.open_file(sha256(b"clean/a")))) is NotFound
    assert other.datasets() == list(other.files()) == []
    assert type(error_of(lambda: other.dataset("raw/a"))) is NotFound
    assert member.dataset("raw/a").delete() == 1
    alone.registry.update_user("team", members=[])
    assert member.datasets() == []


def test_a_protected_branch_is_moved_by_admins_and_those_who_are_allowed(
    way: Way, flights: Dataset, prefix: str
) -> None:
    alice, bob = (way.user(f"{prefix[:-1]}-{name}") for name in ("alice", "bob"))
    for user in (alice, bob):
        way.registry.grant(user.actor, "write", flights.name)
    flights.commit({"data": b"1"})
    made = way.registry.protect(flights.name, "main", allow=[alice.actor])
    assert (made.resource, made.branch, made.allowed) == (flights.name, "main", (alice.actor,))
    assert way.registry.protections(flights.name) == [made]
    assert alice.dataset(flights.name).commit({"data": b"2"}).number == 2
    theirs = bob.dataset(flights.name)
    for call in (
        lambda: theirs.commit({"data": b"3"}),
        lambda: theirs.move_branch("main", "v1"),
        lambda: theirs.delete_branch("main"),
    ):
        error = error_of(call)
        assert type(error) is PermissionDenied
        assert "protected" in str(error)
    theirs.create_branch("bob", "main")
    assert theirs.commit({"data": b"3"}, branch="bob").number == 3
    way.registry.unprotect(flights.name)
    assert theirs.commit({"data": b"4"}).number == 4
    assert type(error_of(lambda: way.registry.unprotect(flights.name))) is NotFound


def test_whoever_makes_a_dataset_is_its_admin(way: Way, prefix: str) -> None:
    alice, bob = (way.user(f"{prefix[:-1]}-{name}") for name in ("alice", "bob"))
    own = alice.create_dataset(f"{prefix}own")
    own.commit({"data": b"1"})
    alice.grant(bob.actor, "read", own.name)
    assert read(bob.version(own.name)) == b"1"
    assert {grant.user: grant.permission for grant in alice.grants(own.name)} == {
        alice.actor: "admin",
        bob.actor: "read",
    }
    assert type(error_of(lambda: alice.create_user("anybody"))) is PermissionDenied
    assert type(error_of(alice.collect)) is PermissionDenied


def test_who_is_locked_out_gets_nothing_and_comes_back_as_before(way: Way, flights: Dataset, prefix: str) -> None:
    alice = way.user(f"{prefix[:-1]}-alice")
    way.registry.grant(alice.actor, "read", flights.name)
    assert way.registry.update_user(alice.actor, disabled=True).disabled_at is not None
    assert isinstance(error_of(lambda: alice.dataset(flights.name)), RegistryError)
    assert way.registry.update_user(alice.actor, disabled=False).disabled_at is None
    assert alice.dataset(flights.name).id == flights.id
    changed = way.registry.update_user(alice.actor, role="administrator")
    assert (changed.role, changed.kind, changed.members) == ("administrator", "person", ())
    assert changed in way.registry.users()


def test_a_grant_on_a_file_lets_read_the_file_alone(way: Way, flights: Dataset, prefix: str) -> None:
    guest = way.user(f"{prefix[:-1]}-guest", role="guest")
    data = os.urandom(30)
    flights.commit({"data": data})
    made = way.registry.grant(guest.actor, "read", file=sha256(data))
    assert (made.resource_type, made.resource) == ("file", sha256(data))
    with guest.open_file(sha256(data)) as stream:
        assert stream.read() == data
    assert guest.file(sha256(data)).reference_count == 0, "which versions name it is not told"
    assert guest.datasets() == []
    way.registry.revoke(guest.actor, file=sha256(data))
    assert type(error_of(lambda: guest.open_file(sha256(data)))) is NotFound


def test_tokens_are_made_listed_and_revoked(way: Way, prefix: str) -> None:
    way.user(f"{prefix[:-1]}-alice")
    user = f"{prefix[:-1]}-alice"
    made = way.registry.create_token(user, name="nightly", permission="read", prefix="raw/", lasts=timedelta(days=2))
    assert made.secret not in repr(made)
    assert (made.token.user, made.token.name, made.token.permission, made.token.prefix) == (
        *(user, "nightly", "read"),
        "raw/",
    )
    assert made.token.expires_at - made.token.created_at == pytest.approx(timedelta(days=2), abs=timedelta(hours=1))
    assert made.token in way.registry.tokens(user)
    revoked = way.registry.revoke_token(made.token.id)
    assert revoked.revoked_at is not None
    assert type(error_of(lambda: way.registry.revoke_token(99_999_999))) is NotFound
    assert type(error_of(lambda: way.registry.create_token("nobody-here"))) is NotFound


def test_lineage_does_not_tell_of_datasets_that_the_reader_may_not_read(way: Way, prefix: str) -> None:
    guest = way.user(f"{prefix[:-1]}-guest", role="guest")
    secret, public = (way.registry.create_dataset(prefix + name) for name in ("secret", "public"))
    source = secret.commit({"data": b"1"})
    used = InputVersion(secret.name, source.number, source.digest, "main")
    public.commit({"data": b"2"}, provenance=Provenance(inputs=(used,)))
    way.registry.grant(guest.actor, "read", public.name)
    assert list(public.version().provenance.inputs) == [used]
    assert list(guest.version(public.name).provenance.inputs) == []
    assert source.consumers == [(public.name, 1)]
