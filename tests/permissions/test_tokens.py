"""Tokens: for how long, for what, for whom."""

from datetime import UTC, datetime, timedelta

import httpx
import pytest
from sqlalchemy import update

from dataset_registry import Registry
from dataset_registry.catalog.tables import tokens
from dataset_registry.errors import InputError, NotAuthenticated, PermissionDenied
from tests.permissions.support import acting
from tests.permissions.test_unknown import same
from tests.serving import Served


def whoami(served: Served, secret: str | None) -> httpx.Response:
    headers = {} if secret is None else {"Authorization": secret}
    return httpx.get(f"{served.url}/v1/whoami", headers=headers)


def test_whoever_is_not_let_in_is_told_the_same(served: Served) -> None:
    """Unknown, malformed, expired, revoked, of somebody who is disabled: which, nobody is told."""
    for name in ("alice", "bob"):
        served.owner.create_user(name)
    expired = served.owner.create_token("alice", lasts=timedelta(hours=1))
    past = (
        update(tokens).where(tokens.c.id == expired.token.id).values(expires_at=datetime.now(UTC) - timedelta(hours=1))
    )
    served.owner.access.catalog.write(lambda tx: tx.execute(past))
    revoked, locked = served.owner.create_token("alice"), served.owner.create_token("bob")
    for secret in (revoked.secret, locked.secret):
        assert whoami(served, f"Bearer {secret}").status_code == 200
    served.owner.revoke_token(revoked.token.id)
    served.owner.update_user("bob", disabled=True)
    answers = [
        whoami(served, f"Bearer {secret}")
        for secret in (expired.secret, revoked.secret, locked.secret, "dr_" + "a" * 43, "x", revoked.secret[:-1])
    ]
    assert {answer.status_code for answer in answers} == {401}
    assert {answer.json()["code"] for answer in answers} == {"not_authenticated"}
    assert len({answer.json()["detail"] for answer in answers}) == 1
    assert all(answer.headers["www-authenticate"].startswith("Bearer") for answer in answers)
    for header in (None, "", "Bearer", "Basic YTpi", revoked.secret):
        assert whoami(served, header).status_code == 401
    served.owner.update_user("bob", disabled=False)
    assert whoami(served, f"Bearer {locked.secret}").json()["user"] == "bob"
    with pytest.raises(NotAuthenticated):
        Registry.open(served.url, token=revoked.secret)


def test_the_use_of_a_token_is_noted(served: Served) -> None:
    served.owner.create_user("alice")
    made = served.owner.create_token("alice", name="laptop")
    assert served.owner.tokens("alice")[0].last_used_at is None
    before = datetime.now(UTC) - timedelta(seconds=2)
    whoami(served, f"Bearer {made.secret}")
    (token,) = served.owner.tokens("alice")
    assert token.last_used_at is not None
    assert before <= token.last_used_at <= datetime.now(UTC) + timedelta(seconds=2)


def test_no_answer_has_the_secret_again(served: Served) -> None:
    with served.http("alice") as client:
        made = client.post("tokens", json={}, headers={"Idempotency-Key": "one"}).json()
        again = client.post("tokens", json={}, headers={"Idempotency-Key": "one"}).json()
        assert made["secret"] != again["secret"]
        assert made["secret"] not in client.get("tokens").text
    with served.owner.access.catalog.read() as tx:
        assert made["secret"] not in str(tx.execute(tokens.select()).all())


@pytest.mark.parametrize(
    ("mine", "wanted", "status"),
    [
        ({"permission": "read"}, {"permission": "read"}, 201),
        ({"permission": "read"}, {"permission": "write"}, 403),
        ({"permission": "write"}, {"permission": "admin"}, 403),
        ({"prefix": "raw/"}, {"prefix": "raw/"}, 201),
        ({"prefix": "raw/"}, {"prefix": "raw/deep/"}, 201),
        ({"prefix": "raw/"}, {}, 403),
        ({"prefix": "raw/"}, {"prefix": "other/"}, 403),
        ({"prefix": "raw/deep/"}, {"prefix": "raw/"}, 403),
        ({"prefix": "raw/"}, {"prefix": "raw"}, 422),
        ({}, {"user": "other"}, 403),
    ],
)
@pytest.mark.parametrize("role", ["member", "administrator"])
def test_a_token_makes_none_for_more_than_it_is_for(
    served: Served, role: str, mine: dict[str, str], wanted: dict[str, str], status: int
) -> None:
    served.owner.create_user("alice", role=role)
    served.owner.create_user("other")
    if role == "administrator" and "user" in wanted:
        status = 201
    with served.http("alice", **mine) as client:
        assert client.post("tokens", json=wanted).status_code == status


def test_a_token_made_by_another_ends_with_it_at_the_latest(served: Served) -> None:
    with served.http("alice", lasts=timedelta(hours=1)) as client:
        (mine,) = client.get("tokens").json()["items"]
        for wanted in ({}, {"lasts_seconds": 86400}):
            assert client.post("tokens", json=wanted).json()["token"]["expires_at"] == mine["expires_at"]
        short = client.post("tokens", json={"lasts_seconds": 60}).json()["token"]
        assert short["expires_at"] < mine["expires_at"]


def test_a_narrowed_administrator_administers_nothing(served: Served) -> None:
    for narrow in ({"permission": "write"}, {"prefix": "raw/"}):
        with served.http("admin", **narrow) as client:
            for method, path, body in (
                ("GET", "users", None),
                ("POST", "users", {"name": "eve", "role": "administrator"}),
                ("PATCH", "users/admin", {"disabled": False}),
                ("GET", "audit", None),
                ("GET", "branches", None),
                ("POST", "tokens", {"user": "other", "permission": "read", "prefix": "raw/"}),
                ("POST", "grants", {"user": "admin", "permission": "admin", "name": ""}),
                ("POST", "collect/plan", {}),
            ):
                answer = client.request(method, path, json=body) if body is not None else client.get(path)
                assert answer.status_code == 403, (narrow, path, answer.text)


def test_only_a_user_has_tokens(owner: Registry) -> None:
    owner.create_user("team", kind="group")
    with pytest.raises(InputError, match="group"):
        owner.create_token("team")
    owner.create_user("alice")
    with acting(owner, "team") as team, pytest.raises(PermissionDenied):
        team.datasets()


def test_a_token_is_revoked_by_its_user_and_by_administrators(served: Served) -> None:
    with served.http("alice") as alice, served.http("bob") as bob, served.http() as administrator:
        first, second = (alice.post("tokens", json={}).json()["token"]["id"] for _ in range(2))
        assert same(lambda token_id: bob.delete(f"tokens/{token_id}"), first, 987_654)
        assert alice.delete(f"tokens/{first}").json()["revoked_at"] is not None
        assert administrator.delete(f"tokens/{second}").status_code == 200
