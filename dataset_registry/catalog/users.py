"""Rows about users, groups and tokens."""

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Row, bindparam, case, delete, exists, func, insert, or_, select, update

from dataset_registry.catalog.rows import Transaction, insert_row
from dataset_registry.catalog.tables import group_members, tokens, users
from dataset_registry.catalog.types import utc_now
from dataset_registry.model.actors import Kind, Permission, Role, Token, User

_ID = select(users.c.id).where(users.c.username == bindparam("name"))


def find_id(tx: Transaction, name: str) -> int | None:
    """The id of a user, a group or a recorded name; None if unknown."""
    return tx.execute(_ID, {"name": name}).scalar()


def sign(tx: Transaction, name: str) -> int:
    """Insert a recorded name. Returns its id."""
    return insert_row(tx, users, {"username": name})


_ANY = select(exists().where(users.c.kind.is_not(None)))


def any_managed(tx: Transaction) -> bool:
    """Whether a user or a group exists: then names are checked."""
    return bool(tx.execute(_ANY).scalar())


_SELECT = select(
    users.c.id, users.c.username, users.c.kind, users.c.role, users.c.created_at, users.c.disabled_at
).where(users.c.kind.is_not(None))


def find(tx: Transaction, name: str) -> User | None:
    """The user or group with this name, None for a recorded name."""
    if "\0" in name:  # PostgreSQL fails to look for it
        return None
    row = tx.execute(_SELECT.where(users.c.username == name)).one_or_none()
    return _user(row, _members(tx, [row.id])[row.id]) if row else None


def all_of(tx: Transaction) -> list[User]:
    """Every user and group, by name."""
    rows = tx.execute(_SELECT).all()
    members = _members(tx, [row.id for row in rows if row.kind == "group"])
    return sorted((_user(row, members[row.id]) for row in rows), key=lambda user: user.name)


def _user(row: Row, members: Sequence[str]) -> User:  # type: ignore[type-arg]
    return User(row.id, row.username, row.kind, row.role, row.created_at, row.disabled_at, tuple(members))


def _members(tx: Transaction, group_ids: Sequence[int]) -> dict[int, list[str]]:
    found: dict[int, list[str]] = defaultdict(list)
    query = select(group_members.c.group_id, users.c.username).join(users, users.c.id == group_members.c.user_id)
    for group_id, name in tx.execute(query.where(group_members.c.group_id.in_(group_ids)).order_by(users.c.username)):
        found[group_id].append(name)
    return found


def create(tx: Transaction, name: str, kind: Kind, role: Role | None) -> int:
    """Create a user or group, reusing the row of a recorded name. Returns its id."""
    known = find_id(tx, name)
    if known is None:
        return insert_row(tx, users, {"username": name, "kind": kind, "role": role})
    tx.execute(update(users).where(users.c.id == known).values(kind=kind, role=role, disabled_at=None))
    return known


def set_role(tx: Transaction, user_id: int, role: Role) -> None:
    """Change the role of a user."""
    tx.execute(update(users).where(users.c.id == user_id).values(role=role))


def set_disabled(tx: Transaction, user_id: int, *, disabled: bool) -> None:
    """Disable or enable a user."""
    tx.execute(update(users).where(users.c.id == user_id).values(disabled_at=utc_now() if disabled else None))


def administrators(tx: Transaction) -> int:
    """The number of enabled administrators.

    On PostgreSQL they are locked, so that two transactions cannot remove the last two.
    """
    query = select(users.c.id).where(users.c.role == "administrator", users.c.disabled_at.is_(None))
    return len(tx.execute(query.order_by(users.c.id).with_for_update()).all())


def set_members(tx: Transaction, group_id: int, user_ids: Sequence[int]) -> None:
    """Replace the members of a group."""
    tx.execute(delete(group_members).where(group_members.c.group_id == group_id))
    if user_ids:
        tx.execute(insert(group_members), [{"group_id": group_id, "user_id": user_id} for user_id in user_ids])


# --- tokens --------------------------------------------------------------------------------------------------------

_USED_FOR = 60
"""Seconds between two records of the use of a token."""

_TOKEN = select(
    tokens.c.id,
    users.c.username,
    tokens.c.name,
    tokens.c.permission_type,
    tokens.c.prefix,
    tokens.c.created_at,
    tokens.c.expires_at,
    tokens.c.revoked_at,
    tokens.c.last_used_at,
).join(users, users.c.id == tokens.c.user_id)
_VALID = _TOKEN.add_columns(
    case((or_(tokens.c.last_used_at.is_(None), tokens.c.last_used_at < utc_now(-_USED_FOR)), 1), else_=0)
).where(
    tokens.c.token_hash == bindparam("hash"),
    tokens.c.revoked_at.is_(None),
    or_(tokens.c.expires_at.is_(None), tokens.c.expires_at > utc_now()),
    users.c.disabled_at.is_(None),
    users.c.role.is_not(None),
)


def valid_token(tx: Transaction, token_hash: str) -> tuple[Token, bool] | None:
    """The token with this hash if it is valid, and whether to record its use.

    Looked up by an index over a hash of 256 random bits: the timing reveals nothing about other tokens.
    """
    row = tx.execute(_VALID, {"hash": token_hash}).one_or_none()
    return (Token(*row[:-1]), bool(row[-1])) if row else None


def note_use(tx: Transaction, token_id: int) -> None:
    """Record that a token was used now."""
    tx.execute(update(tokens).where(tokens.c.id == token_id).values(last_used_at=utc_now()))


def create_token(
    tx: Transaction,
    user_id: int,
    *,
    name: str,
    token_hash: str,
    permission: Permission,
    prefix: str,
    lasts: timedelta | None,
    at_most: datetime | None = None,
    made_with: int | None = None,
) -> int:
    """Insert a token with a lifetime and a latest expiry. Returns its id."""
    expires: Any = utc_now(int(lasts.total_seconds())) if lasts is not None else None
    if at_most is not None:
        expires = at_most if expires is None else case((expires < at_most, expires), else_=at_most)
    row = {
        "user_id": user_id,
        "name": name,
        "token_hash": token_hash,
        "permission_type": permission,
        "prefix": prefix,
        "expires_at": expires,
        "made_with": made_with,
    }
    return int(tx.execute(insert(tokens).values(row).returning(tokens.c.id)).scalar_one())


def find_token(tx: Transaction, token_id: int) -> Token | None:
    """The token with this id."""
    row = tx.execute(_TOKEN.where(tokens.c.id == token_id)).one_or_none()
    return Token(*row) if row else None


def tokens_of(tx: Transaction, user: str | None) -> list[Token]:
    """The tokens of a user, or of all users, newest first."""
    query = _TOKEN if user is None else _TOKEN.where(users.c.username == user)
    return [Token(*row) for row in tx.execute(query.order_by(tokens.c.id.desc()))]


def revoke_token(tx: Transaction, token_id: int) -> None:
    """Revoke a token, and those that were created with it, and so on."""
    revoked = [token_id]
    while revoked:
        statement = update(tokens).where(tokens.c.id.in_(revoked))
        tx.execute(statement.values(revoked_at=func.coalesce(tokens.c.revoked_at, utc_now())))
        revoked = list(tx.execute(select(tokens.c.id).where(tokens.c.made_with.in_(revoked))).scalars())
