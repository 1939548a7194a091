"""What travels between a server and its clients: JSON shapes, with the field names of the original design.

The server renders records into them, the client reads records out of them. They only ever grow (tests/server/openapi.json
has the stored description).
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Annotated, Any, Generic, Literal, TypeVar
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from dataset_registry.catalog.collection import Unreferenced
from dataset_registry.catalog.retention import Dated
from dataset_registry.errors import RegistryError
from dataset_registry.model.actors import Grant, NewToken, Permission, Protection, Token, User
from dataset_registry.model.audit import AuditEntry
from dataset_registry.model.records import (
    CommitResult,
    ComponentRecord,
    DatasetRecord,
    FileForm,
    FileRecord,
    InputVersion,
    PointerRecord,
    Production,
    Provenance,
    RegistryBranch,
    VersionRecord,
)
from dataset_registry.model.schema import ChangeKind, ColumnChange, ComponentSchema, SchemaDiff
from dataset_registry.operations.collect import CollectPlan, SweepPlan
from dataset_registry.operations.diff import ComponentDiff, Diff
from dataset_registry.operations.expire import DatasetExpiry, ExpirePlan
from dataset_registry.store import StoredObject

_Item = TypeVar("_Item")

MOST_IDS = 2**31 - 1
Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Text = Annotated[str, Field(max_length=100_000, pattern=r"^[^\x00]*$")]
Word = Annotated[str, Field(min_length=1, max_length=1000, pattern=r"^[^\x00]*$")]
Name = Annotated[str, Field(max_length=10_000)]
"""A name or a ref: whether it is one, the rules of names say, in their own words."""


class Shape(BaseModel):
    """A JSON object that a server answers with. What a newer one says beyond these fields is passed over."""

    model_config = ConfigDict(frozen=True)


class Request(BaseModel):
    """A JSON object that a client sends; what it has beyond its fields is a mistake."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Page(BaseModel, Generic[_Item]):
    """A page of a list. `next_cursor` asks for the next one; there is none after null."""

    items: list[_Item]
    next_cursor: str | None = None


