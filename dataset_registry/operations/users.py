"""Users, groups and tokens, for administrators; users can manage their own tokens."""

import json
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta

from dataset_registry.access import Access, administer, admit, is_administrator
from dataset_registry.catalog import Catalog, Transaction, grants, users
from dataset_registry.errors import (
    AlreadyExists,
    ConflictError,
    InputError,
    InvalidName,
    NotAuthenticated,
    NotFound,
    PermissionDenied,
    RegistryError,
)
from dataset_registry.model.actors import (
    KINDS,
    Actor,
    Kind,
    NewToken,
    Permission,
    Role,
    Token,
    User,
    level,
    new_secret,
    parse_permission,
    parse_role,
    secret_hash,
)
from dataset_registry.model.commits import RequestKey
from dataset_registry.model.names import name_prefix, single_line, token_name, user_name
from dataset_registry.operations import audit, requests

_LONGEST = timedelta(days=36500)


def create(access: Access, name: str, *, kind: Kind, role: str, members: Sequence[str] = ()) -> User:
    """Create a user or a group. From the first one on, names are checked. Raises `InvalidName`, `AlreadyExists`, `InputError`.

    A recorded name becomes a user with its history, and admin of the datasets that it created.
    """
    try:
        name = user_name(name)
    except InvalidName:
        with access.catalog.read() as tx:
            if kind == "group" or users.find_id(tx, name) is None:  # a name of an existing catalog stays what it is
                raise
    if kind not in KINDS:
        raise InputError(f"Invalid kind of user {kind!r}. Use one of: {', '.join(KINDS)}.", kind=kind)
    given: Role | None = None if kind == "group" else parse_role(role)

    def work(tx: Transaction) -> User:
        administer(access, tx)
        if users.find(tx, name) is not None:
            raise AlreadyExists(f"A user or group {name!r} exists already. Choose another name.", user=name)
        user_id = users.create(tx, name, kind, given)
        if kind == "group":
            users.set_members(tx, user_id, _member_ids(tx, members))
        else:
            grants.grant_to_creator(tx, user_id)
        if kind == "group":
            audit.note(access, tx, "group.create", after=name, members=sorted(members))
        else:
            audit.note(access, tx, "user.create", after=name, role=given)
        return get(tx, name)

    return access.catalog.write(work)


def update(access: Access, name: str, *, role: str | None = None, disabled: bool | None = None) -> User:
    """Change a user's role, disable or enable it. Raises `NotFound`, `InputError` (the last administrator)."""
    given = parse_role(role) if role is not None else None

    def work(tx: Transaction) -> User:
        administer(access, tx)
        found = get(tx, name)
        if found.kind == "group":
            raise InputError(f"{name!r} is a group: groups have members, not a role.", user=name)
        leaves = disabled or (given is not None and given != "administrator")
        active = found.role == "administrator" and found.disabled_at is None
        if leaves and active and users.administrators(tx) == 1 and not access.actor.is_owner:
            raise InputError(f"{name!r} is the last administrator. Create another one first.", user=name)
        if given is not None:
            users.set_role(tx, found.id, given)
        if disabled is not None:
            users.set_disabled(tx, found.id, disabled=disabled)
        audit.note(access, tx, "user.update", after=name, role=given, disabled=disabled)
        return get(tx, name)

    return access.catalog.write(work)


def set_members(access: Access, name: str, members: Sequence[str]) -> User:
    """Replace the members of a group. Raises `NotFound`, `InputError`."""

    def work(tx: Transaction) -> User:
        administer(access, tx)
        found = get(tx, name)
        if found.kind != "group":
            raise InputError(f"{name!r} is not a group: only groups have members.", user=name)
        users.set_members(tx, found.id, _member_ids(tx, members))
        audit.note(access, tx, "group.update", after=name, members=sorted(members))
        return get(tx, name)

    return access.catalog.write(work)


def _member_ids(tx: Transaction, members: Sequence[str]) -> list[int]:
    found = [get(tx, name) for name in dict.fromkeys(members)]
    if nested := [user.name for user in found if user.kind == "group"]:
        raise InputError(f"{nested[0]!r} is a group: members of groups are persons and services.", user=nested[0])
    return [user.id for user in found]


def get(tx: Transaction, name: str) -> User:
    """The user or group of this name. Raises `NotFound`."""
    found = users.find(tx, name)
    if found is None:
        raise NotFound(f"No user or group {name!r}. List them with registry.users().", user=name)
    return found


def list_all(access: Access) -> list[User]:
    """Every user and group, by name."""
    with access.catalog.read() as tx:
        administer(access, tx)
        return users.all_of(tx)


# --- tokens --------------------------------------------------------------------------------------------------------


