"""The audit log: entries, their hashes, and the chain of seals over them.

An entry contains the hash of its content. Entries are sealed in batches: the digest of a seal covers the previous seal
and the hashes of its entries in order, so that changing, removing or adding a sealed entry breaks the chain from there
on. Commits are not serialized, as they would be if each entry contained the hash of the previous one.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from dataset_registry.model.manifest import canonical_json

GENESIS = "0" * 64
"""The digest before the first seal."""


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """An audit entry. `before` and `after` are the versions of the ref as `vN`, or names."""

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
        """Its content as canonical JSON, from which its hash is computed."""
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
    """The result of a check of the log. `digest` is that of the newest seal: noted elsewhere, it proves that no earlier
    entry was removed. `problems` describe the tampering."""

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
