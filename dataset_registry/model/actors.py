"""Users and groups, permissions and grants, tokens, protected branches."""

import hashlib
import secrets
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, get_args

from dataset_registry.errors import InputError

Permission = Literal["read", "write", "admin"]
"""Permissions in ascending order; each includes the lower ones."""

PERMISSIONS: tuple[Permission, ...] = get_args(Permission)

Role = Literal["administrator", "member", "guest"]
"""`administrator`: everything. `member`: may create datasets, and what was granted. `guest`: only what was granted."""

ROLES: tuple[Role, ...] = get_args(Role)

Kind = Literal["person", "service", "group"]
KINDS: tuple[Kind, ...] = get_args(Kind)

ResourceType = Literal["dataset", "file", "prefix"]

NOTHING = 0
"""The rank without any permission; `level` returns the others."""

_MARK = "dr_"


def level(permission: Permission) -> int:
    """The rank of a permission: a higher one includes the lower ones."""
    return PERMISSIONS.index(permission) + 1


def parse_permission(text: str) -> Permission:
    """Check a permission. Raises `InputError`."""
    if text not in PERMISSIONS:
        raise InputError(f"Invalid permission {text!r}. Use one of: {', '.join(PERMISSIONS)}.", permission=text)
    return text


def parse_role(text: str) -> Role:
    """Check a role. Raises `InputError`."""
    if text not in ROLES:
        raise InputError(f"Invalid role {text!r}. Use one of: {', '.join(ROLES)}.", role=text)
    return text


def new_secret() -> str:
    """Create a token: 256 random bits, with a prefix that secret scanners recognise."""
    return _MARK + secrets.token_urlsafe(32)


def secret_hash(secret: str) -> str:
    """The hash of a token that is stored. It has 256 random bits: a slow hash would not protect it better."""
    return hashlib.sha256(secret.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class User:
    """A person, a service or a group; names are unique among all three. `role` is None for a group."""

    id: int
    name: str
    kind: Kind
    role: Role | None
    created_at: datetime
    disabled_at: datetime | None = None
    members: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Token:
    """A token, without its secret. It can do what its user can, limited by `permission` and `prefix`."""

    id: int
    user: str
    name: str
    permission: Permission
    prefix: str
    created_at: datetime
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    last_used_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class NewToken:
    """A new token with its secret, which cannot be shown again."""

    token: Token
    secret: str

    def __repr__(self) -> str:
        return f"<NewToken {self.token.name!r} of {self.token.user}: the secret is in .secret>"


@dataclass(frozen=True, slots=True)
class Grant:
    """A permission of a user or group on a resource: a dataset or a name prefix by its name, a file by its hash."""

    id: int
    user: str
    permission: Permission
    resource_type: ResourceType
    resource: str
    granted_at: datetime
    granted_by: str


@dataclass(frozen=True, slots=True)
class Protection:
    """A protected branch of a dataset, or of all datasets under a prefix: only admins and those allowed move it.

    If it takes approvals or checks, it moves by the merge of a review only, for admins too.
    """

    id: int
    resource: str
    branch: str
    allowed: tuple[str, ...]
    created_at: datetime
    created_by: str
    required_approvals: int = 0
    requires_checks: bool = False


@dataclass(frozen=True, slots=True)
class Actor:
    """The caller and its interface. An owner has direct access to catalog and store: everything is permitted."""

    name: str
    is_owner: bool = False
    interface: str = "python"
    token: Token | None = None
