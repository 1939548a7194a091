"""Maintenance: plans and results."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from dataset_registry.model.records import DatasetRecord, FileForm, StoredObject

GRACE = timedelta(days=1)
"""The default minimum age of unreferenced files and leftovers before they are removed."""


SHARE = 0.0
"""The default maximum share of a store, in objects or in bytes, that a sweep removes. A healthy registry has no unknown
objects: leftovers of dead writers have holds and are collected."""


@dataclass(frozen=True, slots=True)
class Unreferenced:
    """An unreferenced file: its row, its content's hash, the bytes of its object (0 for a table or a recipe, which have
    none)."""

    id: int
    content_hash: str
    bytes: int
    form: FileForm


@dataclass(frozen=True, slots=True)
class CollectPlan:
    """The plan of a collection: unreferenced files, expired holds, objects in the trash."""

    files: tuple[Unreferenced, ...]
    expired_holds: int
    trashed: int

    @property
    def bytes(self) -> int:
        """The size of the files' objects in the store, without those in the trash."""
        return sum(file.bytes for file in self.files)


@dataclass(frozen=True, slots=True)
class Collected:
    """The result of a collection. `objects` were deleted from the store; `bytes` are those of the files, and of
    leftovers of dead writers. `kept` files were referenced again in the meantime."""

    files: int
    kept: int
    objects: int
    bytes: int


@dataclass(frozen=True, slots=True)
class SweepPlan:
    """The plan of a sweep: objects unknown to the catalog. `suspicion` is the reason not to remove them."""

    objects: tuple[StoredObject, ...]
    listed: int
    listed_bytes: int
    suspicion: str | None

    @property
    def bytes(self) -> int:
        """The size of the unknown objects."""
        return sum(found.size for found in self.objects)


@dataclass(frozen=True, slots=True)
class Dated:
    """A version with the fields that an expiry needs; `parents` are numbers."""

    id: int
    number: int
    created_at: datetime
    parents: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class DatasetExpiry:
    """The plan of an expiry for one dataset; `kept` has the reason for each kept version by number; `expiring` are the
    others, oldest first. A dataset without kept versions is deleted."""

    dataset: DatasetRecord
    kept: Mapping[int, str]
    expiring: Sequence[Dated]


@dataclass(frozen=True, slots=True)
class ExpirePlan:
    """The plan of an expiry. `bytes` are freed by the collection after it."""

    datasets: tuple[DatasetExpiry, ...]
    bytes: int
    keep_inputs: bool = False

    @property
    def versions(self) -> int:
        """How many versions would be deleted."""
        return sum(len(found.expiring) for found in self.datasets)

    def summary(self) -> list[tuple[str, int, int, str]]:
        """One row per dataset: its name, the numbers of kept and expiring versions, the most frequent reasons."""
        lines = []
        for found in self.datasets:
            reasons = Counter(reason.split(",")[0] for reason in found.kept.values()).most_common(3)
            text = ", ".join(f"{count} {reason}" for reason, count in reasons)
            lines.append((found.dataset.name, len(found.kept), len(found.expiring), text))
        return lines


@dataclass(frozen=True, slots=True)
class Expired:
    """The result of an expiry: deleted versions, and planned ones that are in use now or already deleted."""

    versions: int
    kept: int


@dataclass(frozen=True, slots=True)
class Adoption:
    """The result of an adoption. `failed` has the files that could not be adopted, by id, with their versions, the
    reason and the next step. `differences` are adopted files whose row also has other bytes."""

    files: int
    duplicates: int
    bytes: int
    versions: int
    failed: dict[int, str]
    differences: dict[int, str]
    given_up: int = 0


@dataclass(frozen=True, slots=True)
class AdoptionPlan:
    """The plan of an adoption. `unreadable` are files that cannot be read, by id, with the reason."""

    inline: int
    paths: int
    bytes: int
    unreadable: dict[int, str]


@dataclass(slots=True)
class Copied:
    """The result of a copy. `present` versions existed already; `notes` say what was left out, and why."""

    datasets: int = 0
    versions: int = 0
    present: int = 0
    files: int = 0
    bytes: int = 0
    notes: list[str] = field(default_factory=list)
