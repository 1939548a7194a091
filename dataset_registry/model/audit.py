"""The audit log: what an entry says, its hash, and the chain of seals over entries.

An entry carries the hash of what it says. Entries are sealed in batches: a seal's digest is over the one before it and the
hashes of its entries in order, so that changing, removing or adding a sealed entry breaks the chain from there on. No
commit waits for the one before it, as it would if each entry had the hash of the last.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from dataset_registry.model.manifest import canonical_json

GENESIS = "0" * 64
"""What the first seal follows."""


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """Who did what to which ref, through which interface. `before` and `after` are what the ref named, as `vN`, or names."""

    actor: str
    interface: str
    action: str
    dataset_id: int | None = None
    dataset: str | None = None
    ref: str | None = None
    before: str | None = None
    after: str | None = None
    token_id: int | None = None
    details: Mapping[str, Any] = field(default_factory=dict)
    at: datetime | None = None
    id: int = 0

    def facts(self) -> str:
        """Everything it says, as the canonical JSON that its hash is over."""
        return canonical_json(
            {
                "actor": self.actor,
                "door": self.interface,
                "action": self.action,
                "dataset_id": self.dataset_id,
                "dataset": self.dataset,
                "ref": self.ref,
                "before": self.before,
                "after": self.after,
                "token_id": self.token_id,
                "details": dict(self.details),
                "at": self.at.isoformat() if self.at else None,
            }
        )

    def hash(self) -> str:
        """SHA-256 of its facts, 64 hexadecimal digits."""
        return hashlib.sha256(self.facts().encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Seal:
    """A seal over the entries from `first_id` to `last_id`."""

    id: int
    first_id: int
    last_id: int
    entries: int
    digest: str
    sealed_at: datetime


@dataclass(frozen=True, slots=True)
class AuditCheck:
    """What a check of the log found. `digest` is that of the newest seal: noted elsewhere, it proves that nothing before it
    was taken away. `problems` name what was tampered with."""

    entries: int
    sealed: int
    digest: str
    problems: tuple[str, ...]


def seal_digest(previous: str, hashes: Iterable[tuple[int, str]]) -> str:
    """The digest of a seal over entries (id, hash) in order, after the seal with the digest `previous`."""
    hasher = hashlib.sha256(f"audit-seal/1\n{previous}\n".encode())
    for entry_id, entry_hash in hashes:
        hasher.update(f"{entry_id} {entry_hash}\n".encode())
    return hasher.hexdigest()
