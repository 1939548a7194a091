"""The access of an actor to a catalog and a store, and its permissions.

Every operation calls one of these functions first, inside its transaction. An owner has direct access to the catalog
and the store and may do everything. Until the first user is created, names are recorded, not checked. A resource that
an actor may not read is reported as not found."""

from collections.abc import Sequence
from dataclasses import dataclass

from dataset_registry.catalog import Catalog, Transaction, datasets, grants, users
from dataset_registry.catalog.grants import Readable, Standing
from dataset_registry.errors import NotFound, PermissionDenied
from dataset_registry.model.actors import NOTHING, PERMISSIONS, Actor, Permission, level
from dataset_registry.model.names import RUNS, is_reserved
from dataset_registry.model.records import DatasetRecord, NewDataset
from dataset_registry.store import Cache, Compression, Store


@dataclass(frozen=True, slots=True)
class Access:
    """The access of an actor to a catalog and a store: the first argument of every operation.

    `copies` is the cache of local copies of stored files; `compression` is applied to new CSV and JSON files. New contents of
    at most `inline_bytes` are stored in the catalog. With `is_guarded`, files come from untrusted clients and are captured in
    a separate process. With `verifies_reads`, every stored file is hashed before it is read.
    """

    catalog: Catalog
    store: Store
    copies: Cache
    actor: Actor
    compression: Compression | None = None
    is_guarded: bool = False
    verifies_reads: bool = False
    inline_bytes: int = 0

    def user_id(self, tx: Transaction) -> int:
        """The id of the actor's row, which is created if needed."""
        cached_ids, name = self.catalog.user_ids, self.actor.name
        if name not in cached_ids:
            user_id = users.find_id(tx, name)
            if user_id is None:
                return users.sign(tx, name)  # not cached: this transaction may still fail
            cached_ids[name] = user_id
        return cached_ids[name]


def authorize(access: Access, tx: Transaction, permission: Permission, dataset_id: int) -> None:
    """Require that the actor has this permission on a dataset. Raises `NotFound` (it may not read it either),
    `PermissionDenied`."""
    standing = _standing(access, tx, dataset_id)
    if standing is not None:
        _check(access, standing, permission, dataset_id)


def authorize_move(access: Access, tx: Transaction, dataset_id: int, branch: str, *, is_reviewed: bool = False) -> None:
    """Require that the actor may move or delete a branch; with `is_reviewed`, by the merge of a review. Raises as `authorize`
    does."""
    standing = _standing(access, tx, dataset_id)
    if standing is None:
        return
    found = _check(access, standing, "write", dataset_id)
    barrier = grants.barrier(tx, standing.user_id, dataset_id, str(standing.name), branch)
    if barrier.takes_review and not is_reviewed:
        raise PermissionDenied(
            f"The branch {branch!r} of {standing.name} moves by reviews only. Commit to another branch and review it: "
            f"registry.create_review(branch, {branch!r}, title='…')",
            dataset=standing.name,
            branch=branch,
        )
    if found < level("admin") and not barrier.is_allowed:
        raise PermissionDenied(
            f"The branch {branch!r} of {standing.name} is protected, and {access.actor.name} may not move it. Commit "
            "to another branch and ask one of them to move this one, or ask an admin of the dataset for: "
            f"registry.protect({standing.name!r}, {branch!r}, allow=[{access.actor.name!r}, …])",
            dataset=standing.name,
            branch=branch,
        )


def authorize_rename(
    access: Access, tx: Transaction, dataset: DatasetRecord, name: str, branches: Sequence[str]
) -> None:
    """Require that a rename changes no rule for a branch that moves by reviews only. Raises `PermissionDenied`."""
    standing = _standing(access, tx, dataset.id)
    if standing is None:
        return
    for branch in branches:
        now, then = (grants.barrier(tx, standing.user_id, dataset.id, n, branch) for n in (dataset.name, name))
        if now.takes != then.takes:
            raise PermissionDenied(
                f"{dataset.name} cannot be renamed to {name!r}: under one of the names its branch {branch!r} moves by reviews "
                "only. Ask an administrator to change the protection first.",
                dataset=dataset.name,
                branch=branch,
            )


