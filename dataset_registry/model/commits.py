"""Commits: how they are made."""

from collections.abc import Sequence
from dataclasses import dataclass

from dataset_registry.model.names import MAIN
from dataset_registry.model.records import Head, Provenance


@dataclass(frozen=True, slots=True)
class RequestKey:
    """The key that a client gave its request, and a SHA-256 of what it asked for."""

    key: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class CommitOptions:
    """How a commit is made.

    `base` is the version the writer looked at (see `head`): a component that changed on the branch since then is a
    conflict, unless `overwrite`. `fallback` is the branch whose head a branch that does not
    exist yet starts from. `parent` is the version that the branch must be at, or that a new branch starts from. `parents` (refs,
    the branch's own head first) make a merge. A commit that may be sent twice has the
    key of its `request`: it is made once.
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
