"""Who may not read something is not told that it exists: not by words, not by figures."""

from collections.abc import Callable
from dataclasses import replace

import pyarrow as pa
import pytest

from dataset_registry import Registry
from dataset_registry.embedded import EmbeddedRegistry
from dataset_registry.errors import NotFound, PermissionDenied, RegistryError
from dataset_registry.operations.users import authenticate
from tests.permissions.support import acting
from tests.serving import Served

GOVERNED = "secret/free"


@pytest.fixture
def team(owned: Registry) -> Registry:
    """A registry in which `alice` has the dataset `taken`, and writes under `secret/`; `eve` is a member."""
    for name in ("alice", "eve"):
        owned.create_user(name)
    with acting(owned, "alice") as alice:
        alice.create_dataset("taken").commit({"data": b"secret"})
    owned.grant("alice", "write", "secret/")
    return owned


def refusal(do: Callable[[], object], name: str) -> tuple[type, str]:
    """What is answered, without the name that was asked for."""
    with pytest.raises(RegistryError) as caught:
        do()
    return type(caught.value), str(caught.value).replace(name, "?")


def _drafted(registry: Registry, name: str) -> None:
    with registry.draft(name) as draft:
        draft.add("data", b"1")


CREATES: dict[str, Callable[[Registry, str], object]] = {
    "create_dataset": lambda r, name: r.create_dataset(name),
    "draft": _drafted,
    "rename": lambda r, name: (r.dataset("mine") if r.datasets() else r.create_dataset("mine")).rename(name),
}


@pytest.mark.parametrize("way", CREATES)
def test_a_foreign_name_is_answered_as_one_under_a_governed_prefix(team: Registry, way: str) -> None:
    with acting(team, "eve") as eve:
        foreign = refusal(lambda: CREATES[way](eve, "taken"), "taken")
        governed = refusal(lambda: CREATES[way](eve, GOVERNED), GOVERNED)
    assert foreign == governed
    assert foreign[0] is PermissionDenied


def test_the_head_of_a_foreign_dataset_is_that_of_an_absent_one(served: Served) -> None:
    with served.http("alice") as alice, served.http("eve") as eve:
        alice.post("datasets", json={"name": "taken"})
        foreign, absent = (eve.get("head", params={"dataset_name": name}) for name in ("taken", "absent"))
        assert foreign.status_code == absent.status_code == 200
        assert (
            foreign.json()
            == absent.json()
            == {
                "dataset": None,
                "version_id": None,
                "version_number": None,
                "digest": None,
            }
        )


@pytest.mark.parametrize("content", [b"secret", b"s" * 300_000], ids=["small", "large"])
def test_new_bytes_do_not_tell_that_others_have_a_content(team: Registry, content: bytes) -> None:
    with acting(team, "alice") as alice:
        alice.dataset("taken").commit({"data": content})
    with acting(team, "eve") as eve:
        with eve.draft("mine") as known:
            known.add("data", content)
        with eve.draft("mine") as unknown:
            unknown.add("data", content.upper())
        with eve.draft("mine") as again:
            again.add("other", content)
    assert known.result.new_bytes == unknown.result.new_bytes == len(content)
    assert again.result.new_bytes == 0


def test_new_bytes_of_many_files_and_of_tables_do_not_either(team: Registry) -> None:
    def contents(seed: int) -> dict[str, object]:
        files: dict[str, object] = {f"{n}": f"{seed} {n:05}".encode() for n in range(40)}
        return files | {"table": pa.table({"x": [seed, seed + 1]})}

    with acting(team, "alice") as alice:
        alice.dataset("taken").commit(contents(1))
    with acting(team, "eve") as eve:
        figures = []
        for seed in (1, 2):
            with eve.draft(f"mine{seed}") as draft:
                for name, value in contents(seed).items():
                    draft.add(name, value)
            figures.append((draft.result.new_bytes, draft.result.total_bytes))
    assert figures[0] == figures[1]
    assert figures[0][0] == figures[0][1]


def test_who_may_read_everything_is_told_what_was_stored(team: Registry) -> None:
    with team.draft("mine") as draft:
        draft.add("data", b"secret")
    assert draft.result.new_bytes == 0


def test_a_narrow_token_does_not_know_of_wider_ones(owned: Registry) -> None:
    owned.create_user("alice")
    wide = owned.create_token("alice")
    narrow = owned.create_token("alice", permission="read", prefix="raw/")
    other = owned.create_token("alice", permission="read", prefix="clean/")
    actor = authenticate(owned.access.catalog, narrow.secret, interface="rest")

    seen = EmbeddedRegistry(replace(owned.access, actor=actor))
    assert [token.id for token in seen.tokens()] == [narrow.token.id]
    absent = refusal(lambda: seen.revoke_token(10**6), str(10**6))
    for foreign in (wide, other):
        assert refusal(lambda foreign=foreign: seen.revoke_token(foreign.token.id), str(foreign.token.id)) == absent
    assert absent[0] is NotFound
    assert seen.revoke_token(narrow.token.id).revoked_at is not None