class Problem(BaseModel):
    """An error (RFC 9457). `code` is stable; `detail` says what to do next."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    code: str
    instance: str | None = None
    fields: dict[str, Any] = Field(default_factory=dict)


# --- datasets and versions -----------------------------------------------------------------------------------------


class DatasetShape(Shape):
    id: int
    name: str
    description: str | None
    created_at: datetime
    created_by: str | None

    @classmethod
    def of(cls, record: DatasetRecord) -> "DatasetShape":
        return cls(
            id=record.id,
            name=record.name,
            description=record.description,
            created_at=record.created_at,
            created_by=record.created_by,
        )

    def record(self) -> DatasetRecord:
        return DatasetRecord(self.id, self.name, self.description, self.created_at, self.created_by)


class VersionShape(Shape):
    """A version. `parents` are version numbers, the first parent leading; `digest` is the Merkle root of its components."""

    id: int
    uuid: UUID | None
    dataset_id: int
    dataset_name: str
    version_number: int
    depth: int
    digest: str | None
    parent_version_id: int | None
    parents: list[int]
    message: str | None
    ingestion_timestamp: datetime
    uploaded_by: str | None
    component_count: int
    overlay_file_id: int | None

    @classmethod
    def of(cls, record: VersionRecord) -> "VersionShape":
        return cls(
            id=record.id,
            uuid=record.uuid,
            dataset_id=record.dataset_id,
            dataset_name=record.dataset,
            version_number=record.number,
            depth=record.depth,
            digest=record.digest,
            parent_version_id=record.parent_id,
            parents=list(record.parents),
            message=record.message,
            ingestion_timestamp=record.created_at,
            uploaded_by=record.created_by,
            component_count=record.component_count,
            overlay_file_id=record.overlay_file_id,
        )

    def record(self) -> VersionRecord:
        return VersionRecord(
            id=self.id,
            uuid=self.uuid,
            dataset_id=self.dataset_id,
            dataset=self.dataset_name,
            number=self.version_number,
            depth=self.depth,
            digest=self.digest,
            parents=tuple(self.parents),
            message=self.message,
            created_at=self.ingestion_timestamp,
            created_by=self.uploaded_by,
            component_count=self.component_count,
            overlay_file_id=self.overlay_file_id,
            parent_id=self.parent_version_id,
        )


class ComponentShape(Shape):
    component_name: str
    component_index: int
    component_type: str
    file_id: int
    content_hash: str | None
    file_size: int
    format: str
    metadata: dict[str, Any]

    @classmethod
    def of(cls, record: ComponentRecord) -> "ComponentShape":
        return cls(
            component_name=record.name,
            component_index=record.index,
            component_type=record.type,
            file_id=record.file_id,
            content_hash=record.content_hash,
            file_size=record.size,
            format=record.format,
            metadata=dict(record.metadata),
        )

    def record(self) -> ComponentRecord:
        return ComponentRecord(
            self.component_name,
            self.component_index,
            self.component_type,
            self.content_hash,
            self.file_size,
            self.format,
            self.file_id,
            self.metadata,
        )


class PointerShape(Shape):
    """A branch, or a tag. `base_version_number` is where a registry-wide branch started in this dataset."""

    pointer_name: str
    is_tag: bool
    dataset_version_id: int
    version_number: int
    digest: str | None
    updated_at: datetime
    base_version_number: int | None = None

    @classmethod
    def of(cls, record: PointerRecord) -> "PointerShape":
        return cls(
            pointer_name=record.name,
            is_tag=record.is_tag,
            dataset_version_id=record.version_id,
            version_number=record.version_number,
            digest=record.digest,
            updated_at=record.updated_at,
            base_version_number=record.base,
        )

    def record(self) -> PointerRecord:
        return PointerRecord(
            self.pointer_name,
            self.is_tag,
            self.dataset_version_id,
            self.version_number,
            self.digest,
            self.updated_at,
            self.base_version_number,
        )


class RegistryBranchShape(Shape):
    name: str
    source: str
    created_at: datetime

    @classmethod
    def of(cls, record: RegistryBranch) -> "RegistryBranchShape":
        return cls(name=record.name, source=record.source, created_at=record.created_at)

    def record(self) -> RegistryBranch:
        return RegistryBranch(self.name, self.source, self.created_at)


class CapturedShape(Shape):
    """The schema of a component: `schema_json` are its tables' columns, `statistics_json` facts of its rows, table by table."""

    component_name: str
    component_index: int
    snapshot: dict[str, Any] = Field(alias="schema_json")  # pydantic has a method of that name
    statistics_json: list[dict[str, Any]]

    @classmethod
    def of(cls, name: str, index: int, captured: ComponentSchema) -> "CapturedShape":
        return cls(
            component_name=name,
            component_index=index,
            schema_json=captured.to_json(),
            statistics_json=captured.statistics_to_json(),
        )

    def captured(self) -> tuple[str, int, ComponentSchema]:
        schema = ComponentSchema.from_json(self.snapshot, self.statistics_json)
        return self.component_name, self.component_index, schema


class SchemaShape(Shape):
    dataset_version_id: int
    components: list[CapturedShape]


class KeyShape(Shape):
    component_name: str
    component_index: int


class ColumnChangeShape(Shape):
    kind: ChangeKind
    column: str
    before: str | None
    after: str | None


class SchemaDiffShape(Shape):
    """What changed in a table. `backward`: a reader of the new columns can read the old data; `forward`: the reverse."""

    changes: list[ColumnChangeShape]
    backward: bool
    forward: bool


