"""The records of the catalog as frozen values."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, NamedTuple
from uuid import UUID

from dataset_registry.model.manifest import Entry, canonical_json, entries_digest
from dataset_registry.model.schema import ColumnStatistics, ComponentSchema

FileForm = Literal["whole", "parts", "ranges", "pack", "inline"]
"""How a file is stored: as one object; as an ordered list of files (a table); as ranges of the objects of other files
(a recipe). A pack is an object that only recipes reference."""


@dataclass(frozen=True, slots=True)
class Extent:
    """A run of bytes of a stored object; `object_id` and `object_hash` are those of its file."""

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
    """A dataset that is created with its first version, so that a failed commit leaves none behind."""

    name: str
    description: str | None = None


class VersionRecord(NamedTuple):
    """A version, immutable. `parents` and `number` are numbers within the dataset; the first parent leads.

    `digest` is the Merkle root of the manifest, None for a legacy version that was not adopted yet. `parent_id` is the id of the
    first parent. A named tuple, which is fast to make: a history has thousands.
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

    @property
    def as_head(self) -> "Head":
        """The fields of the version that a commit on it needs."""
        return Head(self.id, self.number, self.depth, self.digest)


@dataclass(frozen=True, slots=True)
class Head:
    """The head of a branch or tag, with the fields that a commit needs."""

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
class PartRecord:
    """A stored file of which a table consists, to be read by itself: its number in the order of the table's rows, from 0, the
    component it belongs to, and the size of its content in bytes."""

    number: int
    component: str
    index: int
    size: int


@dataclass(frozen=True, slots=True)
class VersionFile:
    """A stored file of a version under its path, which is the path that `checkout` gives it; but a table in several parts is a
    folder of them, each named by its number and its hash."""

    path: str
    component: str
    index: int
    file: FileRecord
    is_part: bool = False
    """Whether it is one of several parts of a table, in the folder of that table."""

    @property
    def size(self) -> int:
        """The size of its content in bytes."""
        return self.file.size

    @property
    def content_hash(self) -> str | None:
        """The SHA-256 of its content; None for a legacy file that was not adopted yet."""
        return self.file.content_hash


@dataclass(frozen=True, slots=True)
class DataFile:
    """A stored file of a component with its facts: its rows (None for a file that is no part of a table), and the statistics of
    its columns, as far as they are known."""

    file: FileRecord
    rows: int | None
    statistics: Mapping[str, ColumnStatistics]


@dataclass(frozen=True, slots=True)
class StoredBytes:
    """A stored object: its key, its size in bytes, and its compression."""

    key: str
    size: int
    compression: str | None = None


@dataclass(frozen=True, slots=True)
class ComponentRecord:
    """One component of a version with its file."""

    name: str
    index: int
    type: str
    content_hash: str | None
    size: int
    format: str
    file_id: int
    metadata: Mapping[str, Any] = field(default_factory=dict)


def components_digest(components: Iterable[ComponentRecord]) -> str:
    """The digest that a version of just these components would have."""
    return entries_digest(
        Entry(
            c.name,
            c.index,
            c.type,
            c.content_hash or "",
            c.format,
            canonical_json(dict(c.metadata)) if c.metadata else None,
        )
        for c in components
    )


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
    """The read-only mode: its reason, who started it, and when."""

    reason: str
    by: str
    at: datetime


@dataclass(frozen=True, slots=True)
class InputVersion:
    """A version that was read to produce another: the requested ref, and the version that it resolved to.

    `components` are the partitions that were read, empty for all. `fallback` is the branch that was read instead if the
    dataset did not have the requested branch. `uuid` identifies the version through copies and renames; without it, the
    version is looked up by name, number and digest.
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
    """The origin of a version: the run that produced its content, and its inputs.

    `memo_digest` identifies what the content was computed from besides the inputs and the code version, if it may be reused.
    """

    run_id: str | None = None
    step: str | None = None
    asset_key: str | None = None
    partition: str | None = None
    code_version: str | None = None
    inputs: Sequence[InputVersion] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)
    memo_digest: str | None = None


@dataclass(frozen=True, slots=True)
class Production:
    """A recorded provenance: its version, branch and author, and whether the content was unchanged."""

    id: int
    version: int
    branch: str | None
    unchanged: bool
    created_at: datetime
    created_by: str | None
    provenance: Provenance


@dataclass(frozen=True, slots=True)
class CommitResult:
    """The result of a commit: the new head of the branch, and the bytes.

    `new_bytes` were stored by this commit, `total_bytes` were submitted. For a caller who may not read everything,
    `new_bytes` counts the content that it could not read before, so that stored content of others is not revealed.
    `written` are the components that the commit set, `schemas` their captured schemas by (name, index).
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
        return components_digest(self.written)


@dataclass(frozen=True, slots=True)
class RegistryBranch:
    """A registry-wide branch: its name, its source branch, and its creation date."""

    name: str
    source: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object in a listing. `modified` is in seconds since 1970, by the clock of the store."""

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
