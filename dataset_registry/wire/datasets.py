"""Datasets, versions, branches and tags, schemas and comparisons."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, ClassVar
from uuid import UUID

from pydantic import Field

from dataset_registry.model.diff import ComponentDiff, Diff
from dataset_registry.model.parts import PartsDiff
from dataset_registry.model.records import ComponentRecord, DatasetRecord, PointerRecord, RegistryBranch, VersionRecord
from dataset_registry.model.schema import ChangeKind, ColumnChange, ComponentSchema, SchemaDiff
from dataset_registry.wire.base import Mapped, Name, RequestModel, ResponseModel, Text


class DatasetResponse(Mapped[DatasetRecord]):
    id: int
    name: str
    description: str | None
    created_at: datetime
    created_by: str | None


class VersionResponse(Mapped[VersionRecord]):
    """A version. `parents` are version numbers, the first parent leading; `digest` is the Merkle root of its components."""

    attributes: ClassVar = {
        "dataset_name": "dataset",
        "version_number": "number",
        "parent_version_id": "parent_id",
        "ingestion_timestamp": "created_at",
        "uploaded_by": "created_by",
    }

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


class NestedVersionResponse(VersionResponse):
    """A version with its children (by first parent), oldest first."""

    children: list["NestedVersionResponse"] = Field(default_factory=list)

    @classmethod
    def forest(cls, found: Sequence[VersionResponse]) -> list["NestedVersionResponse"]:
        """The roots of these versions, each with its children inside."""
        nested = {version.id: cls(**version.model_dump()) for version in sorted(found, key=lambda v: v.version_number)}
        roots: list[NestedVersionResponse] = []
        for version in nested.values():
            parent = nested.get(version.parent_version_id) if version.parent_version_id is not None else None
            (parent.children if parent is not None else roots).append(version)
        return roots


class ComponentResponse(Mapped[ComponentRecord]):
    attributes: ClassVar = {
        "component_name": "name",
        "component_index": "index",
        "component_type": "type",
        "file_size": "size",
    }

    component_name: str
    component_index: int
    component_type: str
    file_id: int
    content_hash: str | None
    file_size: int
    format: str
    metadata: dict[str, Any]


class PointerResponse(Mapped[PointerRecord]):
    """A branch, or a tag. `base_version_number` is where a registry-wide branch started in this dataset."""

    attributes: ClassVar = {
        "pointer_name": "name",
        "dataset_version_id": "version_id",
        "base_version_number": "base",
    }

    pointer_name: str
    is_tag: bool
    dataset_version_id: int
    version_number: int
    digest: str | None
    updated_at: datetime
    base_version_number: int | None = None


class RegistryBranchResponse(Mapped[RegistryBranch]):
    name: str
    source: str
    created_at: datetime


class CapturedResponse(ResponseModel):
    """The schema of a component: `schema_json` are its tables' columns, `statistics_json` facts of its rows, table by table."""

    component_name: str
    component_index: int
    snapshot: dict[str, Any] = Field(alias="schema_json")  # pydantic has a method of that name
    statistics_json: list[dict[str, Any]]

    @classmethod
    def of(cls, name: str, index: int, captured: ComponentSchema) -> "CapturedResponse":
        return cls(
            component_name=name,
            component_index=index,
            schema_json=captured.to_json(),
            statistics_json=captured.statistics_to_json(),
        )

    def captured(self) -> tuple[str, int, ComponentSchema]:
        schema = ComponentSchema.from_json(self.snapshot, self.statistics_json)
        return self.component_name, self.component_index, schema


class SchemaResponse(ResponseModel):
    dataset_version_id: int
    components: list[CapturedResponse]


class VersionFileResponse(ResponseModel):
    """A file of a version: a row of `dataset_version_files`. `id` is the file's."""

    id: int
    component_type: str
    component_name: str
    component_index: int
    content_hash: str | None
    file_size: int
    reference_count: int

    @classmethod
    def of(cls, record: ComponentRecord, reference_count: int) -> "VersionFileResponse":
        return cls(
            id=record.file_id,
            component_type=record.type,
            component_name=record.name,
            component_index=record.index,
            content_hash=record.content_hash,
            file_size=record.size,
            reference_count=reference_count,
        )


class WholeVersionResponse(VersionResponse):
    """A version with a page of its files and their captured columns (`schema_json`, by component). `next_cursor` is the
    cursor of the next page of files."""

    files: list[VersionFileResponse]
    next_cursor: str | None
    captured: list[dict[str, Any]] = Field(alias="schema_json")  # pydantic has a method of that name


class KeyResponse(ResponseModel):
    component_name: str
    component_index: int


class ColumnChangeResponse(Mapped[ColumnChange]):
    kind: ChangeKind
    column: str
    before: str | None
    after: str | None


class SchemaDiffResponse(Mapped[SchemaDiff]):
    """The changes of a table. `backward`: a reader of the new columns can read the old data; `forward`: the reverse."""

    changes: list[ColumnChangeResponse]
    backward: bool
    forward: bool


class PartsDiffResponse(Mapped[PartsDiff]):
    """What two versions of a table have in common, in parts and in rows."""

    shared: int
    shared_rows: int
    removed: int
    removed_rows: int
    added: int
    added_rows: int


class ComparisonResponse(ResponseModel):
    before: VersionResponse
    after: VersionResponse
    added: list[KeyResponse]
    removed: list[KeyResponse]
    changed: list[KeyResponse]
    schema_changes: dict[str, SchemaDiffResponse]
    parts: dict[str, PartsDiffResponse]

    @classmethod
    def of(cls, diff: Diff) -> "ComparisonResponse":
        def keys(found: Sequence[tuple[str, int]]) -> list[KeyResponse]:
            return [KeyResponse(component_name=name, component_index=index) for name, index in found]

        return cls(
            before=VersionResponse.of(diff.before),
            after=VersionResponse.of(diff.after),
            added=keys(diff.components.added),
            removed=keys(diff.components.removed),
            changed=keys(diff.components.changed),
            schema_changes={label: SchemaDiffResponse.of(found) for label, found in diff.schema.items()},
            parts={label: PartsDiffResponse.of(found) for label, found in diff.parts.items()},
        )

    def diff(self) -> Diff:
        def keys(found: Sequence[KeyResponse]) -> tuple[tuple[str, int], ...]:
            return tuple((key.component_name, key.component_index) for key in found)

        return Diff(
            self.before.value(),
            self.after.value(),
            ComponentDiff(keys(self.added), keys(self.removed), keys(self.changed)),
            {label: found.value() for label, found in self.schema_changes.items()},
            {label: found.value() for label, found in self.parts.items()},
        )


class DatasetRequest(RequestModel):
    name: Name
    description: Text | None = None


class UpdateDatasetRequest(RequestModel):
    name: Name | None = None
    description: Text | None = None


class PointerRequest(RequestModel):
    pointer_name: Name
    ref: Name = "main"


class MoveRequest(RequestModel):
    """The new version of a branch; with `expect`, only if the branch is at that ref (like `If-Match` with a ref)."""

    ref: Name
    expect: Name | None = None


class RegistryBranchRequest(RequestModel):
    name: Name
    source: Name = "main"


class ReadRequest(RequestModel):
    run_id: Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[^\x00]*$")]


class ConsumerResponse(ResponseModel):
    dataset_name: str
    version_number: int
