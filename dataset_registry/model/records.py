"""The facts that the catalog keeps, as frozen values: what every floor above passes around."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from dataset_registry.model.manifest import Entry, canonical_json, entries_digest
from dataset_registry.model.schema import ComponentSchema

FileForm = Literal["whole", "parts", "ranges", "pack"]
"""How a file's bytes are kept: one object; an ordered list of files that is one table; ranges of the objects of other files.
A pack is an object that only such ranges name."""


@dataclass(frozen=True, slots=True)
class Extent:
    """A run of bytes of a stored object; `object_id` and `object_hash` are those of the file that it was put for."""

    object_id: int
    object_hash: str
    key: str
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class DatasetRecord:
    """A dataset; `id` is never reused."""

    id: int
    name: str
    description: str | None
    created_at: datetime
    created_by: str | None


@dataclass(frozen=True, slots=True)
class NewDataset:
    """A dataset that is made together with its first version, so that a commit that fails leaves none behind."""

    name: str
    description: str | None = None


@dataclass(frozen=True, slots=True)
class VersionRecord:
    """A version, immutable. `parents` and `number` are numbers within the dataset; the first parent leads.

    `digest` is the Merkle root of the manifest, None for a legacy version that was not adopted yet. `parent_id` is the id of the
    first parent.
    """

    id: int
    uuid: UUID | None
    dataset_id: int
    dataset: str
    number: int
    depth: int
    digest: str | None
    parents: tuple[int, ...]
    message: str | None
    created_at: datetime
    created_by: str | None
    component_count: int
    overlay_file_id: int | None = None
    parent_id: int | None = None


@dataclass(frozen=True, slots=True)
class Head:
    """Where a branch or tag stands: what a commit needs to know of the version before it."""

    id: int
    number: int
    depth: int
    digest: str | None
    is_tag: bool = False


@dataclass(frozen=True, slots=True)
class FileRecord:
    """A stored file. `object_key` is where its bytes are; a legacy file has none before it was adopted.

    `size` is that of the content, `stored_size` that of the object: less where it is compressed, 0 for a table, whose parts
    are files of their own, and for a recipe, whose bytes are the `extents`. `damage` is what a verification found wrong with
    the bytes, None for nothing.
    """

    id: int
    content_hash: str | None
    size: int
    form: FileForm
    object_key: str | None
    format: str | None
    compression_type: str | None
    created_at: datetime
    stored_size: int
    damage: str | None = None
    reference_count: int | None = None
    extents: tuple[Extent, ...] = ()


@dataclass(frozen=True, slots=True)
class StoredBytes:
    """An object as it was put: its key, its size in bytes, and how it is compressed."""

    key: str
    size: int
    compression: str | None = None


@dataclass(frozen=True, slots=True)
class ComponentRecord:
    """One component of a version with the file it names."""

    name: str
    index: int
    type: str
    content_hash: str | None
    size: int
    format: str
    file_id: int
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PointerRecord:
    """A branch or a tag. `base` is the version a registry-wide branch started from."""

    name: str
    is_tag: bool
    version_id: int
    version_number: int
    digest: str | None
    updated_at: datetime
    base: int | None = None


@dataclass(frozen=True, slots=True)
class Freeze:
    """Why a registry is read-only, who said so, and since when."""

    reason: str
    by: str
    at: datetime


@dataclass(frozen=True, slots=True)
class InputVersion:
    """A version that was read to produce another, exactly: the ref asked for, and what it named at that moment.

    `components` are the partitions read, empty for all. `fallback` is the branch that was read instead, when the
    dataset had no branch of the name asked for. `uuid` identifies the version wherever it is copied to, and however its dataset
    is called by then; without it the version is looked up by name, number and digest.
    """

    dataset: str
    version: int
    digest: str | None
    ref: str
    components: tuple[str, ...] = ()
    fallback: str | None = None
    label: str | None = None
    uuid: UUID | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where a version came from: one act of producing its content."""

    run_id: str | None = None
    step: str | None = None
    asset_key: str | None = None
    partition: str | None = None
    code_version: str | None = None
    inputs: Sequence[InputVersion] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Production:
    """A provenance as recorded: which version it produced on which branch, by whom, and whether that was news."""

    id: int
    version: int
    branch: str | None
    unchanged: bool
    created_at: datetime
    created_by: str | None
    provenance: Provenance


@dataclass(frozen=True, slots=True)
class CommitResult:
    """What a commit did: the version the branch now names, and what it cost.

    `new_bytes` were stored by this commit, `total_bytes` is what was submitted. To a caller who may not read everything,
    `new_bytes` are those that it could not read before: whether others had stored them is not told. `written` are the
    components that it set and `schemas` what was captured of them, by (name, index).
    """

    version: VersionRecord
    unchanged: bool
    new_bytes: int
    total_bytes: int
    written: tuple[ComponentRecord, ...] = ()
    schemas: Mapping[tuple[str, int], ComponentSchema] = field(default_factory=dict)

    @property
    def digest_written(self) -> str:
        """The digest that a version of just the written components would have: the data version of a partition."""
        return entries_digest(
            Entry(
                c.name,
                c.index,
                c.type,
                c.content_hash or "",
                c.format,
                canonical_json(dict(c.metadata)) if c.metadata else None,
            )
            for c in self.written
        )


@dataclass(frozen=True, slots=True)
class RegistryBranch:
    """A branch over all datasets: its name, the branch it was made from, and when."""

    name: str
    source: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class StoredObject:
    """What a listing knows of an object. `modified` is in seconds since 1970, by the store's clock."""

    key: str
    size: int
    modified: float

    @property
    def content_hash(self) -> str:
        """The SHA-256 that the object's content should have."""
        return content_hash_of(self.key)


def content_hash_of(key: str) -> str:
    """The content hash in a key of the form `<sha256>.<uuid>`."""
    return key.partition(".")[0]
