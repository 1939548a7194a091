"""Rows about permissions: grants and protected branches."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import (
    ColumnElement,
    Select,
    and_,
    bindparam,
    case,
    delete,
    exists,
    func,
    insert,
    or_,
    select,
    union,
    update,
)

from dataset_registry.catalog.rows import Transaction, batches, insert_row
from dataset_registry.catalog.tables import (
    dataset_version_files,
    dataset_versions,
    datasets,
    file_parts,
    files,
    group_members,
    name_prefixes,
    permissions,
    protected_branch_users,
    protected_branches,
    users,
)
from dataset_registry.model.actors import Grant, Permission, Protection, ResourceType, Role, level
from dataset_registry.model.names import LOST_AND_FOUND, RUNS
from dataset_registry.model.parts import TABLE

_P = permissions
_LEVEL = case((_P.c.permission_type == "admin", 3), (_P.c.permission_type == "write", 2), else_=1)
assert (level("read"), level("write"), level("admin")) == (1, 2, 3)


def _covers(name: Any) -> ColumnElement[bool]:
    """The condition that a prefix is a prefix of a name."""
    return func.substr(name, 1, func.length(name_prefixes.c.prefix)) == name_prefixes.c.prefix


def _is_reserved(name: Any) -> ColumnElement[bool]:
    """As `model.names.is_reserved`."""
    inside = (func.substr(name, 1, len(prefix)) == prefix for prefix in (LOST_AND_FOUND + "/", RUNS))
    return or_(name == LOST_AND_FOUND, *inside)


def _grants(name: Any) -> ColumnElement[bool]:
    """The condition that a grant on a prefix applies to a name; to a reserved name only if the prefix is reserved."""
    return and_(_covers(name), or_(~_is_reserved(name), _is_reserved(name_prefixes.c.prefix)))


def _held_by(user_id: Any, grantee: Any) -> ColumnElement[bool]:
    """The condition that a grantee is the user or one of its groups."""
    # `correlate_except`: SQLAlchemy looks one query outwards only, and would ask here about the users of a join of its own.
    groups = select(group_members.c.group_id).where(group_members.c.user_id == user_id)
    groups = groups.correlate_except(group_members)
    return or_(grantee == user_id, grantee.in_(groups))


def _is_about(
    dataset_id: Any, name: Any, row: Any, reaches: Callable[[Any], ColumnElement[bool]] = _grants
) -> ColumnElement[bool]:
    """The condition that a row is about a dataset, or about a prefix that `reaches` its name."""
    prefixes = select(name_prefixes.c.id).where(reaches(name)).correlate_except(name_prefixes)
    return or_(
        and_(row.c.resource_type == "dataset", row.c.resource_id == dataset_id),
        and_(row.c.resource_type == "prefix", row.c.resource_id.in_(prefixes)),
    )


@dataclass(frozen=True, slots=True)
class Standing:
    """The role and permissions of a user on a resource. `name` is that of the dataset, None if it does not exist."""

    user_id: int
    role: Role | None
    is_disabled: bool
    name: str | None
    level: int


_STANDING = (
    select(
        users.c.id,
        users.c.role,
        users.c.disabled_at.is_not(None),
        datasets.c.name,
        func.coalesce(
            select(func.max(_LEVEL))
            .where(_held_by(users.c.id, _P.c.user_id), _is_about(datasets.c.id, datasets.c.name, _P))
            .scalar_subquery(),
            0,
        ),
    )
    .select_from(users.outerjoin(datasets, datasets.c.id == bindparam("dataset")))
    .where(users.c.username == bindparam("user"))
)


def standing(tx: Transaction, user: str, dataset_id: int | None) -> Standing | None:
    """The role and permissions of a user on a dataset, in one statement; None for an unknown user."""
    row = tx.execute(_STANDING, {"user": user, "dataset": dataset_id}).one_or_none()
    return Standing(*row) if row else None


_PREFIX_LEVEL = (
    select(func.max(_LEVEL))
    .join(name_prefixes, and_(_P.c.resource_type == "prefix", _P.c.resource_id == name_prefixes.c.id))
    .where(_grants(bindparam("name")))
)
_MY_PREFIX_LEVEL = _PREFIX_LEVEL.where(_held_by(bindparam("user"), _P.c.user_id))


def level_by_prefix(tx: Transaction, user_id: int, name: str) -> int:
    """The level that a user has on every dataset of a name, by prefixes alone."""
    return tx.execute(_MY_PREFIX_LEVEL, {"user": user_id, "name": name}).scalar() or 0


def is_governed(tx: Transaction, name: str) -> bool:
    """Whether write was granted under a prefix of this name: only those users create datasets there."""
    return (tx.execute(_PREFIX_LEVEL, {"name": name}).scalar() or 0) > 1


def writes_somewhere(tx: Transaction, user_id: int) -> bool:
    """Whether a user may write to any dataset."""
    query = select(_P.c.id).where(_held_by(user_id, _P.c.user_id), _LEVEL > 1, _P.c.resource_type != "file").limit(1)
    return tx.execute(query).first() is not None


def governed_prefixes(tx: Transaction) -> list[str]:
    """The prefixes under which write was granted."""
    query = select(name_prefixes.c.prefix).distinct().join(_P, _P.c.resource_id == name_prefixes.c.id)
    query = query.where(_P.c.resource_type == "prefix", _LEVEL > 1, name_prefixes.c.prefix != "")
    return list(tx.execute(query.order_by(name_prefixes.c.prefix)).scalars())


Readable = Select[Any] | None
"""The ids of the datasets that an actor may read, as a query; None for all."""


def readable(user_id: int | None, scope: str) -> Select[Any]:
    """A query for the ids of the datasets that a user may read (None: all of them), of those whose name begins
    with `scope`."""
    query = select(datasets.c.id)
    if user_id is not None:
        query = query.where(
            exists().where(_held_by(user_id, _P.c.user_id), _is_about(datasets.c.id, datasets.c.name, _P))
        )
    return query.where(func.substr(datasets.c.name, 1, len(scope)) == scope) if scope else query


def file_level(tx: Transaction, user_id: int, file_id: int) -> int:
    """The level that was granted to a user on a file itself, or on a table that it is a part of."""
    owners = select(file_parts.c.file_id).where(file_parts.c.part_id == file_id)
    query = select(func.max(_LEVEL)).where(
        _P.c.resource_type == "file",
        or_(_P.c.resource_id == file_id, _P.c.resource_id.in_(owners)),
        _held_by(user_id, _P.c.user_id),
    )
    return tx.execute(query).scalar() or 0


# A table that is stored in parts is read through a component that is a table, never as a plain file.
_SHOWS_ITS_FILE = or_(files.c.form != "parts", dataset_version_files.c.format == TABLE)


def readable_files(
    tx: Transaction, user_id: int | None, datasets_readable: Select[Any], file_ids: Sequence[int]
) -> set[int]:
    """Those of these files that a user may read: by a grant of its own (with `user_id`), or through a version of a dataset
    that it may read, as a part of a table too."""
    found: set[int] = set()
    for chunk in batches(file_ids):
        owners = select(file_parts.c.file_id, file_parts.c.part_id).where(file_parts.c.part_id.in_(chunk))
        parts: dict[int, list[int]] = defaultdict(list)
        for owner, part in tx.execute(owners):
            parts[owner].append(part)
        wanted = {*chunk, *parts}
        named = (
            select(dataset_version_files.c.file_id)
            .join(dataset_versions, dataset_versions.c.id == dataset_version_files.c.version_id)
            .join(files, files.c.id == dataset_version_files.c.file_id)
            .where(dataset_version_files.c.file_id.in_(wanted), dataset_versions.c.dataset_id.in_(datasets_readable))
            .where(_SHOWS_ITS_FILE)
        )
        overlays = select(dataset_versions.c.overlay_file_id).where(
            dataset_versions.c.overlay_file_id.in_(wanted), dataset_versions.c.dataset_id.in_(datasets_readable)
        )
        seen = ids(tx, named) | ids(tx, overlays)
        if user_id is not None:
            seen |= ids(
                tx,
                select(_P.c.resource_id).where(
                    _P.c.resource_type == "file", _P.c.resource_id.in_(wanted), _held_by(user_id, _P.c.user_id)
                ),
            )
        found |= seen.intersection(chunk) | {part for owner in seen & parts.keys() for part in parts[owner]}
    return found


def readable_file_ids(user_id: int | None, datasets_readable: Select[Any]) -> Select[Any]:
    """A query for the ids of the files that a user may read, as `readable_files` tells it of each. It starts from the datasets:
    it costs what these have, not what the registry has."""
    theirs = dataset_versions.c.dataset_id.in_(datasets_readable)
    named = (
        select(dataset_version_files.c.file_id.label("id"))
        .join(dataset_versions, dataset_versions.c.id == dataset_version_files.c.version_id)
        .join(files, files.c.id == dataset_version_files.c.file_id)
        .where(theirs, _SHOWS_ITS_FILE)
    )
    overlays = select(dataset_versions.c.overlay_file_id).where(theirs, dataset_versions.c.overlay_file_id.is_not(None))
    granted = select(_P.c.resource_id).where(_P.c.resource_type == "file", _held_by(user_id, _P.c.user_id))
    seen = union(named, overlays, *([granted] if user_id is not None else [])).cte("seen")
    parts = select(file_parts.c.part_id).join(seen, seen.c.id == file_parts.c.file_id)
    found = union(select(seen.c.id), parts).subquery()
    return select(found.c.id)


def ids(tx: Transaction, query: Select[Any]) -> set[int]:
    """The ids that a query gives."""
    return set(tx.execute(query).scalars())


# --- granting ------------------------------------------------------------------------------------------------------


def prefix_id(tx: Transaction, prefix: str, *, make: bool = False) -> int | None:
    """The row of a prefix, inserted when there is none and one is to be made."""
    found = tx.execute(select(name_prefixes.c.id).where(name_prefixes.c.prefix == prefix)).scalar()
    return insert_row(tx, name_prefixes, {"prefix": prefix}) if found is None and make else found


def grant(
    tx: Transaction, user_id: int, permission: Permission, kind: ResourceType, resource_id: int, granted_by: int
) -> int:
    """Grant a user this permission on a resource, replacing an earlier one. Returns the id of the grant."""
    _forget(tx, user_id, kind, resource_id)
    row = {"resource_type": kind, "resource_id": resource_id, "user_id": user_id, "permission_type": permission}
    return insert_row(tx, _P, row | {"granted_by": granted_by})


def revoke(tx: Transaction, user_id: int, kind: ResourceType, resource_id: int) -> bool:
    """Revoke the grant of a user on a resource. Returns whether there was one."""
    return _forget(tx, user_id, kind, resource_id) > 0


def _forget(tx: Transaction, user_id: int, kind: ResourceType, resource_id: int) -> int:
    mine = (_P.c.resource_type == kind, _P.c.resource_id == resource_id, _P.c.user_id == user_id)
    return tx.execute(delete(_P).where(*mine)).rowcount


def grant_to_creator(tx: Transaction, user_id: int) -> None:
    """Make a user the admin of the datasets that it created before it became a user."""
    for dataset_id in tx.execute(select(datasets.c.id).where(datasets.c.created_by == user_id)).scalars().all():
        grant(tx, user_id, "admin", "dataset", dataset_id, user_id)


def forget_grants(tx: Transaction, kind: ResourceType, resource_ids: Sequence[int]) -> None:
    """Revoke everything that was granted on these resources."""
    tx.execute(delete(_P).where(_P.c.resource_type == kind, _P.c.resource_id.in_(resource_ids)))


def forget_resource(tx: Transaction, kind: ResourceType, resource_ids: Sequence[int]) -> None:
    """Delete the grants and protections of deleted resources."""
    forget_grants(tx, kind, resource_ids)
    rows = select(protected_branches.c.id).where(
        protected_branches.c.resource_type == kind, protected_branches.c.resource_id.in_(resource_ids)
    )
    _unprotect(tx, list(tx.execute(rows).scalars()))


_granter = users.alias("granter")
_NAMES = func.coalesce(datasets.c.name, name_prefixes.c.prefix, files.c.content_hash, "")


def _named(query: Any, row: Any) -> Any:
    """Join a query over rows with a resource to the names of the resources."""
    return (
        query.outerjoin(datasets, and_(row.c.resource_type == "dataset", datasets.c.id == row.c.resource_id))
        .outerjoin(name_prefixes, and_(row.c.resource_type == "prefix", name_prefixes.c.id == row.c.resource_id))
        .outerjoin(files, and_(row.c.resource_type == "file", files.c.id == row.c.resource_id))
    )


def grants(
    tx: Transaction, *, user_id: int | None = None, resource: tuple[ResourceType, int] | None = None
) -> list[Grant]:
    """Grants, oldest first: those of a user and its groups, those on a resource, or all."""
    query = _named(
        select(
            _P.c.id,
            users.c.username,
            _P.c.permission_type,
            _P.c.resource_type,
            _NAMES,
            _P.c.granted_at,
            _granter.c.username,
        )
        .select_from(_P)
        .join(users, users.c.id == _P.c.user_id)
        .join(_granter, _granter.c.id == _P.c.granted_by),
        _P,
    )
    if user_id is not None:
        query = query.where(_held_by(user_id, _P.c.user_id))
    if resource is not None:
        query = query.where(_P.c.resource_type == resource[0], _P.c.resource_id == resource[1])
    return [Grant(*row) for row in tx.execute(query.order_by(_P.c.id))]


# --- protected branches --------------------------------------------------------------------------------------------

_B = protected_branches


def protect(
    tx: Transaction,
    kind: ResourceType,
    resource_id: int,
    branch: str,
    allowed: Sequence[int],
    user_id: int,
    *,
    required_approvals: int = 0,
    requires_checks: bool = False,
) -> int:
    """Protect a branch of a dataset or of the datasets under a prefix, as if for the first time; the protection's id."""
    unprotect(tx, kind, resource_id, branch)
    row = {
        "resource_type": kind,
        "resource_id": resource_id,
        "branch_name": branch,
        "created_by": user_id,
        "required_approvals": required_approvals,
        "requires_checks": requires_checks,
    }
    made = insert_row(tx, _B, row)
    if allowed:
        tx.execute(insert(protected_branch_users), [{"protection_id": made, "user_id": found} for found in allowed])
    return made


