"""What it is like: somebody makes a dataset, lets others in, and out again."""

from collections.abc import Iterator

import httpx
import pytest

from dataset_registry import Registry
from dataset_registry.errors import NotFound, PermissionDenied
from tests.permissions.support import acting
from tests.serving import Served


@pytest.fixture
def people(served: Served) -> Iterator[dict[str, httpx.Client]]:
    """Three members over REST."""
    clients = {name: served.http(name) for name in ("alice", "bob", "eve")}
    yield clients
    for client in clients.values():
        client.close()


def made(client: httpx.Client, name: str, content: bytes = b"1,2") -> tuple[int, dict[str, object]]:
    """A dataset with a version: its id, and the commit's answer."""
    answer = client.post("commits", params={"dataset_name": name}, files={"data": ("data.bin", content)})
    assert answer.status_code == 201, answer.text
    return answer.json()["version"]["dataset_id"], answer.json()


def update(client: httpx.Client, dataset_id: int) -> int:
    return client.patch(f"datasets/{dataset_id}", json={"description": "changed"}).status_code


def test_who_makes_a_dataset_is_its_admin_and_lets_others_in_and_out(people: dict[str, httpx.Client]) -> None:
    alice, bob, eve = people["alice"], people["bob"], people["eve"]
    dataset_id = alice.post("datasets", json={"name": "flights"}).json()["id"]
    (mine,) = alice.get("grants", params={"name": "flights"}).json()["items"]
    assert (mine["user"], mine["permission"], mine["granted_by"]) == ("alice", "admin", "alice")
    assert update(alice, dataset_id) == 200

    assert update(bob, dataset_id) == 404
    grant = {"user": "bob", "permission": "read", "name": "flights"}
    assert alice.post("grants", json=grant).status_code == 201
    assert bob.get(f"datasets/{dataset_id}").status_code == 200
    denied = bob.patch(f"datasets/{dataset_id}", json={"description": "changed"})
    assert (denied.status_code, denied.json()["code"]) == (403, "permission_denied")
    assert "POST /v1/grants" in denied.json()["detail"]
    assert update(eve, dataset_id) == 404

    assert alice.post("grants", json=grant | {"permission": "admin"}).status_code == 201
    assert update(bob, dataset_id) == 200
    assert bob.post("grants", json=grant | {"user": "eve"}).status_code == 201
    assert update(eve, dataset_id) == 403

    assert alice.delete("grants", params={"user": "bob", "name": "flights"}).status_code == 200
    assert update(bob, dataset_id) == 404
    assert bob.get("datasets").json()["items"] == []
    assert [item["name"] for item in eve.get("datasets").json()["items"]] == ["flights"]


def test_a_lower_grant_replaces_a_higher_one_and_what_is_held_already_is_asked_for_anew(owner: Registry) -> None:
    owner.create_user("bob")
    dataset = owner.create_dataset("flights")
    dataset.commit({"data": b"1"})
    owner.grant("bob", "admin", "flights")
    owner.grant("bob", "read", "flights")
    assert [g.permission for g in owner.grants("flights")] == ["read"]
    with acting(owner, "bob") as bob:
        handle = bob.dataset("flights")
        with pytest.raises(PermissionDenied):
            handle.update(description="changed")
        version = handle.version()
        owner.revoke("bob", "flights")
        for ask in (
            version.open,
            lambda: version.components,
            handle.log,
            lambda: version.note_read("run"),
            version.paths,
        ):
            with pytest.raises(NotFound):
                ask()


def test_to_read_a_dataset_is_not_to_share_the_files_in_it(people: dict[str, httpx.Client]) -> None:
    _, commit = made(people["alice"], "flights", b"the file")
    (component,) = commit["written"]
    share = {"user": "bob", "permission": "read", "file": component["content_hash"]}
    assert people["alice"].post("grants", json=share).status_code == 403
    assert people["bob"].get(f"files/{component['file_id']}/content").status_code == 404


