"""Users, tokens, grants and protected branches."""

from datetime import datetime, timedelta
from typing import Annotated, Literal

from pydantic import Field

from dataset_registry.model.actors import Grant, NewToken, Permission, Protection, Token, User
from dataset_registry.model.records import Freeze
from dataset_registry.wire.base import Name, RequestModel, ResponseModel

PermissionText = Annotated[Permission, Field(description="`read` < `write` < `admin`")]


class UserRequest(RequestModel):
    name: Name
    kind: Literal["person", "service", "group"] = "person"
    role: Literal["administrator", "member", "guest"] = "member"
    members: list[Name] = Field(default_factory=list, max_length=10_000)


class UpdateUserRequest(RequestModel):
    role: Literal["administrator", "member", "guest"] | None = None
    disabled: bool | None = None
    members: list[Name] | None = Field(default=None, max_length=10_000)


class UserResponse(ResponseModel):
    id: int
    name: str
    kind: Literal["person", "service", "group"]
    role: Literal["administrator", "member", "guest"] | None
    created_at: datetime
    disabled_at: datetime | None
    members: list[str]

    @classmethod
    def of(cls, user: User) -> "UserResponse":
        return cls(
            id=user.id,
            name=user.name,
            kind=user.kind,
            role=user.role,
            created_at=user.created_at,
            disabled_at=user.disabled_at,
            members=list(user.members),
        )

    def user(self) -> User:
        return User(self.id, self.name, self.kind, self.role, self.created_at, self.disabled_at, tuple(self.members))


class TokenRequest(RequestModel):
    """A token to create; for the caller without a `user`. It does not expire without `lasts_seconds`."""

    user: Name | None = None
    name: Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[^\x00]*$")] = "token"
    permission: PermissionText = "admin"
    prefix: Annotated[str, Field(max_length=255, pattern=r"^[^\x00]*$")] = ""
    lasts_seconds: int | None = Field(default=None, ge=1, le=36500 * 86400)

    def lasts(self) -> timedelta | None:
        return None if self.lasts_seconds is None else timedelta(seconds=self.lasts_seconds)


class TokenResponse(ResponseModel):
    id: int
    user: str
    name: str
    permission: Permission
    prefix: str
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None

    @classmethod
    def of(cls, token: Token) -> "TokenResponse":
        return cls(
            id=token.id,
            user=token.user,
            name=token.name,
            permission=token.permission,
            prefix=token.prefix,
            created_at=token.created_at,
            expires_at=token.expires_at,
            revoked_at=token.revoked_at,
            last_used_at=token.last_used_at,
        )

    def token(self) -> Token:
        return Token(
            self.id,
            self.user,
            self.name,
            self.permission,
            self.prefix,
            self.created_at,
            self.expires_at,
            self.revoked_at,
            self.last_used_at,
        )


class NewTokenResponse(ResponseModel):
    """A new token. The secret is shown only once."""

    token: TokenResponse
    secret: str

    @classmethod
    def of(cls, made: NewToken) -> "NewTokenResponse":
        return cls(token=TokenResponse.of(made.token), secret=made.secret)

    def new_token(self) -> NewToken:
        return NewToken(self.token.token(), self.secret)


class FreezeRequest(RequestModel):
    """The reason of the read-only mode, shown on every write."""

    reason: Annotated[str, Field(min_length=1, max_length=1000)]


class FreezeResponse(ResponseModel):
    """Why the registry is read-only."""

    reason: str
    by: str
    at: datetime

    @classmethod
    def of(cls, found: Freeze) -> "FreezeResponse":
        return cls(reason=found.reason, by=found.by, at=found.at)

    def freeze(self) -> Freeze:
        return Freeze(self.reason, self.by, self.at)


class WhoResponse(ResponseModel):
    """The user and scope of the token; the reason if the registry is read-only."""

    user: str
    token: TokenResponse | None
    frozen: FreezeResponse | None = None


class GrantRequest(RequestModel):
    """A permission for a user or group on a dataset or prefix (`name`: `raw/flights`, `raw/`), or on a file by its hash."""

    user: Name
    permission: PermissionText
    name: Annotated[str, Field(max_length=1000, pattern=r"^[^\x00]*$")] | None = None
    file: Name | None = None


class GrantResponse(ResponseModel):
    id: int
    user: str
    permission: Permission
    resource_type: Literal["dataset", "file", "prefix"]
    resource: str
    granted_at: datetime
    granted_by: str

    @classmethod
    def of(cls, grant: Grant) -> "GrantResponse":
        return cls(
            id=grant.id,
            user=grant.user,
            permission=grant.permission,
            resource_type=grant.resource_type,
            resource=grant.resource,
            granted_at=grant.granted_at,
            granted_by=grant.granted_by,
        )

    def grant(self) -> Grant:
        return Grant(
            self.id,
            self.user,
            self.permission,
            self.resource_type,
            self.resource,
            self.granted_at,
            self.granted_by,
        )


class ProtectionRequest(RequestModel):
    """A branch to protect, in a dataset or under a prefix; `allow` are those who may move it beside admins."""

    name: Annotated[str, Field(max_length=1000, pattern=r"^[^\x00]*$")]
    branch: Name = "main"
    allow: list[Name] = Field(default_factory=list, max_length=1000)


class ProtectionResponse(ResponseModel):
    id: int
    resource: str
    branch: str
    allowed: list[str]
    created_at: datetime
    created_by: str

    @classmethod
    def of(cls, found: Protection) -> "ProtectionResponse":
        return cls(
            id=found.id,
            resource=found.resource,
            branch=found.branch,
            allowed=list(found.allowed),
            created_at=found.created_at,
            created_by=found.created_by,
        )

    def protection(self) -> Protection:
        return Protection(self.id, self.resource, self.branch, tuple(self.allowed), self.created_at, self.created_by)