class ComparisonShape(Shape):
    before: VersionShape
    after: VersionShape
    added: list[KeyShape]
    removed: list[KeyShape]
    changed: list[KeyShape]
    schema_changes: dict[str, SchemaDiffShape]

    @classmethod
    def of(cls, diff: Diff) -> "ComparisonShape":
        def keys(found: Sequence[tuple[str, int]]) -> list[KeyShape]:
            return [KeyShape(component_name=name, component_index=index) for name, index in found]

        return cls(
            before=VersionShape.of(diff.before),
            after=VersionShape.of(diff.after),
            added=keys(diff.components.added),
            removed=keys(diff.components.removed),
            changed=keys(diff.components.changed),
            schema_changes={
                label: SchemaDiffShape(
                    changes=[
                        ColumnChangeShape(kind=c.kind, column=c.column, before=c.before, after=c.after)
                        for c in found.changes
                    ],
                    backward=found.backward,
                    forward=found.forward,
                )
                for label, found in diff.schema.items()
            },
        )

    def diff(self) -> Diff:
        def keys(found: Sequence[KeyShape]) -> tuple[tuple[str, int], ...]:
            return tuple((key.component_name, key.component_index) for key in found)

        return Diff(
            self.before.record(),
            self.after.record(),
            ComponentDiff(keys(self.added), keys(self.removed), keys(self.changed)),
            {
                label: SchemaDiff(
                    tuple(ColumnChange(c.kind, c.column, c.before, c.after) for c in found.changes),
                    found.backward,
                    found.forward,
                )
                for label, found in self.schema_changes.items()
            },
        )


# --- files ---------------------------------------------------------------------------------------------------------


class FileShape(Shape):
    """A stored file. `form` is `whole`, or `parts` for a table in several Parquet files; `reference_count` counts the versions
    that name it, of those that the reader may see."""

    id: int
    content_hash: str | None
    file_size: int
    form: FileForm
    file_type: str | None
    compression_type: str | None
    reference_count: int | None
    created_at: datetime
    stored_size: int | None = None
    damage: str | None = None

    @classmethod
    def of(cls, record: FileRecord) -> "FileShape":
        return cls(
            id=record.id,
            content_hash=record.content_hash,
            file_size=record.size,
            form=record.form,
            file_type=record.format,
            compression_type=record.compression_type,
            reference_count=record.reference_count,
            created_at=record.created_at,
            stored_size=record.stored_size,
            damage=record.damage,
        )

    def record(self) -> FileRecord:
        return FileRecord(
            id=self.id,
            content_hash=self.content_hash,
            size=self.file_size,
            form=self.form,
            object_key=None,
            format=self.file_type,
            compression_type=self.compression_type,
            created_at=self.created_at,
            stored_size=self.file_size if self.stored_size is None else self.stored_size,
            damage=self.damage,
            reference_count=self.reference_count,
        )


class ObjectsShape(Shape):
    """The files to read for a file: itself, or the parts of a table in order."""

    file_id: int
    objects: list[FileShape]


class UploadIn(Request):
    """What is about to be uploaded. With `direct`, straight into the object store, where there is one."""

    file_size: int | None = Field(default=None, ge=0, le=2**46)
    content_hash: Hash | None = None
    direct: bool = False


class UploadShape(Shape):
    """An upload under way: `offset` bytes are there. `upload_url` takes the content with one PUT of the browser or client."""

    upload_id: str
    offset: int
    file_size: int | None
    content_hash: str | None
    expires_at: datetime
    upload_url: str | None = None


class HashesIn(Request):
    hashes: list[Hash] = Field(max_length=10_000)


class HashesShape(Shape):
    known: list[str]


# --- committing ----------------------------------------------------------------------------------------------------


class ContentIn(Request):
    """Where content comes from: an upload, a part of this request, or (by its hash alone) a file that the client may read.
    With a `content_hash`, it must have that."""

    content_hash: Hash | None = None
    upload_id: Word | None = None
    part: Word | None = None


class ComponentIn(Request):
    """A component to set. A table comes as several Parquet `parts` with the same columns, any other content as one."""

    component_name: Name
    component_index: int = Field(default=0, ge=0, le=MOST_IDS)
    component_type: Literal["data", "metadata", "schema", "overlay"] = "data"
    content: ContentIn | None = None
    parts: list[ContentIn] | None = Field(default=None, min_length=1, max_length=100_000)
    user_types: Text | None = None
    format: Word | None = None
    encoding: Word | None = None
    file_name: Word | None = None
    metadata: dict[str, Any] = Field(default_factory=dict)