def unprotect(tx: Transaction, kind: ResourceType, resource_id: int, branch: str) -> bool:
    """Remove the protection of a branch. Returns whether there was one."""
    where = (_B.c.resource_type == kind, _B.c.resource_id == resource_id, _B.c.branch_name == branch)
    found = list(tx.execute(select(_B.c.id).where(*where)).scalars())
    _unprotect(tx, found)
    return bool(found)


def _unprotect(tx: Transaction, found: Sequence[int]) -> None:
    if found:
        tx.execute(delete(protected_branch_users).where(protected_branch_users.c.protection_id.in_(found)))
        tx.execute(delete(_B).where(_B.c.id.in_(found)))


class Barrier(NamedTuple):
    """What the protections of a branch take of a user: whether all of them allow the user to move it, how many approvals, and
    whether checks must have passed."""

    is_allowed: bool
    required_approvals: int
    requires_checks: bool

    @property
    def takes(self) -> tuple[int, bool]:
        """What a review needs before the branch moves."""
        return self.required_approvals, self.requires_checks

    @property
    def takes_review(self) -> bool:
        """Whether the branch moves by the merge of a review only."""
        return self.required_approvals > 0 or self.requires_checks


def barrier(tx: Transaction, user_id: int, dataset_id: int, name: str, branch: str) -> Barrier:
    """What the protections of a branch of a dataset take of a user; the strictest of each."""
    allowed = exists().where(
        protected_branch_users.c.protection_id == _B.c.id, _held_by(user_id, protected_branch_users.c.user_id)
    )
    query = select(
        func.min(case((allowed, 1), else_=0)),
        func.max(_B.c.required_approvals),
        func.max(case((_B.c.requires_checks, 1), else_=0)),
    ).where(_B.c.branch_name == branch, _is_about(dataset_id, name, _B, _covers))
    least, approvals, checks = tx.execute(query).one()
    return Barrier(least is None or bool(least), approvals or 0, bool(checks))


