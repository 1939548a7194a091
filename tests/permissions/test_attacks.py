"""Ways around that were tried. What is an expected failure here was found, and waits to be closed."""

import json
from pathlib import Path

import httpx
import polars as pl
import pytest

from dataset_registry import Registry
from dataset_registry.errors import InvalidName, NotFound, PermissionDenied, RegistryError
from dataset_registry.model.maintenance import ExpirePlan, SweepPlan
from dataset_registry.model.records import InputVersion, Provenance, StoredObject
from dataset_registry.model.retention import Policy, Rule
from tests import fresh
from tests.permissions.support import acting
from tests.permissions.test_sharing import made
from tests.serving import Served

# --- levels that leak from others ----------------------------------------------------------------------------------


def test_a_group_lets_in_its_members_only(owner: Registry) -> None:
    for name in ("alice", "eve"):
        owner.create_user(name)
    owner.create_user("team", kind="group", members=["alice"])
    dataset = owner.create_dataset("flights")
    owner.grant("team", "admin", "flights")
    with acting(owner, "eve") as eve, pytest.raises(NotFound):
        eve.dataset("flights")
    with acting(owner, "eve") as eve, pytest.raises(NotFound):
        eve.dataset(dataset.id).delete()


def test_a_prefix_lets_in_to_what_begins_so_only(owner: Registry) -> None:
    owner.create_user("eve")
    owner.create_dataset("eves/own")
    owner.create_dataset("secret/flights")
    owner.grant("eve", "admin", "eves/")
    with acting(owner, "eve") as eve, pytest.raises(NotFound):
        eve.dataset("secret/flights")


def test_a_prefix_lists_what_begins_so_only(owner: Registry) -> None:
    owner.create_user("eve")
    owner.create_dataset("eves/own")
    owner.create_dataset("secret/flights").commit({"data": b"secret"})
    owner.grant("eve", "read", "eves/")
    with acting(owner, "eve") as eve:
        assert [dataset.name for dataset in eve.datasets()] == ["eves/own"]
        assert list(eve.files()) == []


# --- who is disabled, or nobody ----------------------------------------------------------------------------------


@pytest.mark.parametrize("ask", ["create_token", "tokens", "revoke_token", "grants"])
def test_who_is_locked_out_does_nothing_with_its_own_either(owner: Registry, ask: str) -> None:
    owner.create_user("alice")
    token = owner.create_token("alice").token.id
    owner.update_user("alice", disabled=True)
    with acting(owner, "alice") as alice, pytest.raises(PermissionDenied):
        {
            "create_token": alice.create_token,
            "tokens": lambda: alice.tokens("alice"),
            "revoke_token": lambda: alice.revoke_token(token),
            "grants": lambda: alice.grants(user="alice"),
        }[ask]()


def test_a_name_that_is_no_user_lists_no_tokens(owner: Registry) -> None:
    owner.create_user("alice")
    with acting(owner, "nobody") as nobody, pytest.raises(PermissionDenied):
        nobody.tokens("nobody")


def test_an_empty_name_is_not_the_owner(owner: Registry) -> None:
    owner.create_user("alice")
    with pytest.raises(RegistryError), acting(owner, "") as nobody:
        nobody.users()


# --- operations that begin without their check -----------------------------------------------------------------------


def test_an_empty_plan_of_an_expiry_takes_an_administrator_too(owner: Registry) -> None:
    owner.create_user("eve")
    with acting(owner, "eve") as eve, pytest.raises(PermissionDenied):
        eve.apply(ExpirePlan((), 0))


@pytest.mark.parametrize("suspicion", [None, "much is unknown"])
def test_an_empty_or_suspicious_plan_of_a_sweep_takes_an_administrator_too(
    owner: Registry, suspicion: str | None
) -> None:
    owner.create_user("eve")
    objects = (StoredObject("f" * 64 + "." + "0" * 32, 1, 0.0),) if suspicion else ()
    with acting(owner, "eve") as eve, pytest.raises(PermissionDenied):
        eve.apply(SweepPlan(objects, 1, 1, suspicion))


def test_a_plan_does_not_blame_another_dataset(served: Served) -> None:
    """A plan comes back from a client: versions of one dataset under the name of another."""
    flights, innocent = served.owner.create_dataset("flights"), served.owner.create_dataset("innocent")
    for number in range(3):
        flights.commit({"data": b"%d" % number})
    with served.http() as client:
        policy = {"rules": [{"datasets": "flights", "last": 1}], "live_runs": []}
        plan = client.post("expire/plan", json=policy).json()
        plan["datasets"][0]["dataset"] |= {"id": innocent.id, "name": "innocent"}
        client.post("expire/apply", json={"plan": plan, "live_runs": []})
    assert [entry.action for entry in served.owner.audit(dataset="innocent")] == ["dataset.create"]


