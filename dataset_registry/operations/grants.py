"""Grants on datasets, files and name prefixes; protected branches.

A resource is given as a name: `raw/flights` is a dataset, `raw/` (or the empty name, for all datasets) a prefix. A file
is given by its hash, as a separate argument.
"""

from collections.abc import Sequence

from dataset_registry.access import (
    Access,
    administer,
    admit,
    is_administrator,
    level_on,
    level_on_file,
    level_on_prefix,
)
from dataset_registry.catalog import Transaction, datasets, grants, users
from dataset_registry.errors import InputError, NotFound, PermissionDenied
from dataset_registry.model.actors import (
    NOTHING,
    PERMISSIONS,
    Grant,
    Protection,
    ResourceType,
    level,
    parse_permission,
)
from dataset_registry.model.names import is_reserved, name_prefix, pointer_name
from dataset_registry.operations import audit, files, resolve
from dataset_registry.operations.lookalikes import refuse_lookalike_prefix
from dataset_registry.operations.users import get as get_user

_Resource = tuple[ResourceType, int]


def grant(access: Access, user: str, permission: str, name: str | None, file: str | None) -> Grant:
    """Grant a permission on a resource, replacing an earlier grant. Requires admin on the resource.

    Raises `NotFound` (no such user or resource), `PermissionDenied`, `InputError`; `InvalidName` for a prefix that looks like
    another governed one.
    """
    given = parse_permission(permission)

    def work(tx: Transaction) -> Grant:
        resource = _resource(access, tx, name, file, make=True)
        grantee = get_user(tx, user)
        if name and resource[0] == "prefix" and level(given) > level("read"):
            refuse_lookalike_prefix(tx, name_prefix(name))
        made = grants.grant(tx, grantee.id, given, *resource, access.user_id(tx))
        (found,) = (g for g in grants.grants(tx, resource=resource) if g.id == made)
        _note(access, tx, "grant", resource, found.resource, after=f"{given} for {user}")
        return found

    return access.catalog.write(work)


def revoke(access: Access, user: str, name: str | None, file: str | None) -> None:
    """Revoke the grant of a user or group on a resource. Raises `NotFound` if there is none."""

    def work(tx: Transaction) -> None:
        resource = _resource(access, tx, name, file)
        grantee = users.find_id(tx, user)
        there = [g for g in grants.grants(tx, resource=resource) if g.user == user]
        if grantee is None or not grants.revoke(tx, grantee, *resource):
            raise NotFound(
                f"{user!r} has no grant on {file or name or 'all datasets'!r}. List grants with registry.grants().",
                user=user,
            )
        _note(access, tx, "revoke", resource, there[0].resource, before=f"{there[0].permission} for {user}")

    access.catalog.write(work)


def list_all(access: Access, name: str | None, file: str | None, user: str | None) -> list[Grant]:
    """Grants, oldest first: on a resource, for its admins; of a user and its groups, for itself and administrators; without
    either, everybody's for an administrator, and one's own for others."""
    with access.catalog.read() as tx:
        if name is not None or file is not None:
            found = grants.grants(tx, resource=_resource(access, tx, name, file))
            return found if user is None else [grant for grant in found if grant.user == user]
        if user is None and is_administrator(access, tx):
            return grants.grants(tx)
        admit(access, tx)
        user = access.actor.name if user is None else user
        if user != access.actor.name:
            administer(access, tx)
        found = grants.grants(tx, user_id=get_user(tx, user).id)
        token = access.actor.token
        if token is not None and token.prefix:  # hide grants outside of the token's prefix
            found = [g for g in found if g.resource_type != "file" and g.resource.startswith(token.prefix)]
        return found


def explain(access: Access, user: str, name: str) -> tuple[str | None, list[str]]:
    """The permission that a user has on a dataset, None for none, and every role and grant that gives one. For administrators.

    Raises `NotFound`, `PermissionDenied`.
    """
    with access.catalog.read() as tx:
        administer(access, tx)
        found = get_user(tx, user)
        dataset = resolve.dataset(access, tx, name)
        standing = grants.standing(tx, found.name, dataset.id)
        reasons = []
        if found.disabled_at is not None:
            return None, [f"{user} is disabled."]
        if found.role == "administrator":
            reasons.append("The role administrator has admin on everything.")
        for given in grants.grants(tx, user_id=found.id):
            is_about = given.resource_type == "dataset" and given.resource == dataset.name
            if given.resource_type == "prefix" and dataset.name.startswith(given.resource):
                is_about = not is_reserved(dataset.name) or is_reserved(given.resource)
            if is_about:
                through = "" if given.user == found.name else f" through the group {given.user}"
                what = "all datasets" if not given.resource else f"the {given.resource_type} {given.resource}"
                when = f"{given.granted_at:%Y-%m-%d}"
                reasons.append(f"{given.permission} on {what}{through}, granted by {given.granted_by} on {when}.")
        rank = level("admin") if found.role == "administrator" else standing.level if standing else NOTHING
        return (None if rank == NOTHING else PERMISSIONS[rank - 1]), reasons