class InputShape(Request):
    """A version that was read to produce another: the ref asked for, and what it named."""

    dataset: Name
    version: int = Field(ge=1, le=MOST_IDS)
    digest: Hash | None = None
    ref: Name
    components: list[Name] = Field(default_factory=list)
    fallback: Name | None = None
    label: Name | None = None


class ProvenanceShape(Request):
    run_id: Annotated[str, Field(max_length=255, pattern=r"^[^\x00]*$")] | None = None
    step: Text | None = None
    asset_key: Text | None = None
    partition: Text | None = None
    code_version: Annotated[str, Field(max_length=255, pattern=r"^[^\x00]*$")] | None = None
    inputs: list[InputShape] = Field(default_factory=list, max_length=100_000)
    metadata: dict[str, Any] = Field(default_factory=dict)

    @classmethod
    def of(cls, found: Provenance) -> "ProvenanceShape":
        return cls(
            run_id=found.run_id,
            step=found.step,
            asset_key=found.asset_key,
            partition=found.partition,
            code_version=found.code_version,
            inputs=[
                InputShape(
                    dataset=i.dataset,
                    version=i.version,
                    digest=i.digest,
                    ref=i.ref,
                    components=list(i.components),
                    fallback=i.fallback,
                    label=i.label,
                )
                for i in found.inputs
            ],
            metadata=dict(found.metadata),
        )

    def provenance(self) -> Provenance:
        return Provenance(
            run_id=self.run_id,
            step=self.step,
            asset_key=self.asset_key,
            partition=self.partition,
            code_version=self.code_version,
            inputs=tuple(
                InputVersion(i.dataset, i.version, i.digest, i.ref, tuple(i.components), i.fallback, i.label)
                for i in self.inputs
            ),
            metadata=self.metadata,
        )


class ProductionShape(Shape):
    id: int
    version_number: int
    branch: str | None
    unchanged: bool
    created_at: datetime
    created_by: str | None
    provenance: ProvenanceShape

    @classmethod
    def of(cls, found: Production) -> "ProductionShape":
        return cls(
            id=found.id,
            version_number=found.version,
            branch=found.branch,
            unchanged=found.unchanged,
            created_at=found.created_at,
            created_by=found.created_by,
            provenance=ProvenanceShape.of(found.provenance),
        )

    def production(self) -> Production:
        return Production(
            self.id,
            self.version_number,
            self.branch,
            self.unchanged,
            self.created_at,
            self.created_by,
            self.provenance.provenance(),
        )


class RemovalIn(Request):
    """A component to remove: all of its indexes, or one."""

    component_name: Name
    component_index: int | None = Field(default=None, ge=0, le=MOST_IDS)


class CommitIn(Request):
    """What a commit does to the components of the version before it; what it does not name carries over.

    `replaced` names lose the indexes that are not set, `partitions` and (with `everything`) the whole version what is not
    set. `base_version_id` is the version that the client looked at (null: there was none; left out: the head as it is when
    the request comes): components that changed since are a conflict, unless `overwrite`. `fallback` is the branch that a
    missing one starts from; `parents` are refs, the branch's head first.
    """

    branch: Name = "main"
    message: Text | None = None
    components: list[ComponentIn] = Field(default_factory=list, max_length=100_000)
    replaced: list[Name] = Field(default_factory=list, max_length=100_000)
    removed: list[RemovalIn] = Field(default_factory=list, max_length=100_000)
    cleared: list[RemovalIn] = Field(default_factory=list, max_length=100_000)
    partitions: list[Name] = Field(default_factory=list, max_length=100_000)
    everything: bool = False
    base_version_id: int | None = Field(default=None, ge=1, le=MOST_IDS)
    overwrite: bool = False
    fallback: Name | None = None
    parents: list[Name] = Field(default_factory=list, max_length=100)
    provenance: ProvenanceShape | None = None


class NamedCommitIn(CommitIn):
    """A commit to a dataset by its name, which it makes when there is none."""

    dataset_name: Name
    description: Text | None = None


class HeadShape(Shape):
    """Where a commit would start from now: the dataset (null: the commit makes it), and the version (null: from nothing)."""

    dataset: DatasetShape | None
    version_id: int | None
    version_number: int | None
    digest: str | None