# --- telling that something is there -------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ["guest", "member"])
def test_who_may_not_make_a_dataset_does_not_learn_whether_there_is_one(served: Served, role: str) -> None:
    served.owner.create_user("eve", role=role)
    served.owner.create_user("team", kind="group")
    served.owner.grant("team", "write", "team/")
    served.owner.create_dataset("team/secret")
    with served.http("eve") as eve:
        answers = [
            eve.post("commits", params={"dataset_name": name}, files={"data": ("x.bin", b"x")})
            for name in ("team/secret", "team/absent")
        ]
    assert len({answer.status_code for answer in answers}) == 1


def test_a_legacy_name_that_keeps_to_no_rules_is_not_told(owner: Registry) -> None:
    from sqlalchemy import insert

    from dataset_registry.catalog.tables import datasets

    owner.create_user("eve")
    owner.access.catalog.write(lambda tx: tx.execute(insert(datasets), {"name": "Old & secret"}))
    kinds = []
    with acting(owner, "eve") as eve:
        for name in ("Old & secret", "Old & absent"):
            with pytest.raises((NotFound, InvalidName)) as raised:
                eve.dataset(name)
            kinds.append(type(raised.value))
    assert kinds[0] is kinds[1]


# --- copies --------------------------------------------------------------------------------------------------------


def test_a_copy_does_not_carry_names_that_one_may_not_read(owner: Registry, tmp_path: Path) -> None:
    owner.create_user("eve")
    secret = owner.create_dataset("secret").commit({"data": b"1"})
    made_from = InputVersion("secret", 1, secret.digest, "main")
    owner.create_dataset("public").commit({"data": b"2"}, provenance=Provenance("run", inputs=(made_from,)))
    owner.grant("eve", "read", "public")
    with acting(owner, "eve") as eve, Registry.open(fresh.folder(tmp_path / "copy")) as copy:
        eve.copy_to(copy)
        assert copy.version("public").provenance.inputs == ()


def test_a_copy_does_not_carry_registry_wide_branches_of_who_may_not_list_them(owner: Registry, tmp_path: Path) -> None:
    owner.create_user("eve")
    owner.create_dataset("public").commit({"data": b"2"})
    owner.create_branch("pr-secret")
    owner.grant("eve", "read", "public")
    with acting(owner, "eve") as eve, Registry.open(fresh.folder(tmp_path / "copy")) as copy:
        eve.copy_to(copy)
        assert copy.branches() == []


def test_a_copy_into_a_registry_makes_no_registry_wide_branch_for_a_member(owner: Registry, tmp_path: Path) -> None:
    """It could be aimed: what an administrator then deletes as registry-wide are branches of everybody."""
    owner.create_user("eve")
    flights = owner.create_dataset("flights")
    flights.commit({"data": b"1"})
    flights.create_branch("release")
    with Registry.open(fresh.folder(tmp_path / "mine")) as mine, acting(owner, "eve") as target:
        mine.create_dataset("eves").commit({"data": b"2"})
        mine.create_branch("release")
        mine.copy_to(target)
    assert owner.branches() == []


def test_a_copy_into_a_registry_does_not_tell_of_a_foreign_dataset(owner: Registry, tmp_path: Path) -> None:
    """Its names are free or not, as for every member; its versions and its id are nobody's business."""
    owner.create_user("eve")
    secret = owner.create_dataset("secret")
    secret.commit({"data": b"1"})
    with Registry.open(fresh.folder(tmp_path / "mine")) as mine, acting(owner, "eve") as target:
        mine.create_dataset("secret").commit({"data": b"2"})
        with pytest.raises(RegistryError) as raised:
            mine.copy_to(target)
    assert "v1" not in str(raised.value)
    assert f"id {secret.id} " not in str(raised.value)


def test_a_copy_tells_a_guest_the_same_of_foreign_and_absent_datasets(owner: Registry, tmp_path: Path) -> None:
    owner.create_user("eve", role="guest")
    owner.create_dataset("secret").commit({"data": b"1"})
    told = []
    with Registry.open(fresh.folder(tmp_path / "mine")) as mine, acting(owner, "eve") as target:
        for name in ("secret", "absent"):
            mine.create_dataset(name).commit({"data": b"2"})
            with pytest.raises(PermissionDenied) as raised:
                mine.copy_to(target, datasets=[name])
            told.append(str(raised.value).replace(name, "NAME"))
    assert told[0] == told[1]


