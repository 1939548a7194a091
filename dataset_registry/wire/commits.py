"""Commits and productions."""

from datetime import datetime
from typing import Annotated, Any, ClassVar, Literal
from uuid import UUID

from pydantic import Field

from dataset_registry.model.parts import RULE
from dataset_registry.model.records import CommitResult, InputVersion, Production, Provenance
from dataset_registry.wire.base import MOST_IDS, Hash, Mapped, Name, RequestModel, ResponseModel, Text, Word
from dataset_registry.wire.datasets import CapturedResponse, ComponentResponse, DatasetResponse, VersionResponse


class ContentRequest(RequestModel):
    """Where content comes from: an upload, a part of this request, or (by its hash alone) a file that the client may read.
    With a `content_hash`, the content must match it."""

    content_hash: Hash | None = None
    upload_id: Word | None = None
    part: Word | None = None


MOST_COMPONENTS = 100_000
"""Components that one commit may set."""


class CutRequest(RequestModel):
    """How a table was split into parts: the columns of the row hash, the average number of rows, and the form of the rule."""

    columns: list[Text] = Field(min_length=1, max_length=20_000)
    rows: int = Field(ge=1, le=1 << 20)
    form: int = Field(default=1, ge=1, le=RULE)


class ComponentRequest(RequestModel):
    """A component to set. A table comes as several Parquet `parts` with the same columns, any other content as one; `key`
    are the columns that identify its rows, `renames` its renamed columns, old to new. `read` are the read options of a file:
    `types`, `delimiter`, `header`, `skip_rows`, `comment`, `quote`, `encoding`, `decimal`, `null_values`, `date_format`,
    `sheet`, `format`; left out, those of the version before. `encoding` is short for that one option.

    `rows` edits the rows of the table that is there: `append` adds those of the content, `upsert` replaces those with the same
    key, `delete` removes those with the same values, or without a content those for which the SQL condition `where` is true.
    """

    component_name: Name
    component_index: int = Field(default=0, ge=0, le=MOST_IDS)
    rows: Literal["set", "append", "upsert", "delete"] = "set"
    where: Text | None = None
    component_type: Literal["data", "metadata", "schema", "overlay"] = "data"
    content: ContentRequest | None = None
    parts: list[ContentRequest] | None = Field(default=None, min_length=1, max_length=100_000)
    user_types: Annotated[str, Field(max_length=32 << 20, pattern=r"^[^\x00]*$")] | None = None
    library: Word | None = None
    key: list[Text] = Field(default_factory=list, max_length=20_000)
    renames: dict[Text, Text] = Field(default_factory=dict, max_length=20_000)
    cut: CutRequest | None = None
    format: Word | None = None
    read: dict[str, Any] | None = None
    encoding: Word | None = None
    file_name: Word | None = None
    metadata: dict[str, Any] = Field(default_factory=dict)


class InputVersionRequest(Mapped[InputVersion]):
    """A version that was read to produce another: the requested ref and the version that it resolved to."""

    model_config = RequestModel.model_config

    attributes: ClassVar = {"version_uuid": "uuid"}

    dataset: Name
    version: int = Field(ge=1, le=MOST_IDS)
    digest: Hash | None = None
    ref: Name
    components: list[Name] = Field(default_factory=list)
    fallback: Name | None = None
    label: Name | None = None
    version_uuid: UUID | None = None


class ProvenanceBody(Mapped[Provenance]):
    model_config = RequestModel.model_config

    run_id: Annotated[str, Field(max_length=255, pattern=r"^[^\x00]*$")] | None = None
    step: Text | None = None
    asset_key: Text | None = None
    partition: Text | None = None
    code_version: Annotated[str, Field(max_length=255, pattern=r"^[^\x00]*$")] | None = None
    inputs: list[InputVersionRequest] = Field(default_factory=list, max_length=100_000)
    metadata: dict[str, Any] = Field(default_factory=dict)
    memo_digest: Hash | None = None


class ProductionResponse(Mapped[Production]):
    attributes: ClassVar = {"version_number": "version"}

    id: int
    version_number: int
    branch: str | None
    unchanged: bool
    created_at: datetime
    created_by: str | None
    provenance: ProvenanceBody


class RemovalRequest(RequestModel):
    """A component to remove: all of its indexes, or one."""

    component_name: Name
    component_index: int | None = Field(default=None, ge=0, le=MOST_IDS)


class CommitRequest(RequestModel):
    """Changes to the components of the previous version; all other components carry over.

    Names in `replaced` lose the indexes that are not set, `partitions` their components that are not set, and with
    `everything` the whole version. `base_version_id` is the version that the client has read (null: none; omitted: the
    current head): components that changed since are a conflict, unless `overwrite`. A new branch starts from the branch
    `fallback`. `parents` are refs, the branch's head first. `parent_version_id` is the version to start from: on a
    branch whose head it is (`branch`, else `main` or another one), or on a new branch with the name in `branch`. If the
    branch has moved, that is a conflict (409). `restored_version_ids` are versions of the dataset whose components are set again.
    """

    branch: Name = "main"
    message: Text | None = None
    components: list[ComponentRequest] = Field(default_factory=list, max_length=MOST_COMPONENTS)
    replaced: list[Name] = Field(default_factory=list, max_length=100_000)
    removed: list[RemovalRequest] = Field(default_factory=list, max_length=100_000)
    cleared: list[RemovalRequest] = Field(default_factory=list, max_length=100_000)
    partitions: list[Name] = Field(default_factory=list, max_length=100_000)
    everything: bool = False
    base_version_id: int | None = Field(default=None, ge=1, le=MOST_IDS)
    overwrite: bool = False
    fallback: Name | None = None
    parent_version_id: int | None = Field(default=None, ge=1, le=MOST_IDS)
    parents: list[Name] = Field(default_factory=list, max_length=100)
    restored_version_ids: list[int] = Field(default_factory=list, max_length=1000)
    provenance: ProvenanceBody | None = None


class NamedCommitRequest(CommitRequest):
    """A commit to a dataset by its name; the dataset is created if needed."""

    dataset_name: Name
    description: Text | None = None


class HeadResponse(ResponseModel):
    """The start of a commit: the dataset (null: the commit creates it) and the version (null: none)."""

    dataset: DatasetResponse | None
    version_id: int | None
    version_number: int | None
    digest: str | None


class CommitResponse(ResponseModel):
    """The result of a commit. `unchanged`: the content equals the head of the branch, and no version was created."""

    version: VersionResponse
    unchanged: bool
    new_bytes: int
    total_bytes: int
    written: list[ComponentResponse]
    captured: list[CapturedResponse]

    @classmethod
    def of(cls, result: CommitResult) -> "CommitResponse":
        return cls(
            version=VersionResponse.of(result.version),
            unchanged=result.unchanged,
            new_bytes=result.new_bytes,
            total_bytes=result.total_bytes,
            written=[ComponentResponse.of(component) for component in result.written],
            captured=[CapturedResponse.of(*key, schema) for key, schema in result.schemas.items()],
        )

    def result(self) -> CommitResult:
        return CommitResult(
            self.version.value(),
            self.unchanged,
            self.new_bytes,
            self.total_bytes,
            tuple(component.value() for component in self.written),
            {(name, index): schema for name, index, schema in (c.captured() for c in self.captured)},
        )
