"""Users, tokens, grants and protected branches."""

from datetime import datetime, timedelta
from typing import Annotated, Literal

from pydantic import Field

from dataset_registry.model.actors import Grant, NewToken, Permission, Protection, Token, User
from dataset_registry.model.records import Freeze
from dataset_registry.wire.base import MOST_IDS, Mapped, Name, RequestModel, ResponseModel

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


class UserResponse(Mapped[User]):
    id: int
    name: str
    kind: Literal["person", "service", "group"]
    role: Literal["administrator", "member", "guest"] | None
    created_at: datetime
    disabled_at: datetime | None
    members: list[str]


class TokenRequest(RequestModel):
    """A token to create. Without a `user` it is for the caller; without `lasts_seconds` it does not expire."""

    user: Name | None = None
    name: Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[^\x00]*$")] = "token"
    permission: PermissionText = "admin"
    prefix: Annotated[str, Field(max_length=255, pattern=r"^[^\x00]*$")] = ""
    lasts_seconds: int | None = Field(default=None, ge=1, le=36500 * 86400)

    def lasts(self) -> timedelta | None:
        return None if self.lasts_seconds is None else timedelta(seconds=self.lasts_seconds)


class TokenResponse(Mapped[Token]):
    id: int
    user: str
    name: str
    permission: Permission
    prefix: str
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None


class NewTokenResponse(Mapped[NewToken]):
    """A new token. The secret is shown only once."""

    token: TokenResponse
    secret: str


class FreezeRequest(RequestModel):
    """The reason of the read-only mode, shown on every write."""

    reason: Annotated[str, Field(min_length=1, max_length=1000)]


class FreezeResponse(Mapped[Freeze]):
    """The reason of the read-only mode."""

    reason: str
    by: str
    at: datetime


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


class GrantResponse(Mapped[Grant]):
    id: int
    user: str
    permission: Permission
    resource_type: Literal["dataset", "file", "prefix"]
    resource: str
    granted_at: datetime
    granted_by: str


class ProtectionRequest(RequestModel):
    """A branch to protect, in a dataset or under a prefix; `allow` are further users and groups that may move it. With
    `approvals` or `checks`, it moves by the merge of a review only."""

    name: Annotated[str, Field(max_length=1000, pattern=r"^[^\x00]*$")]
    branch: Name = "main"
    allow: list[Name] = Field(default_factory=list, max_length=1000)
    approvals: int = Field(default=0, ge=0, le=MOST_IDS)
    checks: bool = False


class ProtectionResponse(Mapped[Protection]):
    id: int
    resource: str
    branch: str
    allowed: list[str]
    created_at: datetime
    created_by: str
    required_approvals: int = 0
    requires_checks: bool = False