class CommitShape(Shape):
    """What a commit did. `unchanged`: the content equals the head of the branch, and there is no new version."""

    version: VersionShape
    unchanged: bool
    new_bytes: int
    total_bytes: int
    written: list[ComponentShape]
    captured: list[CapturedShape]

    @classmethod
    def of(cls, result: CommitResult) -> "CommitShape":
        return cls(
            version=VersionShape.of(result.version),
            unchanged=result.unchanged,
            new_bytes=result.new_bytes,
            total_bytes=result.total_bytes,
            written=[ComponentShape.of(component) for component in result.written],
            captured=[CapturedShape.of(*key, schema) for key, schema in result.schemas.items()],
        )

    def result(self) -> CommitResult:
        return CommitResult(
            self.version.record(),
            self.unchanged,
            self.new_bytes,
            self.total_bytes,
            tuple(component.record() for component in self.written),
            {(name, index): schema for name, index, schema in (c.captured() for c in self.captured)},
        )


# --- requests about datasets, branches and tags --------------------------------------------------------------------


class DatasetIn(Request):
    name: Name
    description: Text | None = None


class DatasetPatch(Request):
    name: Name | None = None
    description: Text | None = None


class PointerIn(Request):
    pointer_name: Name
    ref: Name = "main"


class MoveIn(Request):
    """Where a branch goes; with `expect`, only if it is there now (as `If-Match`, by ref instead of by ETag)."""

    ref: Name
    expect: Name | None = None


class RegistryBranchIn(Request):
    name: Name
    source: Name = "main"


class CountShape(Shape):
    """How many datasets, versions or entries that was about."""

    count: int


class ReadIn(Request):
    run_id: Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[^\x00]*$")]


class ConsumerShape(Shape):
    dataset_name: str
    version_number: int


# --- who may what --------------------------------------------------------------------------------------------------

PermissionText = Annotated[Permission, Field(description="`read` < `write` < `admin`")]


class UserIn(Request):
    name: Name
    kind: Literal["person", "service", "group"] = "person"
    role: Literal["administrator", "member", "guest"] = "member"
    members: list[Name] = Field(default_factory=list, max_length=10_000)


class UserPatch(Request):
    role: Literal["administrator", "member", "guest"] | None = None
    disabled: bool | None = None
    members: list[Name] | None = Field(default=None, max_length=10_000)


class UserShape(Shape):
    id: int
    name: str
    kind: Literal["person", "service", "group"]
    role: Literal["administrator", "member", "guest"] | None
    created_at: datetime
    disabled_at: datetime | None
    members: list[str]

    @classmethod
    def of(cls, user: User) -> "UserShape":
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


class TokenIn(Request):
    """A token to make: for oneself without a `user`. It lasts for ever without `lasts_seconds`."""

    user: Name | None = None
    name: Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[^\x00]*$")] = "token"
    permission: PermissionText = "admin"
    prefix: Annotated[str, Field(max_length=255, pattern=r"^[^\x00]*$")] = ""
    lasts_seconds: int | None = Field(default=None, ge=1, le=36500 * 86400)

    def lasts(self) -> timedelta | None:
        return None if self.lasts_seconds is None else timedelta(seconds=self.lasts_seconds)


class TokenShape(Shape):
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
    def of(cls, token: Token) -> "TokenShape":
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


class NewTokenShape(Shape):
    """A token just made. The secret is shown this once."""

    token: TokenShape
    secret: str

    @classmethod
    def of(cls, made: NewToken) -> "NewTokenShape":
        return cls(token=TokenShape.of(made.token), secret=made.secret)

    def new_token(self) -> NewToken:
        return NewToken(self.token.token(), self.secret)


class WhoShape(Shape):
    """Who the token in use lets in, and for what."""

    user: str
    token: TokenShape | None


class GrantIn(Request):
    """A permission for a user or group on a dataset or prefix (`name`: `raw/flights`, `raw/`), or on a file by its hash."""

    user: Name
    permission: PermissionText
    name: Annotated[str, Field(max_length=1000, pattern=r"^[^\x00]*$")] | None = None
    file: Name | None = None