def _resource(access: Access, tx: Transaction, name: str | None, file: str | None, *, make: bool = False) -> _Resource:
    """Resolve a resource on which the actor has admin. Raises `NotFound`, `PermissionDenied`, `InputError`."""
    if (name is None) == (file is None):
        raise InputError("Expected one of: a dataset, a prefix that ends in '/', a file's hash.")
    if file is not None:
        stored_file = files.find(access, tx, file)
        _check(access, level_on_file(access, tx, stored_file.id), file)
        return "file", stored_file.id
    assert name is not None, "one of the two is given"
    if not name or name.endswith("/"):
        prefix = name_prefix(name)
        _check(access, level_on_prefix(access, tx, prefix), prefix or "all datasets")
        found = grants.prefix_id(tx, prefix, make=make)
        return "prefix", found or 0
    record = datasets.find(tx, name) or resolve.dataset(access, tx, name)
    found_level = level_on(access, tx, record.id)
    if found_level == NOTHING:
        raise resolve.no_dataset(access, tx, name)
    _check(access, found_level, name)
    return "dataset", record.id


def _check(access: Access, found: int, what: str) -> None:
    if found < level("admin"):
        raise PermissionDenied(
            f"Only an admin of {what} may grant on it and protect its branches; {access.actor.name} is not one. Ask an "
            "admin of it, or an administrator.",
            resource=what,
        )


def _note(
    access: Access,
    tx: Transaction,
    action: str,
    resource: _Resource,
    name: str,
    *,
    ref: str | None = None,
    before: str | None = None,
    after: str | None = None,
) -> None:
    kind, resource_id = resource
    if kind == "dataset":
        audit.note(access, tx, action, (resource_id, name), ref=ref, before=before, after=after)
    else:
        audit.note(access, tx, action, ref=ref, before=before, after=after, on=kind, name=name)


# --- protected branches --------------------------------------------------------------------------------------------


MOST_APPROVALS = 20


def protect(
    access: Access, name: str, branch: str, allowed: Sequence[str], *, approvals: int = 0, checks: bool = False
) -> Protection:
    """Restrict committing to, moving and deleting a branch to admins and `allowed` (users, groups), in a dataset or in
    all datasets under a prefix. With `approvals` or `checks`, it moves by the merge of a review only, for admins too.
    Raises `NotFound`, `PermissionDenied`, `InvalidName`, `InputError`."""
    branch = pointer_name(branch)
    if not 0 <= approvals <= MOST_APPROVALS:
        raise InputError(f"A protected branch takes 0 to {MOST_APPROVALS} approvals, not {approvals}.")

    def work(tx: Transaction) -> Protection:
        resource = _resource(access, tx, name, None, make=True)
        ids = [get_user(tx, user).id for user in dict.fromkeys(allowed)]
        user_id = access.user_id(tx)
        made = grants.protect(tx, *resource, branch, ids, user_id, required_approvals=approvals, requires_checks=checks)
        (found,) = (p for p in grants.protections(tx, resource) if p.id == made)
        after = ", ".join(found.allowed) or "admins"
        if approvals or checks:
            after += f"; {approvals} approvals" + (" and checks" if checks else "")
        _note(access, tx, "protect", resource, found.resource, ref=branch, after=after)
        return found

    return access.catalog.write(work)


def unprotect(access: Access, name: str, branch: str) -> None:
    """Remove the protection of a branch. Raises `NotFound` if it is not protected, `PermissionDenied`."""
    branch = pointer_name(branch)

    def work(tx: Transaction) -> None:
        resource = _resource(access, tx, name, None)
        if not grants.unprotect(tx, *resource, branch):
            raise NotFound(f"The branch {branch!r} of {name or 'all datasets'} is not protected.", branch=branch)
        _note(access, tx, "unprotect", resource, name, ref=branch)

    access.catalog.write(work)


def protections(access: Access, name: str | None) -> list[Protection]:
    """The protected branches of a dataset that the actor may read, its own and those by prefix; all, for an administrator."""
    with access.catalog.read() as tx:
        if name is None:
            administer(access, tx)
            return grants.protections(tx)
        record = resolve.dataset(access, tx, name)
        return grants.protections_over(tx, record.id, record.name)
