"""Verification: results, findings and how to repair them."""

from dataclasses import dataclass

from dataset_registry.model.records import FileRecord, StoredObject

REPAIRS = {
    "database": "Restore the catalog from a backup.",
    "reference": "Restore the catalog from a backup.",
    "structure": "Restore the catalog from a backup with its constraints, or create what is missing as `dataset-registry db "
    "check` says. Until then rows that others need are not protected from deletion or change.",
    "schema": "Commit the same content again, which captures it again, or restore the catalog from a backup.",
    "capture": "Commit the same content again, which captures it again, or restore the catalog from a backup.",
    "page": "Restore the catalog from a backup; the bytes of the files are not affected.",
    "manifest": "Restore the catalog from a backup; the bytes of the files are not affected.",
    "graph": "Restore the catalog from a backup.",
    "pointer": "Delete the pointer and create it again at a version of its own dataset.",
    "table": "Restore the catalog from a backup; the parts are stored files of their own.",
    "form": "Delete the listed versions: their content was forged to share a hash with other content. Commit their "
    "content again.",
    "recipe": "Commit the same content again, or restore the catalog from a backup.",
    "file": "Commit the same content again, which repairs it, or restore the catalog from a backup.",
    "missing": "Run verify --repair, which puts the file into quarantine: no new version can reference it. Then restore the "
    "object from a backup of the store and repair again, or commit the same content again, which repairs it.",
    "size": "As for a missing object.",
    "content": "As for a missing object.",
    "quarantined": "Restore the object from a backup of the store and run verify --repair, or commit the same content again.",
    "unreadable": "The store did not return this object: verify again.",
    "counter": "--repair corrects it.",
    "unnamed-page": "--repair deletes it.",
    "unnamed-index-page": "--repair deletes it.",
    "unknown-objects": "The catalog looks older than the store. Restore a newer catalog if there is one; else --repair moves "
    "their content to the dataset lost+found, from where it can be committed again. See docs/operations.md.",
    "surplus-objects": "They only cost space, unless another registry uses this store: then they belong to it. If "
    "none does, remove them: dataset-registry collect --sweep --max-share 1",
    "expired-hold": "--repair or a collection removes it.",
    "trash": "--repair or a collection removes it.",
}
"""What to do about each kind of finding."""


LEFTOVERS = ("surplus-objects", "unnamed-page", "unnamed-index-page", "expired-hold", "trash")
"""Findings that only cost space."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A finding of a verification. `kind` is stable, `repair` says what to do, `repaired` whether that was done."""

    kind: str
    what: str
    repaired: bool = False
    rows: tuple[int, ...] = ()
    file: FileRecord | None = None
    objects: tuple[StoredObject, ...] = ()

    @property
    def repair(self) -> str:
        """How to repair it."""
        return REPAIRS[self.kind]

    @property
    def is_leftover(self) -> bool:
        """Whether it only costs space."""
        return self.kind in LEFTOVERS


@dataclass(frozen=True, slots=True)
class Verification:
    """The result of a verification. `bytes_read` is 0 unless content was hashed."""

    findings: tuple[Finding, ...]
    files: int
    bytes_read: int
    waiting: int = 0
    """Legacy files that are not adopted yet, and so are not checked."""

    @property
    def clean(self) -> bool:
        """Whether no findings are left unrepaired."""
        return all(finding.repaired for finding in self.findings)

    @property
    def damage(self) -> tuple[Finding, ...]:
        """The unrepaired findings, without leftovers."""
        return tuple(f for f in self.findings if not f.repaired and not f.is_leftover)