class GrantShape(Shape):
    id: int
    user: str
    permission: Permission
    resource_type: Literal["dataset", "file", "prefix"]
    resource: str
    granted_at: datetime
    granted_by: str

    @classmethod
    def of(cls, grant: Grant) -> "GrantShape":
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


class ProtectionIn(Request):
    """A branch to protect, in a dataset or under a prefix; `allow` are those who may move it beside admins."""

    name: Annotated[str, Field(max_length=1000, pattern=r"^[^\x00]*$")]
    branch: Name = "main"
    allow: list[Name] = Field(default_factory=list, max_length=1000)


class ProtectionShape(Shape):
    id: int
    resource: str
    branch: str
    allowed: list[str]
    created_at: datetime
    created_by: str

    @classmethod
    def of(cls, found: Protection) -> "ProtectionShape":
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


# --- the audit log and keeping house -------------------------------------------------------------------------------


class AuditShape(Shape):
    id: int
    at: datetime | None
    actor: str
    door: str
    action: str
    dataset_id: int | None
    dataset: str | None
    ref: str | None
    before: str | None
    after: str | None
    token_id: int | None
    details: dict[str, Any]
    entry_hash: str

    @classmethod
    def of(cls, entry: AuditEntry, carried: str | None = None) -> "AuditShape":
        return cls(
            id=entry.id,
            at=entry.at,
            actor=entry.actor,
            door=entry.door,
            action=entry.action,
            dataset_id=entry.dataset_id,
            dataset=entry.dataset,
            ref=entry.ref,
            before=entry.before,
            after=entry.after,
            token_id=entry.token_id,
            details=dict(entry.details),
            entry_hash=entry.hash() if carried is None else carried,
        )

    def entry(self) -> AuditEntry:
        return AuditEntry(
            actor=self.actor,
            door=self.door,
            action=self.action,
            dataset_id=self.dataset_id,
            dataset=self.dataset,
            ref=self.ref,
            before=self.before,
            after=self.after,
            token_id=self.token_id,
            details=self.details,
            at=self.at,
            id=self.id,
        )


Seconds = Annotated[int, Field(ge=0, le=36500 * 86400)]
Runs = Annotated[list[Name], Field(max_length=100_000)]


class RuleIn(Request):
    """What a retention policy keeps of the branches that match, as `dataset_registry.Rule`."""

    datasets: Name = "*"
    branches: Name = "*"
    last: int = Field(default=0, ge=0, le=MOST_IDS)
    younger_than_seconds: Seconds | None = None
    daily: int = Field(default=0, ge=0, le=100_000)
    weekly: int = Field(default=0, ge=0, le=100_000)
    monthly: int = Field(default=0, ge=0, le=100_000)
    yearly: int = Field(default=0, ge=0, le=100_000)


class ExpireIn(Request):
    """A policy to plan by. `live_runs` are the pipeline runs under way; without it, all of the last day."""

    rules: list[RuleIn] = Field(min_length=1, max_length=1000)
    keep_inputs: bool = False
    live_runs: Runs | None = None


class CollectIn(Request):
    older_than_seconds: Seconds = 86400


class SweepIn(Request):
    older_than_seconds: Seconds = 86400
    max_share: float = Field(default=0.0, ge=0.0, le=1.0)


class VerifyIn(Request):
    """`share` reads the content of the n-th of t shares of the files; [1, 1] of all."""

    share: tuple[Annotated[int, Field(ge=1, le=10_000)], Annotated[int, Field(ge=1, le=10_000)]] | None = None
    repair: bool = False
    older_than_seconds: Seconds = 86400


Id = Annotated[int, Field(ge=1, le=MOST_IDS)]
Count = Annotated[int, Field(ge=0, le=2**53)]


class DatedShape(Shape):
    id: Id
    number: Id
    created_at: datetime
    parents: list[Id]


class DatasetExpiryShape(Shape):
    dataset: DatasetShape
    kept: dict[int, str]
    expiring: list[DatedShape]


