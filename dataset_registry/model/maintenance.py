"""Maintenance: what plans would do, and what applying them did."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from dataset_registry.model.records import DatasetRecord, FileForm, StoredObject

GRACE = timedelta(days=1)
"""How old a file must be before it may go, and what a writer left behind."""


SHARE = 0.0
"""The share of a store, in objects or in bytes, that a sweep takes without being told so. A healthy registry has no unknown
objects: what dead writers leave was announced, and is collected."""


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
    """What a collection would take: unreferenced files, holds that ran out, objects already in the trash."""

    files: tuple[Unreferenced, ...]
    expired_holds: int
    trashed: int

    @property
    def bytes(self) -> int:
        """What the objects of the files take in the store; those in the trash are not counted."""
        return sum(file.bytes for file in self.files)


@dataclass(frozen=True, slots=True)
class Collected:
    """What a collection did. `objects` were deleted from the store; `bytes` are those of the files, and of leftovers of
    dead writers. `kept` files were named again in the meantime."""

    files: int
    kept: int
    objects: int
    bytes: int


@dataclass(frozen=True, slots=True)
class SweepPlan:
    """Objects that the catalog does not know, of all that the store has. `suspicion` is what speaks against removing them."""

    objects: tuple[StoredObject, ...]
    listed: int
    listed_bytes: int
    suspicion: str | None

    @property
    def bytes(self) -> int:
        """What the unknown objects take."""
        return sum(found.size for found in self.objects)


@dataclass(frozen=True, slots=True)
class Dated:
    """A version with what an expiry looks at; `parents` are numbers."""

    id: int
    number: int
    created_at: datetime
    parents: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class DatasetExpiry:
    """What a policy means for one dataset; `kept` has the reason for each version that stays, by number;
    `expiring` are the others, oldest first. A dataset of which nothing is kept is deleted."""

    dataset: DatasetRecord
    kept: Mapping[int, str]
    expiring: Sequence[Dated]


@dataclass(frozen=True, slots=True)
class ExpirePlan:
    """What an expiry would delete. `bytes` are free once that is done and collected."""

    datasets: tuple[DatasetExpiry, ...]
    bytes: int
    keep_inputs: bool = False

    @property
    def versions(self) -> int:
        """How many versions would be deleted."""
        return sum(len(found.expiring) for found in self.datasets)

    def summary(self) -> list[tuple[str, int, int, str]]:
        """A line a dataset: its name, how many versions stay and go, and the most frequent reasons to stay."""
        lines = []
        for found in self.datasets:
            reasons = Counter(reason.split(",")[0] for reason in found.kept.values()).most_common(3)
            text = ", ".join(f"{count} {reason}" for reason, count in reasons)
            lines.append((found.dataset.name, len(found.kept), len(found.expiring), text))
        return lines


@dataclass(frozen=True, slots=True)
class Expired:
    """What an expiry did: versions deleted, and those of the plan that something names or uses by now, or that were gone."""

    versions: int
    kept: int


@dataclass(frozen=True, slots=True)
class Adoption:
    """What an adoption did. `failed` has the files that could not be adopted, by id: which versions have them, why, and what to
    do. `differences` are adopted files whose row has other bytes beside those that were adopted."""

    files: int
    duplicates: int
    bytes: int
    versions: int
    failed: dict[int, str]
    differences: dict[int, str]
    given_up: int = 0


@dataclass(frozen=True, slots=True)
class AdoptionPlan:
    """What waits for adoption, by what the catalog says. `unreadable` are files that cannot be read, by id, with the reason."""

    inline: int
    paths: int
    bytes: int
    unreadable: dict[int, str]


@dataclass(slots=True)
class Copied:
    """What a copy did. `present` versions were there already; `notes` say what was left out, and why."""

    datasets: int = 0
    versions: int = 0
    present: int = 0
    files: int = 0
    bytes: int = 0
    notes: list[str] = field(default_factory=list)