# --- tokens --------------------------------------------------------------------------------------------------------


def test_a_token_for_a_prefix_is_not_told_of_grants_elsewhere(served: Served) -> None:
    served.owner.create_user("alice")
    served.owner.create_dataset("secret/flights")
    served.owner.grant("alice", "read", "secret/flights")
    with served.http("alice", prefix="raw/") as client:
        assert client.get("grants").json()["items"] == []


def test_a_token_for_less_does_not_revoke_one_for_more(served: Served) -> None:
    served.owner.create_user("alice")
    wide = served.owner.create_token("alice", name="pipeline").token.id
    with served.http("alice", permission="read", prefix="raw/") as client:
        client.delete(f"tokens/{wide}")
    assert [t.revoked_at for t in served.owner.tokens("alice") if t.id == wide] == [None]


def test_what_a_token_made_goes_with_it(served: Served) -> None:
    """Who finds a token makes another with it, and keeps that when the first is revoked."""
    served.owner.create_user("alice")
    stolen = served.owner.create_token("alice")
    with httpx.Client(base_url=served.url + "/v1/") as client:
        kept = client.post("tokens", json={}, headers={"Authorization": f"Bearer {stolen.secret}"}).json()["secret"]
        served.owner.revoke_token(stolen.token.id)
        assert client.get("whoami", headers={"Authorization": f"Bearer {kept}"}).status_code == 401


# --- answers that are remembered -----------------------------------------------------------------------------------

KEY = {"Idempotency-Key": "nightly"}


def test_an_answer_is_not_given_to_a_token_that_could_not_have_asked(served: Served) -> None:
    with served.http("alice") as wide, served.http("alice", permission="read", prefix="other/") as narrow:
        body = {"name": "raw/secret", "description": "not for other/"}
        assert wide.post("datasets", json=body, headers=KEY).status_code == 201
        assert narrow.post("datasets", json=body, headers=KEY).status_code == 403


def test_an_answer_is_not_given_again_to_who_is_no_administrator_any_more(served: Served) -> None:
    served.owner.create_dataset("secret/flights").commit({"data": b"1"})
    served.owner.create_user("ada", role="administrator")
    policy = {"rules": [{"last": 1}]}
    with served.http("ada") as ada:
        assert "secret/flights" in ada.post("expire/plan", json=policy, headers=KEY).text
        served.owner.update_user("ada", role="member")
        assert ada.post("expire/plan", json=policy).status_code == 403
        assert ada.post("expire/plan", json=policy, headers=KEY).status_code == 403


def test_a_key_of_somebody_else_means_nothing(served: Served) -> None:
    with served.http("alice") as alice, served.http("eve") as eve:
        body = {"name": "alices", "description": "hers"}
        assert alice.post("datasets", json=body, headers=KEY).status_code == 201
        answer = eve.post("datasets", json=body | {"name": "alices"}, headers=KEY)
        assert "Idempotent-Replayed" not in answer.headers
        assert answer.status_code == 403  # as for a name under a prefix where others write
        assert "hers" not in answer.text
        assert alice.post("datasets", json=body, headers=KEY).headers["Idempotent-Replayed"] == "true"


def test_a_commit_with_the_key_of_somebody_else_is_a_commit_of_its_own(served: Served) -> None:
    with served.http("alice") as alice, served.http("eve") as eve:
        dataset_id, _ = made(alice, "shared")
        alice.post("grants", json={"user": "eve", "permission": "write", "name": "shared"})
        for client, content in ((alice, b"1"), (eve, b"2")):
            commit = {"components": [{"component_name": "x", "content": {"part": "x"}}], "overwrite": True}
            answer = client.post(
                f"datasets/{dataset_id}/versions",
                data={"commit": json.dumps(commit)},
                files={"x": ("x.bin", content)},
                headers=KEY,
            )
            assert answer.json()["version"]["uploaded_by"] == ("alice" if client is alice else "eve")


# --- tried, and closed ---------------------------------------------------------------------------------------------


def test_an_upload_of_somebody_else_is_not_there(served: Served) -> None:
    with served.http("alice") as alice, served.http("eve") as eve:
        upload = alice.post("uploads", json={"file_size": 6}).json()["upload_id"]
        offset = {"Upload-Offset": "0", "Content-Type": "application/octet-stream"}
        assert alice.patch(f"uploads/{upload}", content=b"secret", headers=offset).status_code == 200
        own = eve.post("datasets", json={"name": "eves"}).json()["id"]
        commit = {"components": [{"component_name": "x", "content": {"upload_id": upload}}]}
        assert eve.post(f"datasets/{own}/versions", json=commit).status_code == 404
        assert eve.get(f"uploads/{upload}").status_code == 404
        assert eve.get("uploads/" + upload[:-1] + "%2e").status_code == 404
        assert alice.get(f"uploads/{upload}").json()["offset"] == 6