class ExpirePlanShape(Shape):
    """What a policy does not keep; `kept` has the reason of each version that stays, by number."""

    datasets: list[DatasetExpiryShape]
    bytes: Count
    keep_inputs: bool = False

    @classmethod
    def of(cls, plan: ExpirePlan) -> "ExpirePlanShape":
        return cls(
            datasets=[
                DatasetExpiryShape(
                    dataset=DatasetShape.of(found.dataset),
                    kept=dict(found.kept),
                    expiring=[
                        DatedShape(id=v.id, number=v.number, created_at=v.created_at, parents=list(v.parents))
                        for v in found.expiring
                    ],
                )
                for found in plan.datasets
            ],
            bytes=plan.bytes,
            keep_inputs=plan.keep_inputs,
        )

    def plan(self) -> ExpirePlan:
        return ExpirePlan(
            tuple(
                DatasetExpiry(
                    found.dataset.record(),
                    found.kept,
                    tuple(Dated(v.id, v.number, v.created_at, tuple(v.parents)) for v in found.expiring),
                )
                for found in self.datasets
            ),
            self.bytes,
            self.keep_inputs,
        )


class ExpireApplyIn(Request):
    plan: ExpirePlanShape
    live_runs: Runs | None = None


class ExpiredShape(Shape):
    versions: int
    kept: int


class UnreferencedShape(Shape):
    id: Id
    content_hash: Hash
    bytes: Count
    is_table: bool


class CollectPlanShape(Shape):
    """Files that nothing names, holds that ran out, objects in the trash."""

    files: list[UnreferencedShape]
    expired_holds: Count
    trashed: Count

    @classmethod
    def of(cls, plan: CollectPlan) -> "CollectPlanShape":
        return cls(
            files=[
                UnreferencedShape(id=f.id, content_hash=f.content_hash, bytes=f.bytes, is_table=f.is_table)
                for f in plan.files
            ],
            expired_holds=plan.expired_holds,
            trashed=plan.trashed,
        )

    def plan(self) -> CollectPlan:
        found = tuple(Unreferenced(f.id, f.content_hash, f.bytes, f.is_table) for f in self.files)
        return CollectPlan(found, self.expired_holds, self.trashed)


class ObjectShape(Shape):
    key: Annotated[str, Field(pattern=r"^[0-9a-f]{64}\.[0-9a-f]{32}$")]
    size: Count
    modified: float


class SweepPlanShape(Shape):
    """Objects that the catalog does not know. A plan with a `suspicion` is not applied."""

    objects: list[ObjectShape]
    listed: Count
    listed_bytes: Count
    suspicion: str | None

    @classmethod
    def of(cls, plan: SweepPlan) -> "SweepPlanShape":
        return cls(
            objects=[ObjectShape(key=o.key, size=o.size, modified=o.modified) for o in plan.objects],
            listed=plan.listed,
            listed_bytes=plan.listed_bytes,
            suspicion=plan.suspicion,
        )

    def plan(self) -> SweepPlan:
        found = tuple(StoredObject(o.key, o.size, o.modified) for o in self.objects)
        return SweepPlan(found, self.listed, self.listed_bytes, self.suspicion)


class CollectedShape(Shape):
    files: int
    kept: int
    objects: int
    bytes: int


class AdoptionShape(Shape):
    files: int
    duplicates: int
    bytes: int
    versions: int
    failed: dict[int, str]


class AdoptionPlanShape(Shape):
    inline: int
    paths: int
    bytes: int
    unreadable: dict[int, str]


class AuditCheckShape(Shape):
    """`digest` is that of the newest seal; `problems` name what was tampered with."""

    entries: int
    sealed: int
    digest: str
    problems: list[str]


class FindingShape(Shape):
    kind: str
    what: str
    mended: bool
    repair: str
    is_damage: bool


class VerificationShape(Shape):
    files: int
    bytes_read: int
    waiting: int
    findings: list[FindingShape]


def errors_by_code() -> dict[str, type[RegistryError]]:
    """Every class of error by its code, to raise on one side what was raised on the other."""
    found: dict[str, type[RegistryError]] = {}
    pending: list[type[RegistryError]] = [RegistryError]
    while pending:
        kind = pending.pop()
        found[kind.code] = kind
        pending += kind.__subclasses__()
    return found
