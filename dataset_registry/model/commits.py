"""Options of commits."""

from collections.abc import Sequence
from dataclasses import dataclass

from dataset_registry.model.manifest import ComponentKey
from dataset_registry.model.names import MAIN
from dataset_registry.model.records import Head, Provenance


@dataclass(frozen=True, slots=True)
class RequestKey:
    """The idempotency key of a request, and a SHA-256 of its content."""

    key: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class CommitOptions:
    """Options of a commit.

    `base` is the version that the writer has read (see `head`): a component that changed on the branch since then is a
    conflict, unless `overwrite`. A new branch starts from the head of the branch `fallback`. `parent` is the version
    that the branch must be at, or that a new branch starts from. `parents` (refs, the branch's own head first) create a
    merge. With the key of a `request`, a repeated commit is executed once. `edited` are the components that were made from the
    rows of the branch's head; `sources` are ids of versions whose changes are picked, or whose content is restored.
    """

    branch: str = MAIN
    message: str | None = None
    base: Head | None = None
    overwrite: bool = False
    fallback: str | None = None
    parent: Head | None = None
    parents: Sequence[str] = ()
    provenance: Provenance | None = None
    request: RequestKey | None = None
    edited: Sequence[ComponentKey] = ()
    sources: tuple[int, ...] = ()