def authorize_commit(access: Access, tx: Transaction, dataset: DatasetRecord | NewDataset, branch: str) -> None:
    """Require that the actor may commit to a branch of a dataset, which may be new. Raises as `authorize` does."""
    if isinstance(dataset, DatasetRecord):
        authorize_move(access, tx, dataset.id, branch)
    else:
        authorize_creation(access, tx, dataset.name)
        refuse_hidden(access, tx, datasets.find(tx, dataset.name))


def refuse_hidden(access: Access, tx: Transaction, taken: DatasetRecord | None) -> None:
    """Raise `PermissionDenied`, as for a governed name, if the name is taken by a dataset that the actor may not read."""
    if taken is not None and level_on(access, tx, taken.id) == NOTHING:
        raise _creation_denied(access, taken.name)


def authorize_creation(access: Access, tx: Transaction, name: str) -> None:
    """Require that the actor may create a dataset with this name. Raises `PermissionDenied`.

    Members may, unless the name is governed: `write` was granted on a prefix of it. Then they need a grant on the
    prefix.
    """
    standing = _standing(access, tx)
    if standing is None:
        return
    token = access.actor.token
    if token is None or (level(token.permission) >= level("write") and name.startswith(token.prefix)):
        if standing.role == "administrator" or grants.level_by_prefix(tx, standing.user_id, name) >= level("write"):
            return
        if standing.role == "member" and not is_reserved(name) and not grants.is_governed(tx, name):
            return
    if is_reserved(name):
        raise PermissionDenied(
            f"{name!r} is reserved: {access.actor.name} may not create it. Ask an administrator to create it, or to "
            f"grant write on the prefix {RUNS!r} for outputs of ops.",
            dataset=name,
        )
    raise _creation_denied(access, name)


def _creation_denied(access: Access, name: str) -> PermissionDenied:
    return PermissionDenied(
        f"{access.actor.name} may not create the dataset {name!r}. Ask an administrator for write on a prefix of that name.",
        dataset=name,
    )


def administer(access: Access, tx: Transaction) -> None:
    """Require the administrator role, for operations on the whole registry. Raises `PermissionDenied`."""
    if not is_administrator(access, tx):
        raise PermissionDenied(
            f"Administrator role required; {access.actor.name} does not have it, or the token's scope is too narrow."
        )


def admit(access: Access, tx: Transaction) -> None:
    """Require that the actor is a user, for operations on its own account. Raises `PermissionDenied`."""
    _standing(access, tx)


def authorize_some_write(access: Access, tx: Transaction) -> None:
    """Require that the actor may write to some dataset, before content is received. Raises `PermissionDenied`."""
    standing, token = _standing(access, tx), access.actor.token
    if standing is None:
        return
    may = standing.role in ("administrator", "member") or grants.writes_somewhere(tx, standing.user_id)
    if not may or (token is not None and level(token.permission) < level("write")):
        raise PermissionDenied(
            f"{access.actor.name} may not write to any dataset"
            + (" with this token. Use another token." if may else ". Ask an administrator for a grant.")
        )


def is_administrator(access: Access, tx: Transaction) -> bool:
    """Whether the actor is the owner or an administrator."""
    standing, token = _standing(access, tx), access.actor.token
    if standing is None:
        return True
    return standing.role == "administrator" and (token is None or (token.permission == "admin" and not token.prefix))


def readable(access: Access, tx: Transaction) -> Readable:
    """Which datasets the actor may read: a query for their ids, None for all of them."""
    return _readable(access, _standing(access, tx))


def _readable(access: Access, standing: Standing | None) -> Readable:
    scope = access.actor.token.prefix if access.actor.token else ""
    if standing is None or (standing.role == "administrator" and not scope):
        return None
    return grants.readable(None if standing.role == "administrator" else standing.user_id, scope)


def level_on(access: Access, tx: Transaction, dataset_id: int) -> int:
    """The level that the actor has on a dataset, `NOTHING` where there is none."""
    standing = _standing(access, tx, dataset_id)
    return level("admin") if standing is None else _level(access, standing)