def create_token(
    access: Access,
    user: str | None,
    *,
    name: str,
    permission: str,
    prefix: str,
    lasts: timedelta | None,
    request: RequestKey | None = None,
) -> NewToken:
    """Create a token for a user, for the actor if None; administrators can create tokens for other users.

    A token cannot create one with more permission than its own. A repeated `request` replaces the token that it created
    before, whose secret may not have arrived: the old one is revoked in the same transaction.
    Raises `NotFound`, `InputError`, `PermissionDenied`, `ConflictError` (the key of another request).
    """
    user = access.actor.name if user is None else user
    given, prefix = parse_permission(permission), name_prefix(prefix)
    if lasts is not None and not timedelta(seconds=1) <= lasts <= _LONGEST:
        raise InputError("The lifetime of a token must be 1 second to 100 years.", lasts=str(lasts))
    if prefix and not prefix.endswith("/"):
        raise InputError(f"The prefix of a token ends in '/': {prefix + '/'!r}.", prefix=prefix)
    name = token_name(name)
    secret = new_secret()

    def work(tx: Transaction) -> NewToken:
        _own_or_administer(access, tx, user)
        mine = access.actor.token
        if mine is not None and not _is_within(given, prefix, mine):
            raise PermissionDenied(
                f"The token in use has {mine.permission} on {mine.prefix or 'everything'!r} and cannot create one with more.",
            )
        owner = get(tx, user)
        if owner.kind == "group":
            raise InputError(f"{user!r} is a group, and groups have no tokens. Create tokens for its members.")
        if request is not None:
            _replace_earlier(access, tx, request)
        ends = mine.expires_at if mine is not None else None
        token_id = users.create_token(
            tx,
            owner.id,
            name=name,
            token_hash=secret_hash(secret),
            permission=given,
            prefix=prefix,
            lasts=lasts,
            at_most=ends,
            made_with=mine.id if mine is not None else None,
        )
        audit.note(access, tx, "token.create", after=user, token=token_id, permission=given, prefix=prefix or None)
        made = users.find_token(tx, token_id)
        assert made is not None, "inserted in this transaction"
        if request is not None:
            requests.remember(access, tx, request, json.dumps({"token_id": token_id}))
        return NewToken(made, secret)

    return access.catalog.write(work)


def _replace_earlier(access: Access, tx: Transaction, request: RequestKey) -> None:
    """Revoke the token that the same request created before. Raises `ConflictError` when that one was revoked since."""
    answered = requests.recall(access, tx, request)
    if answered is None:
        return
    token_id = int(json.loads(answered[1])["token_id"])
    earlier = users.find_token(tx, token_id)
    if earlier is None or earlier.revoked_at is not None:
        raise ConflictError(
            f"This request created the token {token_id}, which was revoked since. Send it with a new Idempotency-Key.",
            token=token_id,
        )
    users.revoke_token(tx, token_id)
    audit.note(access, tx, "token.revoke", before=earlier.user, token=token_id)
    requests.forget(access, tx, request)


def tokens(access: Access, user: str | None) -> list[Token]:
    """The tokens of a user, newest first. None: those of all users for an administrator, else the actor's own."""
    single_line(user or "", "user")
    with access.catalog.read() as tx:
        if user is None and not is_administrator(access, tx):
            user = access.actor.name
        if user is not None:
            _own_or_administer(access, tx, user)
        mine, found = access.actor.token, users.tokens_of(tx, user)
        return found if mine is None else [t for t in found if _is_within(t.permission, t.prefix, mine)]


def revoke_token(access: Access, token_id: int) -> Token:
    """Revoke a token, and those that were created with it. Raises `NotFound`, also for tokens of others."""

    def work(tx: Transaction) -> Token:
        admit(access, tx)
        found = users.find_token(tx, token_id)
        mine = access.actor.token
        is_hidden = found is None or (found.user != access.actor.name and not is_administrator(access, tx))
        if found is None or is_hidden or (mine is not None and not _is_within(found.permission, found.prefix, mine)):
            raise NotFound(f"No token {token_id}. List yours with registry.tokens().", token=token_id)
        users.revoke_token(tx, token_id)
        audit.note(access, tx, "token.revoke", before=found.user, token=token_id)
        return users.find_token(tx, token_id) or found

    return access.catalog.write(work)


def _is_within(permission: Permission, prefix: str, token: Token) -> bool:
    """Whether a permission and a prefix are within those of a token."""
    return level(permission) <= level(token.permission) and prefix.startswith(token.prefix)


def _own_or_administer(access: Access, tx: Transaction, user: str) -> None:
    """Require an administrator or the user itself."""
    admit(access, tx)
    if user != access.actor.name or access.actor.is_owner:
        administer(access, tx)


def authenticate(catalog: Catalog, secret: str, *, interface: str) -> Actor:
    """The actor of a token. Raises `NotAuthenticated` if it is unknown, expired or revoked, without saying which."""
    with catalog.read() as tx:
        found = users.valid_token(tx, secret_hash(secret))
    if found is None:
        raise NotAuthenticated(
            "Invalid token: unknown, expired or revoked. Create one with: dataset-registry token create"
        )
    token, is_due = found
    if is_due:
        with suppress(RegistryError):  # a full disk, or a catalog that is read-only: reads continue
            catalog.write(lambda tx: users.note_use(tx, token.id))
    return Actor(token.user, interface=interface, token=token)