def test_a_granted_file_is_found_by_its_hash_and_by_its_id(served: Served, people: dict[str, httpx.Client]) -> None:
    alice, bob = people["alice"], people["bob"]
    dataset_id, commit = made(alice, "flights", b"the file")
    made(alice, "others", b"another file")
    (component,) = commit["written"]
    content_hash, file_id = component["content_hash"], component["file_id"]
    served.owner.grant("bob", "read", file=content_hash)
    (found,) = bob.get("files", params={"content_hash": content_hash[:10]}).json()["items"]
    assert (found["id"], found["reference_count"]) == (file_id, 0)  # whose versions name it is not told
    assert bob.get(f"files/{file_id}/content").content == b"the file"
    assert [item["id"] for item in bob.get("files").json()["items"]] == [file_id]
    assert bob.post("contents/known", json={"hashes": [content_hash]}).json() == {"known": [content_hash]}
    assert bob.get(f"datasets/{dataset_id}").status_code == 404
    assert bob.get("datasets").json()["items"] == []
    # What one may read, one may commit without sending it again.
    own = bob.post("datasets", json={"name": "mine"}).json()["id"]
    again = {"components": [{"component_name": "x", "content": {"content_hash": content_hash}}]}
    assert bob.post(f"datasets/{own}/versions", json=again).status_code == 201
    served.owner.revoke("bob", file=content_hash)
    assert bob.get(f"files/{file_id}/content").status_code == 200  # by now it is in a version of its own


def test_a_granted_table_comes_with_its_parts(served: Served, people: dict[str, httpx.Client]) -> None:
    import polars as pl

    table = served.owner.create_dataset("tables")
    table.commit({"data": pl.DataFrame({"id": [1, 2]}).lazy()})
    (component,) = table.version().components
    served.owner.grant("bob", "read", file=str(component.content_hash))
    bob = people["bob"]
    (part,) = bob.get(f"files/{component.file_id}/data-files").json()["data_files"]
    assert bob.get(f"files/{part['id']}/content").content[:4] == b"PAR1"
    assert people["eve"].get(f"files/{part['id']}/content").status_code == 404


def test_a_reference_count_counts_what_the_reader_may_see(served: Served, people: dict[str, httpx.Client]) -> None:
    alice, bob = people["alice"], people["bob"]
    _, commit = made(alice, "one", b"shared")
    made(alice, "two", b"shared")
    made(bob, "three", b"shared")
    (component,) = commit["written"]

    def count(client: httpx.Client) -> int:
        return int(client.get(f"files/{component['file_id']}").json()["reference_count"])

    with served.http() as administrator:
        assert (count(alice), count(bob), count(administrator)) == (2, 1, 3)
    alice.post("grants", json={"user": "bob", "permission": "read", "name": "one"})
    assert count(bob) == 2


def test_a_group_is_let_in_and_its_members_go_as_they_leave(served: Served, people: dict[str, httpx.Client]) -> None:
    alice, bob, eve = people["alice"], people["bob"], people["eve"]
    dataset_id, _ = made(alice, "flights")
    served.owner.create_user("analysts", kind="group", members=["bob"])
    alice.post("grants", json={"user": "analysts", "permission": "write", "name": "flights"})
    assert (update(bob, dataset_id), update(eve, dataset_id)) == (200, 404)
    served.owner.update_user("analysts", members=["eve"])
    assert (update(bob, dataset_id), update(eve, dataset_id)) == (404, 200)
    assert [g["resource"] for g in eve.get("grants").json()["items"]] == ["flights"]


def test_what_is_granted_on_a_prefix_is_about_what_begins_so_and_nothing_else(
    served: Served, people: dict[str, httpx.Client]
) -> None:
    bob = people["bob"]
    for name in ("raw/flights", "raw/deep/er", "raws/x", "raw", "RAW/x", "other/raw/x"):
        served.owner.create_dataset(name)
    served.owner.grant("bob", "read", "raw/")
    assert [item["name"] for item in bob.get("datasets").json()["items"]] == ["raw/deep/er", "raw/flights"]
    served.owner.dataset("raw/flights").rename("clean/flights")
    assert [item["name"] for item in bob.get("datasets").json()["items"]] == ["raw/deep/er"]
    served.owner.create_dataset("raw/later")
    assert [item["name"] for item in bob.get("datasets").json()["items"]] == ["raw/deep/er", "raw/later"]


def test_what_was_granted_goes_with_the_dataset(served: Served, people: dict[str, httpx.Client]) -> None:
    alice, bob = people["alice"], people["bob"]
    dataset_id, _ = made(alice, "flights")
    alice.post("grants", json={"user": "bob", "permission": "admin", "name": "flights"})
    alice.post("protections", json={"name": "flights"})
    assert alice.delete(f"datasets/{dataset_id}").status_code == 200
    made(alice, "flights")
    assert bob.get("datasets").json()["items"] == []
    assert alice.get("protections", params={"name": "flights"}).json()["items"] == []
    assert bob.get("grants").json()["items"] == []
