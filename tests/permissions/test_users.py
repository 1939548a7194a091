"""Users: names only sign until there is one, administrators come and go, the last one stays."""

import pytest

from dataset_registry import Registry
from dataset_registry.errors import InputError, NotFound, PermissionDenied
from tests.permissions.support import acting
from tests.serving import Served


def test_names_only_sign_until_somebody_makes_a_user(owner: Registry) -> None:
    with acting(owner, "alice") as alice, acting(owner, "bob") as bob:
        dataset = alice.create_dataset("flights")
        bob.dataset("flights").commit({"data": b"1"})
        dataset.update(description="by alice")
        alice.audit()
        owner.create_user("carol")
        for registry in (alice, bob):
            for ask in (
                registry.datasets,
                lambda registry=registry: registry.create_dataset("x"),
                lambda registry=registry: registry.dataset("flights"),
                lambda registry=registry: list(registry.files()),
                lambda registry=registry: registry.grant("carol", "read", "flights"),
                lambda registry=registry: registry.create_user("dave"),
            ):
                with pytest.raises(PermissionDenied, match="Unknown user"):
                    ask()
        assert [d.name for d in owner.datasets()] == ["flights"]  # who holds the keys stays the owner
        owner.create_user("alice")  # she made a dataset as that name: it is hers
        dataset.update(description="by alice, a user")
        owner.create_user("bob")
        with pytest.raises(NotFound):
            bob.dataset("flights")


def test_a_group_counts_as_the_first_user(owner: Registry) -> None:
    owner.create_user("team", kind="group")
    with acting(owner, "alice") as alice, pytest.raises(PermissionDenied):
        alice.datasets()


def test_the_first_users_of_a_registry_are_made_by_anybody_and_checked_from_then_on(owner: Registry) -> None:
    with acting(owner, "alice") as alice:
        alice.create_user("alice", role="administrator")
        alice.create_user("bob")
    with acting(owner, "bob") as bob, pytest.raises(PermissionDenied):
        bob.create_user("eve")


@pytest.mark.parametrize("how", [{"role": "member"}, {"role": "guest"}, {"disabled": True}])
def test_an_administrator_does_not_remove_the_last_one(owner: Registry, how: dict[str, object]) -> None:
    owner.create_user("ada", role="administrator")
    owner.create_user("bob", role="administrator")
    owner.update_user("bob", disabled=True)  # who is disabled does not count
    with acting(owner, "ada") as ada:
        with pytest.raises(InputError, match="last administrator"):
            ada.update_user("ada", **how)
        ada.update_user("bob", disabled=False)
        ada.update_user("ada", **how)
        with pytest.raises(PermissionDenied):
            ada.users()
    owner.update_user("bob", **how)  # the owner holds the keys: there may be none


def test_two_administrators_do_not_remove_each_other_over_rest(served: Served) -> None:
    served.owner.create_user("ada", role="administrator")
    with served.http() as admin, served.http("ada") as ada:
        assert admin.patch("users/ada", json={"role": "member"}).status_code == 200
        assert ada.patch("users/admin", json={"role": "member"}).status_code == 403
        answer = admin.patch("users/admin", json={"role": "member"})
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_input")
        assert admin.get("users").status_code == 200


def test_a_role_is_looked_at_each_time(owner: Registry) -> None:
    owner.create_user("ada", role="administrator")
    owner.create_dataset("flights")
    with acting(owner, "ada") as ada:
        handle = ada.dataset("flights")
        owner.update_user("ada", role="member")
        with pytest.raises(NotFound):
            handle.tree()
        owner.update_user("ada", disabled=True)
        with pytest.raises(PermissionDenied, match="disabled"):
            handle.tree()
        owner.update_user("ada", role="administrator", disabled=False)
        assert handle.tree() == []


def test_who_is_locked_out_keeps_what_was_granted_for_later(owner: Registry) -> None:
    owner.create_user("alice")
    owner.create_dataset("flights")
    owner.grant("alice", "read", "flights")
    owner.update_user("alice", disabled=True)
    with acting(owner, "alice") as alice:
        for ask in (
            alice.datasets,
            lambda: alice.dataset("flights"),
            alice.grants,
            alice.tokens,
            lambda: list(alice.files()),
        ):
            with pytest.raises(PermissionDenied):
                ask()
        owner.update_user("alice", disabled=False)
        alice.dataset("flights")