def test_announcing_a_known_hash_uploads_nothing_less(served: Served) -> None:
    with served.http("alice") as alice, served.http("eve") as eve:
        _, commit = made(alice, "secret", b"secret")
        (component,) = commit["written"]
        begun = [
            eve.post("uploads", json={"file_size": 6, "content_hash": found}).json()
            for found in (component["content_hash"], "9" * 64)
        ]
        assert [upload["offset"] for upload in begun] == [0, 0]
        own = eve.post("datasets", json={"name": "eves"}).json()["id"]
        for upload in begun:  # nothing was sent
            commit = {"components": [{"component_name": "x", "content": {"upload_id": upload["upload_id"]}}]}
            assert eve.post(f"datasets/{own}/versions", json=commit).status_code == 422


def test_a_table_is_not_had_by_naming_its_parts(served: Served) -> None:
    """The hash of a table is that of the list of its parts: who has none of them gets nothing by it."""
    table = served.owner.create_dataset("secret")
    table.commit({"data": pl.DataFrame({"id": [1, 2, 3]}).lazy()})
    (component,) = table.version().components
    (part,) = (f for f in served.owner.files() if f.form == "inline")
    with served.http("eve") as eve:
        own = eve.post("datasets", json={"name": "eves"}).json()["id"]
        for content in (
            {"content": {"content_hash": component.content_hash}},
            {"content": {"content_hash": part.content_hash}},
            {"parts": [{"content_hash": part.content_hash}]},
        ):
            commit = {"components": [{"component_name": "x"} | content]}
            assert eve.post(f"datasets/{own}/versions", json=commit).status_code == 404


def test_plans_of_others_are_applied_by_administrators_only(owner: Registry) -> None:
    owner.create_user("eve")
    flights = owner.create_dataset("flights")
    for number in range(3):
        flights.commit({"data": b"%d" % number})
    owner.grant("eve", "admin", "flights")
    plan = owner.expire(Policy((Rule("*", "*", last=1),)), dry_run=True, live_runs=())
    assert plan.versions == 2
    with acting(owner, "eve") as eve:
        for ask in (lambda: eve.apply(plan, live_runs=()), lambda: eve.apply(owner.collect(dry_run=True))):
            with pytest.raises(PermissionDenied):
                ask()
    assert len(flights.tree()) == 3


def test_a_path_or_a_prefix_does_not_get_out_of_its_scope(served: Served) -> None:
    served.owner.create_dataset("raws")
    served.owner.create_dataset("secret")
    with served.http("admin", prefix="raw/") as client:
        for name in ("raws", "secret", "raw/../secret", "raw//secret", "/secret", "RAW/secret"):
            assert client.get("datasets", params={"name": name}).status_code in (404, 422)
            assert client.post("grants", json={"user": "admin", "permission": "read", "name": name}).status_code in (
                404,
                422,
            )
        for prefix in ("", "raw", "raws", "/"):
            assert client.get("datasets", params={"prefix": prefix}).json().get("items", []) == []
        for name in ("", "raws/", "/"):
            answer = client.post("grants", json={"user": "admin", "permission": "read", "name": name})
            assert answer.status_code in (403, 422)


def test_nobody_is_told_of_users_but_by_administrators(served: Served) -> None:
    with served.http("alice") as alice:
        dataset_id, _ = made(alice, "flights")
        for path, params in (("users", {}), ("grants", {"user": "x"}), ("tokens", {"user": "x"})):
            assert alice.get(path, params=params).status_code == 403
            assert alice.get(path, params={**params, "user": "alice-2"}).status_code == 403
        assert alice.patch("users/admin", json={"disabled": True}).status_code == 403
        assert alice.patch("users/nobody", json={"disabled": True}).status_code == 403
        assert alice.get(f"datasets/{dataset_id}").status_code == 200


def test_the_audit_log_is_told_per_dataset_to_its_admins(served: Served) -> None:
    with served.http("alice") as alice, served.http("bob") as bob:
        made(alice, "hers")
        made(bob, "his")
        alice.post("grants", json={"user": "bob", "permission": "write", "name": "hers"})
        entries = alice.get("audit", params={"dataset": "hers"}).json()["items"]
        assert {entry["dataset"] for entry in entries} == {"hers"}
        for dataset in ("hers", "absent"):
            assert bob.get("audit", params={"dataset": dataset}).status_code == 403
        assert alice.get("audit", params={"dataset": "his"}).status_code == 403