def level_on_prefix(access: Access, tx: Transaction, prefix: str) -> int:
    """The level that the actor has on all datasets under a prefix."""
    standing, token = _standing(access, tx), access.actor.token
    if standing is None:
        return level("admin")
    if token is not None and not prefix.startswith(token.prefix):
        return NOTHING
    found = level("admin") if standing.role == "administrator" else grants.level_by_prefix(tx, standing.user_id, prefix)
    return found if token is None else min(found, level(token.permission))


def level_on_file(access: Access, tx: Transaction, file_id: int) -> int:
    """The level that the actor has on a file: by a grant on it, or to read it because a dataset that it may read lists it."""
    standing, token = _standing(access, tx), access.actor.token
    if standing is None:
        return level("admin")
    found = NOTHING
    if token is None or not token.prefix:
        found = level("admin") if standing.role == "administrator" else grants.file_level(tx, standing.user_id, file_id)
    if found == NOTHING and _readable_files(access, tx, standing, [file_id]):
        found = level("read")
    return found if token is None else min(found, level(token.permission))


def readable_files(access: Access, tx: Transaction, file_ids: Sequence[int]) -> set[int]:
    """Those of these files that the actor may read."""
    return _readable_files(access, tx, _standing(access, tx), file_ids)


def files_readable(access: Access, tx: Transaction) -> Readable:
    """Which files the actor may read: a query for their ids, None for all of them."""
    standing, token = _standing(access, tx), access.actor.token
    scope = _readable(access, standing)
    if standing is None or scope is None:
        return None
    return grants.readable_file_ids(standing.user_id if token is None or not token.prefix else None, scope)


def _readable_files(access: Access, tx: Transaction, standing: Standing | None, file_ids: Sequence[int]) -> set[int]:
    scope, token = _readable(access, standing), access.actor.token
    if standing is None or scope is None:
        return set(file_ids)
    # A grant on a file has no name: a token with a prefix excludes it.
    own = standing.user_id if token is None or not token.prefix else None
    return grants.readable_files(tx, own, scope, file_ids)


def absent(dataset_id: int) -> NotFound:
    """The error for a dataset that does not exist; the same for one that the actor may not read."""
    return NotFound(
        f"No dataset with the id {dataset_id}. List them with registry.datasets().",
        dataset_id=dataset_id,
    )


def _standing(access: Access, tx: Transaction, dataset_id: int | None = None) -> Standing | None:
    """The role and permissions of the actor on a dataset; None if everything is permitted."""
    actor = access.actor
    if actor.is_owner:
        return None
    found = grants.standing(tx, actor.name, dataset_id)
    if found is None or found.role is None:
        if actor.token is None and not users.any_managed(tx):
            return None
        raise PermissionDenied(
            f"Unknown user {actor.name!r}. An administrator creates one with: dataset-registry user create "
            f"{actor.name}",
            user=actor.name,
        )
    if found.is_disabled:
        raise PermissionDenied(
            f"The user {actor.name!r} is disabled. Ask an administrator to enable it.", user=actor.name
        )
    return found


def _level(access: Access, standing: Standing) -> int:
    if standing.name is None:
        return NOTHING
    found = level("admin") if standing.role == "administrator" else standing.level
    token = access.actor.token
    if token is None:
        return found
    return min(found, level(token.permission)) if standing.name.startswith(token.prefix) else NOTHING


def _check(access: Access, standing: Standing, permission: Permission, dataset_id: int) -> int:
    found = _level(access, standing)
    if found == NOTHING:
        raise absent(dataset_id)
    if found < level(permission):
        narrowed = standing.role == "administrator" or standing.level >= level(permission)
        raise PermissionDenied(
            f"{access.actor.name} has {PERMISSIONS[found - 1]} access to {standing.name}; this requires {permission}"
            + (", and the token is for less. Use another token." if narrowed else ". Ask one of its admins for: ")
            + ("" if narrowed else f"registry.grant({access.actor.name!r}, {permission!r}, {standing.name!r})"),
            dataset=standing.name,
            permission=permission,
        )
    return found