def any_takes_review(tx: Transaction, branch: str) -> bool:
    """Whether a protection of a branch of this name, in any dataset, takes a review."""
    takes = or_(_B.c.required_approvals > 0, _B.c.requires_checks)
    return tx.execute(select(_B.c.id).where(_B.c.branch_name == branch, takes).limit(1)).first() is not None


def is_protected(tx: Transaction, dataset_id: int, name: str, branch: str) -> bool:
    """Whether a branch of a dataset is protected, by a rule of its own or by that of a prefix of its name."""
    query = select(_B.c.id).where(_B.c.branch_name == branch, _is_about(dataset_id, name, _B, _covers)).limit(1)
    return tx.execute(query).first() is not None


def protections(tx: Transaction, resource: tuple[ResourceType, int] | None = None) -> list[Protection]:
    """Protected branches: those of a resource, or all."""
    query = _named(
        select(
            _B.c.id,
            _NAMES,
            _B.c.branch_name,
            _B.c.created_at,
            users.c.username,
            _B.c.required_approvals,
            _B.c.requires_checks,
        )
        .select_from(_B)
        .join(users, users.c.id == _B.c.created_by),
        _B,
    )
    if resource is not None:
        query = query.where(_B.c.resource_type == resource[0], _B.c.resource_id == resource[1])
    names = select(protected_branch_users.c.protection_id, users.c.username)
    allowed: dict[int, list[str]] = defaultdict(list)
    for protection_id, name in tx.execute(names.join(users, users.c.id == protected_branch_users.c.user_id)):
        allowed[protection_id].append(name)
    rows = tx.execute(query.order_by(_B.c.id))
    return [
        Protection(i, what, branch, tuple(sorted(allowed[i])), at, by, approvals, checks)
        for i, what, branch, at, by, approvals, checks in rows
    ]


def protections_over(tx: Transaction, dataset_id: int, name: str) -> list[Protection]:
    """The protections of a dataset's branches, its own and those of prefixes of its name."""
    found = ids(tx, select(_B.c.id).where(_is_about(dataset_id, name, _B, _covers)))
    return [protection for protection in protections(tx) if protection.id in found]


def move_file_grants(tx: Transaction, duplicate: int, kept: int) -> None:
    """Move grants from one file to another with the same content."""
    mine = and_(_P.c.resource_type == "file", _P.c.resource_id == duplicate)
    other = _P.alias()
    granted = exists().where(
        other.c.resource_type == "file",
        other.c.resource_id == kept,
        other.c.user_id == _P.c.user_id,
        other.c.permission_type == _P.c.permission_type,
    )
    tx.execute(delete(_P).where(mine, granted))
    tx.execute(update(_P).where(mine).values(resource_id=kept))
