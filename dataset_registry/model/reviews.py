"""Reviews: a branch beside its target over all datasets, the conversation about it, and the verdicts."""

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, get_args

from dataset_registry.errors import InputError
from dataset_registry.model.names import free_text, single_line

ReviewState = Literal["open", "merged", "closed"]
REVIEW_STATES: tuple[ReviewState, ...] = get_args(ReviewState)

EventKind = Literal["comment", "approve", "reject"]
"""A comment, or a verdict: the branch may be merged as it is, or not."""
EVENT_KINDS: tuple[EventKind, ...] = get_args(EventKind)

MAX_TITLE = 255


@dataclass(frozen=True, slots=True)
class Review:
    """A review of a branch that is to be merged into a target."""

    id: int
    branch: str
    target: str
    title: str
    description: str | None
    state: ReviewState
    created_at: datetime
    created_by: str
    closed_at: datetime | None = None
    closed_by: str | None = None

    def __str__(self) -> str:
        return f"#{self.id} {self.title} ({self.branch} into {self.target}, {self.state})"


@dataclass(frozen=True, slots=True)
class ReviewEvent:
    """A comment or a verdict. A verdict is current if the branch has not moved since in any dataset that it is about."""

    id: int
    kind: EventKind
    body: str | None
    created_at: datetime
    created_by: str
    is_current: bool = True


@dataclass(frozen=True, slots=True)
class ReviewedDataset:
    """A dataset of a review: the numbers of the versions that the target and the branch are at (of a merged review, those before
    and after), what its protection takes, and what is missing before it can be merged."""

    dataset: str
    before: int | None
    after: int | None
    is_behind: bool = False
    required_approvals: int = 0
    requires_checks: bool = False
    approved_by: Sequence[str] = ()
    rejected_by: Sequence[str] = ()
    missing: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class ReviewDetails:
    """A review with its datasets, and its comments and verdicts, oldest first."""

    review: Review
    datasets: Sequence[ReviewedDataset]
    events: Sequence[ReviewEvent]

    @property
    def missing(self) -> list[str]:
        """What is missing before it can be merged, by dataset."""
        return [f"{found.dataset}: {reason}" for found in self.datasets for reason in found.missing]

    @property
    def has_changes(self) -> bool:
        """Whether the branch is at another version than the target in some dataset."""
        return any(found.before != found.after for found in self.datasets)

    @property
    def is_mergeable(self) -> bool:
        """Whether it is open, there is something to merge, and nothing is missing. Conflicts are found when it is merged, or by a
        plan of the publication."""
        return self.review.state == "open" and self.has_changes and not self.missing

    @property
    def seen(self) -> str:
        """A digest of the versions that the branch is at: with it, a verdict or a merge is about what one has seen."""
        return seen_digest((found.dataset, found.after) for found in self.datasets)


@dataclass(frozen=True, slots=True)
class Verdict:
    """A verdict as it is stored: its author, and the heads of the branch that it is about, by the id of the dataset."""

    kind: EventKind
    author: str
    heads: Mapping[int, int] = field(default_factory=dict)


def standing_verdicts(
    verdicts: Sequence[Verdict], dataset_id: int, head: int, excluded: Collection[str | None]
) -> tuple[list[str], list[str]]:
    """Who approves and who rejects a head of a dataset, by the newest verdict of each author, oldest verdict first.

    A verdict counts while the branch is at the version that it is about. Approvals of `excluded` (who wrote what is reviewed) do
    not count; their rejections do.
    """
    newest: dict[str, EventKind] = {}
    for verdict in verdicts:
        if verdict.heads.get(dataset_id) == head:
            newest.pop(verdict.author, None)
            newest[verdict.author] = verdict.kind
    approved = [author for author, kind in newest.items() if kind == "approve" and author not in excluded]
    return approved, [author for author, kind in newest.items() if kind == "reject"]


def seen_digest(heads: Iterable[tuple[str, int | None]]) -> str:
    """A digest of heads, as pairs of a dataset and a version number: 16 hexadecimal digits."""
    lines = "".join(f"{dataset} {number}\n" for dataset, number in sorted(heads, key=lambda head: head[0]))
    return hashlib.sha256(lines.encode()).hexdigest()[:16]


def review_title(text: str) -> str:
    """Check a title. Raises `InputError`."""
    title = single_line(text, "title").strip()
    if not 0 < len(title) <= MAX_TITLE:
        raise InputError(f"The title of a review has 1 to {MAX_TITLE} characters, not {len(title)}.")
    return title


def review_text(text: str | None, what: str) -> str | None:
    """Check a description or a comment; None for an empty one. Raises `InputError`."""
    return (free_text(text, what).strip() or None) if text is not None else None
